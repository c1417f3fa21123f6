// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SameMount reports whether both directories are on one mount, so that a
// rename between them can work. Two bind mounts of one file system are two.
func SameMount(a, b *Dir) (bool, error) {
	am, err := a.mountID()
	if err != nil {
		return false, err
	}
	bm, err := b.mountID()
	return am == bm, err
}

func (d *Dir) mountID() (id uint64, err error) {
	err = d.at("", func(fd int) (err error) {
		id, err = mountID(fd)
		return err
	})
	return id, err
}

func mountID(fd int) (uint64, error) {
	var stx unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stx); err != nil {
		return 0, err
	}
	if stx.Mask&unix.STATX_MNT_ID == 0 {
		return 0, unix.EOPNOTSUPP
	}
	return stx.Mnt_id, nil
}

// Inside reports whether the directory child is the directory parent or lies
// below it. It walks up by ".." and compares device and inode numbers, so that
// neither symbolic links nor bind mounts of parent deceive it. (A bind mount
// of something inside parent, made outside of it, is not recognised.)
func Inside(child, parent string) (bool, error) {
	pfd, err := openRoot(parent)
	if err != nil {
		return false, err
	}
	defer unix.Close(pfd)
	want, err := identify(pfd)
	if err != nil {
		return false, err
	}
	fd, err := openRoot(child)
	if err != nil {
		return false, err
	}
	found, err := climb(fd, want)
	if err != nil {
		return false, fmt.Errorf("walking up from %s: %w", child, err)
	}
	return found, nil
}

// climb walks from fd, which it closes, up to the root and reports whether it
// met the directory want.
func climb(fd int, want identity) (bool, error) {
	defer func() { unix.Close(fd) }()
	at, err := placeOf(fd)
	for err == nil {
		if at.identity == want {
			return true, nil
		}
		var up int
		if up, err = openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			break
		}
		unix.Close(fd)
		fd = up
		last := at
		if at, err = placeOf(fd); at == last {
			return false, err // the root is its own parent
		}
	}
	return false, err
}

// place is an inode as reached through one mount: the root of a bind mount of
// its own parent has the inode of the directory above it but another mount.
type place struct {
	identity
	mount uint64
}

func placeOf(fd int) (place, error) {
	id, err := identify(fd)
	if err != nil {
		return place{}, err
	}
	mnt, err := mountID(fd)
	return place{id, mnt}, err
}
