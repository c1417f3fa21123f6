// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemountHung: a daemon that is killed while the kernel drops pages for it
// stays there, for one of the pages belongs to a READ that it was about to
// answer: the mount hangs, and the same command cleans it up. The lower layer is
// a plyfs mount whose daemon is stopped meanwhile, so that the READ takes long.
func TestRemountHung(t *testing.T) {
	requirePlyfs(t, "a daemon to kill")
	low := newMount(t, mountOpts{lowers: [][]string{{"f=#5000000", "gone=lower"}}, options: []string{"passthrough=off"}})
	u := newMount(t, mountOpts{lowerDirs: []string{low.mp}, noLowerCheck: true,
		options: []string{"passthrough=off", "copyup=partial", "complete_rate=0"}})
	must(t, os.WriteFile(u.path("new"), []byte("new"), 0o644))
	must(t, os.Remove(u.path("gone")))
	f, err := os.OpenFile(u.path("f"), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}

	must(t, unix.Kill(low.pid, unix.SIGSTOP))
	t.Cleanup(func() { _ = unix.Kill(low.pid, unix.SIGCONT) })
	read := make(chan error, 1)
	go func() {
		_, err := f.ReadAt(make([]byte, 100), 3_000_000)
		read <- err
	}()
	// Only a READ that waits for the lower layer holds its page when the daemon drops it.
	waitFor(t, "the READ waits for the lower layer", patience, func() bool { return inKernel(u.pid, "_sys_pread64") })
	sync := exec.Command(plyfsBin, "sync", u.mp)
	must(t, sync.Start())
	t.Cleanup(func() { _ = sync.Wait() })
	waitFor(t, "the daemon drops pages", patience, func() bool { return inKernel(u.pid, "invalidate_inode_pages2_range") })
	pid := u.pid
	must(t, unix.Kill(pid, unix.SIGKILL))
	must(t, unix.Kill(low.pid, unix.SIGCONT))
	waitFor(t, "the daemon is a zombie", patience, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && strings.Contains(string(b), ") Z ")
	})
	if !alive(pid) {
		t.Fatal("no thread of the daemon hangs: this test proves nothing")
	}
	u.again(deadLine, u.mountCommand())
	if err := <-read; err == nil {
		t.Error("the read that nobody answered has succeeded")
	}
	waitFor(t, "the killed daemon is gone", patience, func() bool { return !alive(pid) })
	must(t, f.Close())
}

// inKernel tells whether a thread of a process is in a function of the kernel.
func inKernel(pid int, function string) bool {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stack", pid, task.Name()))
		if strings.Contains(string(b), function) {
			return true
		}
	}
	return false
}
