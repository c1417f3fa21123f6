// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layers/layertest"
)

// The main thread cannot end: a test that changes a thread's credential would
// leave it changed there, for all who look at the process. So tests get others.
func init() { runtime.LockOSThread() }

// TestMain lets the runtime open its own descriptors (epoll) before any test
// counts descriptors.
func TestMain(m *testing.M) {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	r.Close()
	w.Close()
	unix.Umask(0o022)
	undo := layertest.TempElsewhere()
	code := m.Run()
	undo()
	os.Exit(code)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts, trusted.* xattrs and ownership")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if got != want {
		t.Fatalf("error %v, want %v", got, want)
	}
}

func mount(t testing.TB, source, dir, fstype, options string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount(source, dir, fstype, 0, options); err != nil {
		t.Fatalf("mount -t %s -o %s: %v", fstype, options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
}

func tmpfs(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tmpfs")
	mount(t, "tmpfs", dir, "tmpfs", "mode=755")
	return dir
}

// loop makes a file system of that type in a file and mounts it.
func loop(t testing.TB, fstype string, size int64, mkfsArgs ...string) string {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs." + fstype)
	if err != nil {
		t.Skipf("mkfs.%s is not installed", fstype)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, size))
	if out, err := exec.Command(mkfs, append(mkfsArgs, image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
	mnt := filepath.Join(dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	out, err := exec.Command("mount", "-o", "loop", image, mnt).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "loop") {
			t.Skipf("no loop device here: %s", out)
		}
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", mnt, err, out)
		}
	})
	return mnt
}

// eachFS runs a test in an empty directory of each kind of file system.
func eachFS(t *testing.T, test func(t *testing.T, dir string)) {
	needRoot(t)
	t.Run("temp", func(t *testing.T) { test(t, t.TempDir()) })
	t.Run("tmpfs", func(t *testing.T) { test(t, tmpfs(t)) })
	t.Run("ext4", func(t *testing.T) { test(t, loop(t, "ext4", 64<<20, "-q", "-b", "4096")) })
	t.Run("xfs", func(t *testing.T) { test(t, loop(t, "xfs", 300<<20, "-q")) })
}

// upper opens dir as a writable layer, closed at the end of the test, with a
// look for descriptors left open.
func upper(t testing.TB, dir string, max int) *Layer {
	t.Helper()
	before := openFDs(t)
	c := NewCache(max)
	l, err := OpenUpper(dir, c)
	must(t, err)
	t.Cleanup(func() {
		must(t, l.Close())
		c.Close()
		if n := c.Len(); n != 0 {
			t.Errorf("%d descriptors in the cache after Close", n)
		}
		if after := openFDs(t); after != before {
			t.Errorf("%d descriptors open, %d before the test", after, before)
		}
	})
	return l
}

func lower(t testing.TB, dir string) *Layer {
	t.Helper()
	c := NewCache(16)
	l, err := OpenLower(dir, 1, c)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()); c.Close() })
	return l
}

func openFDs(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

// write makes the file name with the content.
func write(t testing.TB, d *Dir, name, content string) {
	t.Helper()
	fd, err := d.Open(name, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY, 0o644)
	must(t, err)
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(content))
	must(t, err)
}

func read(t testing.TB, d *Dir, name string) string {
	t.Helper()
	fd, err := d.Open(name, unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(fd)
	buf := make([]byte, 1<<16)
	n, err := unix.Read(fd, buf)
	must(t, err)
	return string(buf[:n])
}

func stat(t testing.TB, d *Dir, name string) (st unix.Stat_t) {
	t.Helper()
	must(t, d.Stat(name, &st))
	return st
}
