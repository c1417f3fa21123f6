// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// secbitNoSetuidFixup is SECBIT_NO_SETUID_FIXUP of linux/securebits.h: changes
// of uid leave the capabilities alone.
const secbitNoSetuidFixup = 1 << 2

// PrepareThread locks the calling goroutine to its OS thread for good and
// makes [As] cheaper on it: with the securebit NO_SETUID_FIXUP the kernel does
// not touch the capabilities when the file system uid changes, so they need
// not be restored. For the threads that serve requests, to be called once at
// the start of each; the goroutine must not unlock the thread, and must not
// start processes (the securebit would survive execve). Without CAP_SETPCAP it
// is EPERM, and As works as before.
func PrepareThread() error {
	runtime.LockOSThread()
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECUREBITS, uintptr(bits)|secbitNoSetuidFixup, 0, 0, 0)
}
