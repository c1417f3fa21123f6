// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Ioctl numbers of file attributes (linux/fs.h), which the kernel turns
// FS_IOC_GETFLAGS and its kin into.
const (
	fsIocGetFlags  = 0x80086601
	fsIocSetFlags  = 0x40086602
	fsIocFSGetAttr = 0x801c581f
	fsIocFSSetAttr = 0x401c5820

	flagsWhole  = 0x10 | 0x20                 // FS_IMMUTABLE_FL, FS_APPEND_FL
	xflagsWhole = 0x8 | 0x10 | 0x800 | 0x1000 // FS_XFLAG_IMMUTABLE, _APPEND, _EXTSIZE, _EXTSZINHERIT
)

// needsWhole tells whether flags about to be set leave no partial file: nothing
// can be brought to one that is immutable or append-only, and an extent size
// hint sets blocks aside around the written ones (partial.go).
func needsWhole(cmd, flags uint32) bool {
	switch cmd {
	case fsIocSetFlags:
		return flags&flagsWhole != 0
	case fsIocFSSetAttr:
		return flags&xflagsWhole != 0
	}
	return false
}

// Ioctl serves the inode flags of lsattr and chattr on files and directories,
// as inode.c:ovl_fileattr_get and ovl_fileattr_set: a set copies up first. The
// kernel checks that the caller owns the file. Everything else is ENOTTY.
func (fs *FS) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	set, size := false, 0
	switch in.Cmd {
	case fsIocGetFlags:
		size = 4
	case fsIocSetFlags:
		set, size = true, 4
	case fsIocFSGetAttr:
		size = 28
	case fsIocFSSetAttr:
		set, size = true, 28
	default:
		return fuse.Status(syscall.ENOTTY)
	}
	if set && len(inbuf) < size || !set && len(outbuf) < size {
		return fuse.EINVAL
	}
	n = n.current()
	if set {
		if err := fs.copyUp(n, copyMeta); err != nil {
			return fs.status(err)
		}
	}
	if set && needsWhole(in.Cmd, binary.NativeEndian.Uint32(inbuf)) {
		if err := fs.complete(n, nil); err != nil {
			return fs.status(err)
		}
	}
	f, err := fs.dataFile(n, unix.O_RDONLY)
	if err != nil {
		return fs.status(err)
	}
	defer f.close()
	buf := make([]byte, 32)
	if set {
		copy(buf, inbuf[:size])
	}
	r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), uintptr(in.Cmd), uintptr(unsafe.Pointer(&buf[0])))
	if e != 0 {
		return fuse.Status(e)
	}
	out.Result = int32(r)
	if !set {
		copy(outbuf, buf[:size])
	}
	return fuse.OK
}
