// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

var typeNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "symlink", unix.S_IFIFO: "fifo",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "character device", unix.S_IFBLK: "block device",
}

// Explain says where the entry at a path, relative to the mount's root, comes
// from and how it is served.
func (fs *FS) Explain(rel string) (Explanation, error) {
	rel = path.Clean("/" + rel)
	e := Explanation{Path: rel}
	if rel == "/" {
		fs.describe(&e, fs.root, nil, "")
		return e, nil
	}
	p, err := fs.walk(path.Dir(rel))
	if err != nil {
		return e, fmt.Errorf("%s: %w", path.Dir(rel), err)
	}
	defer fs.Forget(p.id, 1)
	if p.dir == nil {
		return e, fmt.Errorf("%s: %w", path.Dir(rel), syscall.ENOTDIR)
	}
	name := path.Base(rel)
	n, err := fs.child(p, name, mounter)
	e.Place = fs.explainPlace(&e, p, name)
	if err == errHidden {
		e.HiddenBy = "the policy (" + strings.Join(e.Rules, ", ") + ")"
	} else if err != nil && err != syscall.ENOENT {
		return e, err
	}
	if err == nil {
		defer fs.Forget(n.id, 1)
	}
	fs.describe(&e, n, p, name)
	return e, nil
}

// explainPlace adds which rules of the policy have a say about a name, and is
// the place that they go by; "" without a policy.
func (fs *FS) explainPlace(e *Explanation, p *node, name string) string {
	pol := fs.pol()
	if pol == nil {
		return ""
	}
	place := fs.placeOf(p, name)
	p.mu.RLock()
	n := p.dir.children[name]
	p.mu.RUnlock()
	if n != nil && !n.isDir() {
		n = n.current()
		n.mu.RLock()
		if _, stuck, err := fs.governedLocked(n); err == nil && stuck != "" {
			place = stuck
		}
		n.mu.RUnlock()
	}
	if r, ok := pol.Policy.(interface{ Rules(place string) []string }); ok {
		e.Rules = append(e.Rules, r.Rules(place)...)
	}
	return place
}

// walk finds the node at a path and takes a reference.
func (fs *FS) walk(rel string) (*node, error) { return fs.walkAs(rel, mounter) }

// walkAs is walk as somebody sees the tree.
func (fs *FS) walkAs(rel string, who Caller) (*node, error) {
	n := fs.root
	for _, name := range strings.Split(strings.Trim(rel, "/"), "/") {
		if name == "" {
			continue
		}
		if n.dir == nil {
			fs.Forget(n.id, 1)
			return nil, syscall.ENOTDIR
		}
		c, err := fs.child(n, name, who)
		fs.Forget(n.id, 1)
		if err != nil {
			return nil, err
		}
		n = c
	}
	return n, nil
}

// describe fills an explanation about node n, nil if nothing is shown, under
// name in p.
func (fs *FS) describe(e *Explanation, n, p *node, name string) {
	if p != nil {
		p.mu.Lock()
		fs.describeName(e, p, name)
		p.mu.Unlock()
	}
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e.Exists, e.Type, e.Ino = true, typeNames[n.typ], n.ino
	if r, err := fs.refLocked(n); err == nil && r.fd < 0 {
		e.Layer = fmt.Sprintf("lower %d", r.d.Layer().Index)
		if r.d.Layer().Index == 0 {
			e.Layer = "upper"
		}
		e.ServedBy = path.Join(r.d.Path(), r.name)
	}
	switch {
	case n.isDir():
		fs.describeDir(e, n)
	case n.isReg():
		e.IOMode, e.IOWhy, e.DecidedBy = fs.ioMode(n, mounter)
	}
	if n.origin != (journal.Origin{}) && n.up {
		e.Records = append(e.Records, fmt.Sprintf("origin: layer %d inode %d", n.origin.Layer, n.origin.Ino))
	}
	fs.describePartial(e, n)
	if n.hard {
		l := fs.account(n.origin)
		e.Records = append(e.Records, fmt.Sprintf("hard-linked lower inode: indexed %v, lower names gone %d", fs.hard.indexed(n.origin), l.Gone))
	}
}

// describeName says what hides a name, or is hidden by it.
// Precondition: p.mu is held for writing.
func (fs *FS) describeName(e *Explanation, p *node, name string) {
	if fs.loadCovers(p) != nil {
		return
	}
	inUpper := false
	if up := p.dir.upper(); up != nil {
		var st unix.Stat_t
		switch err := up.Stat(name, &st); {
		case err != nil:
		case layers.IsWhiteoutStat(&st):
			e.HiddenBy = "whiteout " + path.Join(up.Path(), name)
		default:
			inUpper = true
		}
	}
	if p.dir.covered(name) {
		rec := fmt.Sprintf("cover: directory %d, name %q", p.dir.mark.id, name)
		e.Records = append(e.Records, rec)
		if !inUpper {
			e.HiddenBy = "journal record " + rec
		}
	}
	if p.dir.low == nil {
		return
	}
	shown := inUpper || e.HiddenBy != ""
	for _, d := range p.dir.low.dirs {
		var st unix.Stat_t
		if d.Stat(name, &st) != nil {
			continue
		}
		if shown {
			e.Hidden = append(e.Hidden, path.Join(d.Path(), name))
		}
		shown = true
	}
}

