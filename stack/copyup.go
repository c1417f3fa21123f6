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

// copyKind says how much of a file is copied.
type copyKind uint8

const (
	copyWhole copyKind = iota
	copyEmpty          // O_TRUNC: size 0, no data (copy_up.c:ovl_copy_up_flags)
)

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
		var d decision
		var err error
		if !up && n.isReg() {
			d, err = fs.decideLocked(n, askHow{copyUp: true, who: Nobody})
		}
		n.mu.RUnlock()
		if up || err != nil {
			return err
		}
		tmp := fs.tmpName()
		err = fs.copyToTmp(low, tmp, n.origin, kind, &d)
		d.closeUnused()
		if err == nil {
			err = fs.publishFile(n, tmp, asked)
		}
		if err == nil {
			return nil
		}
		_ = fs.tmp.Unlink(tmp)
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

// copyToTmp makes a complete copy of a lower file in the work directory, or of
// what a plan shows in its place.
func (fs *FS) copyToTmp(low lowerFile, tmp string, origin journal.Origin, kind copyKind, d *decision) error {
	var st unix.Stat_t
	if err := low.d.Stat(low.name, &st); err != nil {
		return err
	}
	if err := fs.copyBody(low, tmp, &st, kind, d); err != nil {
		return err
	}
	fs.at(cutBodyDone)
	if kind == copyEmpty && st.Size > 0 { // truncated now, though no call says so
		st.Mtim = unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	if err := fs.copyMeta(low.d, low.name, tmp, &st); err != nil {
		return err
	}
	fs.at(cutMetaDone)
	if d.plan != nil || d.asksReads() {
		if err := fs.tmp.Setxattr(tmp, xattrCopied, []byte{markVersion}, 0); err != nil {
			return err
		}
		fs.at(cutCopiedMark)
	}
	return fs.tmp.Setxattr(tmp, xattrOrigin, encodeOrigin(origin), 0)
}

// copyBody creates the copy and fills it.
func (fs *FS) copyBody(low lowerFile, tmp string, st *unix.Stat_t, kind copyKind, d *decision) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return fs.copyData(low, tmp, st, kind, d)
	case unix.S_IFLNK:
		target, err := low.d.Readlink(low.name)
		if err != nil {
			return err
		}
		fs.count.copyOthers.Add(1)
		return fs.tmp.Symlink(target, tmp)
	default:
		fs.count.copyOthers.Add(1)
		return fs.tmp.Mknod(tmp, st.Mode&unix.S_IFMT|0o600, st.Rdev)
	}
}

