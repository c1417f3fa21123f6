// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Every way of reading shows the plan and nothing else.
func TestPlanMountedReads(t *testing.T) {
	eachView(t, func(t *testing.T, m *mounted, view string) {
		wantListedSize(t, m, "f", int64(len(view)))
		f := openFD(t, m.path("f"), unix.O_RDONLY)
		wantContent(t, "the file", f, view)
		wantPreads(t, f, view)
		for name, read := range waysToRead {
			got, err := read(t, m, f, len(view))
			if err != nil || got != view {
				i := 0
				for i < min(len(got), len(view)) && got[i] == view[i] {
					i++
				}
				t.Errorf("%s: %d bytes, want %d, they differ at %d; %v", name, len(got), len(view), i, err)
			}
		}
		wantNoHoles(t, f, int64(len(view)))
		out := openFD(t, m.path("out"), unix.O_RDWR|unix.O_CREAT)
		if err := unix.IoctlFileClone(out.fd, f.fd); err == nil {
			t.Error("FICLONE succeeds")
		}
		outside := openFD(t, t.TempDir()+"/clone", unix.O_RDWR|unix.O_CREAT)
		if err := unix.IoctlFileClone(outside.fd, f.fd); err == nil {
			t.Error("FICLONE to outside succeeds")
		}
		wantContent(t, "a refused clone", out, "")
		wantContent(t, "a refused clone outside", outside, "")
		if n := m.count.wrong.Load(); n != 0 {
			t.Errorf("%d wrong answers", n)
		}
	})
}

// wantListedSize looks at the size as a listing with attributes shows it,
// before anything else asks for it.
func wantListedSize(t *testing.T, m *mounted, rel string, want int64) {
	t.Helper()
	names(t, filepath.Dir(m.path(rel)))
	if st := statOf(t, m.path(rel)); st.Size != want {
		t.Errorf("%s: size %d, want %d", rel, st.Size, want)
	}
	var stx unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, m.path(rel), 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stx))
	if int64(stx.Size) != want {
		t.Errorf("%s: statx size %d, want %d", rel, stx.Size, want)
	}
}

// wantPreads reads around every boundary that there may be.
func wantPreads(t *testing.T, f *testFD, view string) {
	t.Helper()
	size := int64(len(view))
	for _, off := range []int64{0, 1, 9, 10, 11, secretFrom - 1, secretFrom, secretAt, 4095, 4096, secretFrom + secretLen - 1,
		secretFrom + secretLen, secretFrom + secretLen + 1, size - 1, size, size + 1, size + 5000, 1 << 40} {
		for _, n := range []int{0, 1, 2, 100, 4096, 5000, 30000} {
			buf := make([]byte, n)
			got, err := unix.Pread(f.fd, buf, off)
			want := view[min(off, size):min(off+int64(n), size)]
			if err != nil || string(buf[:got]) != want {
				t.Errorf("pread of %d at %d: %d bytes, %v; want %d", n, off, got, err, len(want))
			}
		}
	}
}

// wantNoHoles: where a backing file has holes is not shown.
func wantNoHoles(t *testing.T, f *testFD, size int64) {
	t.Helper()
	for _, off := range []int64{0, 1, 5000, size - 1} {
		if at, err := unix.Seek(f.fd, off, unix.SEEK_DATA); err != nil || at != off {
			t.Errorf("SEEK_DATA from %d: %d, %v", off, at, err)
		}
		if at, err := unix.Seek(f.fd, off, unix.SEEK_HOLE); err != nil || at != size {
			t.Errorf("SEEK_HOLE from %d: %d, %v; want %d", off, at, err, size)
		}
	}
	for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
		if at, err := unix.Seek(f.fd, size, whence); err != unix.ENXIO {
			t.Errorf("seek %d at the end: %d, %v", whence, at, err)
		}
	}
	if at, err := unix.Seek(f.fd, 0, unix.SEEK_END); err != nil || at != size {
		t.Errorf("SEEK_END: %d, %v; want %d", at, err, size)
	}
}

