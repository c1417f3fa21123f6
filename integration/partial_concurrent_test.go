// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stampedSize  = 8 << 20
	stampedTime  = 3 * time.Second // of one way of writing, when PLYFS_LOAD_TIME is not set
	stampedIndex = 1<<24 - 1       // the bits of a stamp that say where it belongs
)

// A stamped file consists of words that tell where they belong, and which write
// they come from; those of the lower file come from write 1.
func stamp(word int64, seq uint64) uint64 { return seq<<24 | uint64(word) }

func putStamps(b []byte, off int64, seq uint64) {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], stamp((off+int64(i))/8, seq))
	}
}

// TestPartialConcurrent reads a file all the time, in several ways, while it is
// written and completed, in the background and by command. Each word that a
// reader sees was written there, and is not older than what he saw before.
func TestPartialConcurrent(t *testing.T) {
	requireRoot(t)
	d := stampedTime
	if s := os.Getenv("PLYFS_LOAD_TIME"); s != "" {
		long, err := time.ParseDuration(s)
		must(t, err)
		d = long / 8
	}
	for _, how := range []struct {
		name, fs, io string
		write        stampWriter
		unit         int64 // of writing
	}{
		{"pwrite", "ext4", ioPassthrough, stampPwrite, 8},
		{"mmap", "xfs", ioPassthrough, stampMapped, 8},
		{"pwrite coherent", "tmpfs", ioCoherent, stampPwrite, 8},
		{"O_DIRECT", "btrfs", ioPassthrough, stampDirect, blockSize},
	} {
		if sut == sutOverlay && how.io == ioCoherent {
			continue
		}
		t.Run(how.name, func(t *testing.T) {
			dir := newFS(t, how.fs, 900)
			l := makeTree(t, dir+"/l", nil)
			lower := make([]byte, stampedSize)
			putStamps(lower, 0, 1)
			must(t, os.WriteFile(l+"/f", lower, 0o644))
			u := newMount(t, mountOpts{lowerDirs: []string{l}, upperDir: makeTree(t, dir+"/rw", nil),
				options: partialOptions("io="+how.io, copyUpPartial, "complete_rate=4000000")})
			w := &stamped{union: u, unit: how.unit, content: lower, stop: make(chan struct{})}
			w.seq.Store(1)
			w.run(how.write, d)
		})
	}
}

// stamped is a file that is written and read at the same time.
type stamped struct {
	*union
	unit    int64
	content []byte        // what must be there in the end
	seq     atomic.Uint64 // of the write that began last
	reads   atomic.Int64
	stop    chan struct{}
	failed  atomic.Bool
	readers []*os.File
}

// A stampWriter makes a function that writes at an offset.
type stampWriter func(path string) (write func(b []byte, off int64) error, end func(), err error)

func stampPwrite(path string) (func([]byte, int64) error, func(), error) {
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	return func(b []byte, off int64) error { return pwriteAll(fd, b, off) }, func() { unix.Close(fd) }, err
}

// stampDirect writes blocks past the page cache.
func stampDirect(path string) (func([]byte, int64) error, func(), error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT, 0)
	return func(b []byte, off int64) error {
		buf := alignedBuffer(len(b))
		copy(buf, b)
		return pwriteAll(fd, buf[:len(b)], off)
	}, func() { unix.Close(fd) }, err
}

func stampMapped(path string) (func([]byte, int64) error, func(), error) {
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(fd)
	m, err := unix.Mmap(fd, 0, stampedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	n := 0
	return func(b []byte, off int64) error {
		copy(m[off:], b)
		if n++; n%16 == 0 {
			return unix.Msync(m, unix.MS_SYNC)
		}
		return nil
	}, func() { unix.Munmap(m) }, err
}

// run lets a writer, readers and completions work.
func (w *stamped) run(open stampWriter, d time.Duration) {
	path := w.path("f")
	write, end, err := open(path)
	must(w, err)
	var wg sync.WaitGroup
	for _, r := range []func(path string, off int64, b []byte) error{w.openReader(path, 0), w.openReader(path, unix.O_DIRECT), readStampsAnew, readStampsMapped} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w.read(r)
		}()
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		w.completeOften()
	}()
	for start := time.Now(); time.Since(start) < d && !w.failed.Load(); {
		w.write(write)
	}
	end()
	close(w.stop)
	wg.Wait()
	for _, f := range w.readers {
		f.Close()
	}
	w.Logf("%d writes, %d reads", w.seq.Load()-1, w.reads.Load())
	w.judge()
}

