// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// writeAt writes data at off into the upper file fd. Blocks that it meets in
// part, and that are holes, get the rest of their bytes with it, in one write:
// at no moment, and after no power cut, is a block half of one and half of the
// other. The file must have been acquired.
func (q *partial) writeAt(fd int, data []byte, off int64) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	span, size, err := q.lockForWrite(fd, off, off+int64(len(data)))
	if err != nil {
		return 0, err
	}
	defer span.unlock()
	if err := q.beforeGrowth(fd, size, off, off+int64(len(data))); err != nil {
		return 0, err
	}
	return q.writeLocked(fd, data, off, size)
}

// lockForWrite locks the blocks of [off, end), and from the last block of the
// file on if it is to grow, and tells the file's size, which stands then as far
// as the range cares.
func (q *partial) lockForWrite(fd int, off, end int64) (*span, int64, error) {
	for {
		size, err := fileSize(fd)
		if err != nil {
			return nil, 0, err
		}
		from := q.floor(off)
		if end > size {
			from = min(from, q.floor(size))
		}
		to := q.ceil(end)
		if end > size {
			to = wholeRange // others that let it grow wait
		}
		span := q.ranges.lockRange(from, to, true)
		now, err := fileSize(fd)
		if err == nil && (now == size || end <= size && end <= now) {
			return span, now, nil
		}
		span.unlock()
		if err != nil {
			return nil, 0, err
		}
	}
}

func fileSize(fd int) (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Size, err
}

// beforeGrowth makes ready for a change that lets the file end at end instead
// of size: the limit must be on the inode, and the last block must not be a
// hole with bytes of lower, for some file systems zero what is behind the end
// by making all of it data. Writes from off on see to their own blocks.
func (q *partial) beforeGrowth(fd int, size, off, end int64) error {
	if end <= size {
		return nil
	}
	q.lowerLimit(size)
	if err := q.persist(fdXattr(fd)); err != nil {
		return err
	}
	if q.floor(size) == q.floor(off) {
		return nil
	}
	return q.fillEdge(fd, size, size)
}

// fillEdge brings the block in which pos lies to upper, if pos is not at its
// begin. Precondition: the block is locked; size is the file's.
func (q *partial) fillEdge(fd int, pos, size int64) error {
	hole, err := q.holed(fd, pos, size)
	if err != nil || !hole {
		return err
	}
	from := q.floor(pos)
	to := min(from+q.block, size)
	buf := make([]byte, to-from)
	if _, err := q.readLocked(fd, buf, from); err != nil {
		return err
	}
	if err := pwriteFull(fd, buf, from); err != nil {
		return err
	}
	q.fs.at(cutEdgeFilled)
	return nil
}

// writeLocked is writeAt with the range locked. size is the file's.
func (q *partial) writeLocked(fd int, data []byte, off, size int64) (int, error) {
	end := off + int64(len(data))
	from, to := off, end
	head, err := q.holed(fd, off, size)
	if err != nil {
		return 0, err
	}
	if head {
		from = q.floor(off)
	}
	if end < size {
		tail, err := q.holed(fd, end, size)
		if err != nil {
			return 0, err
		}
		if tail {
			to = min(q.ceil(end), size)
		}
	}
	q.times.RLock()
	defer q.times.RUnlock()
	if from == off && to == end {
		return pwriteSome(fd, data, off)
	}
	buf := make([]byte, to-from)
	for _, edge := range []struct{ from, to int64 }{{from, min(off, size)}, {end, to}} {
		if edge.from < edge.to {
			if _, err := q.readLocked(fd, buf[edge.from-from:edge.to-from], edge.from); err != nil {
				return 0, err
			}
		}
	}
	copy(buf[off-from:], data)
	n, err := pwriteSome(fd, buf, from)
	return max(0, min(n-int(off-from), len(data))), err
}

// holed tells whether pos lies inside a block of the file that is a hole, or
// has one, and may hold bytes of lower.
func (q *partial) holed(fd int, pos, size int64) (bool, error) {
	from := q.floor(pos)
	if from == pos || from >= size || from >= q.limitNow() || !q.inPieces() {
		return false, nil
	}
	to := min(from+q.block, size)
	hole, err := seekHole(fd, from, to)
	return hole < to, err
}

// pwriteSome writes as much as it can: an error only if that is nothing.
func pwriteSome(fd int, b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		k, err := unix.Pwrite(fd, b[done:], off+int64(done))
		if err == syscall.EINTR {
			continue
		}
		if err != nil && done == 0 {
			return 0, err
		}
		if err != nil || k == 0 {
			break
		}
		done += k
	}
	return done, nil
}

