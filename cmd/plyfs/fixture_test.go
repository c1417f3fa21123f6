// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// requireRoot skips where mounting is not allowed.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("mounting needs /dev/fuse:", err)
	}
}

// publicDir makes a directory that other users may enter, with directories in
// it.
func publicDir(t testing.TB, names ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "plyfs-cmd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		detachAll(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := os.MkdirAll(filepath.Join(dir, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// detachAll takes away what a failed test has left mounted.
func detachAll(dir string) {
	mounts, _ := plyfsMounts()
	for _, m := range mounts {
		if strings.HasPrefix(m.Mountpoint, dir+"/") {
			_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
		}
	}
}

// layersDir makes the layers of a mount with two lowers.
func layersDir(t testing.TB) string {
	t.Helper()
	requireRoot(t)
	dir := publicDir(t, "a/d", "b", "u", "w", "m")
	write(t, dir+"/a/f", "lower a")
	write(t, dir+"/a/d/g", "deep")
	write(t, dir+"/b/f", "lower b")
	write(t, dir+"/b/h", "lower b too")
	return dir
}

// options are the options of such a mount, with relative paths.
const layerOptions = "lowerdir=a:b,upperdir=u,workdir=w"

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wantFile expects a file's content.
func wantFile(t testing.TB, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s: %q, %v; want %q", path, b, err, want)
	}
}

// wantGone expects that there is no such path.
func wantGone(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s is there: %v", path, err)
	}
}

// wantMounted expects whether a plyfs mount is at a path.
func wantMounted(t testing.TB, path string, want bool) {
	t.Helper()
	p, err := locate(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.FSType == fsType && p.isRoot(); got != want {
		t.Errorf("%s: mounted %v, want %v", path, got, want)
	}
}

// patience is for what certainly comes, on a busy machine late.
const patience = time.Minute

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Errorf("in vain waited for: %s", what)
}

// alive says whether a process lives and is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// copyExecutable copies the test binary to where other users may run it.
func copyExecutable(t testing.TB, to string) {
	t.Helper()
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// asUser runs a process as another user.
func asUser(id uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}

// start starts a call that runs beside the test.
func start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