// describeDir lists the directories that a merged one is made of.
// Precondition: n.mu is held.
func (fs *FS) describeDir(e *Explanation, n *node) {
	merged := map[string]bool{}
	add := func(d *layers.Dir) {
		e.Merged = append(e.Merged, d.Path())
		merged[d.Path()] = true
	}
	if up := n.dir.upper(); up != nil {
		add(up)
	}
	if n.dir.low != nil {
		for _, d := range n.dir.low.dirs {
			add(d)
		}
	}
	var hidden []string
	for _, h := range e.Hidden {
		if !merged[h] {
			hidden = append(hidden, h)
		}
	}
	e.Hidden = hidden
	m := n.dir.mark
	if m.id != 0 {
		e.Records = append(e.Records, fmt.Sprintf("directory id %d, %d names covered", m.id, len(n.dir.covers)))
	}
	if m.opaque() {
		e.Records = append(e.Records, "opaque")
	}
	if m.redirect != "" {
		e.Records = append(e.Records, "redirect: "+m.redirect)
	}
}

// ioMode says how a regular file is, or would be for who, served, and what
// decided it. Precondition: n.mu is held for writing.
func (fs *FS) ioMode(n *node, who Caller) (mode, why, rule string) {
	if n.io != nil && n.io.opens > 0 {
		if n.io.mode == modePassthrough {
			return "passthrough", fmt.Sprintf("%d open, backing id %d", n.io.opens, n.io.id), n.io.rule
		}
		return "server", n.io.refused, n.io.rule
	}
	if err := fs.examineLocked(n); err != nil {
		return "error", err.Error(), ""
	}
	d, err := fs.decideLocked(n, askHow{who: who})
	defer d.closeUnused()
	why = d.why
	if why == "" {
		why = fs.keepFromPassthrough(n)
	}
	switch {
	case err != nil:
		return "error", err.Error(), d.rule
	case why != "":
		return "server", why, d.rule
	case n.io != nil && n.io.refused != "" && n.io.gen == d.gen && d.caller == Nobody:
		return "server", n.io.refused, d.rule
	case n.up && n.bytesLow():
		return "passthrough", "the lower file serves all bytes; upper has the attributes", d.rule
	case d.plan != nil:
		return "passthrough", fmt.Sprintf("%v serves the whole file", d.from), d.rule
	}
	return "passthrough", "one layer serves the whole file", d.rule
}

// PlanInfo is what a file is made of.
type PlanInfo struct {
	Path    string       `json:"path"`
	Place   string       `json:"place"` // by which the policy goes
	Rule    string       `json:"rule,omitempty"`
	Size    int64        `json:"size"`
	IOMode  string       `json:"io_mode"`
	IOWhy   string       `json:"io_why,omitempty"`
	Extents []ExtentInfo `json:"extents"`
	More    bool         `json:"more,omitempty"` // there are further extents
}

// ExtentInfo is one extent of a file.
type ExtentInfo struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Kind   string `json:"kind"`
	From   string `json:"from,omitempty"` // the backing file
	Source int64  `json:"source"`         // offset in it
}

// PlanOf says what the file at a path, relative to the mount's root, is made
// of when who opens it: at most as many extents as asked for.
func (fs *FS) PlanOf(rel string, who Caller, most int) (PlanInfo, error) {
	info := PlanInfo{Path: path.Clean("/" + rel)}
	n, err := fs.walkAs(info.Path, who)
	if err != nil {
		return info, fmt.Errorf("%s: %w", info.Path, err)
	}
	defer fs.Forget(n.id, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isReg() {
		return info, fmt.Errorf("%s: a %s has no plan, only regular files have", info.Path, typeNames[n.typ])
	}
	return info, fs.planInfoLocked(n, &info, who, most)
}

func (fs *FS) planInfoLocked(n *node, info *PlanInfo, who Caller, most int) error {
	q, _, err := fs.fileQueryLocked(n, "")
	if err != nil {
		return err
	}
	_, info.Place, _ = fs.governedLocked(n)
	info.IOMode, info.IOWhy, info.Rule = fs.ioMode(n, who)
	d, err := fs.decideLocked(n, askHow{who: who})
	defer d.closeUnused()
	if err != nil {
		return fmt.Errorf("%s: %w", info.Path, err)
	}
	if d.plan == nil {
		info.Size = q.Size
		info.Extents = []ExtentInfo{{Length: q.Size, Kind: ExtentBacking.String(), From: fs.selfPathLocked(n)}}
		return nil
	}
	list, more, err := d.plan.extents(most)
	if err != nil {
		return fmt.Errorf("%s: %w", info.Path, err)
	}
	info.Size, info.More = d.plan.size, more
	for _, e := range list {
		x := ExtentInfo{Offset: e.Off, Length: e.Len, Kind: e.Kind.String(), Source: e.Src}
		if e.Kind == ExtentBacking {
			x.From = fs.backingName(n, d.plan, e.Backing)
		}
		info.Extents = append(info.Extents, x)
	}
	return nil
}

// selfPathLocked is where the node's own file is.
func (fs *FS) selfPathLocked(n *node) string {
	r, err := fs.dataRefLocked(n)
	if err != nil || r.d == nil {
		return "the file itself"
	}
	return path.Join(r.d.Path(), r.name)
}

func (fs *FS) backingName(n *node, f *planFile, b Backing) string {
	if b == Self {
		return fs.selfPathLocked(n)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	bf, err := f.backing(b)
	if err != nil {
		return b.String()
	}
	return fmt.Sprintf("%v: %s", b, bf.name)
}
