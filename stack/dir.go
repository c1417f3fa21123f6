// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// dirState is what a node has more when it is a directory. Guarded by the
// node's mu unless said otherwise.
type dirState struct {
	// upDir is the directory in upper; set once, read without a lock.
	upDir atomic.Pointer[layers.Dir]
	// low is the merged lower directory, nil if there is none. Immutable.
	low *lowerStack

	// at is where the directory is and stuck the place written on it (nil: not
	// read yet); read without a lock, see place.go.
	at    atomic.Pointer[dirAt]
	stuck atomic.Pointer[string]

	// mark is the private xattr of the upper directory; markedAt is how many
	// syncs of upper had begun when it was written, see markDurably.
	mark     dirMark
	markedAt uint64
	// covers are the names whose lower entries are hidden; nil until loaded.
	covers       map[string]struct{}
	coversLoaded bool

	// children are those that the kernel holds: by name, or by variant name
	// where a policy chooses by caller (choose.go); variants is set if there
	// are such.
	children map[string]*node
	variants bool
	list     *listing // nil until the first readdir

	// defACL: whether the upper directory has a default ACL.
	defACL triState
}

type triState uint8

const (
	unknown triState = iota
	yes
	no
)

// upper is the directory in upper, nil if there is none yet.
func (d *dirState) upper() *layers.Dir { return d.upDir.Load() }

// forget lets the descriptors of a dead directory go.
func (d *dirState) forget() {
	if up := d.upper(); up != nil {
		up.Forget()
	}
	if d.low != nil {
		d.low.forget()
	}
}

// merged tells whether lower entries can show in the directory.
func (d *dirState) merged() bool { return d.low != nil }

// loadCovers brings the journal's records about the directory into memory.
// Precondition: n.mu is held for writing, or coversLoaded is set.
func (fs *FS) loadCovers(n *node) error {
	d := n.dir
	if d.coversLoaded {
		return nil
	}
	if fs.j != nil && d.mark.id != 0 {
		c, err := fs.j.LoadDir(d.mark.id)
		if err != nil {
			return err
		}
		d.covers = c
	}
	d.coversLoaded = true
	return nil
}

func (d *dirState) covered(name string) bool {
	_, ok := d.covers[name]
	return ok
}

// dirID gives the upper directory its id, under which its records are kept.
// Precondition: n.mu is held for writing and the directory is in upper.
func (fs *FS) dirID(n *node) (journal.DirID, error) {
	d := n.dir
	if d.mark.id != 0 {
		return d.mark.id, nil
	}
	fs.takesLong() // one id in thousands costs a sync
	id, err := fs.j.NewDirID()
	if err != nil {
		return 0, err
	}
	fs.at(cutDirIDTaken)
	m := d.mark
	m.id = id
	if err := fs.setMark(n, m); err != nil {
		return 0, err
	}
	return id, nil
}

// setMark writes the private xattr of an upper directory.
func (fs *FS) setMark(n *node, m dirMark) error {
	up := n.dir.upper()
	if err := up.Setxattr("", xattrDir, m.encode(), 0); err != nil {
		return err
	}
	fs.at(cutDirMarked)
	n.dir.mark, n.dir.markedAt = m, fs.syncs.begun.Load()
	return nil
}

// syncCount counts the syncs of upper: how many have begun, and the number of
// the last one that succeeded.
type syncCount struct{ begun, done atomic.Uint64 }

// over notes that a sync has succeeded.
func (s *syncCount) over(number uint64) {
	for {
		done := s.done.Load()
		if done >= number || s.done.CompareAndSwap(done, number) {
			return
		}
	}
}

// markDurably gives an upper directory its id and makes sure that it would be
// found under it after a power cut. Upper is synced for that unless it has been
// since the mark was written; of a mark that an earlier mount wrote nothing is
// known, for that one may have been killed.
// Precondition: n.mu is held for writing and the directory is in upper.
func (fs *FS) markDurably(n *node) error {
	if _, err := fs.dirID(n); err != nil {
		return err
	}
	if fs.cfg.Volatile || fs.syncs.done.Load() > n.dir.markedAt {
		return nil
	}
	return fs.syncUpper()
}

// cover records that the lower entries of a name are hidden; extra operations
// go into the same transaction.
// Precondition: n.mu is held for writing and the directory is in upper.
func (fs *FS) cover(n *node, name string, extra ...journal.Op) error {
	if n.dir.covered(name) && len(extra) == 0 {
		return nil
	}
	id, err := fs.dirID(n)
	if err != nil {
		return err
	}
	ops := append([]journal.Op{journal.Cover(id, name)}, extra...)
	if err := fs.j.Apply(ops...); err != nil {
		return err
	}
	fs.at(cutCovered)
	if n.dir.covers == nil {
		n.dir.covers = make(map[string]struct{})
	}
	n.dir.covers[name] = struct{}{}
	fs.noteDirty()
	return nil
}

