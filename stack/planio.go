// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// holder is the node whose data a node's handles show: itself if a copy-up
// overtook it, else the one that stands for the inode now.
func (n *node) holder() *node {
	if n.overtaken {
		return n
	}
	return n.current()
}

// inPieces tells whether a file's bytes, to those who have it open, are not
// just those of a backing file, or whether the policy is asked about each read
// or write; and the size that is shown. So it is, too, for a file that the
// policy has come to decide otherwise about since it was opened.
func (fs *FS) inPieces(n *node) (bool, int64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	switch io := n.io; {
	case io == nil:
	case io.plan != nil && !io.plan.inPlace:
		return true, io.plan.size
	case io.opens > 0 && io.mode == modePassthrough && io.from != Self:
		return true, io.fromSize
	case io.plan != nil || io.data != nil:
		return true, fs.ownSizeLocked(n)
	}
	if n.succ.Load() != nil && !n.overtaken {
		return true, fs.ownSizeLocked(n)
	}
	return false, 0
}

// ownSizeLocked is the size of the node's own file, or, where it is not found
// any more, the one that was shown last. Precondition: n.mu is held.
func (fs *FS) ownSizeLocked(n *node) int64 {
	var st unix.Stat_t
	r, err := fs.dataRefLocked(n)
	if err == nil {
		err = r.stat(&st)
	}
	if err != nil {
		return n.shown.Load() - 1
	}
	return st.Size
}

// lseekPieces answers SEEK_DATA and SEEK_HOLE as a file system without holes
// does: where a backing file has holes says nothing about what is shown, and
// is not for users to see.
func (fs *FS) lseekPieces(in *fuse.LseekIn, size int64, out *fuse.LseekOut) fuse.Status {
	if int64(in.Offset) >= size {
		return fuse.Status(syscall.ENXIO)
	}
	switch in.Whence {
	case unix.SEEK_DATA:
		out.Offset = in.Offset
	case unix.SEEK_HOLE:
		out.Offset = uint64(size)
	default:
		return fuse.EINVAL
	}
	return fuse.OK
}

// readAsking reads where the policy is asked about each read. What it answers
// is kept in pages that everybody sees, so it is asked for nobody.
// Precondition: the node's lock is held.
func (fs *FS) readAsking(io *ioState, buf []byte, off int64, self selfFile) (int, error) {
	q := DataQuery{FileQuery: io.data.q, Off: off, Len: len(buf)}
	q.Caller, q.Write = Nobody, false
	if q.Layer == 0 { // it may have grown since it was opened
		var st unix.Stat_t
		if err := unix.Fstat(self.fd, &st); err != nil {
			return 0, err
		}
		q.Size = st.Size
	}
	a, err := fs.askData(q)
	if err != nil {
		return 0, err
	}
	var got int
	switch {
	case a.Window != nil:
		got, err = fs.readWindow(io, q.FileQuery, a, buf, off, self)
	case io.plan != nil:
		got, err = io.plan.readAt(buf, off, self)
	default:
		got, err = self.readAt(buf, off)
	}
	if err != nil {
		return 0, err
	}
	if a.Again == 0 {
		return got, nil
	}
	q.After, q.Len, q.Data = a.Again, got, buf[:got]
	_, err = fs.askData(q)
	return got, err
}

// readWindow reads by the extents of the answer about one read.
func (fs *FS) readWindow(io *ioState, q FileQuery, a DataAnswer, buf []byte, off int64, self selfFile) (int, error) {
	size := q.Size
	p := &Plan{Size: size, Parts: a.Parts}
	var version func(int) (ref, error)
	if io.plan != nil {
		p.Serve, version = io.plan.plan.Serve, io.plan.version
		if q.Layer > 0 {
			size = io.plan.size
		}
		p.Size = size
	}
	f := &planFile{fs: fs, plan: p, place: q.Place, size: size, inPlace: q.Layer == 0, selfLen: q.Size,
		version: version, files: make(map[Backing]backingFile)}
	defer f.close()
	end := min(size, off+int64(len(buf)))
	if off >= end {
		return 0, nil
	}
	f.mu.Lock()
	err := f.check(*a.Window, off, size)
	f.mu.Unlock()
	if err == nil && a.Window.end() < end {
		err = fs.wrongAnswer(q.Place, "its extents end at byte %d of a read up to %d", a.Window.end(), end)
	}
	if err != nil {
		return 0, err
	}
	return f.fromWindow(*a.Window, buf[:end-off], off, self)
}

// askWrite asks the policy about a write, and, with what it answered before as
// after, once it is done. Page writeback has no caller.
func (fs *FS) askWrite(ask *dataAsk, who Caller, off int64, data []byte, after uint8) (again uint8, err error) {
	q := DataQuery{FileQuery: ask.q, Off: off, Len: len(data), Data: data, After: after}
	q.Write, q.Caller = true, who
	if who.PID == 0 {
		q.Caller = Nobody
	}
	a, err := fs.askData(q)
	return a.Again, err
}

// copyAsking copies what reads show where the policy is asked about each.
func (fs *FS) copyAsking(dst, src int, size int64, d *decision) (int64, error) {
	if d.plan != nil {
		size = d.plan.size
	}
	io := &ioState{data: d.data, plan: d.plan}
	buf := make([]byte, min(size, copyChunk))
	for off := int64(0); off < size; {
		n, err := fs.readAsking(io, buf, off, selfFile{fd: src})
		if err == nil && n == 0 {
			err = syscall.EIO
		}
		if err == nil {
			err = pwriteFull(dst, buf[:n], off)
		}
		if err != nil {
			return off, err
		}
		off += int64(n)
	}
	return size, nil
}
