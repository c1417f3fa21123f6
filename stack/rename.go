// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"cmp"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A move is a rename under way.
type move struct {
	p1, p2   *node
	n1, n2   string
	src, dst *node // dst nil: the new name is free
	who      Caller
	exchange bool
	noRepl   bool

	hide1  bool // lower holds the old name: the move must leave a whiteout
	white2 bool // a whiteout is in upper at the new name

	whiteout bool // the move left one at the old name
}

// Rename moves a name. Lower and merged directories are moved by a redirect,
// never by EXDEV, unless the redirect would be longer than an xattr can hold.
func (fs *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, n1, n2 string) fuse.Status {
	if in.Flags&^(unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE) != 0 {
		return fuse.EINVAL
	}
	p1, p2 := fs.node(in.NodeId), fs.node(in.Newdir)
	if p1 == nil || p2 == nil || p1.dir == nil || p2.dir == nil {
		return fuse.Status(syscall.ESTALE)
	}
	m := &move{p1: p1, p2: p2, n1: n1, n2: n2, who: callerOf(&in.InHeader),
		exchange: in.Flags&unix.RENAME_EXCHANGE != 0,
		noRepl:   in.Flags&unix.RENAME_NOREPLACE != 0}
	return fs.status(fs.rename(m))
}

func (fs *FS) rename(m *move) error {
	fs.moving.RLock()
	defer fs.moving.RUnlock()
	if err := fs.prepareMove(m); err != nil {
		return err
	}
	defer fs.unrefLater(m.src)
	if m.dst != nil {
		defer fs.unrefLater(m.dst)
	}
	if m.src == m.dst && !m.exchange {
		return nil // two names of one inode (rename(2))
	}
	if err := fs.renameLocked(m); err != nil {
		return err
	}
	fs.oneVariant(m.p1, m.n1)
	fs.oneVariant(m.p2, m.n2)
	fs.expireRenamed(m)
	return nil
}

// expireRenamed makes the kernel ask about names that a rename has made, if the
// policy has a say about them: it goes on keeping what it knew under the old
// names.
func (fs *FS) expireRenamed(m *move) {
	if fs.namesRuled(m.p2, m.n2) {
		m.src.ttl.Store(1)
		fs.notifyEntry(m.p2.id, m.n2)
	}
	if m.exchange && fs.namesRuled(m.p1, m.n1) {
		m.dst.ttl.Store(1)
		fs.notifyEntry(m.p1.id, m.n1)
	}
}

// oneVariant leaves of the variants of a name, which was renamed, the one that
// it leads to.
func (fs *FS) oneVariant(p *node, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fs.detachOthers(p, name, p.dir.children[name])
}

func (fs *FS) renameLocked(m *move) error {
	unlock := fs.lockMove(m)
	defer unlock()
	if err := fs.checkMove(m); err != nil {
		return err
	}
	if err := fs.markMove(m); err != nil {
		return err
	}
	fs.at(cutMoveMarked)
	if err := fs.doMove(m); err != nil {
		return err
	}
	fs.moved(m)
	fs.at(cutMoveCompleted)
	return nil
}

// prepareMove finds the nodes and brings to upper what must be there, before
// any lock is held: both directories, the source, and for an exchange the
// target.
func (fs *FS) prepareMove(m *move) error {
	for _, p := range []*node{m.p1, m.p2} {
		if err := fs.copyUp(p, copyMeta); err != nil {
			return err
		}
	}
	src, err := fs.child(m.p1, m.n1, m.who)
	if err != nil {
		return err
	}
	m.src = src
	dst, err := fs.child(m.p2, m.n2, m.who)
	if err == nil {
		m.dst = dst
	} else if err != syscall.ENOENT && err != errHidden {
		fs.unrefLater(src)
		return err
	}
	err = fs.copyUpForMove(m.src, m.p1, m.n1)
	if err == nil && m.exchange && m.dst != nil {
		err = fs.copyUpForMove(m.dst, m.p2, m.n2)
	}
	if err != nil {
		fs.unrefLater(m.src)
		if m.dst != nil {
			fs.unrefLater(m.dst)
		}
	}
	return err
}

