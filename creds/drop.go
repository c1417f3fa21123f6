// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// DropBoundingResource takes CAP_SYS_RESOURCE away from the calling thread, and
// out of its bounding set, so that what it executes next does not have it
// either, root or not. It locks the calling goroutine to its OS thread and
// leaves it locked: a process started by this goroutine afterwards is forked
// from that thread, and no other goroutine gets the changed thread. It is EPERM
// (wrapped) without CAP_SETPCAP, unless there is nothing to drop.
func DropBoundingResource() error {
	runtime.LockOSThread()
	if err := dropThread(unix.CAP_SYS_RESOURCE); err != nil {
		return fmt.Errorf("dropping CAP_SYS_RESOURCE: %w", err)
	}
	return nil
}

// dropThread drops one capability from the bounding, effective, permitted and
// inheritable sets of the calling thread. (The inheritable set is not masked
// by the bounding set at execve(2), so it has to go too; the kernel takes it
// out of the ambient set by itself.)
func dropThread(capability int) error {
	bounded, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(capability), 0, 0, 0)
	if err != nil {
		return err
	}
	if bounded != 0 {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(capability), 0, 0, 0); err != nil {
			return err
		}
	}
	c, err := threadCaps()
	if err != nil {
		return err
	}
	before := c
	c.drop(capability)
	if c == before {
		return nil
	}
	return c.apply()
}
