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
		c := copying{low: low, tmp: fs.tmpName(), origin: n.origin, kind: kind}
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

// A copying is one copy-up of a non-directory under way.
type copying struct {
	low      lowerFile
	tmp      string // its name in the work directory
	origin   journal.Origin
	kind     copyKind
	decision *decision
	path     string // of a regular file, in the merged lower layers
	pinned   bool   // the path is to be kept on the inode from the beginning
	whole    bool   // the path does not fit on the inode
	part     *partial
}

// lowerPathLocked is the path of a lower file from the root of the merged lower
// layers, "" if it has no name left. Precondition: n.mu is held; n is not in
// upper.
func lowerPathLocked(n *node) string {
	for _, a := range n.names {
		if low := a.parent.dir.low; low != nil {
			return joinPlace(low.path(), a.name)
		}
	}
	return ""
}

// noRoomForXattr tells whether an error says that an xattr does not fit on an
// inode. A full disk says the same: then the copy that is made next says it.
func noRoomForXattr(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.E2BIG) || errors.Is(err, syscall.ERANGE)
}

// copyToTmp makes a copy of a lower file in the work directory, or of what a
// plan shows in its place: complete, but that data may be left to be read from
// lower (partial.go).
func (fs *FS) copyToTmp(c *copying) error {
	var st unix.Stat_t
	if err := c.low.d.Stat(c.low.name, &st); err != nil {
		return err
	}
	if err := fs.copyBody(c, &st); err != nil {
		return err
	}
	fs.at(cutBodyDone)
	if c.kind == copyEmpty && st.Size > 0 { // truncated now, though no call says so
		st.Mtim = unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	if err := fs.copyMeta(c.low.d, c.low.name, c.tmp, &st); err != nil {
		return err
	}
	fs.at(cutMetaDone)
	if c.planned() {
		if err := fs.tmp.Setxattr(c.tmp, xattrCopied, []byte{markVersion}, 0); err != nil {
			return err
		}
		fs.at(cutCopiedMark)
	}
	mark := originMark{Origin: c.origin}.encode()
	if c.part != nil {
		mark = c.part.encode()
	}
	return fs.tmp.Setxattr(c.tmp, xattrOrigin, mark, 0)
}

// planned tells whether what is copied is not just the lower file.
func (c *copying) planned() bool { return c.decision.plan != nil || c.decision.asksReads() }

// copyBody creates the copy and fills it.
func (fs *FS) copyBody(c *copying, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return fs.copyFile(c, st)
	case unix.S_IFLNK:
		target, err := c.low.d.Readlink(c.low.name)
		if err != nil {
			return err
		}
		fs.count.copyOthers.Add(1)
		return fs.tmp.Symlink(target, c.tmp)
	default:
		fs.count.copyOthers.Add(1)
		return fs.tmp.Mknod(c.tmp, st.Mode&unix.S_IFMT|0o600, st.Rdev)
	}
}

// copyFile makes the copy of a regular file.
func (fs *FS) copyFile(c *copying, st *unix.Stat_t) error {
	dst, err := fs.tmp.Open(c.tmp, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	fs.at(cutTmpMade)
	fs.count.copyFiles.Add(1)
	switch {
	case c.kind == copyEmpty || st.Size == 0 && c.decision.plan == nil:
		return nil
	case c.planned() || c.whole || fs.noPartial != "" || len(c.path) > maxLowerPath || c.path == "" && c.pinned:
		return fs.copyDurably(c, dst, st)
	}
	c.part = fs.newPartial(c.origin, st.Size, c.path)
	c.part.low, c.part.pinned = c.low, c.pinned
	how, err := fs.copySome(c, dst, st.Size)
	if err != nil {
		return err
	}
	fs.at(cutSomeCopied)
	if c.part.state == partAll && fs.cfg.Volatile {
		c.part = nil
	} else if err := fs.markPartial(c.part); err != nil {
		return err
	}
	fs.at(cutPartialMarked)
	fs.count.how(how)
	return nil
}

// Words for how data was copied up, or left where it is; see CopyUpStatus.How.
const (
	copiedByPlan  = "plan"
	leftInLower   = "partial"
	metadataAlone = "metadata"
)

// copySome copies as much of a lower file as is needed now, without a sync: the
// mark of the copy lets lower show through what a power cut takes from it.
func (fs *FS) copySome(c *copying, dst int, size int64) (how string, err error) {
	if c.kind == copyMeta && fs.cfg.CopyUp != CopyUpWhole {
		c.part.state = partEmpty
		return metadataAlone, layers.FD(dst).Ftruncate(size)
	}
	src, err := fs.openLowerData(c.low)
	if err != nil {
		return "", err
	}
	defer unix.Close(src)
	c.part.state = partAll
	if fs.copiesWhole(size) {
		fs.takesLong()
		n, how, err := layers.CopyData(dst, src, size, layers.CopyOptions{NoReflink: !fs.caps.Reflink})
		fs.count.copyBytes.Add(uint64(n))
		return how, err
	}
	if fs.clones() && layers.Clone(dst, src, size) == nil {
		return layers.CopiedByReflink, nil
	}
	c.part.state = partSome
	return leftInLower, layers.FD(dst).Ftruncate(size)
}

// copiesWhole tells whether a file of that size is copied whole before it is
// written to.
func (fs *FS) copiesWhole(size int64) bool {
	return fs.cfg.CopyUp == CopyUpWhole || fs.cfg.CopyUp == CopyUpAuto && size <= fs.cfg.CopyUpThreshold
}

// clones tells whether files are shared with lower block by block where the
// file system can.
func (fs *FS) clones() bool { return fs.caps.Reflink && fs.cfg.CopyUp != CopyUpPartial }

// copyDurably makes a whole copy, and brings it to the disk before it can get
// its name: after a power cut no name may show a half-copied file. So it is
// where lower must not, or cannot, show through: copies of what a plan shows,
// and uppers of which nothing is known about holes.
func (fs *FS) copyDurably(c *copying, dst int, st *unix.Stat_t) error {
	src, err := fs.openLowerData(c.low)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	fs.takesLong()
	var copied int64
	how := copiedByPlan
	switch d := c.decision; {
	case d.asksReads():
		copied, err = fs.copyAsking(dst, src, st.Size, d)
	case d.plan != nil:
		copied, err = d.plan.copyTo(dst, selfFile{fd: src})
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
func (fs *FS) publishFile(n *node, c *copying, asked uint64) error {
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
		if err := fs.publishIndexed(n, c.tmp); err != nil {
			return err
		}
		if ok {
			err = fs.linkUp(n, at)
		}
	case !ok:
		if err := fs.publishOrphan(n, c.tmp); err != nil {
			return err
		}
	default:
		if err := fs.publish(c.tmp, at); err != nil {
			return err
		}
	}
	fs.at(cutFileParentTimes)
	n.up, n.part = true, c.part
	fs.noteCopied(n)
	return errors.Join(err, fs.followCopyUpLocked(n))
}

// noteCopied has what a fresh copy lacks done later. Precondition: n.mu is held.
func (fs *FS) noteCopied(n *node) {
	switch q := n.partial(); {
	case q == nil, len(n.names) == 0: // or it is removed, and only held open
	case q.is(partAll):
		fs.awaitSync(n)
	case q.is(partSome):
		fs.queueCompletion(n)
	}
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
	n.orphan = layers.FD(fd)
	return nil
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
