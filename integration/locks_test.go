// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLocks: flock and POSIX locks (of open descriptions) meet between two
// descriptors, also over a copy-up in coherent mode.
func TestLocks(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{lowers: [][]string{{"f=1", "g=2"}}, options: []string{"io=" + mode}})
		must(t, os.WriteFile(u.path("new"), nil, 0o644))
		for _, name := range []string{"f", "new"} {
			a, b := openRW(t, u.path(name)), openRW(t, u.path(name))
			must(t, unix.Flock(a, unix.LOCK_EX))
			wantErrno(t, "second flock", unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
			must(t, unix.Flock(a, unix.LOCK_UN))
			must(t, unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
			must(t, setLock(a, unix.F_WRLCK, 0, 10))
			wantErrno(t, "overlapping lock", setLock(b, unix.F_WRLCK, 5, 10), unix.EAGAIN)
			must(t, setLock(b, unix.F_WRLCK, 10, 10))
			must(t, setLock(a, unix.F_UNLCK, 0, 10))
			must(t, setLock(b, unix.F_RDLCK, 0, 5))
		}
		if mode == ioCoherent || sut == sutOverlay {
			checkLockOverCopyUp(t, u)
		}
	})
}

// checkLockOverCopyUp locks a lower file, copies it up and expects that the
// lock still holds against new openers.
func checkLockOverCopyUp(t *testing.T, u *union) {
	t.Helper()
	old, err := unix.Open(u.path("g"), unix.O_RDONLY, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(old) })
	must(t, unix.Flock(old, unix.LOCK_EX))
	w := openRW(t, u.path("g"))
	_, err = unix.Write(w, []byte("x"))
	must(t, err)
	wantErrno(t, "flock after the copy-up", unix.Flock(w, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func openRW(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// setLock sets a lock of the open file description.
func setLock(fd int, typ int16, start, n int64) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: typ, Start: start, Len: n})
}

// TestLockWaits: a blocking flock is granted when the holder lets go, and the
// mount serves others meanwhile.
func TestLockWaits(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}})
	a, b := openRW(t, u.path("f")), openRW(t, u.path("f"))
	must(t, unix.Flock(a, unix.LOCK_EX))
	got := make(chan error, 1)
	go func() { got <- unix.Flock(b, unix.LOCK_EX) }()
	for i := range 20 {
		must(t, os.WriteFile(u.path("other"), []byte{byte(i)}, 0o644))
	}
	select {
	case err := <-got:
		t.Fatalf("the second lock did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	must(t, unix.Flock(a, unix.LOCK_UN))
	select {
	case err := <-got:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("the lock is not granted")
	}
}