// lowerShows tells whether a lower entry would show under a name if upper had
// no entry: lower has one, and neither a record nor a whiteout hides it.
// Precondition: n.mu is held for writing; n is in upper.
func (fs *FS) lowerShows(n *node, name string) (bool, error) {
	has, err := fs.lowerHas(n, name)
	if err != nil || !has {
		return false, err
	}
	hidden, err := fs.whiteoutAt(n, name)
	if err == nil && !hidden && fs.foreign {
		hidden = fs.foreignHides(n.dir.upper(), name) == syscall.ENOENT
	}
	return !hidden, err
}

// lowerHas tells whether lower has an entry of a name that no record hides.
// Precondition: n.mu is held for writing.
func (fs *FS) lowerHas(n *node, name string) (bool, error) {
	if n.dir.low == nil {
		return false, nil
	}
	if err := fs.loadCovers(n); err != nil {
		return false, err
	}
	if n.dir.covered(name) {
		return false, nil
	}
	return n.dir.low.has(fs, name)
}

// mustHide tells whether the upper entry of a name, when it goes, must leave a
// whiteout: lower holds the name, and no record that would survive a power cut
// hides it. Precondition: n.mu is held for writing.
func (fs *FS) mustHide(n *node, name string) (bool, error) {
	if n.dir.low == nil {
		return false, nil
	}
	if err := fs.loadCovers(n); err != nil {
		return false, err
	}
	if n.dir.covered(name) && !fs.j.Dirty() {
		return false, nil
	}
	return n.dir.low.has(fs, name)
}

// whiteoutAt tells whether upper holds a whiteout of a name.
func (fs *FS) whiteoutAt(n *node, name string) (bool, error) {
	var st unix.Stat_t
	err := n.dir.upper().Stat(name, &st)
	if err == syscall.ENOENT {
		return false, nil
	}
	return err == nil && layers.IsWhiteoutStat(&st), err
}

// A found is the answer of resolve: what the merged tree holds under a name.
type found struct {
	typ    uint32
	st     unix.Stat_t // of the entry that serves the name
	up     bool
	upDir  *layers.Dir // directories in upper
	mark   dirMark
	low    *lowerStack // directories
	file   lowerFile   // non-directories in lower
	ino    uint64
	origin journal.Origin
	part   *partial // regular files in upper
	hard   bool

	// By the policy:
	variant string        // not empty: the key in children, for this caller alone
	ttl     time.Duration // how long the kernel may keep the name; 0 for not at all
	ruled   bool          // ttl is set
}

// discard lets go of the descriptors of directories that were found and are not
// kept in a node.
func (f *found) discard() {
	if f == nil {
		return
	}
	if f.upDir != nil {
		f.upDir.Forget()
	}
	if f.low != nil {
		f.low.forget()
	}
}

// resolve finds what the merged tree holds under a name, ENOENT if nothing,
// errHidden if the policy hides it.
// Precondition: p.mu is held for writing, or for reading with covers loaded.
func (fs *FS) resolve(p *node, name string, who Caller) (*found, error) {
	if len(name) > unix.NAME_MAX {
		return nil, syscall.ENAMETOOLONG
	}
	if err := fs.loadCovers(p); err != nil {
		return nil, err
	}
	f, err := fs.resolveUpper(p, name)
	if f == nil && err == nil {
		f, err = fs.resolveLower(p, name)
	}
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, syscall.ENOENT
	}
	if fs.pol() == nil {
		return f, nil
	}
	g, err := fs.choose(p, name, f, who)
	switch {
	case err != nil:
		f.discard()
	case f.low != nil && g.low != f.low:
		f.low.forget()
	}
	return g, err
}

func (fs *FS) layerOf(f *found) int {
	if f.low != nil {
		return f.low.dirs[0].Layer().Index
	}
	return f.file.d.Layer().Index
}