// waysToRead are ways to read a whole file.
var waysToRead = map[string]func(t *testing.T, m *mounted, f *testFD, size int) (string, error){
	"O_DIRECT": readDirect,
	"mmap private": func(t *testing.T, _ *mounted, f *testFD, n int) (string, error) {
		return readMapped(t, f, n, unix.MAP_PRIVATE)
	},
	"mmap shared": func(t *testing.T, _ *mounted, f *testFD, n int) (string, error) {
		return readMapped(t, f, n, unix.MAP_SHARED)
	},
	"splice": readSpliced,
	"sendfile": func(t *testing.T, _ *mounted, f *testFD, _ int) (string, error) {
		return readInto(t, t.TempDir()+"/sent", func(dst int) (int, error) {
			off := int64(0)
			return untilEnd(func() (int, error) { return unix.Sendfile(dst, f.fd, &off, 1<<20) })
		})
	},
	"copy_file_range": func(t *testing.T, m *mounted, f *testFD, _ int) (string, error) {
		return readInto(t, m.path("copied"), func(dst int) (int, error) {
			off := int64(0)
			return untilEnd(func() (int, error) { return unix.CopyFileRange(f.fd, &off, dst, nil, 1<<20, 0) })
		})
	},
	"copy_file_range, bytes to a copy outside": func(t *testing.T, _ *mounted, f *testFD, n int) (string, error) {
		return readInto(t, t.TempDir()+"/copied", func(dst int) (int, error) {
			off := int64(0)
			k, err := untilEnd(func() (int, error) { return unix.CopyFileRange(f.fd, &off, dst, nil, 1<<20, 0) })
			if err == unix.EXDEV { // as between any two kinds of file systems
				off = 0
				return untilEnd(func() (int, error) { return unix.Sendfile(dst, f.fd, &off, 1<<20) })
			}
			return k, err
		})
	},
	"by descriptor": func(t *testing.T, _ *mounted, f *testFD, _ int) (string, error) {
		return tryRead(fmt.Sprintf("/proc/self/fd/%d", f.fd))
	},
	"another open": func(t *testing.T, _ *mounted, f *testFD, _ int) (string, error) { return tryRead(f.path) },
	"cat": func(t *testing.T, _ *mounted, f *testFD, _ int) (string, error) {
		out, err := exec.Command("cat", f.path).Output()
		return string(out), err
	},
	"readv": func(t *testing.T, _ *mounted, f *testFD, n int) (string, error) {
		a, b := make([]byte, secretAt+5), make([]byte, n)
		k, err := unix.Preadv(f.fd, [][]byte{a, b}, 0)
		return string(append(a, b...)[:k]), err
	},
}

// untilEnd calls fn until it gives no more.
func untilEnd(fn func() (int, error)) (sum int, err error) {
	for {
		n, err := fn()
		if n <= 0 || err != nil {
			return sum, err
		}
		sum += n
	}
}

// readInto is what fn writes into a new file.
func readInto(t *testing.T, path string, fn func(dst int) (int, error)) (string, error) {
	t.Helper()
	dst := openFD(t, path, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC)
	defer dst.release()
	n, err := fn(dst.fd)
	if err != nil {
		return "", err
	}
	s := dst.content()
	if n != len(s) {
		t.Errorf("%d bytes are said to be copied, %d are there", n, len(s))
	}
	return s, nil
}

func readDirect(t *testing.T, m *mounted, f *testFD, size int) (string, error) {
	d, err := unix.Open(f.path, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(d)
	buf, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	defer func() { must(t, unix.Munmap(buf)) }()
	var out []byte
	for {
		n, err := unix.Pread(d, buf, int64(len(out)))
		if n <= 0 || err != nil {
			return string(out), err
		}
		out = append(out, buf[:n]...)
	}
}

func readMapped(t *testing.T, f *testFD, size, how int) (string, error) {
	b, err := unix.Mmap(f.fd, 0, size, unix.PROT_READ, how)
	if err != nil {
		return "", err
	}
	defer func() { must(t, unix.Munmap(b)) }()
	must(t, unix.Madvise(b, unix.MADV_POPULATE_READ))
	return string(b), nil
}

func readSpliced(t *testing.T, m *mounted, f *testFD, size int) (string, error) {
	var p [2]int
	must(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	var out []byte
	off := int64(0)
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Splice(f.fd, &off, p[1], nil, 16<<10, 0)
		if n <= 0 || err != nil {
			return string(out), err
		}
		for n > 0 {
			k, err := unix.Read(p[0], buf)
			if err != nil {
				return "", err
			}
			out = append(out, buf[:k]...)
			n -= int64(k)
		}
	}
}
