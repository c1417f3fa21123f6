// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMmapShared: two mappings of one file see each other's writes, and
// read(2) sees them too.
func TestMmapShared(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{lowers: [][]string{{"f=#20000"}}, options: []string{"io=" + mode}})
		a, b := openRW(t, u.path("f")), openRW(t, u.path("f"))
		ma := mapFile(t, a, 20000, unix.PROT_READ|unix.PROT_WRITE)
		mb := mapFile(t, b, 20000, unix.PROT_READ|unix.PROT_WRITE)
		copy(ma[5000:], "from a")
		copy(mb[15000:], "from b")
		if !bytes.Equal(ma, mb) {
			t.Error("the mappings differ")
		}
		got := make([]byte, 6)
		_, err := unix.Pread(a, got, 15000)
		must(t, err)
		if string(got) != "from b" {
			t.Errorf("read %q", got)
		}
		must(t, unix.Msync(ma, unix.MS_SYNC))
		want := pattern(20000, 20000)
		copy(want[5000:], "from a")
		copy(want[15000:], "from b")
		wantFile(t, u.path("f"), string(want))
		u.checkFileInUpper("f", want)
	})
}

// checkFileInUpper expects the contents in the upper directory itself.
func (u *union) checkFileInUpper(name string, want []byte) {
	u.Helper()
	wantFile(u, u.upper+"/"+name, string(want))
}

func mapFile(t *testing.T, fd, size, prot int) []byte {
	t.Helper()
	m, err := unix.Mmap(fd, 0, size, prot, unix.MAP_SHARED)
	must(t, err)
	t.Cleanup(func() { unix.Munmap(m) })
	return m
}

// TestMmapAfterClose: a mapping outlives its descriptor, the name and a
// write-back.
func TestMmapAfterClose(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{lowers: [][]string{{"f=#20000", "g=#20000"}}, options: []string{"io=" + mode}})
		fd, err := unix.Open(u.path("f"), unix.O_RDWR, 0)
		must(t, err)
		m, err := unix.Mmap(fd, 0, 20000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		unix.Close(fd)
		copy(m[10000:], "late")
		must(t, os.Rename(u.path("f"), u.path("f2")))
		must(t, unix.Msync(m, unix.MS_SYNC))
		must(t, os.Remove(u.path("f2")))
		copy(m, "gone")
		if string(m[:4]) != "gone" || string(m[10000:10004]) != "late" {
			t.Error("the mapping lost its contents")
		}
		must(t, unix.Munmap(m))
	})
}

// TestMmapExecute runs a program and its libraries from a lower layer, and
// again after a copy-up.
func TestMmapExecute(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		dir := tempDir(t)
		l := makeTree(t, dir+"/l/bin", nil)
		run(t, "", "cp", "/bin/ls", l+"/ls")
		u := newMount(t, mountOpts{dir: dir, lowerDirs: []string{dir + "/l"}, options: []string{"io=" + mode}})
		for range 2 {
			out, err := exec.Command(u.path("bin/ls"), u.path("bin")).CombinedOutput()
			if err != nil || string(out) != "ls\n" {
				t.Fatalf("running a program of the mount: %v: %s", err, out)
			}
			must(t, os.Chmod(u.path("bin/ls"), 0o755))
			must(t, withFile(u.path("bin/ls"), os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
				_, err := f.Write([]byte{0})
				return err
			}))
		}
	})
}

// TestMmapCoherent: under io=coherent a mapping made before the copy-up sees
// what is written after it.
func TestMmapCoherent(t *testing.T) {
	requirePlyfs(t, "mappings that see writes after a copy-up")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=#20000"}}, options: []string{"io=" + ioCoherent}})
	fd, err := unix.Open(u.path("f"), unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(fd)
	m := mapFile(t, fd, 20000, unix.PROT_READ)
	if !bytes.Equal(m, pattern(20000, 20000)) {
		t.Fatal("wrong contents before the copy-up")
	}
	must(t, withFile(u.path("f"), os.O_RDWR, func(f *os.File) error {
		_, err := f.WriteAt([]byte("after"), 9000)
		return err
	}))
	if string(m[9000:9005]) != "after" {
		t.Error("the mapping does not see the write after the copy-up")
	}
}