// write writes some words of a new number.
func (w *stamped) write(write func([]byte, int64) error) {
	unit := w.unit
	off := rand.Int64N(stampedSize) / unit * unit
	n := min((rand.Int64N(3*blockSize)+8)/unit*unit+unit, stampedSize-off)
	b := make([]byte, n)
	putStamps(b, off, w.seq.Add(1))
	copy(w.content[off:], b)
	if err := write(b, off); err != nil {
		w.fail("writing %d bytes at %d: %v", n, off, err)
	}
}

func (w *stamped) fail(format string, args ...any) {
	if !w.failed.Swap(true) {
		w.Errorf(format, args...)
	}
}

// read reads until the end. Each reader has one way: what another way shows
// need not be as new, for pages may be there before the daemon has them.
func (w *stamped) read(read func(path string, off int64, b []byte) error) {
	seen := make([]uint64, stampedSize/8)
	for i := range seen {
		seen[i] = 1
	}
	b := alignedBuffer(64 << 10)
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		off := rand.Int64N(stampedSize/blockSize) * blockSize
		n := min(stampedSize-off, (1+rand.Int64N(16))*blockSize)
		if err := read(w.path("f"), off, b[:n]); err != nil {
			w.fail("reading %d bytes at %d: %v", n, off, err)
			return
		}
		w.reads.Add(1)
		latest := w.seq.Load()
		for i := int64(0); i < n; i += 8 {
			v, word := binary.LittleEndian.Uint64(b[i:]), (off+i)/8
			seq := v >> 24
			if v&stampedIndex != uint64(word) || seq < seen[word] || seq > latest {
				w.fail("at %d: %#x, which is write %d of word %d; seen before: write %d, begun last: %d", off+i, v, seq, v&stampedIndex, seen[word], latest)
				return
			}
			seen[word] = seq
		}
	}
}

// openReader reads through a descriptor that stays open.
func (w *stamped) openReader(path string, flags int) func(string, int64, []byte) error {
	file, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
	must(w, err)
	w.readers = append(w.readers, file)
	return func(_ string, off int64, b []byte) error {
		_, err := file.ReadAt(b, off)
		return err
	}
}

// readStampsAnew opens the file for each read.
func readStampsAnew(path string, off int64, b []byte) error {
	return withFile(path, os.O_RDONLY, func(f *os.File) error {
		_, err := f.ReadAt(b, off)
		return err
	})
}

// readStampsMapped reads through a new mapping.
func readStampsMapped(path string, off int64, b []byte) error {
	return withFile(path, os.O_RDONLY, func(f *os.File) (err error) {
		defer catchFault(&err)()
		m, err := unix.Mmap(int(f.Fd()), off, len(b), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer unix.Munmap(m)
		copy(b, m)
		return nil
	})
}

// completeOften runs `plyfs complete` again and again.
func (w *stamped) completeOften() {
	if sut != sutPlyfs {
		return
	}
	for {
		select {
		case <-w.stop:
			return
		case <-time.After(700 * time.Millisecond):
		}
		if out, err := plyfs("complete", w.path("f")); err != nil {
			w.fail("plyfs complete: %v\n%s", err, out)
		}
	}
}

// judge compares what is there in the end.
func (w *stamped) judge() {
	w.Helper()
	look := func(when string) {
		w.Helper()
		got, err := readAll(w.path("f"), 0)
		must(w, err)
		if d := firstDifference(w.content, got); d != "" {
			w.Errorf("%s: %s", when, d)
		}
	}
	look("in the end")
	if sut == sutPlyfs {
		w.complete("f")
		w.wantWhole("f", w.content)
	}
	w.remount()
	look("after a remount")
}
