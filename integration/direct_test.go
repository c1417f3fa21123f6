// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// openDirect opens a file with O_DIRECT and reads its beginning.
func openDirect(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(buf)
	n, err := unix.Read(fd, buf)
	return string(buf[:max(n, 0)]), err
}

// TestDirectRefused: on a layer whose file system has no direct I/O (squashfs,
// ramfs) an open with O_DIRECT is EINVAL, which programs know to go on from, and
// not EIO; a file that a chmod, rename or write has copied up has it as upper.
func TestDirectRefused(t *testing.T) {
	for _, fstype := range []string{"ramfs", "squashfs"} {
		t.Run(fstype, func(t *testing.T) {
			low := makeTree(t, filepath.Join(newFS(t, "ramfs", 0), "low"), []string{"f=lower", "chmod=lower", "held=lower", "moved=lower", "written=lower"})
			if fstype == "squashfs" {
				low = squash(t, low)
			}
			if _, err := openDirect(low + "/f"); err != unix.EINVAL {
				t.Fatalf("the lower file system has direct I/O: %v", err)
			}
			u := newMount(t, mountOpts{lowerDirs: []string{low}})
			for range 2 { // the first open, and one that joins it
				f, err := os.Open(u.path("f"))
				must(t, err)
				defer f.Close()
				_, err = openDirect(u.path("f"))
				wantErrno(t, "open with O_DIRECT of a lower file", err, unix.EINVAL)
			}
			must(t, os.Chmod(u.path("chmod"), 0o600))
			must(t, os.Chmod(u.path("held"), 0o600))
			held, err := os.Open(u.path("held"))
			must(t, err)
			defer held.Close()
			must(t, os.Rename(u.path("moved"), u.path("there")))
			must(t, withFile(u.path("written"), os.O_WRONLY, func(f *os.File) error {
				_, err := f.WriteString("w")
				return err
			}))
			for name, want := range map[string]string{"chmod": "lower", "held": "lower", "there": "lower", "written": "wower"} {
				if got, err := openDirect(u.path(name)); got != want || err != nil {
					t.Errorf("%s: %q, %v", name, got, err)
				}
			}
			buf := make([]byte, 10)
			if n, err := held.Read(buf); string(buf[:n]) != "lower" {
				t.Errorf("the descriptor opened before reads %q, %v", buf[:n], err)
			}
		})
	}
}

// TestDirectRefusedByUpper: where upper has no direct I/O, an open with O_DIRECT
// is EINVAL too, and nothing is in the way of another one without.
func TestDirectRefusedByUpper(t *testing.T) {
	u := newMount(t, mountOpts{dir: newFS(t, "ramfs", 0), lowers: [][]string{{"f=lower"}}})
	for _, name := range []string{"new", "f"} {
		_, err := unix.Open(u.path(name), unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0o644)
		wantErrno(t, "open with O_DIRECT", err, unix.EINVAL)
		must(t, os.WriteFile(u.path(name), []byte("written"), 0o644))
		wantFile(t, u.path(name), "written")
	}
}
