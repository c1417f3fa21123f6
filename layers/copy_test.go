// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sparse makes a file of that length with data in some of its 64 KiB blocks.
func sparse(t *testing.T, name string, size int64) *os.File {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, f.Truncate(size)) // first: see CopyData about xfs
	r := rand.New(rand.NewPCG(1, uint64(size)))
	for off := int64(0); off < size; off += 64 << 10 {
		if r.IntN(3) == 0 {
			data := make([]byte, min(64<<10, size-off))
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			_, err := f.WriteAt(data, off)
			must(t, err)
		}
	}
	return f
}

// dataBytes is how much of the file is data, not holes, once it is on disk.
func dataBytes(t *testing.T, f *os.File) (sum int64) {
	t.Helper()
	must(t, f.Sync())
	for off := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return sum
		}
		must(t, err)
		off, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		must(t, err)
		sum += off - from
	}
}

func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	must(t, err)
	return b
}

var copyWays = map[string]CopyOptions{
	"any":    {},
	"kernel": {NoReflink: true},
	"hand":   {NoReflink: true, NoCopyRange: true},
}

func TestCopyData(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		for _, size := range []int64{0, 1, 4096, 64<<10 + 7, 3<<20 + 1, 20 << 20} {
			src := sparse(t, filepath.Join(dir, "src"), size)
			for way, o := range copyWays {
				dst, err := os.Create(filepath.Join(dir, "dst"))
				must(t, err)
				n, how, err := CopyData(int(dst.Fd()), int(src.Fd()), size, o)
				if err != nil || n != size {
					t.Fatalf("%s, %d: %d %v", way, size, n, err)
				}
				if !bytes.Equal(content(t, src), content(t, dst)) {
					t.Errorf("%s, %d: content differs", way, size)
				}
				if a, b := dataBytes(t, src), dataBytes(t, dst); a != b {
					t.Errorf("%s, %d: %d bytes of data became %d", way, size, a, b)
				}
				checkHow(t, way, how, size)
				dst.Close()
			}
			src.Close()
		}
	})
}

// checkHow: each way is really the one that was asked for.
func checkHow(t *testing.T, way, how string, size int64) {
	t.Helper()
	fs := filepath.Base(t.Name())
	if fs == "temp" || size == 0 {
		return
	}
	want := map[string]string{"any": CopiedByKernel, "kernel": CopiedByKernel, "hand": CopiedByHand}[way]
	if way == "any" && fs == "xfs" {
		want = CopiedByReflink
	}
	if how != want {
		t.Errorf("%s on %s: by %s", way, fs, how)
	}
}

func TestCopyDataAcrossFileSystems(t *testing.T) {
	needRoot(t)
	src := sparse(t, filepath.Join(tmpfs(t), "src"), 5<<20+3)
	dst, err := os.Create(filepath.Join(loop(t, "ext4", 64<<20, "-q", "-b", "4096"), "dst"))
	must(t, err)
	defer dst.Close()
	n, how, err := CopyData(int(dst.Fd()), int(src.Fd()), 5<<20+3, CopyOptions{})
	must(t, err)
	if n != 5<<20+3 || how != CopiedByHand || !bytes.Equal(content(t, src), content(t, dst)) {
		t.Errorf("%d bytes by %s", n, how)
	}
	if a, b := dataBytes(t, src), dataBytes(t, dst); a != b {
		t.Errorf("%d bytes of data became %d", a, b)
	}
}

// size is the limit; a source that is shorter ends the copy.
func TestCopyDataSizes(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		const length = 1<<20 + 5
		src := sparse(t, filepath.Join(dir, "src"), length)
		want := content(t, src)
		for way, o := range copyWays {
			for _, size := range []int64{0, 1, 100<<10 + 1, length - 1, length + 1, 1 << 40} {
				dst, err := os.Create(filepath.Join(dir, "dst"))
				must(t, err)
				n, _, err := CopyData(int(dst.Fd()), int(src.Fd()), size, o)
				must(t, err)
				if n != min(size, length) || !bytes.Equal(content(t, dst), want[:n]) {
					t.Errorf("%s, size %d: copied %d", way, size, n)
				}
				dst.Close()
			}
		}
	})
}

func TestCopyDataCancel(t *testing.T) {
	dir := t.TempDir()
	src, err := os.Create(filepath.Join(dir, "src"))
	must(t, err)
	defer src.Close()
	_, err = src.Write(make([]byte, 100<<10))
	must(t, err)
	dst, err := os.Create(filepath.Join(dir, "dst"))
	must(t, err)
	defer dst.Close()
	cancel := make(chan struct{})
	close(cancel)
	o := CopyOptions{NoReflink: true, Cancel: cancel}
	n, _, err := CopyData(int(dst.Fd()), int(src.Fd()), 100<<10, o)
	wantErr(t, err, unix.EINTR)
	if n != 0 {
		t.Errorf("%d bytes", n)
	}
}

func TestCopyDataErrors(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	must(t, err)
	defer f.Close()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	_, _, err = CopyData(int(f.Fd()), int(d.Fd()), 1, CopyOptions{})
	wantErr(t, err, unix.EINVAL)
	_, _, err = CopyData(int(f.Fd()), int(f.Fd()), -1, CopyOptions{})
	wantErr(t, err, unix.EINVAL)
	_, err = f.WriteString("data")
	must(t, err)
	ro, err := os.Open(filepath.Join(dir, "f"))
	must(t, err)
	defer ro.Close()
	for way, o := range copyWays {
		if _, _, err = CopyData(int(ro.Fd()), int(f.Fd()), 4, o); err == nil {
			t.Errorf("%s: wrote to a file open for reading", way)
		}
	}
}

// A full file system is reported, not half a file.
func TestCopyDataNoSpace(t *testing.T) {
	needRoot(t)
	small := filepath.Join(t.TempDir(), "small")
	mount(t, "tmpfs", small, "tmpfs", "size=1m")
	src, err := os.Create(filepath.Join(t.TempDir(), "src"))
	must(t, err)
	defer src.Close()
	_, err = src.WriteString(strings.Repeat("x", 2<<20))
	must(t, err)
	dst, err := os.Create(small + "/dst")
	must(t, err)
	defer dst.Close()
	n, _, err := CopyData(int(dst.Fd()), int(src.Fd()), 2<<20, CopyOptions{})
	wantErr(t, err, unix.ENOSPC)
	if n >= 2<<20 {
		t.Errorf("%d bytes", n)
	}
}
