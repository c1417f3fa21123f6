// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A policy may hide a name, or choose which of the lower layers that hold it
// serves it. It can never reach what is not in the stack: only the versions in
// the directories that merge here, down to a whiteout, are there to be chosen,
// and what is in upper, being what users wrote, is shown or hidden but not
// passed over.
//
// Where the answer depends on who asks, the kernel keeps neither the name nor
// a listing (entry timeout 0, no FOPEN_CACHE_DIR), and one name may lead to
// several nodes: variants. There is one for each version that is chosen, and,
// where the plan of a lower file depends on who asks, one for each user, so that
// each has pages of his own. They stand in the directory's children under
// NAME/LAYER and NAME/uUID.GID, which no name can be. A copy-up ends them: upper
// has one file.

// choose asks the policy about what was found under a name, and applies its
// answer. Precondition: as resolve.
func (fs *FS) choose(p *node, name string, f *found, who Caller) (*found, error) {
	place := fs.placeOf(p, name)
	sc := fs.scope(place)
	asker := who
	switch {
	case sc.broken:
		return nil, syscall.EIO
	case !sc.Names:
		fs.ownVariant(name, f, sc, asker)
		return f, nil
	}
	if !sc.NamesByCaller {
		who = Nobody
	}
	all, err := fs.versionsAt(p, name, f)
	if err != nil {
		return nil, err
	}
	q := fs.nameQuery(p, name, place, f, who)
	q.Holders = holders(all)
	if f.up {
		q.Holders |= 1
	}
	a, err := fs.decide(q)
	if err != nil {
		return nil, err
	}
	shown, err := fs.applyChoice(p, name, f, all, a, sc)
	if err != nil {
		return nil, err
	}
	if a.Again != 0 {
		if err := fs.chooseAgain(p, name, place, shown, who, q.Holders, a.Again); err != nil {
			return nil, err
		}
	}
	fs.keepFor(shown, a, sc)
	fs.ownVariant(name, shown, sc, asker)
	return shown, nil
}

// ownVariant gives each user a node of his own of a lower file whose plan
// depends on who asks. All names of a hard link are one node; its opens take
// turns (see admitLocked).
func (fs *FS) ownVariant(name string, f *found, sc Scope, who Caller) {
	if !sc.FilesByCaller || f.up || f.hard || f.typ != unix.S_IFREG {
		return
	}
	if f.variant == "" {
		f.variant = name
	}
	f.variant += fmt.Sprintf("/u%d.%d", who.UID, who.GID)
	f.ruled, f.ttl = true, 0
}

// chooseAgain lets the policy see what its choice came to.
func (fs *FS) chooseAgain(p *node, name, place string, f *found, who Caller, mask uint64, after uint8) error {
	q := fs.nameQuery(p, name, place, f, who)
	q.Holders, q.After = mask, after
	_, err := fs.decide(q)
	return err
}

func (fs *FS) nameQuery(p *node, name, place string, f *found, who Caller) NameQuery {
	q := NameQuery{Place: place, Parent: p.ino, Name: name, Type: f.typ, Caller: who,
		Layers: len(fs.layers), Mode: f.st.Mode, Size: f.st.Size, Ino: f.ino}
	if !f.up {
		q.Layer = fs.layerOf(f)
	}
	return q
}

// keepFor settles how long the kernel may keep the name.
func (fs *FS) keepFor(f *found, a NameAnswer, sc Scope) {
	f.ruled, f.ttl = true, fs.timeout
	switch {
	case sc.NamesByCaller || a.NoCache:
		f.ttl = 0
	case a.TTL > 0:
		f.ttl = min(a.TTL, f.ttl)
	}
}

// versionsAt are the lower versions of a name that may be chosen.
func (fs *FS) versionsAt(p *node, name string, f *found) ([]version, error) {
	if p.dir.low == nil || p.dir.covered(name) {
		return nil, nil
	}
	all, err := p.dir.low.versions(fs, name)
	if f.up && f.typ != unix.S_IFDIR || err != nil {
		return all, err
	}
	if f.up && f.low == nil { // an opaque directory
		return nil, nil
	}
	return all, nil
}

