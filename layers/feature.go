// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Feature is one thing that the running kernel has or lacks.
type Feature struct {
	Name string // of the system call
	Have bool
	Why  string // what is done instead, if it is lacking
}

// Features tells which of the newer system calls this package uses here.
func Features() []Feature {
	list := []Feature{
		{Name: "getxattrat", Have: haveXattrat(), Why: "extended attributes are reached through /proc/self/fd (Linux before 6.13)"},
		{Name: "fchmodat2", Have: haveFchmodat2(), Why: "modes are changed through /proc/self/fd (Linux before 6.6)"},
	}
	for i := range list {
		if list[i].Have {
			list[i].Why = ""
		}
	}
	return list
}

// haveFchmodat2 asks with a descriptor that cannot exist: a kernel that knows
// the call says EBADF. (EPERM is what sandboxes say that do not know it.)
var haveFchmodat2 = sync.OnceValue(func() bool {
	_, _, e := unix.Syscall6(unix.SYS_FCHMODAT2, ^uintptr(0), 0, 0, unix.AT_EMPTY_PATH, 0, 0)
	return e != unix.ENOSYS && e != unix.EPERM
})

// haveXattrat asks likewise. The arguments of the call hold a pointer in 64
// bits, which this package fills in on 64-bit machines only.
var haveXattrat = sync.OnceValue(func() bool {
	const pointer64 = ^uintptr(0)>>63 == 1
	_, _, e := unix.Syscall6(unix.SYS_GETXATTRAT, ^uintptr(0), 0, 0, 0, 0, 0)
	return pointer64 && e != unix.ENOSYS && e != unix.EPERM
})
