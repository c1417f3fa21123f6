// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
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
)

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
