// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// copyKind says for what a file is copied up.
type copyKind uint8

const (
	copyMeta  copyKind = iota // a change of the inode or its names: no data is needed
	copyData                  // for writing: as much data as Config.CopyUp says
	copyEmpty                 // O_TRUNC: size 0, no data (copy_up.c:ovl_copy_up_flags)
)

// maxLowerPath is the longest path of a lower file that is kept with a partial
// copy of it; of files deeper down whole copies are made.
const maxLowerPath = 2048

// shortPath is how long a path may be that is written on the inode only when it
// is needed, at a rename or link: those must not find that it does not fit.
const shortPath = 100

// copyUp brings a node to upper, its parents first. It does nothing when the
// node is there; of several callers one copies. Errors: EROFS without upper,
// and what the file systems say.
//
// Precondition: no lock is held.
func (fs *FS) copyUp(n *node, kind copyKind) error {
	if fs.upper == nil {
		return syscall.EROFS
	}
	if n.isDetached() {
		return errRetry
	}
	if n.isDir() {
		return fs.copyUpDir(n)
	}
	n.mu.RLock()
	up := n.up
	n.mu.RUnlock()
	if up {
		return nil
	}
	n.copying.Lock()
	defer n.copying.Unlock()
	err := fs.copyUpFile(n, kind)
	if err != nil {
		fs.count.copyFailed.Add(1)
	}
	return err
}

// tmpName is a name that nothing else uses in the work directory.
func (fs *FS) tmpName() string { return "#" + strconv.FormatUint(fs.tmpSeq.Add(1), 16) }

// copyUpDir makes an upper directory for a merged one. A parent is locked
// before its child, from the topmost that is missing down.
func (fs *FS) copyUpDir(n *node) error {
	for n.dir.upper() == nil {
		n.mu.RLock()
		if n.detached {
			n.mu.RUnlock()
			return errRetry
		}
		if len(n.names) == 0 {
			n.mu.RUnlock()
			return fs.copyUpRemoved(n)
		}
		at := n.names[0]
		n.mu.RUnlock()
		if err := fs.copyUpDir(at.parent); err != nil {
			return err
		}
		if err := fs.copyUpDirAt(n, at); err != nil {
			return err
		}
	}
	return nil
}

// copyUpRemoved makes a copy of a removed lower directory that a process still
// holds: one without a name.
func (fs *FS) copyUpRemoved(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.orphan >= 0 || len(n.names) > 0 {
		return nil
	}
	tmp, err := fs.copyDirToTmp(n)
	if err != nil {
		return err
	}
	fd, err := fs.tmp.Open(tmp, unix.O_PATH|unix.O_DIRECTORY, 0)
	fs.at(cutOrphanDirOpen)
	if rm := fs.tmp.Rmdir(tmp); err == nil && rm != nil {
		_ = unix.Close(fd)
		err = rm
	}
	if err == nil {
		n.orphan = layers.FD(fd)
	}
	return err
}

// copyDirToTmp makes a copy of a directory, without its entries, in work.
// Precondition: n.mu is held.
func (fs *FS) copyDirToTmp(n *node) (string, error) {
	src := n.dir.low.dirs[0]
	var st unix.Stat_t
	if err := src.Stat("", &st); err != nil {
		return "", err
	}
	tmp := fs.tmpName()
	if err := fs.tmp.Mkdir(tmp, 0o700); err != nil {
		return "", err
	}
	fs.at(cutTmpMade)
	if err := fs.copyMeta(src, "", tmp, &st); err != nil {
		_ = fs.tmp.Rmdir(tmp)
		return "", err
	}
	fs.at(cutMetaDone)
	return tmp, nil
}

// copyUpDirAt copies one directory up, unless it has been moved from the name
// or copied up meanwhile.
func (fs *FS) copyUpDirAt(n *node, at nameRef) error {
	at.parent.mu.Lock()
	defer at.parent.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dir.upper() != nil || !n.hasName(at.parent, at.name) {
		return nil
	}
	tmp, err := fs.copyDirToTmp(n)
	if err != nil {
		return err
	}
	if err := fs.publish(tmp, at); err != nil {
		_ = fs.tmp.Rmdir(tmp)
		return err
	}
	fs.at(cutDirParentTimes)
	n.dir.upDir.Store(at.parent.dir.upper().Child(at.name))
	n.dir.defACL = unknown
	fs.count.copyDirs.Add(1)
	return nil
}

