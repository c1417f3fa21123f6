// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func unixChmod(path string, mode uint32) error { return unix.Chmod(path, mode) }

// tmpfs mounts another file system for a layer.
func tmpfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

type dirent struct {
	name string
	ino  uint64
	off  int64
	typ  uint8
}

// dirents lists a directory by getdents64.
func dirents(t testing.TB, path string) []dirent {
	t.Helper()
	fd := openFD(t, path, unix.O_RDONLY|unix.O_DIRECTORY)
	defer fd.close()
	var out []dirent
	for {
		some := fd.getdents(64 << 10)
		if len(some) == 0 {
			return out
		}
		out = append(out, some...)
	}
}

// getdents reads on in a directory with a buffer of that size.
func (f *testFD) getdents(size int) (out []dirent) {
	f.t.Helper()
	buf := make([]byte, size)
	n, err := unix.Getdents(f.fd, buf)
	if err != nil {
		f.t.Fatalf("getdents %s: %v", f.path, err)
	}
	for b := buf[:n]; len(b) > 0; {
		l := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := bytes.Cut(b[19:l], []byte{0})
		out = append(out, dirent{name: string(name), ino: binary.NativeEndian.Uint64(b),
			off: int64(binary.NativeEndian.Uint64(b[8:])), typ: b[18]})
		b = b[l:]
	}
	return out
}
