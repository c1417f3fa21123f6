// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A daemon that is killed in the midst of having the kernel drop pages can leave
// a last thread there: it waits, not to be interrupted, for a page that belongs
// to a request of a program, which no other thread will answer any more. As long
// as it waits it holds /dev/fuse open, and the mount hangs instead of being dead.
// A forced unmount (MNT_FORCE) ends the requests
// (fs/fuse/inode.c:fuse_umount_begin).

// daemonKilled tells whether the daemon of a mount is a process that has ended
// but for threads that hang.
func (p place) daemonKilled() bool {
	pidfd, pid, err := daemonOf(p.mount)
	if err != nil {
		return false
	}
	unix.Close(pidfd)
	return isZombie(pid)
}

// isZombie tells whether the first thread of a process has ended.
func isZombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	i := strings.LastIndex(string(b), ") ") // after the name, which may hold anything
	return i >= 0 && strings.HasPrefix(string(b[i+2:]), "Z")
}
