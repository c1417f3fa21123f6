// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// user is whom a system call is made as.
type user struct {
	uid, gid int
	groups   []uint32
}

// The users of the tests. Alice is in a second group, whose files and
// directories the fixtures have.
var (
	root  = user{0, 0, nil}
	alice = user{1000, 1000, []uint32{2000}}
	bob   = user{1001, 1001, nil}

	users = []user{root, alice, bob}
)

// become makes the calling thread, which must be locked and must never be
// unlocked again, act as the user, with a umask of its own. Go's own setters
// would change the whole process, hence the raw calls.
func (u user) become() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	var groups unsafe.Pointer
	if len(u.groups) > 0 {
		groups = unsafe.Pointer(&u.groups[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(u.groups)), uintptr(groups), 0); e != 0 {
		return e
	}
	g, i := uintptr(u.gid), uintptr(u.uid)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, g, g, g); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, i, i, i); e != 0 {
		return e
	}
	return nil
}

// as runs f as the user on a thread of its own, which ends with f.
func as(t testing.TB, u user, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := u.become(); err != nil {
			t.Errorf("becoming user %d: %v", u.uid, err)
			return
		}
		f()
	}()
	<-done
	if t.Failed() {
		t.FailNow()
	}
}

// worker runs functions on one thread as one user.
type worker struct {
	work chan func()
	done chan struct{}
}

// startWorker starts the thread of a user.
func startWorker(t testing.TB, u user) *worker {
	w := &worker{work: make(chan func()), done: make(chan struct{}, 1)}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		ready <- u.become()
		for f := range w.work {
			f()
			w.done <- struct{}{}
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("becoming user %d: %v", u.uid, err)
	}
	t.Cleanup(func() { close(w.work) })
	return w
}

// effectiveCaps reads the effective set from the text of /proc/PID/status.
func effectiveCaps(t testing.TB, status string) uint64 {
	t.Helper()
	for _, line := range strings.Split(status, "\n") {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			must(t, err)
			return caps
		}
	}
	t.Fatal("no CapEff in the status of the process")
	return 0
}

func itoa(n int) string { return strconv.Itoa(n) }
