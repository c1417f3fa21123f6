// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"strings"

	"golang.org/x/sys/unix"
)

// checkComponent is EINVAL unless name is exactly one path component.
func checkComponent(name string) error {
	if name == "" {
		return unix.EINVAL
	}
	return checkName(name)
}

// checkName is EINVAL unless name is one path component or "", which stands
// for the directory itself.
func checkName(name string) error {
	if name == "." || name == ".." {
		return unix.EINVAL
	}
	if strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0 {
		return unix.EINVAL
	}
	return nil
}

// self turns the name "" into ".", for system calls that do not take
// AT_EMPTY_PATH on an O_PATH descriptor.
func self(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// at pins d, checks name (which may be "") and calls do. A call cut short by a
// signal is made again: Go's scheduler sends signals all the time, and file
// systems in user space answer EINTR to them.
func (d *Dir) at(name string, do func(fd int) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	fd, err := d.Acquire()
	if err != nil {
		return err
	}
	defer d.Release()
	return retry(func() error { return do(fd) })
}

// in is at for calls that need a component.
func (d *Dir) in(name string, do func(fd int) error) error {
	if name == "" {
		return unix.EINVAL
	}
	return d.at(name, do)
}

// retry calls do until it is not interrupted.
func retry(do func() error) error {
	for {
		if err := do(); err != unix.EINTR {
			return err
		}
	}
}
