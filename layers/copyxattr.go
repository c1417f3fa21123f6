// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"
)

// Xattrs is an inode with extended attributes: an [FD] or an [At].
type Xattrs interface {
	Getxattr(attr string, buf []byte) (int, error)
	Setxattr(attr string, val []byte, flags int) error
	Listxattr(buf []byte) (int, error)
}

// At is the inode called Name in Dir ("": the directory itself).
type At struct {
	Dir  *Dir
	Name string
}

// Getxattr is [Dir.Getxattr] of the name.
func (a At) Getxattr(attr string, buf []byte) (int, error) {
	return a.Dir.Getxattr(a.Name, attr, buf)
}

// Setxattr is [Dir.Setxattr] of the name.
func (a At) Setxattr(attr string, val []byte, flags int) error {
	return a.Dir.Setxattr(a.Name, attr, val, flags)
}

// Listxattr is [Dir.Listxattr] of the name.
func (a At) Listxattr(buf []byte) (int, error) { return a.Dir.Listxattr(a.Name, buf) }

// CopyXattrs copies the extended attributes of src to dst, those for which
// keep is true (nil: all). POSIX ACLs and security.* must succeed; another one
// that dst cannot have is left out, as overlayfs does
// (copy_up.c:ovl_copy_xattr). A source that cannot have any is fine.
func CopyXattrs(src, dst Xattrs, keep func(attr string) bool) error {
	names, err := listXattrs(src)
	if err != nil {
		return ignoreUnset(err)
	}
	for _, attr := range names {
		if keep != nil && !keep(attr) {
			continue
		}
		if err := copyXattr(src, dst, attr); err != nil {
			return err
		}
	}
	return nil
}

func copyXattr(src, dst Xattrs, attr string) error {
	val, err := readXattr(src, attr)
	if err == unix.ENODATA {
		return nil // removed since it was listed
	}
	if err == nil {
		err = dst.Setxattr(attr, val, 0)
	}
	if mayOmit(attr, err) {
		return nil
	}
	return err
}

// mayOmit reports whether a copy may go without attr, which failed by err. A
// file system's own attributes (system.nfs4_acl, system.cifs_acl, btrfs
// properties) are refused elsewhere in various ways.
func mayOmit(attr string, err error) bool {
	if mustCopy(attr) {
		return false
	}
	switch err {
	case unix.EOPNOTSUPP:
		return true
	case unix.EPERM, unix.EINVAL:
		return strings.HasPrefix(attr, "system.") || strings.HasPrefix(attr, "btrfs.")
	}
	return false
}

// mustCopy names what a copy must not go without: losing it would widen
// access or lose capabilities.
func mustCopy(attr string) bool {
	return attr == "system.posix_acl_access" || attr == "system.posix_acl_default" ||
		strings.HasPrefix(attr, "security.")
}

// listXattrs is the names of all extended attributes.
func listXattrs(x Xattrs) (names []string, err error) {
	list, err := grow(func(buf []byte) (int, error) { return x.Listxattr(buf) })
	if err != nil {
		return nil, err
	}
	for name := range bytes.SplitSeq(list, []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names, nil
}

// readXattr is the whole value of one extended attribute.
func readXattr(x Xattrs, attr string) ([]byte, error) {
	return grow(func(buf []byte) (int, error) { return x.Getxattr(attr, buf) })
}

// grow reads with ever larger buffers until all fits, up to the kernel's limit
// of 64 KiB (XATTR_SIZE_MAX, XATTR_LIST_MAX).
func grow(read func(buf []byte) (int, error)) ([]byte, error) {
	for size := 1 << 10; ; size *= 8 {
		buf := make([]byte, size)
		n, err := read(buf)
		if err == unix.ERANGE && size < 64<<10 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
