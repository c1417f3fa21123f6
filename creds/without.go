// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"log/slog"
	"runtime"
)

// Without runs fn on the calling thread with one capability out of the
// effective set, and puts it back. What the kernel keeps of fn's credential,
// a backing file registered with FUSE for example, stays without it. The
// error is fn's, or EPERM if the set cannot be changed (fn is not run then).
func Without(capability int, fn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	caps, err := threadCaps()
	if err != nil {
		return err
	}
	less := caps
	less[capability/32].Effective &^= 1 << (capability % 32)
	if less == caps {
		return fn()
	}
	if err := less.apply(); err != nil {
		return err
	}
	defer func() {
		if err := caps.apply(); err != nil {
			runtime.LockOSThread() // as Restore: the thread is never used again
			slog.Error("a thread cannot get its capabilities back and is ended",
				"capability", capability, "error", err)
			runtime.Goexit()
		}
	}()
	return fn()
}
