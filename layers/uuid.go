// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fsIocGetFSUUID is FS_IOC_GETFSUUID of linux/fs.h (6.9): _IOR(0x15, 0,
// struct fsuuid2).
const fsIocGetFSUUID = 2<<30 | 17<<16 | 0x15<<8

// fsUUID is the UUID of the file system that the directory dirfd is on, or "".
func fsUUID(dirfd int) string {
	fd, err := openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var u struct {
		n    uint8
		uuid [16]byte
	}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocGetFSUUID, uintptr(unsafe.Pointer(&u)))
	if e != 0 || int(u.n) > len(u.uuid) || u.uuid == [16]byte{} {
		return ""
	}
	if u.n != 16 {
		return fmt.Sprintf("%x", u.uuid[:u.n])
	}
	b := u.uuid
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
