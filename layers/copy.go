// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"sync"

	"golang.org/x/sys/unix"
)

// CopyOptions steer CopyData.
type CopyOptions struct {
	Cancel      <-chan struct{} // closed: the copy ends with EINTR
	NoReflink   bool            // do not share blocks
	NoCopyRange bool            // do not let the kernel copy: read and write
}

// How CopyData did it.
const (
	CopiedByReflink = "reflink"
	CopiedByKernel  = "copy_file_range"
	CopiedByHand    = "read/write"
)

const (
	copyChunk  = 8 << 20   // bytes per call, between looks at Cancel
	copyBuffer = 256 << 10 // bytes per read and write
)

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// CopyData copies the first size bytes of src to dst, which must be empty, and
// sets dst's length to what was copied: n bytes, fewer if src is shorter. On an
// error dst is to be thrown away: it may have its full length already, with
// data up to n only. CopyData shares the blocks where the file system can, else
// lets the kernel copy, else reads and writes; how says which. Holes of src
// stay holes. src's file offset moves.
func CopyData(dst, src int, size int64, o CopyOptions) (n int64, how string, err error) {
	if n, err = clampSize(src, size); err != nil {
		return 0, "", err
	}
	if !o.NoReflink && n > 0 && retry(func() error { return unix.IoctlFileClone(dst, src) }) == nil {
		// All of src was cloned, which may be more by now.
		return n, CopiedByReflink, ftruncate(dst, n)
	}
	// The length comes first: where writes extend a file, xfs allocates ahead
	// of them, and that is data for SEEK_DATA even where nothing is written.
	if err := ftruncate(dst, n); err != nil {
		return 0, "", err
	}
	c := copier{dst: dst, src: src, byHand: o.NoCopyRange, cancel: o.Cancel}
	end, err := c.run(n)
	if err == nil && end < n {
		err = ftruncate(dst, end) // src was cut meanwhile
	}
	if c.byHand {
		return end, CopiedByHand, err
	}
	return end, CopiedByKernel, err
}

// Clone makes dst, which must be empty or one hole, share the blocks of src, and
// sets its length to size. It is EOPNOTSUPP, EXDEV or EINVAL where the file
// system cannot.
func Clone(dst, src int, size int64) error {
	if err := retry(func() error { return unix.IoctlFileClone(dst, src) }); err != nil {
		return err
	}
	return ftruncate(dst, size)
}

// clampSize is size or the length of src, whichever is less.
func clampSize(src int, size int64) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || size < 0 {
		return 0, unix.EINVAL
	}
	return min(size, st.Size), nil
}

func ftruncate(fd int, size int64) error {
	return retry(func() error { return unix.Ftruncate(fd, size) })
}

type copier struct {
	dst, src int
	byHand   bool // copy_file_range does not work here
	cancel   <-chan struct{}
}

// run copies the data of the first size bytes, hole by hole, and returns where
// src ended: at size, or before it if src was cut meanwhile.
func (c *copier) run(size int64) (end int64, err error) {
	for off := int64(0); off < size; {
		from, to, err := c.nextData(off, size)
		if err != nil {
			return off, err
		}
		got, err := c.extent(from, to)
		if err != nil || got < to {
			return got, err
		}
		off = to
	}
	return size, nil
}

// nextData is the next stretch of data in [off, size): empty, at size, if only
// a hole is left. A file system that does not know holes has none.
func (c *copier) nextData(off, size int64) (from, to int64, err error) {
	from, err = unix.Seek(c.src, off, unix.SEEK_DATA)
	switch err {
	case nil:
	case unix.ENXIO:
		return size, size, nil
	case unix.EINVAL, unix.EOPNOTSUPP:
		return off, size, nil
	default:
		return off, off, err
	}
	if from >= size {
		return size, size, nil
	}
	to, err = unix.Seek(c.src, from, unix.SEEK_HOLE)
	if err == unix.ENXIO { // cut since
		return from, size, nil
	}
	return from, min(to, size), err
}

// extent copies [from, to) and returns how far it came: less than to only if
// src ended there.
func (c *copier) extent(from, to int64) (int64, error) {
	for from < to {
		select {
		case <-c.cancel:
			return from, unix.EINTR
		default:
		}
		n, err := c.some(from, int(min(to-from, copyChunk)))
		if err != nil || n == 0 {
			return from, err
		}
		from += int64(n)
	}
	return from, nil
}

// some copies up to n bytes at off, and 0 only at the end of src.
func (c *copier) some(off int64, n int) (int, error) {
	if !c.byHand {
		roff, woff := off, off
		got, err := unix.CopyFileRange(c.src, &roff, c.dst, &woff, n, 0)
		switch err {
		case nil:
			if got > 0 {
				return got, nil
			}
			// Some file systems say 0 where there is more: ask by reading.
		case unix.EINTR:
			return c.some(off, n)
		case unix.EXDEV, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM, unix.EIO, unix.ETXTBSY:
			c.byHand = true
		default:
			return 0, err
		}
	}
	return c.readWrite(off, min(n, copyBuffer))
}

func (c *copier) readWrite(off int64, n int) (int, error) {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	err := retry(func() (err error) {
		n, err = unix.Pread(c.src, buf[:n], off)
		return err
	})
	if err != nil {
		return 0, err
	}
	for done := 0; done < n; {
		w, err := unix.Pwrite(c.dst, buf[done:n], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		done += w
	}
	return n, nil
}
