// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A copying is one copy-up of a non-directory under way.
type copying struct {
	low      lowerFile
	tmp      string // its name in the work directory
	origin   journal.Origin
	kind     copyKind
	decision *decision
	path     string // of a regular file, in the merged lower layers
	pinned   bool   // the path is to be kept on the inode from the beginning
	whole    bool   // the path does not fit on the inode, or there is no origin
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
	if c.origin == (journal.Origin{}) {
		return nil
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
