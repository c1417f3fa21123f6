// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const tebibyte = 1 << 40

// quick is more than what a change of a huge file may take on a busy machine, and
// much less than reading or writing such a file takes on any.
const quick = 20 * time.Second

// TestPartialTebibyte changes a sparse lower file of 1 TiB: that takes a moment
// and some blocks, whatever the size.
func TestPartialTebibyte(t *testing.T) {
	requirePartial(t)
	for _, fs := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		t.Run(fs, func(t *testing.T) {
			dir := newFS(t, fs, 900)
			h := newHuge(t, dir)
			h.write(tebibyte/2+5000, "in the middle")
			h.write(tebibyte-10, "at the end")
			h.write(tebibyte-1, "x")
			h.write(tebibyte+100_000, "behind the end")
			h.timed("seek", func() error { return h.seek(0, hugeData) })
			h.timed("seek over the hole", func() error { return h.seek(hugeData+1<<20, tebibyte/4) })
			h.timed("cut", func() error { return os.Truncate(h.path("f"), tebibyte/2+1) })
			h.timed("grow", func() error { return os.Truncate(h.path("f"), 2*tebibyte) })
			h.want(tebibyte/2+5000, "\x00\x00\x00\x00")
			h.want(tebibyte-10, "\x00\x00\x00\x00")
			h.want(hugeData, "data")
			h.timed("punch", func() error {
				return withFile(h.path("f"), os.O_RDWR, func(f *os.File) error {
					return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 2*hugeData, tebibyte)
				})
			})
			h.want(hugeData, "data")
			h.want(tebibyte/4, "\x00\x00")
			h.wantCheap()
			h.timed("complete", func() error { h.complete("f"); return nil })
			h.wantCheap()
			h.remount()
			h.want(hugeData, "data")
			if st := lstat(t, h.path("f")); st.Size != 2*tebibyte {
				t.Errorf("%d bytes", st.Size)
			}
		})
	}
}

// hugeData is where the file has data before the first write, and once more at
// a quarter.
const hugeData = 1 << 30

type huge struct{ *union }

func newHuge(t *testing.T, dir string) *huge {
	l := makeTree(t, dir+"/l", []string{fmt.Sprintf("f=@%d", int64(tebibyte))})
	must(t, withFile(l+"/f", os.O_WRONLY, func(f *os.File) error {
		for _, off := range []int64{hugeData, tebibyte / 4} {
			if _, err := f.WriteAt([]byte("data"), off); err != nil {
				return err
			}
		}
		return nil
	}))
	before := lstat(t, l+"/f")
	u := newMount(t, mountOpts{lowerDirs: []string{l}, upperDir: makeTree(t, dir+"/rw", nil),
		options: partialOptions(copyUpPartial, neverComplete), noLowerCheck: true}) // nobody reads 1 TiB for that
	t.Cleanup(func() {
		if after := lstat(t, l+"/f"); after.Mtim != before.Mtim || after.Ctim != before.Ctim || after.Blocks != before.Blocks {
			t.Errorf("A LOWER LAYER CHANGED: %+v, before %+v", after, before)
		}
	})
	return &huge{u}
}

// timed does something that must be quick.
func (h *huge) timed(what string, f func() error) {
	h.Helper()
	start := time.Now()
	if err := f(); err != nil {
		h.Errorf("%s: %v", what, err)
	}
	took := time.Since(start)
	h.Logf("%s: %v", what, took)
	if took > quick {
		h.Errorf("%s took %v", what, took)
	}
}

func (h *huge) write(off int64, s string) {
	h.Helper()
	h.timed(fmt.Sprintf("write at %d", off), func() error {
		return withFile(h.path("f"), os.O_RDWR, func(f *os.File) error {
			_, err := f.WriteAt([]byte(s), off)
			return err
		})
	})
	h.want(off, s)
	h.want(hugeData, "data")
	if st := lstat(h, h.path("f")); st.Size != max(tebibyte, off+int64(len(s))) {
		h.Errorf("%d bytes after a write at %d", st.Size, off)
	}
	h.wantCheap()
}

func (h *huge) want(off int64, s string) {
	h.Helper()
	must(h, withFile(h.path("f"), os.O_RDONLY, func(f *os.File) error {
		b := make([]byte, len(s))
		_, err := f.ReadAt(b, off)
		if string(b) != s {
			h.Errorf("at %d: %q, want %q", off, b, s)
		}
		return err
	}))
}

// seek looks for data.
func (h *huge) seek(from, want int64) error {
	return withFile(h.path("f"), os.O_RDONLY, func(f *os.File) error {
		got, err := unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
		if err == nil && (got > want || got < want-1<<20) {
			err = fmt.Errorf("SEEK_DATA from %d goes to %d, want %d", from, got, want)
		}
		return err
	})
}

// wantCheap expects that upper takes but some blocks.
func (h *huge) wantCheap() {
	h.Helper()
	if n := usage(h, h.upper); n > 1<<20 {
		h.Errorf("upper takes %d KiB", n>>10)
	}
}
