// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import "golang.org/x/sys/unix"

const noFollowOrSelf = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH

// Chmod sets the permission bits of name, or of d for "". A symbolic link has
// none: EOPNOTSUPP.
func (d *Dir) Chmod(name string, mode uint32) error {
	return d.at(name, func(fd int) error {
		if haveFchmodat2() {
			return unix.Fchmodat(fd, name, mode, noFollowOrSelf)
		}
		return chmodByProc(fd, name, mode)
	})
}

// chmodByProc is Chmod for kernels before 6.6: through the magic link of an
// O_PATH descriptor, which never follows a symbolic link.
func chmodByProc(dirfd int, name string, mode uint32) error {
	fd, err := openat(dirfd, self(name), unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(procPath(fd), mode)
}

// Chown sets the owner and group of name, or of d for "", of a symbolic link
// itself. -1 leaves one as it is. It clears set-user-ID and set-group-ID as
// chown(2) does.
func (d *Dir) Chown(name string, uid, gid int) error {
	return d.at(name, func(fd int) error {
		return unix.Fchownat(fd, name, uid, gid, noFollowOrSelf)
	})
}

// Utimens sets the access and modification time of name, or of d for "", of a
// symbolic link itself. The nanoseconds may be UTIME_NOW or UTIME_OMIT.
func (d *Dir) Utimens(name string, ts [2]unix.Timespec) error {
	return d.at(name, func(fd int) error {
		return unix.UtimesNanoAt(fd, name, ts[:], noFollowOrSelf)
	})
}
