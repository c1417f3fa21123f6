// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// FD is an open descriptor, which may be O_PATH, for work on an inode that has
// no name (any more), or whose name must not be looked up again. Its methods
// do not close it. A descriptor of a symbolic link means the link itself.
type FD int

// procPath is the magic link of a descriptor. It leads to the inode on the
// mount that the descriptor was opened on (so a read-only clone stays
// read-only), and to a symbolic link itself if the descriptor is of one.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Stat fills st with the attributes of the inode.
func (f FD) Stat(st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstat(int(f), st) })
}

// Chmod sets the permission bits. A symbolic link has none: EOPNOTSUPP.
func (f FD) Chmod(mode uint32) error {
	return retry(func() error {
		if haveFchmodat2() {
			return unix.Fchmodat(int(f), "", mode, noFollowOrSelf)
		}
		return unix.Chmod(procPath(int(f)), mode)
	})
}

// Truncate is truncate(2) of the file, which may be open O_PATH.
func (f FD) Truncate(size int64) error {
	return retry(func() error { return unix.Truncate(procPath(int(f)), size) })
}

// Ftruncate is ftruncate(2) of the file, which must be open for writing.
func (f FD) Ftruncate(size int64) error { return ftruncate(int(f), size) }

// Chown sets the owner and group; -1 leaves one as it is.
func (f FD) Chown(uid, gid int) error {
	return retry(func() error { return unix.Fchownat(int(f), "", uid, gid, noFollowOrSelf) })
}

// Utimens sets access and modification time as [Dir.Utimens] does.
func (f FD) Utimens(ts [2]unix.Timespec) error {
	return retry(func() error { return unix.UtimesNanoAt(int(f), "", ts[:], noFollowOrSelf) })
}

// Readlink is the target of the symbolic link, EINVAL (or ENOENT) for others.
func (f FD) Readlink() (target string, err error) {
	err = retry(func() (err error) {
		target, err = readlinkat(int(f), "")
		return err
	})
	return target, err
}

// Reopen opens the same inode anew with other flags, on the mount that f came
// from: a descriptor of a read-only clone gives EROFS for writing. A symbolic
// link is ELOOP. An inode without a name works too.
func (f FD) Reopen(flags int) (int, error) {
	got := -1
	err := retry(func() (err error) {
		got, err = unix.Open(procPath(int(f)), flags|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	return got, nil
}

// LinkTo gives the inode the name nname in nd. For an inode without any name
// f must come from [Dir.Tmpfile]; one that has been unlinked is ENOENT.
func (f FD) LinkTo(nd *Dir, nname string) error {
	return nd.in(nname, func(nfd int) error {
		err := unix.Linkat(int(f), "", nfd, nname, unix.AT_EMPTY_PATH)
		if err != unix.ENOENT {
			return err
		}
		// AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH and says ENOENT without
		// it; the magic link does not need it. See linkat(2).
		return unix.Linkat(unix.AT_FDCWD, procPath(int(f)), nfd, nname, unix.AT_SYMLINK_FOLLOW)
	})
}

// ReadAt implements io.ReaderAt.
func (f FD) ReadAt(b []byte, off int64) (int, error) {
	got := 0
	for got < len(b) {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Pread(int(f), b[got:], off+int64(got))
			return err
		})
		if err != nil {
			return got, err
		}
		if n == 0 {
			return got, io.EOF
		}
		got += n
	}
	return got, nil
}
