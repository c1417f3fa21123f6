// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// GetAttr answers stat.
func (fs *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	cur := n.lockCurrent()
	defer cur.mu.RUnlock()
	if err := fs.fillAttrLocked(cur, &out.Attr); err != nil {
		return fs.status(err)
	}
	if cur == n {
		out.SetTimeout(fs.attrTimeoutLocked(n))
	}
	return fuse.OK
}

// fillAttrLocked stats a node. Precondition: n.mu is held.
func (fs *FS) fillAttrLocked(n *node, a *fuse.Attr) error {
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := statLocked(n, r, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != n.typ {
		return syscall.ESTALE
	}
	return fs.showAttr(n, &st, a)
}

// statLocked is stat of a node's inode. The times of a partial file are looked at
// only while the completion does not write to it.
func statLocked(n *node, r ref, st *unix.Stat_t) error {
	q := n.partial()
	if q == nil {
		return r.stat(st)
	}
	q.times.RLock()
	err := r.stat(st)
	q.times.RUnlock()
	if err == nil {
		st.Blocks = q.blocks(st.Blocks)
	}
	return err
}

// toAttr shows a backing inode's attributes as the merged tree's; see showAttr.
// Precondition: n.mu is held.
func (fs *FS) toAttr(n *node, st *unix.Stat_t, a *fuse.Attr) {
	a.Ino = n.ino
	a.Size = uint64(st.Size)
	a.Blocks = uint64(st.Blocks)
	a.Atime, a.Atimensec = uint64(st.Atim.Sec), uint32(st.Atim.Nsec)
	a.Mtime, a.Mtimensec = uint64(st.Mtim.Sec), uint32(st.Mtim.Nsec)
	a.Ctime, a.Ctimensec = uint64(st.Ctim.Sec), uint32(st.Ctim.Nsec)
	a.Mode = st.Mode
	a.Uid, a.Gid = st.Uid, st.Gid
	a.Rdev = uint32(st.Rdev)
	a.Blksize = uint32(st.Blksize)
	a.Nlink = uint32(fs.nlink(n, uint64(st.Nlink)))
}

// nlink is the link count to show. Merged directories report 1, as
// inode.c:ovl_getattr does, and so does every directory with lower parts.
func (fs *FS) nlink(n *node, nlink uint64) uint64 {
	switch {
	case n.unlinked && (n.isDir() || !n.hard):
		if n.orphan >= 0 && !n.isDir() {
			return nlink // of an inode that may have names nobody looked up
		}
		return 0
	case n.isDir():
		if n.dir.merged() {
			return 1
		}
		return nlink
	case n.hard:
		return fs.unionLinks(n, nlink)
	}
	return nlink
}

// Readlink answers readlink.
func (fs *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n := fs.node(h.NodeId)
	if n == nil {
		return nil, fuse.Status(syscall.ESTALE)
	}
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	r, err := fs.refLocked(n)
	if err != nil {
		return nil, fs.status(err)
	}
	s, err := r.readlink()
	if err != nil {
		return nil, fs.status(err)
	}
	return []byte(s), fuse.OK
}

// StatFs answers statfs from the top layer, as super.c:ovl_statfs.
func (fs *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := fs.top().Root().Statfs(&st); err != nil {
		return fs.status(err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize = uint32(st.Bsize), uint32(st.Frsize)
	out.NameLen = uint32(st.Namelen)
	return fuse.OK
}

// SetAttr changes attributes. Everything but a size set by path works on a
// file whose open lower handles a copy-up has overtaken.
func (fs *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if in.Valid&^(fuse.FATTR_FH|fuse.FATTR_LOCKOWNER|fuse.FATTR_CTIME) == 0 {
		return fs.loseSetID(n.current(), in, out)
	}
	size, setSize := in.GetSize()
	var err error
	if setSize {
		n, err = fs.forWrite(n, size == 0)
	} else {
		n = n.current()
		err = fs.copyUp(n, copyMeta)
	}
	if err != nil {
		return fs.status(err)
	}
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	r, err := fs.refLocked(n)
	if err != nil {
		return fs.status(err)
	}
	if err := fs.setAttr(n, r, in, size, setSize); err != nil {
		return fs.status(err)
	}
	if err := fs.fillAttrLocked(n, &out.Attr); err != nil {
		return fs.status(err)
	}
	if in.NodeId == n.id {
		out.SetTimeout(fs.attrTimeoutLocked(n))
	} else {
		fs.notifyAttr(n.id) // changed through the node that it succeeded
	}
	return fuse.OK
}

// setAttr applies a request in the order in which one clears what another
// sets: size, owner (clears set-ID bits), mode, times.
func (fs *FS) setAttr(n *node, r ref, in *fuse.SetAttrIn, size uint64, setSize bool) error {
	if setSize {
		if err := fs.resizeLocked(n, r, int64(size), in.Valid&fuse.FATTR_FH != 0); err != nil {
			return err
		}
		if size == 0 {
			n.syncFailed.Store(false)
		}
		if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
			if err := fs.killPriv(n, r, &in.InHeader); err != nil {
				return err
			}
		}
	}
	defer n.keepFromFill()()
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		uid, gid := -1, -1
		if u, ok := in.GetUID(); ok {
			uid = int(u)
		}
		if g, ok := in.GetGID(); ok {
			gid = int(g)
		}
		if err := r.chown(uid, gid); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := r.chmod(mode & 07777); err != nil {
			return err
		}
	}
	return setTimes(r, in)
}

// keepFromFill keeps the completion of a partial file from setting back, beside
// its write, what is about to be changed: times and file capabilities.
// Precondition: n.mu is held.
func (n *node) keepFromFill() (release func()) {
	q := n.partial()
	if q == nil {
		return func() {}
	}
	q.times.RLock()
	return q.times.RUnlock
}

func setTimes(r ref, in *fuse.SetAttrIn) error {
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
		return nil
	}
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	ts := [2]unix.Timespec{omit, omit}
	switch {
	case in.Valid&fuse.FATTR_ATIME_NOW != 0:
		ts[0] = now
	case in.Valid&fuse.FATTR_ATIME != 0:
		ts[0] = unix.Timespec{Sec: int64(in.Atime), Nsec: int64(in.Atimensec)}
	}
	switch {
	case in.Valid&fuse.FATTR_MTIME_NOW != 0:
		ts[1] = now
	case in.Valid&fuse.FATTR_MTIME != 0:
		ts[1] = unix.Timespec{Sec: int64(in.Mtime), Nsec: int64(in.Mtimensec)}
	}
	return r.utimens(ts)
}

// resizeLocked sets the size of a regular file in upper.
// Precondition: n.mu is held.
func (fs *FS) resizeLocked(n *node, r ref, size int64, byHandle bool) error {
	if n.partial() == nil {
		return resize(r, size, byHandle)
	}
	f, err := fs.openSelfLocked(n, r, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.close()
	if f.part == nil { // it has become whole just now
		return resize(r, size, byHandle)
	}
	return f.part.resize(f.fd, size, func() error {
		if byHandle {
			return unix.Ftruncate(f.fd, size)
		}
		return layers.FD(f.fd).Truncate(size)
	})
}

// resize is truncate(2), or with byHandle ftruncate(2): by path some file
// systems (xfs, btrfs) leave the times of a file alone that has the size
// already.
func resize(r ref, size int64, byHandle bool) error {
	if byHandle {
		return truncate(r, size)
	}
	fd, err := r.open(unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return layers.FD(fd).Truncate(size)
}

func truncate(r ref, size int64) error {
	fd, err := r.open(unix.O_WRONLY | unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Ftruncate(fd, size)
}
