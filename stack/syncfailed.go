// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// After a failed fsync(2) the kernel takes the pages that it could not write
// for clean, and reports the failure once for each open file: the next fsync
// succeeds although the data is not on the disk. The descriptors that the
// daemon syncs with are not the users', so a second user might even be told
// nothing at all. So a failure sticks to the node: fsync of the file goes on
// failing until its content is given up (truncated to nothing) or the file is
// no longer known, which is when everybody has closed it.

// syncFile makes an upper file or directory durable.
func (fs *FS) syncFile(n *node, dataOnly bool) error {
	if n.syncFailed.Load() {
		return fmt.Errorf("an earlier fsync of this file failed, and what it was to write may be lost: %w", syscall.EIO)
	}
	err := fs.withData(n, unix.O_RDONLY, func(f selfFile) error {
		if f.part != nil { // a limit that could not be written
			if err := f.part.persist(fdXattr(f.fd)); err != nil {
				return err
			}
		}
		if dataOnly {
			return unix.Fdatasync(f.fd)
		}
		return unix.Fsync(f.fd)
	})
	if err == syscall.EIO || isFull(err) {
		n.syncFailed.Store(true)
		if q := n.part; q != nil {
			q.doubt()
		}
	}
	return err
}
