// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// onThread runs a test on a thread of its own, which ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// eachThread runs a test on an ordinary and on a prepared thread.
func eachThread(t *testing.T, test func(t *testing.T)) {
	needRoot(t)
	t.Run("ordinary", test)
	t.Run("prepared", func(t *testing.T) {
		onThread(func() {
			if err := PrepareThread(); err != nil {
				t.Error(err)
				return
			}
			test(t)
		})
	})
}

func TestAsOwnsWhatItCreates(t *testing.T) {
	eachThread(t, func(t *testing.T) {
		dir := t.TempDir() // mode 0755, root's: only capabilities let others write
		must(t, os.Chmod(dir, 0o700))
		runtime.LockOSThread() // to look at one thread all the time
		defer runtime.UnlockOSThread()
		caps, before := effective(t), ids(t)
		sw, err := As(1234, 5678)
		must(t, err)
		uid, gid := create(t, filepath.Join(dir, "theirs"))
		during := effective(t)
		idsDuring := ids(t)
		sw.Restore()
		if uid != 1234 || gid != 5678 {
			t.Errorf("owner %d:%d", uid, gid)
		}
		if during != caps || effective(t) != caps {
			t.Errorf("capabilities %x before, %x during, %x after", caps, during, effective(t))
		}
		if want := "Uid: 0 0 0 1234 Gid: 0 0 0 5678"; idsDuring != want {
			t.Errorf("during %s", idsDuring)
		}
		if after := ids(t); after != before {
			t.Errorf("ids %s, were %s", after, before)
		}
		if uid, gid := create(t, filepath.Join(dir, "mine")); uid != ownUID || gid != ownGID {
			t.Errorf("owner after Restore %d:%d", uid, gid)
		}
	})
}

// Only one of the two differs from the mounter's.
func TestAsOneOfBoth(t *testing.T) {
	eachThread(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, want := range [][2]uint32{{0, 77}, {77, 0}, {0, 0}} {
			sw, err := As(want[0], want[1])
			must(t, err)
			uid, gid := create(t, filepath.Join(dir, fmt.Sprint(want)))
			sw.Restore()
			if uid != want[0] || gid != want[1] {
				t.Errorf("owner %d:%d, want %v", uid, gid, want)
			}
		}
	})
}

func TestAsOwnIsNothing(t *testing.T) {
	sw, err := As(ownUID, ownGID)
	must(t, err)
	if sw.active {
		t.Error("switched to oneself")
	}
	sw.Restore()
	Switch{}.Restore()
}

func TestAsBadIDs(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, caps := ids(t), effective(t)
	for _, x := range [][2]uint32{{none, 5}, {5, none}, {none, none}} {
		if sw, err := As(x[0], x[1]); err != unix.EINVAL || sw.active {
			t.Errorf("%v: %v", x, err)
		}
	}
	if ids(t) != before || effective(t) != caps {
		t.Errorf("a failed As left %s %x", ids(t), effective(t))
	}
}

func TestAsWithoutTheCapability(t *testing.T) {
	needRoot(t)
	onThread(func() {
		if err := dropThread(unix.CAP_SETUID); err != nil {
			t.Error(err)
			return
		}
		before := ids(t)
		if _, err := As(5, 6); err != unix.EPERM {
			t.Errorf("error %v, want EPERM", err)
		}
		if after := ids(t); after != before {
			t.Errorf("ids %s, were %s", after, before)
		}
	})
}

// Capabilities that the thread has given up do not come back by a switch: the
// kernel raises the file system ones when the uid returns to 0.
func TestAsDoesNotRaiseCapabilities(t *testing.T) {
	eachThread(t, func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			c, err := threadCaps()
			if err == nil {
				c[0].Effective &^= 1 << unix.CAP_FOWNER // stays permitted
				err = c.apply()
			}
			if err != nil {
				t.Error(err)
				return
			}
			want := c.effective()
			sw, err := As(5, 6)
			if err != nil {
				t.Error(err)
				return
			}
			during := effective(t)
			sw.Restore()
			if during != want || effective(t) != want {
				t.Errorf("capabilities %x, during %x, after %x", want, during, effective(t))
			}
		}()
		<-done
	})
}

// Threads switch to different ids at once and each gets its own.
func TestAsIsPerThread(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range uint32(8) {
		wg.Go(func() {
			id := 1000 + w
			if w == 0 {
				id = ownUID // this one never switches
			}
			for i := range 100 {
				sw, err := As(id, id)
				if err != nil {
					t.Error(err)
					return
				}
				uid, gid := create(t, filepath.Join(dir, fmt.Sprintf("%d-%d", id, i)))
				sw.Restore()
				if uid != id || gid != id {
					t.Errorf("owner %d:%d, want %d", uid, gid, id)
					return
				}
			}
		})
	}
	wg.Wait()
	if uid, _ := create(t, filepath.Join(dir, "after")); uid != ownUID {
		t.Errorf("owner after all %d", uid)
	}
}

// A thread that cannot go back ends, and its goroutine with it, whatever the
// goroutine recovers and unlocks.
func TestRestoreThatFailsEndsTheThread(t *testing.T) {
	needRoot(t)
	victim := spareCap(t)
	done := make(chan int)
	went := false
	go func() {
		tid := 0
		defer func() { done <- tid }()
		defer func() { _ = recover() }()
		defer runtime.UnlockOSThread()
		runtime.LockOSThread()
		tid = unix.Gettid()
		sw, err := As(5, 6)
		if err != nil {
			t.Error(err)
			return
		}
		// With less permitted than before, Restore cannot give back what As
		// found.
		if err := dropThread(victim); err != nil {
			t.Error(err)
			return
		}
		sw.Restore()
		went = true
	}()
	tid := <-done
	if went {
		t.Fatal("went on after a Restore that failed")
	}
	task := fmt.Sprintf("/proc/self/task/%d", tid)
	for range 12_000 { // a minute
		if _, err := os.Stat(task); err != nil {
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
	}
	t.Errorf("thread %d lives on", tid)
}

func BenchmarkAs(b *testing.B) {
	needRoot(b)
	b.Run("own", func(b *testing.B) { benchAs(b, ownUID, ownGID) })
	b.Run("ordinary", func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		benchAs(b, 1000, 1000)
	})
	b.Run("prepared", func(b *testing.B) {
		onThread(func() {
			if err := PrepareThread(); err != nil {
				b.Error(err)
				return
			}
			benchAs(b, 1000, 1000)
		})
	})
}

func benchAs(b *testing.B, uid, gid uint32) {
	b.ReportAllocs()
	for b.Loop() {
		sw, err := As(uid, gid)
		if err != nil {
			b.Fatal(err)
		}
		sw.Restore()
	}
}