// resize is truncate(2) of a partial file by do. The bytes that were cut off
// do not come back when it grows again.
func (q *partial) resize(fd int, to int64, do func() error) error {
	span := q.ranges.lockRange(0, wholeRange, true)
	defer span.unlock()
	size, err := fileSize(fd)
	if err != nil {
		return err
	}
	if to < size {
		if err = q.mayBeCut(fd); err == nil {
			err = q.fillEdge(fd, to, size)
		}
	} else {
		err = q.beforeGrowth(fd, size, wholeRange, to)
	}
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	q.fs.at(cutResized)
	if to >= q.limitNow() {
		return nil
	}
	q.lowerLimit(to)
	err = q.persist(fdXattr(fd))
	if err == nil {
		return nil
	}
	q.fs.noteError("lowering the limit of a partial file", err)
	if q.inPieces() {
		return nil // it is cut, and does not grow before this was written
	}
	return err // the kernel may let it grow
}

// fallocate is fallocate(2) but for the modes that move bytes. What makes holes
// writes zeros below the limit.
func (q *partial) fallocate(fd int, mode uint32, off, length int64) error {
	end := off + length
	if length <= 0 || off < 0 || end < 0 {
		return syscall.EINVAL
	}
	keep := mode&unix.FALLOC_FL_KEEP_SIZE != 0
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		return q.blank(fd, mode, off, end, keep)
	}
	grows := end
	if keep {
		grows = 0
	}
	if err := q.fillBefore(fd, off, end); err != nil {
		return err
	}
	span := q.ranges.lockRange(q.floor(off), wholeRange, true)
	defer span.unlock()
	q.times.RLock()
	defer q.times.RUnlock()
	size, err := fileSize(fd)
	if err != nil {
		return err
	}
	if err := q.beforeGrowth(fd, size, wholeRange, grows); err != nil {
		return err
	}
	return fallocate(fd, mode, off, length)
}

// fillBefore brings what lower has of [off, end) to upper, chunk by chunk:
// blocks that are preallocated there must not be mistaken for data. No hole
// comes to be there afterwards, for holes are not made below the limit.
func (q *partial) fillBefore(fd int, off, end int64) error {
	off, end = q.floor(off), q.ceil(end)
	for q.inPieces() && off < min(end, q.limitNow()) {
		from, to, err := q.missing(fd, off)
		if err != nil || from < 0 || from >= end {
			return err
		}
		if to = min(to, end); to-from > fillChunk {
			to = from + fillChunk
		}
		if _, err := q.fill(fd, from, to); err != nil {
			return err
		}
		off = to
	}
	return nil
}

func fallocate(fd int, mode uint32, off, length int64) error {
	for {
		err := unix.Fallocate(fd, mode, off, length)
		if err != syscall.EINTR {
			return err
		}
	}
}

// blankRun is how many bytes of zeros are written rather than lowering the
// limit to where they begin.
const blankRun = 1 << 20

// blank makes zeros of a range.
func (q *partial) blank(fd int, mode uint32, off, end int64, keep bool) error {
	span := q.ranges.lockRange(0, wholeRange, true)
	defer span.unlock()
	size, err := fileSize(fd)
	if err != nil {
		return err
	}
	if !keep {
		if err := q.beforeGrowth(fd, size, wholeRange, end); err != nil {
			return err
		}
	}
	limit := q.limitNow()
	if start := q.ceil(off); end >= limit && limit-start > blankRun {
		// All from here on is blank: the limit says so, at no cost.
		if err := q.zero(fd, off, min(start, size), size); err != nil {
			return err
		}
		if err := q.mayBeCut(fd); err != nil {
			return err
		}
		// The limit changes what is shown, and no system call that sets times.
		if err := layers.FD(fd).Utimens([2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}); err != nil {
			return err
		}
		if err := q.setLimit(fd, start); err != nil {
			return err
		}
		off, limit = start, start
	}
	edge := min(end, q.ceil(limit))
	if err := q.zero(fd, off, min(edge, size), size); err != nil {
		return err
	}
	if off = max(off, edge); off < end {
		err := fallocate(fd, mode, off, end-off)
		if err == syscall.EOPNOTSUPP && mode&unix.FALLOC_FL_ZERO_RANGE != 0 {
			err = fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, end-off)
			if err == nil && !keep && end > size {
				err = unix.Ftruncate(fd, end)
			}
		}
		return err
	}
	if !keep && end > size { // nothing was left to do but to let it grow
		return unix.Ftruncate(fd, end)
	}
	return nil
}

// zero writes zeros from off up to end, which is not beyond the end of the
// file. Precondition: the range is locked.
func (q *partial) zero(fd int, off, end, size int64) error {
	buf := make([]byte, max(0, min(end-off, copyChunk)))
	for off < end {
		n, err := q.writeLocked(fd, buf[:min(int64(len(buf)), end-off)], off, size)
		if err != nil {
			return err
		}
		if n == 0 {
			return syscall.EIO
		}
		q.fs.at(cutBlankedBlocks)
		off += int64(n)
	}
	return nil
}
