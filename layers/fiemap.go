// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Extent is a range of a file, in bytes.
type Extent struct{ Off, Len int64 }

// fiemap is struct fiemap of linux/fiemap.h, with room for some extents.
type fiemap struct {
	start, length uint64
	flags, mapped uint32
	count, _      uint32
	extents       [fiemapExtents]fiemapExtent
}

type fiemapExtent struct {
	logical, physical, length uint64
	_                         [2]uint64
	flags                     uint32
	_                         [3]uint32
}

const (
	fsIocFiemap     = 0xc020660b // _IOWR('f', 11, struct fiemap) without extents
	fiemapExtents   = 64
	fiemapLast      = 0x1
	fiemapUnwritten = 0x800
)

// Unwritten are the parts of [0, end) of a file for which blocks are set aside,
// but of which the file system knows no data: preallocated, or being written, or
// left behind by a power cut during that. A file system without FIEMAP has none:
// EOPNOTSUPP is no error here.
func (f FD) Unwritten(end int64) ([]Extent, error) {
	var list []Extent
	for off := int64(0); off < end; {
		m := fiemap{start: uint64(off), length: uint64(end - off), count: fiemapExtents}
		if err := f.fiemap(&m); err == unix.EOPNOTSUPP || err == unix.ENOTTY {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		for _, e := range m.extents[:m.mapped] {
			if e.flags&fiemapUnwritten != 0 {
				from := max(int64(e.logical), off)
				list = append(list, Extent{from, min(int64(e.logical+e.length), end) - from})
			}
		}
		if m.mapped == 0 {
			break
		}
		last := m.extents[m.mapped-1]
		if last.flags&fiemapLast != 0 {
			break
		}
		off = int64(last.logical + last.length)
	}
	return list, nil
}

func (f FD) fiemap(m *fiemap) error {
	return retry(func() error {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f), fsIocFiemap, uintptr(unsafe.Pointer(m)))
		if e != 0 {
			return e
		}
		return nil
	})
}

// ExtentHint tells whether new files of a directory are given more blocks than
// are written to them (an extent size hint of xfs that is inherited).
func (d *Dir) ExtentHint() (bool, error) {
	fd, err := d.Open("", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var attr struct {
		xflags, extsize, nextents, projid, cowextsize uint32
		_                                             [8]byte
	}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocFSGetXattr, uintptr(unsafe.Pointer(&attr)))
	if e == unix.ENOTTY || e == unix.EOPNOTSUPP {
		return false, nil
	}
	if e != 0 {
		return false, e
	}
	return attr.xflags&(fsXflagExtsize|fsXflagExtszInherit) != 0, nil
}

const (
	fsIocFSGetXattr     = 0x801c581f // _IOR('X', 31, struct fsxattr)
	fsXflagExtsize      = 0x800
	fsXflagExtszInherit = 0x1000
)
