// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import "golang.org/x/sys/unix"

// Getxattr reads the extended attribute attr of name, or of d for "", of a
// symbolic link itself, and returns its length. With an empty buf only the
// length is asked for; ERANGE if buf is too small; ENODATA if it is not set;
// EOPNOTSUPP if there cannot be one.
func (d *Dir) Getxattr(name, attr string, buf []byte) (n int, err error) {
	if s := d.storeOf(attr); s != nil {
		return s.get(d, name, attr, buf)
	}
	err = d.at(name, func(fd int) (err error) {
		if haveXattrat() {
			n, err = getxattrat(fd, self(name), attr, buf)
		} else {
			n, err = unix.Lgetxattr(procPath(fd)+"/"+self(name), attr, buf)
		}
		return err
	})
	return n, err
}

// Setxattr sets the extended attribute attr of name, or of d for "", of a
// symbolic link itself. flags: XATTR_CREATE (EEXIST), XATTR_REPLACE (ENODATA).
func (d *Dir) Setxattr(name, attr string, val []byte, flags int) error {
	if s := d.storeOf(attr); s != nil {
		return s.set(d, name, attr, val, flags)
	}
	return d.at(name, func(fd int) error {
		if haveXattrat() {
			return setxattrat(fd, self(name), attr, val, flags)
		}
		return unix.Lsetxattr(procPath(fd)+"/"+self(name), attr, val, flags)
	})
}

// Removexattr removes the extended attribute attr (ENODATA if not set).
func (d *Dir) Removexattr(name, attr string) error {
	if s := d.storeOf(attr); s != nil {
		return s.remove(d, name, attr)
	}
	return d.at(name, func(fd int) error {
		if haveXattrat() {
			return removexattrat(fd, self(name), attr)
		}
		return unix.Lremovexattr(procPath(fd)+"/"+self(name), attr)
	})
}

// Listxattr fills buf with the names of all extended attributes, each ended by
// a NUL, and returns their length; with an empty buf only the length.
func (d *Dir) Listxattr(name string, buf []byte) (n int, err error) {
	var private []byte
	if s := d.layer.attrs; s != nil {
		if private, err = s.names(d, name); err != nil {
			return 0, err
		}
	}
	if len(private) > 0 {
		return d.listWith(private, name, buf)
	}
	return d.listxattr(name, buf)
}

// listWith is Listxattr where private names come before those that the file
// system lists.
func (d *Dir) listWith(private []byte, name string, buf []byte) (int, error) {
	var rest []byte
	if len(buf) > 0 {
		if len(buf) < len(private) {
			return 0, unix.ERANGE
		}
		if rest = buf[copy(buf, private):]; len(rest) == 0 {
			rest = make([]byte, 1) // not nil, which would ask for the length
		}
	}
	n, err := d.listxattr(name, rest)
	if err == unix.EOPNOTSUPP {
		n, err = 0, nil
	}
	if err == nil && len(buf) > 0 && len(private)+n > len(buf) {
		err = unix.ERANGE
	}
	if err != nil {
		return 0, err
	}
	return len(private) + n, nil
}

func (d *Dir) listxattr(name string, buf []byte) (n int, err error) {
	err = d.at(name, func(fd int) (err error) {
		if haveXattrat() {
			n, err = listxattrat(fd, self(name), buf)
		} else {
			n, err = unix.Llistxattr(procPath(fd)+"/"+self(name), buf)
		}
		return err
	})
	return n, err
}

// Getxattr is [Dir.Getxattr] on a descriptor. Neither fgetxattr(2) nor
// getxattrat(2) take an O_PATH descriptor, hence the magic link.
func (f FD) Getxattr(attr string, buf []byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Getxattr(procPath(int(f)), attr, buf)
		return err
	})
	return n, err
}

// Setxattr is [Dir.Setxattr] on a descriptor.
func (f FD) Setxattr(attr string, val []byte, flags int) error {
	return retry(func() error { return unix.Setxattr(procPath(int(f)), attr, val, flags) })
}

// Removexattr is [Dir.Removexattr] on a descriptor.
func (f FD) Removexattr(attr string) error {
	return retry(func() error { return unix.Removexattr(procPath(int(f)), attr) })
}

// Listxattr is [Dir.Listxattr] on a descriptor.
func (f FD) Listxattr(buf []byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Listxattr(procPath(int(f)), buf)
		return err
	})
	return n, err
}
