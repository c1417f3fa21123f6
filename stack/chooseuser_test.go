// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A user is a thread with file-system ids of its own.
type user struct {
	t    testing.TB
	uid  uint32
	work chan func()
}

// asUser starts a user, for whom the way to the mount is opened.
func (m *mounted) asUser(uid uint32) *user {
	m.t.Helper()
	for d := filepath.Dir(m.mnt); strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		must(m.t, os.Chmod(d, 0o755))
	}
	u := &user{t: m.t, uid: uid, work: make(chan func())}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with it
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(uid), 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
		if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0); uint32(now) != uid {
			started <- fmt.Errorf("fsuid %d instead of %d", now, uid)
			return
		}
		started <- nil
		for fn := range u.work {
			fn()
		}
	}()
	must(m.t, <-started)
	m.t.Cleanup(func() { close(u.work) })
	return u
}

// do runs fn as the user.
func (u *user) do(fn func()) {
	done := make(chan struct{})
	u.work <- func() { defer close(done); fn() }
	<-done
}

func (u *user) read(path string) (s string, err error) {
	u.do(func() { s, err = tryRead(path) })
	return s, err
}

func (u *user) want(path, want string) {
	u.t.Helper()
	if got, err := u.read(path); err != nil || got != want {
		u.t.Errorf("user %d reads %.40q, %v in %s; want %.40q", u.uid, got, err, path, want)
	}
}

func (u *user) stat(path string) (st unix.Stat_t, err error) {
	u.do(func() { err = unix.Lstat(path, &st) })
	return st, err
}

func (u *user) wantErr(what string, want syscall.Errno, fn func() error) {
	u.t.Helper()
	var err error
	u.do(func() { err = fn() })
	wantErrno(u.t, fmt.Sprintf("user %d: %s", u.uid, what), err, want)
}

func (u *user) wantNames(dir string, want ...string) {
	u.t.Helper()
	var got []string
	u.do(func() {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Getdents(fd, buf)
			if n <= 0 || err != nil {
				return
			}
			_, _, got = unix.ParseDirent(buf[:n], -1, got)
		}
	})
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		u.t.Errorf("user %d sees %q in %s, want %q", u.uid, got, dir, want)
	}
}