// publish renames a finished temporary entry to its name in upper, keeping the
// parent's times: for users the name was always there.
// Precondition: at.parent.mu is held for writing.
func (fs *FS) publish(tmp string, at nameRef) error {
	up := at.parent.dir.upper()
	var st unix.Stat_t
	if err := up.Stat("", &st); err != nil {
		return err
	}
	if err := fs.tmp.Rename(tmp, up, at.name, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	fs.at(cutPublished)
	return up.Utimens("", [2]unix.Timespec{st.Atim, st.Mtim})
}

// copyMeta gives a temporary entry the xattrs, owner, mode and times of its
// source, in the order in which one clears what another sets.
func (fs *FS) copyMeta(src *layers.Dir, name, tmp string, st *unix.Stat_t) error {
	from, to := layers.At{Dir: src, Name: name}, layers.At{Dir: fs.tmp, Name: tmp}
	err := layers.CopyXattrs(from, to, func(attr string) bool {
		return !fs.privateAttr(attr, true) && attr != xattrCapability
	})
	if err != nil {
		return err
	}
	fs.at(cutMetaXattrs)
	if err := fs.tmp.Chown(tmp, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	fs.at(cutMetaOwner)
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := fs.tmp.Chmod(tmp, st.Mode&07777); err != nil {
			return err
		}
	}
	fs.at(cutMetaMode)
	// chown clears it, so it comes last.
	err = layers.CopyXattrs(from, to, func(attr string) bool { return attr == xattrCapability })
	if err != nil {
		return err
	}
	fs.at(cutMetaCapability)
	return fs.tmp.Utimens(tmp, [2]unix.Timespec{st.Atim, st.Mtim})
}

// isDetached tells whether a policy took the node's names away.
func (n *node) isDetached() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.detached
}

// copyUpFile copies a non-directory up, as the policy shows it. The data is
// copied without a lock on any directory, for a lower file does not change;
// then the copy is published under locks. If the policy was replaced meanwhile
// it is made anew. Precondition: n.copying is held.
func (fs *FS) copyUpFile(n *node, kind copyKind) error {
	for tries := 0; ; tries++ {
		asked := fs.answers.Load()
		n.mu.RLock()
		up, low := n.up, n.low
		c := copying{low: low, tmp: fs.tmpName(), origin: n.origin, kind: kind, whole: n.origin == (journal.Origin{})}
		if !up && n.isReg() {
			c.path = lowerPathLocked(n)
			c.pinned = n.hard || len(c.path) > shortPath
		}
		var d decision
		var err error
		if !up && n.isReg() {
			d, err = fs.decideLocked(n, askHow{copyUp: true, who: Nobody})
		}
		n.mu.RUnlock()
		if up || err != nil {
			return err
		}
		c.decision = &d
		err = fs.copyToTmp(&c)
		if c.part != nil && noRoomForXattr(err) {
			_ = fs.tmp.Unlink(c.tmp)
			c.part, c.whole = nil, true
			err = fs.copyToTmp(&c)
		}
		d.closeUnused()
		if err == nil {
			err = fs.publishFile(n, &c, asked)
		}
		if err == nil {
			return nil
		}
		_ = fs.tmp.Unlink(c.tmp)
		if err == errReplaced && tries == maxCopies {
			return fmt.Errorf("%w again and again: %w", errReplaced, syscall.EBUSY)
		}
		if err != errReplaced {
			return err
		}
	}
}

// errReplaced: the policy, or what it goes by, was replaced while a copy was
// made, so that it may show what must not be seen any more.
var errReplaced = errors.New("the policy has changed while the file was copied up")

// maxCopies bounds how often a copy is made anew for that.
const maxCopies = 8
