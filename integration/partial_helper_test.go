// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a test of partial files says at the mount.
const (
	copyUpPartial = "copyup=partial"
	copyUpWhole   = "copyup=whole"
	neverComplete = "complete_rate=0" // nothing is completed behind the test's back
)

// xattrOrigin is where upper files say of which lower file they are a copy.
const xattrOrigin = "trusted.plyfs.origin"

// partialOptions are options of plyfs, and none for another system.
func partialOptions(options ...string) []string {
	if sut != sutPlyfs {
		return nil
	}
	return options
}

// requirePartial skips what only plyfs has.
func requirePartial(t testing.TB) {
	t.Helper()
	requirePlyfs(t, "partial files")
	requireRoot(t)
}

// originMark is what stands on an upper file about its origin.
type originMark struct {
	version byte // 1: whole; 2: partial; 3: partial, and it may have been cut
	layer   uint32
	ino     uint64
	limit   int64  // of a partial file
	path    string // of its lower file, if it is told
}

// readOrigin reads the mark of an upper file; ok is unset if it has none.
func readOrigin(t testing.TB, path string) (m originMark, ok bool) {
	t.Helper()
	v, err := lgetxattr(path, xattrOrigin)
	if errors.Is(err, unix.ENODATA) {
		return m, false
	}
	must(t, err)
	b := []byte(v)
	if len(b) < 13 || b[0] > 1 && len(b) < 25 {
		t.Fatalf("%s: %s is %x", path, xattrOrigin, b)
	}
	m = originMark{version: b[0], layer: binary.BigEndian.Uint32(b[1:]), ino: binary.BigEndian.Uint64(b[5:])}
	if m.version > 1 { // after the limit there is a sum, see stack/mark.go
		m.limit, m.path = int64(binary.BigEndian.Uint64(b[13:])), string(b[25:])
	}
	return m, true
}

// wantPartial expects that an upper file is partial.
func (u *union) wantPartial(p string) originMark {
	u.Helper()
	m, ok := readOrigin(u, filepath.Join(u.upper, p))
	if !ok || m.version < 2 {
		u.Errorf("%s is not marked partial: %+v", p, m)
	}
	return m
}

// wantWhole expects that an upper file is whole: it is not marked partial, and
// shows by itself what the mount shows.
func (u *union) wantWhole(p string, content []byte) {
	u.Helper()
	path := filepath.Join(u.upper, p)
	if m, ok := readOrigin(u, path); ok && m.version != 1 {
		u.Errorf("%s is still marked partial: %+v", p, m)
	}
	got, err := readAll(path, 0)
	must(u, err)
	if d := firstDifference(content, got); d != "" {
		u.Errorf("%s in upper: %s", p, d)
	}
}

// complete makes the path whole by the command.
func (u *union) complete(p ...string) {
	u.Helper()
	if out, err := plyfs("complete", u.path(p...)); err != nil {
		u.Fatalf("plyfs complete %s: %v\n%s", u.path(p...), err, out)
	}
}

// takes is the bytes that a file takes on the disk.
func takes(t testing.TB, path string) int64 {
	t.Helper()
	st := lstat(t, path)
	return st.Blocks * 512
}

// usage is the bytes that all files below a directory take, as du counts.
func usage(t testing.TB, dir string) int64 {
	t.Helper()
	out := run(t, "", "du", "-sk", dir)
	n, err := strconv.ParseInt(strings.Fields(out)[0], 10, 64)
	must(t, err)
	return n << 10
}

// readAll reads a file by descriptor; the flags are those of open.
func readAll(path string, flags int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	defer unix.Close(fd)
	return readFD(fd)
}

// readFD reads all of an open file, whatever its offset, into memory that is
// aligned for O_DIRECT. It does not read across the block in which the file
// ends: xfs answers EIO to O_DIRECT there while what it has allocated behind
// the end of a cloned file has no place on the disk yet.
func readFD(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	buf := alignedBuffer(int(st.Size))
	n := 0
	for n < len(buf) {
		k, err := unix.Pread(fd, buf[n:], int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading at %d: %w", n, err)
		}
		if n += k; k == 0 || n%blockSize != 0 { // O_DIRECT does not go on from there
			return buf[:n], nil
		}
	}
	if k, err := unix.Pread(fd, alignedBuffer(blockSize), int64(n)); k != 0 || err != nil {
		return nil, fmt.Errorf("the file of %d bytes goes on for %d: %w", st.Size, k, err)
	}
	return buf[:n], nil
}

// readMapped reads a file through a mapping.
func readMapped(path string) (b []byte, err error) {
	defer catchFault(&err)()
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size == 0 {
		return nil, err
	}
	m, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(m)
	return append(make([]byte, 0, len(m)), m...), nil
}

// blockSize is the unit in which holes come, and of O_DIRECT.
const blockSize = 4096

// alignedBuffer is memory for O_DIRECT.
func alignedBuffer(n int) []byte {
	n = max((n+blockSize-1)/blockSize*blockSize, blockSize)
	b := make([]byte, n+blockSize)
	skip := (blockSize - int(uintptr(unsafe.Pointer(&b[0]))%blockSize)) % blockSize
	return b[skip : skip+n]
}

// firstDifference tells where two contents differ, "" if nowhere.
func firstDifference(want, got []byte) string {
	if string(want) == string(got) {
		return ""
	}
	n := min(len(want), len(got))
	for i := range n {
		if want[i] != got[i] {
			end := i
			for end < n && want[end] != got[end] {
				end++
			}
			return fmt.Sprintf("from byte %d to %d (of %d; block %d+%d): want %x..., got %x...", i, end, len(want), i/blockSize, i%blockSize,
				want[i:min(i+8, n)], got[i:min(i+8, n)])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, limit)
		}
	}
}