// copyData copies a regular file, and makes it durable before it can get its
// name: after a power cut no name may show a half-copied file.
func (fs *FS) copyData(low lowerFile, tmp string, st *unix.Stat_t, kind copyKind, d *decision) error {
	dst, err := fs.tmp.Open(tmp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	fs.at(cutTmpMade)
	fs.count.copyFiles.Add(1)
	if kind == copyEmpty || st.Size == 0 && d.plan == nil {
		return nil
	}
	src, err := fs.openLowerData(low)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	fs.takesLong()
	var copied int64
	how := "plan"
	switch {
	case d.asksReads():
		copied, err = fs.copyAsking(dst, src, st.Size, d)
	case d.plan != nil:
		copied, err = d.plan.copyTo(dst, src)
	default:
		copied, how, err = layers.CopyData(dst, src, st.Size, layers.CopyOptions{})
	}
	if err != nil {
		return err
	}
	fs.at(cutDataCopied)
	fs.count.copied(how, uint64(copied))
	if fs.cfg.Volatile {
		return nil
	}
	return unix.Fdatasync(dst)
}

// openLowerData opens a lower file for reading.
func (fs *FS) openLowerData(low lowerFile) (int, error) {
	return low.ref(true).open(unix.O_RDONLY)
}

// publishFile gives a finished copy its place: under the node's name, in the
// index too if the lower file has several links, or under no name at all if
// the node has none left.
// errReplaced if the policy's answers may have changed since it was asked.
func (fs *FS) publishFile(n *node, tmp string, asked uint64) error {
	fs.at(cutCopyComplete)
	at, ok, err := fs.lockName(n)
	if err != nil {
		return err
	}
	if ok {
		defer at.parent.mu.Unlock()
		defer func() {
			if n.up { // it does not go back
				fs.detachOthers(at.parent, at.name, n.current())
			}
		}()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if fs.answers.Load() != asked {
		return errReplaced
	}
	if n.detached { // meanwhile
		return errRetry
	}
	switch {
	case n.hard && (ok || fs.mayHaveNames(n)):
		if err := fs.publishIndexed(n, tmp); err != nil {
			return err
		}
		if ok {
			err = fs.linkUp(n, at)
		}
	case !ok:
		return fs.publishOrphan(n, tmp)
	default:
		if err := fs.publish(tmp, at); err != nil {
			return err
		}
	}
	fs.at(cutFileParentTimes)
	n.up = true
	return errors.Join(err, fs.followCopyUpLocked(n))
}

// mayHaveNames tells whether other lower names may lead to a hard-linked inode.
func (fs *FS) mayHaveNames(n *node) bool {
	_, err := fs.lowerLinks(n)
	return err != nil || fs.unionLinks(n, 0) > 0
}

// lockName locks the directory of one of the node's names, which is in upper
// then. ok is false if the node has no name.
func (fs *FS) lockName(n *node) (at nameRef, ok bool, err error) {
	for {
		n.mu.RLock()
		if len(n.names) == 0 {
			n.mu.RUnlock()
			return nameRef{}, false, nil
		}
		at := n.names[0]
		n.mu.RUnlock()
		if err := fs.copyUpDir(at.parent); err != nil {
			return at, false, err
		}
		at.parent.mu.Lock()
		n.mu.RLock()
		still := n.hasName(at.parent, at.name)
		n.mu.RUnlock()
		detached := at.parent.detached
		if still && !detached && at.parent.dir.upper() != nil {
			return at, true, nil
		}
		at.parent.mu.Unlock()
		if still && detached { // by a policy, and it does not come back
			return at, false, errRetry
		}
	}
}

// publishOrphan keeps a copy that has no name by a descriptor.
// Precondition: n.mu is held for writing.
func (fs *FS) publishOrphan(n *node, tmp string) error {
	fd, err := fs.tmp.Open(tmp, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	fs.at(cutOrphanOpen)
	if err := fs.tmp.Unlink(tmp); err != nil {
		_ = unix.Close(fd)
		return err
	}
	n.orphan, n.up = layers.FD(fd), true
	return fs.followCopyUpLocked(n)
}

// publishIndexed puts the copy of a hard-linked lower file into the index. Its
// account is written before, so that there is one wherever there is an index
// entry. Precondition: n.mu is held for writing.
func (fs *FS) publishIndexed(n *node, tmp string) error {
	fs.hard.counting.Lock()
	defer fs.hard.counting.Unlock()
	l, err := fs.lowerLinks(n)
	if err != nil {
		return err
	}
	if err := fs.j.Apply(journal.SetLinks(n.origin, l)); err != nil {
		return err
	}
	fs.at(cutAccountWritten)
	if err := fs.tmp.Rename(tmp, fs.index, indexName(n.origin), unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	fs.at(cutIndexPublished)
	fs.hard.mu.Lock()
	fs.hard.links[n.origin] = l
	fs.hard.index[n.origin] = struct{}{}
	fs.hard.mu.Unlock()
	n.up = true
	return nil
}

// linkUp makes a lower name of an indexed file an upper one, which hides the
// lower one from then on.
// Precondition: at.parent.mu and n.mu are held for writing; at.parent is in
// upper.
func (fs *FS) linkUp(n *node, at nameRef) error {
	up := at.parent.dir.upper()
	var st unix.Stat_t
	if err := up.Stat(at.name, &st); err != syscall.ENOENT {
		return err // it is there already, or upper fails
	}
	tmp := fs.tmpName()
	if err := fs.index.Link(indexName(n.origin), fs.tmp, tmp); err != nil {
		return err
	}
	fs.at(cutIndexLinked)
	if err := fs.publish(tmp, at); err != nil {
		_ = fs.tmp.Unlink(tmp)
		return err
	}
	fs.at(cutNameLinked)
	return fs.countHidden(at.parent, at.name, n.origin)
}

// keepOpenLocked opens the inode for as long as the kernel knows the node: its
// last known name is about to go. Precondition: n.mu is held for writing.
func (fs *FS) keepOpenLocked(n *node) error {
	if n.orphan >= 0 {
		return nil
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	fd, err := r.open(unix.O_PATH)
	if err != nil {
		return err
	}
	n.orphan = layers.FD(fd)
	return nil
}
