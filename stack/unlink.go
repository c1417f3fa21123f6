// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// How a name is removed. Which of the three ways is taken depends on where the
// name is:
//
//	upper only          one unlinkat or rmdir, nothing else
//	lower only          one journal record (cover); it survives kill -9 from
//	                    the moment it is written, a power cut from the next
//	                    sync on: until then the removal is "not done"
//	upper over lower    one renameat2 that puts a whiteout (char device 0/0)
//	                    in the place of the upper entry, as kernel overlayfs
//	                    does: at no moment, not even after a power cut, can
//	                    the lower entry show. The record follows once that
//	                    is durable, and the whiteout is taken away (settle.go).
//
// The design's order (commit the record durably, then remove the entry) would
// cost an fsync for each name of the third kind.

// Unlink removes a name of a non-directory.
func (fs *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fs.status(fs.remove(h, name, false))
}

// Rmdir removes an empty directory: ENOTEMPTY if the merged directory shows
// anything.
func (fs *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fs.status(fs.remove(h, name, true))
}

func (fs *FS) remove(h *fuse.InHeader, name string, dir bool) error {
	p, err := fs.beginCreate(h.NodeId)
	if err != nil {
		return err
	}
	defer p.mu.Unlock()
	n, err := fs.childLocked(p, name, callerOf(h))
	if err != nil {
		return err
	}
	defer fs.unrefLater(n)
	if err := fs.removeLocked(p, name, n, dir); err != nil {
		return err
	}
	fs.detachOthers(p, name, nil)
	return nil
}

// removeLocked removes the name of a node. Precondition: p.mu is held for
// writing.
func (fs *FS) removeLocked(p *node, name string, n *node, dir bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succ.Load() != nil {
		return errRetry
	}
	if err := checkRemove(n, dir); err != nil {
		return err
	}
	if dir {
		if err := fs.checkEmpty(n); err != nil {
			return err
		}
	}
	if err := fs.removeEntry(p, name, n); err != nil {
		return err
	}
	fs.at(cutRemoved)
	fs.gone(p, name, n)
	return nil
}

func checkRemove(n *node, dir bool) error {
	switch {
	case dir && !n.isDir():
		return syscall.ENOTDIR
	case !dir && n.isDir():
		return syscall.EISDIR
	}
	return nil
}

// unrefLater gives back a reference taken for the time of a request, once the
// locks are released.
func (fs *FS) unrefLater(n *node) {
	if dead := fs.nodes.unref(n.id, 1); dead != nil {
		go fs.drop(dead)
	}
}

// removeEntry hides the name for good.
// Precondition: p.mu and n.mu are held for writing.
func (fs *FS) removeEntry(p *node, name string, n *node) error {
	hide, err := fs.mustHide(p, name)
	if err != nil {
		return err
	}
	inUpper, err := fs.upperHas(p, name)
	if err != nil {
		return err
	}
	if inUpper || n.up {
		if err := fs.keepOpenLocked(n); err != nil {
			return err
		}
	}
	switch {
	case !inUpper:
		return fs.coverLower(p, name, n)
	case hide:
		return fs.whiteOut(p, name, n)
	case n.isDir():
		return fs.removeUpperDir(p, name, n)
	}
	return p.dir.upper().Unlink(name)
}

// upperHas tells whether upper holds an entry, not a whiteout, of a name.
func (fs *FS) upperHas(p *node, name string) (bool, error) {
	var st unix.Stat_t
	err := p.dir.upper().Stat(name, &st)
	if err == syscall.ENOENT {
		return false, nil
	}
	return err == nil && !layers.IsWhiteoutStat(&st), err
}

// coverLower hides a name that lower alone holds: the record is the operation.
func (fs *FS) coverLower(p *node, name string, n *node) error {
	if err := touch(p); err != nil { // first: the record is the operation
		return err
	}
	fs.at(cutTouched)
	if n.hard {
		return fs.coverHard(p, name, n)
	}
	return fs.cover(p, name)
}

// touch gives a directory the time of a change that upper does not see.
func touch(p *node) error {
	return p.dir.upper().Utimens("", [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}})
}

// whiteOut replaces an upper entry that hides a lower one by a whiteout, in
// one step, and follows up with the record.
func (fs *FS) whiteOut(p *node, name string, n *node) error {
	up := p.dir.upper()
	if !fs.caps.RenameExchange || !fs.canWhiteout {
		return fs.removeDurably(p, name, n)
	}
	tmp := fs.tmpName()
	if err := fs.newWhiteout(tmp); err != nil {
		return err
	}
	fs.at(cutWhiteoutMade)
	flags := uint(0)
	if n.isDir() {
		flags = unix.RENAME_EXCHANGE
	}
	if err := fs.tmp.Rename(tmp, up, name, flags); err != nil {
		_ = fs.tmp.Unlink(tmp)
		return err
	}
	fs.at(cutWhitedOut)
	if n.isDir() {
		fs.discard(tmp)
		fs.dropRecords(n)
	}
	// The name is gone. What fails from here on is owed.
	if err := fs.countHidden(p, name, n.origin); err != nil {
		fs.noteError("counting a hidden name", err)
	}
	fs.owe(debt{p: p, name: name, origin: n.origin})
	return nil
}

