// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// A selfFile is a node's own file, open: as it is, or a partial one.
type selfFile struct {
	fd   int
	part *partial // nil: fd holds all bytes
}

// readAt fills b with the bytes at off and returns how many there are, fewer
// than asked for only at the end of the file.
func (s selfFile) readAt(b []byte, off int64) (int, error) {
	if !s.part.inPieces() {
		return preadFull(s.fd, b, off)
	}
	return s.part.readAt(s.fd, b, off)
}

// openSelfLocked opens a node's own file, reached by r, for the caller to close.
// Precondition: n.mu is held.
func (fs *FS) openSelfLocked(n *node, r ref, flags int) (selfFile, error) {
	fd, err := r.open(flags | unix.O_NONBLOCK)
	if err != nil {
		return selfFile{fd: -1}, err
	}
	s := selfFile{fd: fd, part: n.partial()}
	if s.part != nil {
		s.part.acquire()
		if n.io != nil && n.io.opens > 0 { // it was, before; see doubt
			return s, nil
		}
		if err := s.part.examine(fd); err != nil {
			s.close()
			return selfFile{fd: -1}, err
		}
	}
	return s, nil
}

func (s selfFile) close() {
	_ = unix.Close(s.fd)
	if s.part != nil {
		s.part.release()
	}
}

// writeAt writes as much of data as it can: an error only if that is nothing.
func (s selfFile) writeAt(data []byte, off int64) (int, error) {
	if !s.part.inPieces() {
		return pwriteSome(s.fd, data, off)
	}
	return s.part.writeAt(s.fd, data, off)
}

// lseek is lseek(2) with SEEK_DATA or SEEK_HOLE.
func (s selfFile) lseek(off int64, whence int) (int64, error) {
	if s.part.inPieces() && (whence == unix.SEEK_DATA || whence == unix.SEEK_HOLE) {
		return s.part.lseek(s.fd, off, whence)
	}
	return unix.Seek(s.fd, off, whence)
}

// reader reads the file from its begin.
func (s selfFile) reader() *selfReader { return &selfReader{self: s} }

type selfReader struct {
	self selfFile
	off  int64
}

// Read implements io.Reader.
func (r *selfReader) Read(b []byte) (int, error) {
	n, err := r.self.readAt(b, r.off)
	r.off += int64(n)
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}

// readAt reads from the upper file fd and, where that has holes, from the lower
// file. The file must have been acquired.
func (q *partial) readAt(fd int, b []byte, off int64) (int, error) {
	span := q.ranges.lockRange(q.floor(off), q.ceil(off+int64(len(b))), false)
	defer span.unlock()
	return q.readLocked(fd, b, off)
}

// readLocked is readAt with the range locked.
func (q *partial) readLocked(fd int, b []byte, off int64) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if off >= st.Size || len(b) == 0 {
		return 0, nil
	}
	b = b[:min(int64(len(b)), st.Size-off)]
	w, low, err := q.window(fd, off, off+int64(len(b)))
	if err != nil {
		return 0, err
	}
	exec := plainExec
	if low {
		if _, exec, err = q.openLower(); err != nil {
			return 0, err
		}
	}
	n, err := exec.fromWindow(w, b, off, selfFile{fd: fd})
	if err == nil && n < len(b) { // the size stands while the range is locked
		q.fs.log.Error("a lower file has become shorter than a partial file over it needs", "lower", q.path, "offset", off+int64(n))
		err = syscall.EIO
	}
	return n, err
}

// plainExec executes extents without a backing file.
var plainExec = &planFile{plan: &Plan{}, inPlace: true}

// window says of what [off, end) is made, as the holes of the upper file are
// now; low is set if some of it is in lower.
func (q *partial) window(fd int, off, end int64) (w Window, low bool, err error) {
	limit := q.limitNow()
	add := func(to int64, kind ExtentKind, from Backing) {
		if to > off {
			w.Extents = append(w.Extents, Extent{Off: off, Len: to - off, Src: off, Kind: kind, Backing: from})
			off = to
		}
	}
	for off < end {
		data, err := seekData(fd, off, end)
		if err != nil {
			return w, low, err
		}
		low = low || off < min(data, limit)
		add(min(data, limit), ExtentBacking, q.backing())
		add(data, ExtentZero, Self)
		if off == end {
			break
		}
		hole, err := seekHole(fd, off, end)
		if err != nil {
			return w, low, err
		}
		add(hole, ExtentBacking, Self)
	}
	return w, low, nil
}