// applyChoice makes what was found what the answer says.
func (fs *FS) applyChoice(p *node, name string, f *found, all []version, a NameAnswer, sc Scope) (*found, error) {
	if a.Layer == 0 && a.Skip == 0 || f.up && f.typ != unix.S_IFDIR {
		return f, nil
	}
	left := slices.DeleteFunc(slices.Clone(all), func(v version) bool { return a.Skip&layerBit(v.layer) != 0 })
	if a.Layer != 0 {
		i := slices.IndexFunc(left, func(v version) bool { return v.layer == a.Layer && a.Layer <= 62 })
		if i < 0 {
			return nil, fs.wrongAnswer(fs.placeOf(p, name), "layer %d does not hold the name", a.Layer)
		}
		left = left[i:]
	}
	if f.up || len(left) > 0 && left[0].typ == unix.S_IFDIR || len(left) == 0 && f.typ == unix.S_IFDIR {
		return fs.chooseDir(p, name, f, all, left, sc)
	}
	if len(left) == 0 {
		return nil, errHidden
	}
	return fs.chooseFile(p, name, f, left[0], all[0].layer, sc)
}

// chooseFile shows one version of a non-directory.
func (fs *FS) chooseFile(p *node, name string, f *found, v version, top int, sc Scope) (*found, error) {
	if v.layer == top && !f.up && f.low == nil {
		return f, nil // as it is
	}
	g := &found{st: v.st, typ: v.typ}
	if sc.NamesByCaller {
		g.variant = fmt.Sprintf("%s/%d", name, v.layer)
	}
	return g, fs.lowerFileFound(p, g, v.file.d, name, v.imp)
}

// chooseDir shows a directory, merged from the versions that are left.
func (fs *FS) chooseDir(p *node, name string, f *found, all, left []version, sc Scope) (*found, error) {
	if len(left) == len(all) {
		return f, nil
	}
	if sc.NamesByCaller {
		return nil, fs.wrongAnswer(fs.placeOf(p, name), "the layers that a directory is merged from depend on the caller")
	}
	var cand []*layers.Dir
	for _, v := range left {
		if v.typ != unix.S_IFDIR {
			break
		}
		cand = append(cand, v.file.d)
	}
	if len(cand) == 0 {
		if f.up {
			g := *f
			g.low = nil
			return &g, nil
		}
		return nil, errHidden
	}
	h := &lowerHit{name: name, d: cand[0], st: left[0].st}
	if err := p.dir.low.mergeDirs(fs, h, name, cand); err != nil {
		return nil, err
	}
	if f.up {
		g := *f
		g.low = h.dirs
		return &g, nil
	}
	return &found{typ: unix.S_IFDIR, st: h.st, ino: fs.inos.get(h.st.Dev, h.st.Ino), low: h.dirs}, nil
}

// is tells whether a node is what was found.
func (n *node) is(f *found) bool {
	if n.typ != f.typ {
		return false
	}
	if n.isDir() {
		return sameStack(n.dir.low, f.low)
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.hard || f.hard { // one node for all names
		return n.ino == f.ino
	}
	return n.up || !f.up && n.low.d == f.file.d
}

// sameStack tells whether two lower directories are merged of the same ones.
func sameStack(a, b *lowerStack) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.dirs, b.dirs, func(x, y *layers.Dir) bool { return x.Layer() == y.Layer() })
}

// detachOthers takes a name away from all variants but one, which may be nil:
// it has come to lead to that one alone, or to nothing. Precondition: p.mu is
// held for writing, and no lock of what is in p.
func (fs *FS) detachOthers(p *node, name string, keep *node) {
	if !p.dir.variants {
		return
	}
	for key, c := range p.dir.children {
		base, _, variant := strings.Cut(key, "/")
		switch {
		case base != name:
		case keep == nil || c.current() != keep.current():
			fs.detach(p, name, c)
		case variant:
			delete(p.dir.children, key)
		}
	}
	if keep != nil {
		p.dir.children[name] = keep
	}
}

// detach takes a name from a node to which the policy does not lead any more.
// Precondition: p.mu is held for writing, and not the node's.
func (fs *FS) detach(p *node, name string, c *node) {
	p.dir.forgetChild(name, c.current())
	c = c.current()
	c.mu.Lock()
	defer c.mu.Unlock()
	fs.noteLastPlace(c, p, name)
	fs.dropName(c, p, name)
	c.detached = c.detached || len(c.names) == 0
}

// entryTTL is how long the kernel may keep the node's name.
func (fs *FS) entryTTL(n *node) time.Duration {
	if t := n.ttl.Load(); t > 0 {
		return time.Duration(t - 1)
	}
	return fs.timeout
}