// copyUpForMove brings an entry to upper under the very name that is to move.
func (fs *FS) copyUpForMove(n, p *node, name string) error {
	if err := fs.copyUp(n, copyMeta); err != nil {
		return err
	}
	if !n.hard {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	return fs.linkUp(n, nameRef{p, name})
}

// lockMove locks both directories, an ancestor first, unrelated ones in the
// order of their ids; then the nodes, a directory before another inode (which
// may have a name in it), two of a kind in the order of their ids.
func (fs *FS) lockMove(m *move) func() {
	var held []*node
	lock := func(n *node) {
		for _, h := range held {
			if h == n {
				return
			}
		}
		n.mu.Lock()
		held = append(held, n)
	}
	first, second := m.p1, m.p2
	if isAncestor(second, first) || second.id < first.id && !isAncestor(first, second) {
		first, second = second, first
	}
	lock(first)
	lock(second)
	a, b := m.src, m.dst
	if b != nil && (b.isDir() && !a.isDir() || b.isDir() == a.isDir() && b.id < a.id) {
		a, b = b, a
	}
	lock(a)
	if b != nil {
		lock(b)
	}
	return func() {
		for i := len(held) - 1; i >= 0; i-- {
			held[i].mu.Unlock()
		}
	}
}

// isAncestor tells whether a is above d. Only one rename of a directory runs
// at a time, so the chain of parents stands still.
func isAncestor(a, d *node) bool {
	for {
		d = d.parent()
		if d == nil || d == a {
			return d != nil
		}
	}
}

// checkMove makes the checks that the merged tree needs; the kernel has made
// those of permission and of loops.
func (fs *FS) checkMove(m *move) error {
	for _, p := range []*node{m.p1, m.p2} {
		if p.unlinked {
			return syscall.ENOENT
		}
		if err := fs.loadCovers(p); err != nil {
			return err
		}
	}
	switch {
	case m.dst != nil && m.noRepl:
		return syscall.EEXIST
	case m.dst == nil && m.exchange:
		return syscall.ENOENT
	}
	if m.src.succ.Load() != nil || m.dst != nil && m.dst.succ.Load() != nil {
		return errRetry // a copy-up overtook it before the locks were taken
	}
	if m.dst != nil && !m.exchange {
		if err := checkReplace(m.src, m.dst); err != nil {
			return err
		}
		if m.dst.isDir() {
			if err := fs.checkEmpty(m.dst); err != nil {
				return err
			}
			if err := fs.sweepWhiteouts(m.dst); err != nil {
				return err
			}
		}
	}
	if m.dst == nil && fs.pol() != nil { // what is hidden is not replaced
		if shows, err := fs.lowerShows(m.p2, m.n2); err != nil || shows {
			return cmp.Or[error](err, syscall.EEXIST)
		}
	}
	var err error
	m.hide1, err = fs.mustHide(m.p1, m.n1)
	if err == nil && m.dst == nil {
		m.white2, err = fs.whiteoutAt(m.p2, m.n2)
	}
	return err
}

func checkReplace(src, dst *node) error {
	switch {
	case src.isDir() && !dst.isDir():
		return syscall.ENOTDIR
	case !src.isDir() && dst.isDir():
		return syscall.EISDIR
	}
	return nil
}

// sweepWhiteouts takes the whiteouts out of a merged-empty upper directory
// that a rename is to replace, once the records that do their work are
// durable.
// Precondition: n.mu is held for writing.
func (fs *FS) sweepWhiteouts(n *node) error {
	up := n.dir.upper()
	if up == nil {
		return nil
	}
	var names []string
	err := up.List(func(name []byte, _ uint64, _ uint8) error {
		names = append(names, string(name))
		return nil
	})
	if err != nil || len(names) == 0 {
		return err
	}
	// Upper first: a record must not outlive the whiteout's own rename.
	if err := fs.syncUpper(); err != nil {
		return err
	}
	fs.at(cutSweepSynced)
	for _, name := range names {
		if hidden, err := fs.whiteoutAt(n, name); err != nil {
			return err
		} else if !hidden {
			return syscall.ENOTEMPTY // something that the mount does not show
		}
		if err := fs.cover(n, name); err != nil {
			return err
		}
		fs.at(cutSweepCovered)
	}
	if err := fs.j.Sync(); err != nil {
		return err
	}
	fs.at(cutSweepDurable)
	for _, name := range names {
		if err := up.Unlink(name); err != nil {
			return err
		}
		fs.at(cutSweepRemoved)
	}
	return nil
}

// markMove writes the facts that must stand on the inodes before they move: a
// directory's redirect to the lower directory that it merges with, or that it
// is opaque, if at the new place it would merge with something; and that its
// new parent may now hold an entry with an origin. Each is true at the old
// place too, so a cut before the move leaves the visible tree as it was.
func (fs *FS) markMove(m *move) error {
	if err := fs.stick(m.src, fs.placeOf(m.p1, m.n1)); err != nil {
		return err
	}
	if m.exchange {
		if err := fs.stick(m.dst, fs.placeOf(m.p2, m.n2)); err != nil {
			return err
		}
	}
	if err := fs.markMoved(m.src, m.p2, m.n2); err != nil {
		return err
	}
	if m.exchange {
		return fs.markMoved(m.dst, m.p1, m.n1)
	}
	return nil
}

func (fs *FS) markMoved(n, p *node, name string) error {
	if err := fs.markImpure(p, n); err != nil {
		return err
	}
	if !n.isDir() {
		return fs.pin(n)
	}
	mark := n.dir.mark
	switch {
	case n.dir.low != nil:
		path := n.dir.low.path()
		if len(path) > maxRedirect {
			return syscall.EXDEV
		}
		mark.redirect = path
	case p.dir.low != nil:
		mark.flags |= markOpaque
	}
	if mark == n.dir.mark {
		return nil
	}
	if err := fs.setMark(n, mark); err != nil {
		return err
	}
	return fs.noteMark(n)
}

// noteMark puts a directory's redirect and opaqueness into the journal too,
// for those who read a dump. The xattr is what counts.
func (fs *FS) noteMark(n *node) error {
	id, err := fs.dirID(n)
	if err != nil {
		return err
	}
	m := n.dir.mark
	fs.noteDirty()
	err = fs.j.Apply(journal.NoteDir(id, journal.DirNote{
		Opaque: m.opaque(), Redirect: m.redirect, Path: n.dir.upper().Path()}))
	fs.at(cutDirNoted)
	return err
}

// doMove is the one call that is the operation, and what it needs.
func (fs *FS) doMove(m *move) error {
	if m.dst == nil || m.exchange {
		return fs.moveEntry(m)
	}
	if err := fs.markUncounted(m.p2, m.n2, m.dst.origin); err != nil {
		return err
	}
	kept := m.dst.orphan >= 0
	err := fs.keepTarget(m)
	if err == nil {
		err = fs.moveEntry(m)
	}
	if err != nil && !kept {
		letGoLocked(m.dst)
	}
	return err
}

// moveEntry makes the call.
func (fs *FS) moveEntry(m *move) error {
	up1, up2 := m.p1.dir.upper(), m.p2.dir.upper()
	flags := uint(0)
	switch {
	case m.exchange:
		flags = unix.RENAME_EXCHANGE
	case m.white2 && m.src.isDir():
		// Over a whiteout a directory goes by exchange, which leaves the
		// whiteout at the old name, where it is wanted or taken away.
		flags = unix.RENAME_EXCHANGE
		m.whiteout = true
	case m.hide1 && fs.canWhiteout && fs.caps.RenameWhiteout:
		flags = unix.RENAME_WHITEOUT
		m.whiteout = true
	case m.hide1:
		if err := fs.coverDurably(m.p1, m.n1, m.src.origin); err != nil {
			return err
		}
		fs.at(cutDurable)
	}
	if m.dst == nil && !m.white2 {
		flags |= unix.RENAME_NOREPLACE // what the mount does not show is not destroyed
	}
	if err := m.call(up1, up2, flags); err != nil {
		return err
	}
	fs.at(cutMoved)
	if m.whiteout && !m.hide1 {
		m.whiteout = false
		if err := up1.Unlink(m.n1); err != nil { // it hides nothing
			fs.log.Warn("whiteout stays", "dir", up1.Path(), "name", m.n1, "err", err)
		}
		fs.at(cutMoveUnwhited)
	}
	return nil
}

// call renames. A directory's own Dir is told in the same step, for whoever
// opens something below it.
func (m *move) call(up1, up2 *layers.Dir, flags uint) error {
	var other *layers.Dir
	if m.exchange && m.dst.isDir() {
		other = m.dst.dir.upper()
	}
	switch {
	case m.src.isDir():
		return m.src.dir.upper().RenameTo(up2, m.n2, flags, other)
	case other != nil:
		return other.RenameTo(up1, m.n1, flags, nil)
	}
	return up1.Rename(m.n1, up2, m.n2, flags)
}

// keepTarget opens the inode that is about to lose this name.
func (fs *FS) keepTarget(m *move) error {
	has, err := fs.upperHas(m.p2, m.n2)
	if err != nil || !has && !m.dst.up {
		return err
	}
	return fs.keepOpenLocked(m.dst)
}

// moved brings journal and memory up to date. The move is done: what fails
// here is no error of it.
func (fs *FS) moved(m *move) {
	if m.exchange {
		fs.swapNames(m)
		return
	}
	fs.recordMove(m)
	if m.dst != nil {
		fs.lost(m.p2, m.n2, m.dst)
	}
	fs.dropName(m.src, m.p1, m.n1)
	delete(m.p1.dir.children, m.n1)
	if m.p1.dir.list != nil {
		m.p1.dir.list.remove(m.n1)
	}
	fs.placeNode(m.src, m.p2, m.n2)
}

// recordMove notes what the move made true of names: the old one is hidden by
// the whiteout that it left, a replaced lower name has gone, a replaced
// directory's records too.
func (fs *FS) recordMove(m *move) {
	if m.dst != nil {
		if err := fs.countHidden(m.p2, m.n2, m.dst.origin); err != nil {
			fs.noteError("counting a hidden name", err)
		}
		fs.dropRecords(m.dst)
	}
	if m.hide1 && m.whiteout {
		fs.owe(debt{p: m.p1, name: m.n1, origin: m.src.origin})
	}
}

// placeNode notes a node's new name.
// Precondition: p.mu and n.mu are held for writing.
func (fs *FS) placeNode(n, p *node, name string) {
	fs.addName(n, p, name)
	fs.adopt(p, name, n)
	if n.isDir() {
		n.dir.at.Store(&dirAt{parent: p, name: name})
	}
	if p.dir.list != nil {
		p.dir.list.add(name, n.ino, uint8(n.typ>>12)) // a name that was there keeps its cookie
	}
}

// swapNames notes an exchange.
func (fs *FS) swapNames(m *move) {
	fs.dropName(m.src, m.p1, m.n1)
	fs.dropName(m.dst, m.p2, m.n2)
	fs.placeNode(m.src, m.p2, m.n2)
	fs.placeNode(m.dst, m.p1, m.n1)
}
