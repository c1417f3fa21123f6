// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// xattrArgs is struct xattr_args of linux/xattr.h, on 64-bit machines. value
// is a pointer, not a number, so that it stays right when a stack is moved.
type xattrArgs struct {
	value unsafe.Pointer
	size  uint32
	flags uint32
}

// cstring makes room for most names without allocating.
type cstring [256]byte

func (c *cstring) ptr(s string) (*byte, error) {
	if len(s) < len(c) {
		copy(c[:], s)
		c[len(s)] = 0
		return &c[0], nil
	}
	return unix.BytePtrFromString(s)
}

// xattrCall makes one of getxattrat(2) and setxattrat(2), on name in dirfd,
// which is not followed. The result is what the kernel returned.
func xattrCall(trap uintptr, dirfd int, name, attr string, args *xattrArgs) (int, error) {
	var room [2]cstring
	path, err := room[0].ptr(name)
	if err != nil {
		return 0, err
	}
	key, err := room[1].ptr(attr)
	if err != nil {
		return 0, err
	}
	n, _, e := unix.Syscall6(trap, uintptr(dirfd), uintptr(unsafe.Pointer(path)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(key)), uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func getxattrat(dirfd int, name, attr string, buf []byte) (int, error) {
	args := xattrArgs{value: unsafe.Pointer(unsafe.SliceData(buf)), size: uint32(len(buf))}
	return xattrCall(unix.SYS_GETXATTRAT, dirfd, name, attr, &args)
}

func setxattrat(dirfd int, name, attr string, val []byte, flags int) error {
	args := xattrArgs{value: unsafe.Pointer(unsafe.SliceData(val)), size: uint32(len(val)), flags: uint32(flags)}
	_, err := xattrCall(unix.SYS_SETXATTRAT, dirfd, name, attr, &args)
	return err
}

func removexattrat(dirfd int, name, attr string) error {
	var room [2]cstring
	path, err := room[0].ptr(name)
	if err != nil {
		return err
	}
	key, err := room[1].ptr(attr)
	if err != nil {
		return err
	}
	_, _, e := unix.Syscall6(unix.SYS_REMOVEXATTRAT, uintptr(dirfd), uintptr(unsafe.Pointer(path)),
		unix.AT_SYMLINK_NOFOLLOW, uintptr(unsafe.Pointer(key)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func listxattrat(dirfd int, name string, buf []byte) (int, error) {
	var room cstring
	path, err := room.ptr(name)
	if err != nil {
		return 0, err
	}
	n, _, e := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(dirfd), uintptr(unsafe.Pointer(path)),
		unix.AT_SYMLINK_NOFOLLOW, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
