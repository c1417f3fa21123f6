// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"log/slog"
	"runtime"

	"golang.org/x/sys/unix"
)

// The file system ids that every thread has outside of As.
var (
	ownUID = uint32(unix.Geteuid())
	ownGID = uint32(unix.Getegid())
)

// none is an id that no one has: setfsuid and setfsgid then change nothing and
// only return the present id.
const none = ^uint32(0)

// Switch is a change of the calling thread's credential, undone by Restore.
// The zero Switch is none.
type Switch struct {
	active bool
	caps   capSet // of the thread before
}

// As makes the calling thread create files as uid and gid, with the effective
// capabilities that it has, until [Switch.Restore], which the same goroutine
// must call, on every way out:
//
//	sw, err := creds.As(uid, gid)
//	if err != nil {
//		return err
//	}
//	defer sw.Restore()
//
// The goroutine is locked to its thread meanwhile. It must not call As again
// before Restore. If both ids are the process's own, nothing is done. It is
// EPERM without CAP_SETUID or CAP_SETGID, EINVAL for an id that cannot exist
// (-1) or is not mapped in the user namespace; the thread is then as it was.
//
// The kernel marks a process that does this as not dumpable, and clears its
// parent death signal (commit_creds): the daemon must not rely on
// PR_SET_PDEATHSIG.
//
// A switch and its Restore take four calls that change the credential, and two
// more where the kernel took the file system capabilities away; threads that
// called [PrepareThread] save those.
func As(uid, gid uint32) (Switch, error) {
	if uid == ownUID && gid == ownGID {
		return Switch{}, nil
	}
	runtime.LockOSThread()
	caps, err := threadCaps()
	if err != nil {
		runtime.UnlockOSThread()
		return Switch{}, err
	}
	s := Switch{active: true, caps: caps}
	if err := become(uid, gid, &s.caps); err != nil {
		s.Restore()
		return Switch{}, err
	}
	return s, nil
}

// Restore makes the calling thread what it was before As. It cannot fail: a
// thread that does not come back is never used again. The reason is logged,
// the goroutine is locked to the thread once more, so that nothing unlocks it,
// and ended (runtime.Goexit, which no recover stops), and the runtime ends the
// thread with it. Deferred functions of the goroutine still run, with the
// wrong ids: keep them to unlocking and answering.
func (s Switch) Restore() {
	if !s.active {
		return
	}
	if err := become(ownUID, ownGID, &s.caps); err != nil {
		runtime.LockOSThread()
		slog.Error("a thread cannot return to the mounter's credential and is ended",
			"uid", ownUID, "gid", ownGID, "error", err)
		runtime.Goexit()
	}
	runtime.UnlockOSThread()
}

// become sets the ids of the calling thread, and gives it back what that took
// from, or added to, the effective set in caps. Leaving uid 0 for another
// drops the file system capabilities and coming back raises them, see
// capabilities(7), "Effect of user ID changes on capabilities".
func become(uid, gid uint32, caps *capSet) error {
	if uid == none || gid == none {
		return unix.EINVAL
	}
	// Neither call tells whether it worked; asking does.
	setfsid(unix.SYS_SETFSGID, gid)
	setfsid(unix.SYS_SETFSUID, uid)
	if setfsid(unix.SYS_SETFSGID, none) != gid || setfsid(unix.SYS_SETFSUID, none) != uid {
		return whyNot()
	}
	now, err := threadCaps()
	if err != nil || now == *caps {
		return err
	}
	return caps.apply()
}

// setfsid sets one of the calling thread's ids and returns the one before. On
// 32-bit machines with old 16-bit calls, x/sys has the 32-bit ones under other
// names: those are not built for.
func setfsid(trap uintptr, id uint32) uint32 {
	old, _, _ := unix.RawSyscall(trap, uintptr(id), 0, 0)
	return uint32(old)
}

// whyNot explains an id that was not taken.
func whyNot() error {
	if !HasCap(unix.CAP_SETUID) || !HasCap(unix.CAP_SETGID) {
		return unix.EPERM
	}
	return unix.EINVAL
}