// resolveUpper looks in the upper directory. It returns ENOENT for what upper
// hides, and nil for what upper says nothing about.
func (fs *FS) resolveUpper(p *node, name string) (*found, error) {
	up := p.dir.upper()
	if up == nil {
		return nil, nil
	}
	f := &found{up: true}
	err := up.Stat(name, &f.st)
	if err == syscall.ENOENT {
		if p.dir.covered(name) {
			return nil, syscall.ENOENT
		}
		if fs.foreign {
			return nil, fs.foreignHides(up, name)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if layers.IsWhiteoutStat(&f.st) {
		return nil, syscall.ENOENT
	}
	if fs.foreign {
		if _, hidden := ociHidden(name); hidden {
			return nil, syscall.ENOENT
		}
	}
	f.typ = f.st.Mode & unix.S_IFMT
	f.ino = fs.inos.get(f.st.Dev, f.st.Ino)
	if f.typ == unix.S_IFDIR {
		return f, fs.resolveUpperDir(p, name, f)
	}
	if fs.foreign {
		if err := noMetacopy(up, name, &f.st); err != nil {
			return nil, err
		}
	}
	if p.dir.low != nil || p.dir.mark.impure() {
		err = fs.readOrigin(p, name, f)
	}
	if err == nil && f.hard {
		if err := fs.countHidden(p, name, f.origin); err != nil {
			fs.noteError("counting a hidden name", err)
		}
	}
	return f, err
}

// noMetacopy refuses a file of a foreign upper whose data kernel overlayfs
// left in a lower layer: served from upper it would read as zeros.
func noMetacopy(up *layers.Dir, name string, st *unix.Stat_t) error {
	is, err := isMetacopy(up, name, st)
	if is {
		err = fmt.Errorf("%s/%s: a metacopy of kernel overlayfs in upperdir; copy it up there first (mount with metacopy=off and write to it): %w",
			up.Path(), name, syscall.EIO)
	}
	return err
}

// isMetacopy tells whether a file of a foreign upper is a metacopy of kernel
// overlayfs.
func isMetacopy(up *layers.Dir, name string, st *unix.Stat_t) (bool, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 || st.Blocks > xattrBlocks {
		return false, nil
	}
	m, err := up.FileMarks(name)
	return m.Metacopy, err
}

// resolveUpperDir finds what an upper directory merges with.
func (fs *FS) resolveUpperDir(p *node, name string, f *found) error {
	f.upDir = p.dir.upper().Child(name)
	var err error
	if f.mark, err = readMark(f.upDir); err != nil {
		return err
	}
	opaque, redirect := f.mark.opaque(), f.mark.redirect
	if fs.foreign && redirect == "" && !opaque {
		m, err := f.upDir.Marks(lowerDialects)
		if err != nil {
			return err
		}
		opaque, redirect = m.Opaque, m.Redirect
		if redirect != "" && redirect[0] != '/' {
			redirect = p.lowPath() + "/" + redirect
		}
	}
	switch {
	case redirect != "":
		f.low, err = fs.lowRoot.walk(fs, redirect)
		if err == syscall.ESTALE { // its lower directory is gone: only upper is left
			f.low, err = nil, nil
		}
	case opaque, p.dir.low == nil, p.dir.covered(name):
	default:
		var h *lowerHit
		h, err = p.dir.low.lookup(fs, name)
		if h != nil {
			f.low = h.dirs
		}
	}
	if err == nil && f.low != nil {
		err = fs.dirIno(f)
	}
	return err
}

// lowPath is the lower path of the directory, for a relative redirect.
func (n *node) lowPath() string {
	if n.dir.low == nil {
		return ""
	}
	return n.dir.low.path()
}

// dirIno gives a directory with lower parts the number of the topmost of
// them, which copy-up and rename do not change.
func (fs *FS) dirIno(f *found) error {
	var st unix.Stat_t
	if err := f.low.dirs[0].Stat("", &st); err != nil {
		return err
	}
	f.ino = fs.inos.get(st.Dev, st.Ino)
	return nil
}

// resolveLower looks in the lower directories.
func (fs *FS) resolveLower(p *node, name string) (*found, error) {
	if p.dir.low == nil || p.dir.covered(name) {
		return nil, nil
	}
	h, err := p.dir.low.lookup(fs, name)
	if h == nil || err != nil {
		return nil, err
	}
	f := &found{st: h.st, typ: h.st.Mode & unix.S_IFMT}
	if h.dirs != nil {
		f.ino = fs.inos.get(h.st.Dev, h.st.Ino)
		f.low = h.dirs
		return f, nil
	}
	return f, fs.lowerFileFound(p, f, h.d, name, h.imp)
}

// lowerFileFound fills in where a lower non-directory is, and its number.
func (fs *FS) lowerFileFound(p *node, f *found, d *layers.Dir, name string, impure bool) (err error) {
	f.file = lowerFile{d: d, name: name}
	if err := partialUpper(d, name, &f.st); err != nil {
		return err
	}
	if fs.maybeMetacopy(d, &f.st, impure) {
		if f.file.data, err = p.dir.low.metacopyData(d, name); err != nil {
			return err
		}
	}
	if f.origin, err = fs.originOf(d, name, &f.st); err != nil {
		return err
	}
	if f.origin == (journal.Origin{}) {
		f.ino = fs.inos.get(f.st.Dev, f.st.Ino)
		return nil
	}
	f.ino = fs.inos.get(d.Layer().Dev, f.origin.Ino)
	if f.st.Nlink > 1 && fs.j != nil {
		return fs.resolveHard(f)
	}
	return nil
}

// foreignHides honours a `.wh.NAME` in an upper that another tool wrote.
func (fs *FS) foreignHides(up *layers.Dir, name string) error {
	var st unix.Stat_t
	err := up.Stat(layers.WhiteoutPrefix+name, &st)
	if err == nil {
		return syscall.ENOENT
	}
	if err == syscall.ENOENT || err == syscall.ENAMETOOLONG {
		return nil
	}
	return err
}