func (q *partial) floor(off int64) int64 { return off - off%q.block }

func (q *partial) ceil(off int64) int64 {
	if r := off % q.block; r != 0 && off < wholeRange-q.block {
		return off + q.block - r
	}
	return off
}

// seekData is where data begins in [off, end), end if nowhere.
func seekData(fd int, off, end int64) (int64, error) { return seek(fd, off, end, unix.SEEK_DATA) }

// seekHole is where a hole begins in [off, end), end if nowhere.
func seekHole(fd int, off, end int64) (int64, error) { return seek(fd, off, end, unix.SEEK_HOLE) }

func seek(fd int, off, end int64, whence int) (int64, error) {
	if off >= end {
		return end, nil
	}
	got, err := unix.Seek(fd, off, whence)
	switch err {
	case nil:
		return min(got, end), nil
	case syscall.ENXIO:
		// Beyond the last data: a hole to the end. Beyond the end of the file
		// there is neither; whoever asks knows the size.
		if whence == unix.SEEK_HOLE {
			return off, nil
		}
		return end, nil
	}
	return off, err
}

// missing is the first range from pos on that the upper file does not have and
// the lower file has data for; from is -1 if there is none.
func (q *partial) missing(fd int, pos int64) (from, to int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, 0, err
	}
	limit := min(q.limitNow(), st.Size)
	low, _, err := q.openLower()
	if err != nil {
		return -1, 0, err
	}
	for pos < limit {
		hole, err := seekHole(fd, pos, limit)
		if err != nil || hole >= limit {
			return -1, 0, err
		}
		end, err := seekData(fd, hole, limit)
		if err != nil {
			return -1, 0, err
		}
		data, err := seekLower(low, hole, end, unix.SEEK_DATA)
		if err != nil {
			return -1, 0, err
		}
		if data < end {
			stop, err := seekLower(low, data, end, unix.SEEK_HOLE)
			return max(hole, q.floor(data)), min(end, q.ceil(stop)), err
		}
		pos = end
	}
	return -1, 0, nil
}

// seekLower is seek in a file whose file system may know no holes.
func seekLower(fd int, off, end int64, whence int) (int64, error) {
	got, err := seek(fd, off, end, whence)
	if err == syscall.EINVAL || err == syscall.EOPNOTSUPP {
		if whence == unix.SEEK_HOLE {
			return end, nil
		}
		return off, nil
	}
	return got, err
}

// lseek answers SEEK_DATA and SEEK_HOLE: data is where either file has it.
func (q *partial) lseek(fd int, off int64, whence int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if off < 0 || off >= st.Size {
		return 0, syscall.ENXIO
	}
	for at := off; at < st.Size; {
		to, data, err := q.run(fd, at, st.Size)
		if err != nil {
			return 0, err
		}
		if data == (whence == unix.SEEK_DATA) {
			return at, nil
		}
		at = to
	}
	if whence == unix.SEEK_DATA {
		return 0, syscall.ENXIO
	}
	return st.Size, nil
}

// run is how far from at on there is only data, or only a hole.
func (q *partial) run(fd int, at, size int64) (to int64, data bool, err error) {
	up, err := seekData(fd, at, size)
	if err != nil {
		return 0, false, err
	}
	if up == at {
		to, err = seekHole(fd, at, size)
		return to, true, err
	}
	limit := min(q.limitNow(), size)
	if at >= limit {
		return up, false, nil
	}
	low, _, err := q.openLower()
	if err != nil {
		return 0, false, err
	}
	end := min(up, limit)
	d, err := seekLower(low, at, end, unix.SEEK_DATA)
	if err != nil {
		return 0, false, err
	}
	if d > at {
		return d, false, nil
	}
	to, err = seekLower(low, at, end, unix.SEEK_HOLE)
	return to, true, err
}
