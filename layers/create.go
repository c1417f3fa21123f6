// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import "golang.org/x/sys/unix"

// Mkdir makes the directory name in d. The process's umask applies to mode.
func (d *Dir) Mkdir(name string, mode uint32) error {
	return d.in(name, func(fd int) error { return unix.Mkdirat(fd, name, mode) })
}

// Mknod makes the node name in d: mode holds the type (S_IFREG, S_IFCHR, ...),
// dev the device number in the encoding of unix.Mkdev. The process's umask
// applies to mode.
func (d *Dir) Mknod(name string, mode uint32, dev uint64) error {
	return d.in(name, func(fd int) error { return unix.Mknodat(fd, name, mode, int(dev)) })
}

// Symlink makes the symbolic link name in d. The target may be anything.
func (d *Dir) Symlink(target, name string) error {
	return d.in(name, func(fd int) error { return unix.Symlinkat(target, fd, name) })
}

// Link gives name in d the further name nname in nd. A symbolic link is linked
// itself. It is EPERM for a directory, EXDEV across mounts.
func (d *Dir) Link(name string, nd *Dir, nname string) error {
	return d.pair(name, nd, nname, func(fd, nfd int) error {
		return unix.Linkat(fd, name, nfd, nname, 0)
	})
}

// Unlink removes the name of anything but a directory (EISDIR).
func (d *Dir) Unlink(name string) error {
	return d.withVictim(name, func() error {
		return d.in(name, func(fd int) error { return unix.Unlinkat(fd, name, 0) })
	})
}

// Rmdir removes an empty directory (ENOTEMPTY, ENOTDIR).
func (d *Dir) Rmdir(name string) error {
	return d.withVictim(name, func() error {
		return d.in(name, func(fd int) error { return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) })
	})
}

// pair pins both directories and calls do.
func (d *Dir) pair(name string, nd *Dir, nname string, do func(fd, nfd int) error) error {
	if err := checkComponent(nname); err != nil {
		return err
	}
	return d.in(name, func(fd int) error {
		nfd, err := nd.Acquire()
		if err != nil {
			return err
		}
		defer nd.Release()
		return do(fd, nfd)
	})
}
