// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Open opens a regular file: EROFS and the like are the kernel's business, for
// it checks modes and the mount before it asks. ESTALE makes the kernel look
// the name up again, see iomode.go.
func (fs *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	trunc := in.Flags&unix.O_TRUNC != 0
	write := in.Flags&unix.O_ACCMODE != unix.O_RDONLY || trunc
	if n.succ.Load() != nil {
		return fs.openRetired(n, write, in.Pid, out)
	}
	if write {
		if _, err := fs.forWrite(n, trunc); err != nil {
			return fs.status(err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succ.Load() != nil {
		return fuse.Status(errRetry)
	}
	if write {
		if err := fs.checkFlagsLocked(n, in.Flags); err != nil {
			return fs.status(err)
		}
	}
	if trunc {
		if err := fs.truncateLocked(n, in); err != nil {
			return fs.status(err)
		}
	}
	if err := fs.admitLocked(n, write, out); err != nil {
		return fs.status(err)
	}
	n.noteOpenLocked(in.Flags)
	if in.Flags&unix.O_ACCMODE == unix.O_RDWR && n.mappable() {
		fs.notifyAttr(n.id) // what the kernel keeps from before
	}
	return fuse.OK
}

// checkFlagsLocked is what the kernel checks at an open by name, and cannot for
// it does not know the flags of our inodes, and does not at the re-open of a
// backing file: an immutable file is not written, an append-only one only at
// its end (fs/namei.c:may_open).
func (fs *FS) checkFlagsLocked(n *node, flags uint32) error {
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	stx, err := r.statx(unix.STATX_TYPE)
	if err != nil {
		return err
	}
	if attrs := stx.Attributes; attrs&unix.STATX_ATTR_IMMUTABLE != 0 ||
		attrs&unix.STATX_ATTR_APPEND != 0 && (flags&unix.O_APPEND == 0 || flags&unix.O_TRUNC != 0) {
		return syscall.EPERM
	}
	return nil
}

// truncateLocked is O_TRUNC, which the kernel leaves to us; it also tells when
// set-ID bits must go with the content.
func (fs *FS) truncateLocked(n *node, in *fuse.OpenIn) error {
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	if err := truncate(r, 0); err != nil {
		return err
	}
	if in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
		return fs.killPriv(n, r, &in.InHeader)
	}
	return nil
}

// staleWindow is how soon after an ESTALE the same process must come back to
// a retired node to be taken for one that has no name to look up.
const staleWindow = time.Second

// openRetired answers an open of a node that has a successor. By a name the
// kernel, told ESTALE, looks up again and comes to the successor. Who comes
// back to the same node holds it by descriptor (/proc/self/fd) and gets, for
// reading, what that descriptor shows.
func (fs *FS) openRetired(n *node, write bool, pid uint32, out *fuse.OpenOut) fuse.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	io := n.ioLocked()
	if !write && io.stalePid == pid && time.Since(io.staleTime) < staleWindow && n.lowerLive() {
		return fs.status(fs.admitLocked(n, false, out))
	}
	io.stalePid, io.staleTime = pid, time.Now()
	fs.count.stale.Add(1)
	return fuse.Status(errRetry)
}

// lookedUpAgain notes that a name of a retired node led to its successor.
func (n *node) lookedUpAgain() {
	n.mu.Lock()
	if n.io != nil {
		n.io.stalePid = 0
	}
	n.mu.Unlock()
}

// Release ends an open.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	n := fs.node(in.NodeId)
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.io == nil || n.io.opens == 0 {
		return
	}
	n.noteReleaseLocked(in.Flags)
	if n.io.opens--; n.io.opens > 0 {
		return
	}
	n.io.write = 0
	fs.closeServerFilesLocked(n)
	if n.succ.Load() != nil || n.unlinked {
		fs.closeBackingLocked(n)
	}
}

// OpenDir is answered ENOSYS: the kernel then opens directories by itself and
// keeps their listings (FUSE_NO_OPENDIR_SUPPORT).
func (fs *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}
