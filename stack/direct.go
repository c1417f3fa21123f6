// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// The kernel opens a backing file again with the user's own flags, and if its
// file system has no direct I/O and refuses O_DIRECT, tells the user EIO. So we
// try first, and answer EINVAL, as that file system does.

// bytesForDirect brings to upper the bytes of a file that was copied up without
// any, if it is to be opened with O_DIRECT and only upper may have that: the
// file has become one of upper. errRetry as from forWrite.
// Precondition: no lock is held.
func (fs *FS) bytesForDirect(n *node) error {
	n.mu.Lock()
	err := fs.examineLocked(n)
	if err == nil && n.up && n.bytesLow() && fs.keepFromPassthrough(n) == "" {
		err = fs.ownDirectLocked(n)
	}
	n.mu.Unlock()
	if err == syscall.EINVAL {
		_, err = fs.forWrite(n, false)
	}
	return err
}

// mayDirectLocked is EINVAL if the file that is passed through cannot be opened
// with O_DIRECT. Precondition: n.mu is held for writing.
func (fs *FS) mayDirectLocked(n *node, d *decision) error {
	if d.from == Self {
		return fs.ownDirectLocked(n)
	}
	d.plan.mu.Lock()
	defer d.plan.mu.Unlock()
	b, err := d.plan.backing(d.from)
	if err != nil {
		return err
	}
	return closeTried(layers.FD(b.fd).Reopen(unix.O_RDONLY | unix.O_DIRECT))
}

// ownDirectLocked is EINVAL if the node's own file cannot be opened with
// O_DIRECT. Precondition: n.mu is held for writing.
func (fs *FS) ownDirectLocked(n *node) error {
	r, err := fs.backingRefLocked(n)
	if err != nil {
		return err
	}
	return closeTried(r.open(unix.O_RDONLY | unix.O_DIRECT))
}

// closeTried closes what an open gave.
func closeTried(fd int, err error) error {
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}
