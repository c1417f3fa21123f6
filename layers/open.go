// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import "golang.org/x/sys/unix"

// Stat fills st with the attributes of name, or of d for "".
func (d *Dir) Stat(name string, st *unix.Stat_t) error {
	if name == "" {
		return d.at("", func(fd int) error { return unix.Fstat(fd, st) })
	}
	return d.at(name, func(fd int) error {
		return unix.Fstatat(fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Open opens name, or d itself for "". O_NOFOLLOW and O_CLOEXEC are added: a
// symbolic link is ELOOP, or is opened itself with O_PATH. mode counts only
// with O_CREAT and O_TMPFILE, and the process's umask applies to it. Devices
// and fifos are opened as asked: the caller decides whether to.
func (d *Dir) Open(name string, flags int, mode uint32) (int, error) {
	got := -1
	err := d.at(name, func(fd int) (err error) {
		got, err = unix.Openat(fd, self(name), flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return -1, err
	}
	return got, nil
}

// Tmpfile opens a new file without a name in the file system of d (O_TMPFILE).
// flags must hold O_WRONLY or O_RDWR. It gets a name by [FD.LinkTo]. It is
// EOPNOTSUPP where the file system cannot (EISDIR from very old ones too).
func (d *Dir) Tmpfile(flags int, mode uint32) (int, error) {
	return d.Open("", flags|unix.O_TMPFILE, mode)
}

// Statfs describes the file system that d is on.
func (d *Dir) Statfs(st *unix.Statfs_t) error {
	return d.at("", func(fd int) error { return unix.Fstatfs(fd, st) })
}

// Fsync makes the entries of d durable.
func (d *Dir) Fsync() error {
	fd, err := d.Open("", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error { return unix.Fsync(fd) })
}

// Readlink is the target of the symbolic link name. It is EINVAL if name is no
// symbolic link.
func (d *Dir) Readlink(name string) (target string, err error) {
	err = d.in(name, func(fd int) (err error) {
		target, err = readlinkat(fd, name)
		return err
	})
	return target, err
}

func readlinkat(fd int, name string) (string, error) {
	var small [256]byte
	for buf := small[:]; ; buf = make([]byte, 4*len(buf)) {
		n, err := unix.Readlinkat(fd, name, buf)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
	}
}

// openat opens name in fd without following it, again after EINTR.
func openat(fd int, name string, flags int, mode uint32) (int, error) {
	for {
		got, err := unix.Openat(fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return got, err
		}
	}
}
