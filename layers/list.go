// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"bytes"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

const listBuffer = 64 << 10 // bytes per getdents64 call

var listBuffers = sync.Pool{New: func() any { return new([listBuffer]byte) }}

// List calls fn for each entry of d except "." and "..", in the order of the
// file system. name is valid only during the call. typ is a DT_ constant,
// DT_UNKNOWN where the file system does not tell. An error of fn ends the
// listing and is returned. A directory that has been removed is ENOENT.
func (d *Dir) List(fn func(name []byte, ino uint64, typ uint8) error) error {
	fd, err := d.Open("", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := listBuffers.Get().(*[listBuffer]byte)
	defer listBuffers.Put(buf)
	for {
		n, err := unix.Getdents(fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return err
		}
		if err := eachEntry(buf[:n], fn); err != nil {
			return err
		}
	}
}

// eachEntry walks a buffer of struct linux_dirent64: ino, offset, record
// length, type, name and NUL.
func eachEntry(buf []byte, fn func(name []byte, ino uint64, typ uint8) error) error {
	const header = 8 + 8 + 2 + 1
	for len(buf) > header {
		reclen := int(binary.NativeEndian.Uint16(buf[16:]))
		if reclen <= header || reclen > len(buf) {
			return unix.EIO
		}
		name := buf[header:reclen]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		ino, typ := binary.NativeEndian.Uint64(buf), buf[18]
		buf = buf[reclen:]
		if string(name) == "." || string(name) == ".." {
			continue
		}
		if err := fn(name, ino, typ); err != nil {
			return err
		}
	}
	return nil
}