// newWhiteout makes a whiteout in work: a further link of a shared one, which
// costs less than an inode each (dir.c:ovl_whiteout).
func (fs *FS) newWhiteout(tmp string) error {
	err := fs.tmp.Link(sharedWhiteout, fs.tmp, tmp)
	if err == nil {
		return nil
	}
	return fs.tmp.Mknod(tmp, unix.S_IFCHR, 0)
}

// sharedWhiteout is the name in work of the whiteout that others link to.
const sharedWhiteout = "whiteout"

// removeDurably is the way for an upper that holds no whiteouts.
func (fs *FS) removeDurably(p *node, name string, n *node) error {
	if err := fs.coverDurably(p, name, n.origin); err != nil {
		return err
	}
	fs.at(cutDurable)
	if n.isDir() {
		return fs.removeUpperDir(p, name, n)
	}
	return p.dir.upper().Unlink(name)
}

// coverDurably is the design's order for an upper that holds no whiteouts: the
// upper entry on disk, then the record, and only then may the entry go.
func (fs *FS) coverDurably(p *node, name string, o journal.Origin) error {
	if err := fs.syncUpper(); err != nil {
		return err
	}
	fs.at(cutDurableSynced)
	if err := fs.countHidden(p, name, o); err != nil {
		return err
	}
	if err := fs.cover(p, name); err != nil {
		return err
	}
	fs.at(cutDurableCovered)
	return fs.j.Sync()
}

// removeUpperDir removes an upper directory that the merged tree shows empty.
// Whiteouts may be left in it: then it is moved away in one step and emptied
// in the work directory.
func (fs *FS) removeUpperDir(p *node, name string, n *node) error {
	up := p.dir.upper()
	err := up.Rmdir(name)
	if err == syscall.ENOTEMPTY || err == syscall.EEXIST {
		tmp := fs.tmpName()
		if err = up.Rename(name, fs.tmp, tmp, 0); err == nil {
			fs.at(cutMovedAway)
			fs.discard(tmp)
		}
	}
	if err == nil {
		fs.dropRecords(n)
	}
	return err
}

// dropRecords has the journal's records about a removed directory forgotten,
// once the removal is durable.
func (fs *FS) dropRecords(n *node) {
	if n.isDir() && n.dir.mark.id != 0 {
		fs.owe(debt{dropDir: n.dir.mark.id})
	}
}

// discard removes a directory in work that holds nothing but whiteouts. What
// stays is removed at the next mount.
func (fs *FS) discard(tmp string) {
	d := fs.tmp.Child(tmp)
	_ = d.List(func(name []byte, _ uint64, typ uint8) error {
		if typ == unix.DT_CHR {
			return d.Unlink(string(name))
		}
		return nil
	})
	d.Forget()
	fs.at(cutDiscardEmptied)
	if err := fs.tmp.Rmdir(tmp); err != nil {
		fs.log.Warn("left in the work directory until the next mount", "name", tmp, "err", err)
	}
	fs.at(cutDiscarded)
}

// checkEmpty fails with ENOTEMPTY if a merged directory shows anything.
// Precondition: n.mu is held for writing.
func (fs *FS) checkEmpty(n *node) error {
	if err := fs.loadList(n); err != nil {
		return err
	}
	if n.dir.list.live > 0 { // those that a policy hides are in the list
		return syscall.ENOTEMPTY
	}
	return nil
}

// gone updates what is known in memory about a removed name.
// Precondition: p.mu and n.mu are held for writing.
func (fs *FS) gone(p *node, name string, n *node) {
	if p.dir.list != nil {
		p.dir.list.remove(name)
	}
	fs.lost(p, name, n)
}

// lost is gone for a name that another inode has taken: it stays in the list.
func (fs *FS) lost(p *node, name string, n *node) {
	fs.noteLastPlace(n, p, name)
	fs.dropName(n, p, name)
	p.dir.forgetChild(name, n)
	if len(n.names) > 0 {
		if n.orphan >= 0 && !n.isDir() {
			_ = unix.Close(int(n.orphan)) // reached by another name
			n.orphan = -1
		}
		return
	}
	n.unlinked = true
	fs.forgetCopy(n)
	fs.reapIndex(n)
	if n.io != nil && n.io.opens == 0 {
		fs.closeBackingLocked(n)
	}
}
