// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// fillChunk is how much of a lower file is brought to upper at a time. Readers
// of just these blocks wait while it is put into the page cache.
const fillChunk = 256 << 10

var fillBuffers = sync.Pool{New: func() any { b := make([]byte, fillChunk); return &b }}

// A filling brings what is missing of a partial file to upper, chunk by chunk.
type filling struct {
	q     *partial
	fd    int // the upper file, open for reading and writing
	pos   int64
	moved int64
}

// step moves the next chunk; done is set when nothing is missing any more. It
// changes no byte that the file shows, and no time but st_ctime.
func (f *filling) step() (n int64, done bool, err error) {
	from, to, err := f.q.missing(f.fd, f.pos)
	if err != nil || from < 0 {
		return 0, from < 0 && err == nil, err
	}
	if to-from > fillChunk {
		to = from + fillChunk
	}
	n, err = f.q.fill(f.fd, from, to)
	f.pos = to
	f.moved += n
	return n, false, err
}

// run fills all that is missing.
func (f *filling) run() error {
	for {
		if _, done, err := f.step(); done || err != nil {
			return err
		}
	}
}

var errShortLower = fmt.Errorf("the lower file is shorter than it was: %w", syscall.EIO)

// fill brings [from, to) to upper, as far as it is a hole there still. The lower
// file is read before anything is locked.
func (q *partial) fill(fd int, from, to int64) (moved int64, err error) {
	low, _, err := q.openLower()
	if err != nil {
		return 0, err
	}
	p := fillBuffers.Get().(*[]byte)
	defer fillBuffers.Put(p)
	buf := (*p)[:min(to-from, fillChunk)]
	got, err := preadFull(low, buf, from)
	if err != nil {
		return 0, err
	}
	span := q.ranges.lockRange(from, to, true)
	defer span.unlock()
	size, err := fileSize(fd)
	if err != nil {
		return 0, err
	}
	limit := min(q.limitNow(), size)
	if from+int64(got) < min(limit, from+int64(len(buf))) {
		return 0, errShortLower
	}
	if n := limit - from; n < int64(len(buf)) {
		clear(buf[max(0, n):])
	}
	return q.put(fd, buf, from, min(limit, from+int64(len(buf))), size)
}

// put writes buf, which begins at from, where the upper file has holes before
// end, and sets back what a write changes: the times, and security.capability,
// which the kernel takes from whatever is written to. Precondition: the range is locked.
func (q *partial) put(fd int, buf []byte, from, end, size int64) (moved int64, err error) {
	q.times.Lock()
	defer q.times.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	capability, err := getCapability(fd)
	if err != nil {
		return 0, err
	}
	// With the zeros behind the limit, for the last block's sake.
	last := min(q.ceil(end), from+int64(len(buf)), size)
	for at := from; at < end; {
		hole, err := seekHole(fd, at, end)
		if err != nil {
			return moved, err
		}
		stop, err := seekData(fd, hole, last)
		if err != nil {
			return moved, err
		}
		if hole < end {
			if err := pwriteFull(fd, buf[hole-from:stop-from], hole); err != nil {
				return moved, err
			}
			moved += stop - hole
		}
		at = stop
	}
	if moved == 0 {
		return 0, nil
	}
	q.fs.at(cutChunkFilled)
	if err := restoreCapability(fd, capability); err != nil {
		return moved, err
	}
	if err := layers.FD(fd).Utimens([2]unix.Timespec{st.Atim, st.Mtim}); err != nil {
		return moved, err
	}
	q.fs.at(cutChunkTimes)
	return moved, nil
}

// getCapability reads the file capabilities of an open file, nil for none.
func getCapability(fd int) ([]byte, error) {
	var buf [64]byte
	n, err := layers.FD(fd).Getxattr(xattrCapability, buf[:])
	switch err {
	case nil:
		return buf[:n:n], nil
	case syscall.ENODATA, syscall.EOPNOTSUPP:
		return nil, nil
	}
	return nil, err
}

func restoreCapability(fd int, capability []byte) error {
	if capability == nil {
		return nil
	}
	return layers.FD(fd).Setxattr(xattrCapability, capability, 0)
}
