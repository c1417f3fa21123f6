// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Layer is one backing directory of a mount.
type Layer struct {
	Index    int    // 0 for the upper (and the work directory), 1 and up for the lowers, topmost first
	Path     string // as it was given; for messages
	Dev      uint64 // device number of the root
	RootIno  uint64 // inode number of the root
	FSType   string // as mountinfo names it, with subtype
	FSUUID   string // of the file system (Linux 6.9), "" where it has none or does not tell
	Depth    int    // stacking depth of the file system, 0 for an ordinary one
	DepthWhy string // the same in words: "overlay on ext4"

	// ReadOnly: the layer is reached through a private read-only clone of its
	// mount. If it could not be cloned CloneErr says why, and ReadOnly is
	// false; the caller decides whether that will do.
	ReadOnly bool
	CloneErr error

	// Dialects are the whiteout dialects that [Dir.IsXWhiteout] and
	// [Dir.FileMarks] read. AllDialects unless the caller changes it before
	// use.
	Dialects Dialect
	// Paired says of a lower layer that it was the upper of a mount. Set by the
	// user of the package.
	Paired bool

	cache     *Cache
	attrs     *AttrStore // of a file system that has no xattrs, else nil
	root      *Dir
	stableIno bool // a directory that is opened again must have its inode number
	topo      sync.RWMutex
}

// OpenLower opens the directory path (symbolic links in it are followed) as
// the lower layer of that index. It is reached through a private, read-only,
// detached clone of its mount, without the mounts below it, so that what is
// mounted inside the layer is not seen, the kernel's passthrough cannot write
// it, and nobody can unmount it.
func OpenLower(path string, index int, c *Cache) (*Layer, error) {
	fd, err := openRoot(path)
	if err != nil {
		return nil, err
	}
	l := &Layer{Index: index, Path: path, cache: c, Dialects: AllDialects}
	clone, err := cloneReadOnly(fd)
	if err != nil {
		l.CloneErr = err
		clone = fd
	}
	l.ReadOnly = l.CloneErr == nil
	err = l.setup(fd, clone)
	if clone != fd {
		unix.Close(fd)
	}
	if err != nil {
		unix.Close(clone)
		return nil, err
	}
	return l, nil
}

// OpenUpper opens the directory path as the upper layer or the work directory.
// It is not cloned: renames must work between both, and the kernel allows them
// only within one mount.
func OpenUpper(path string, c *Cache) (*Layer, error) {
	fd, err := openRoot(path)
	if err != nil {
		return nil, err
	}
	l := &Layer{Path: path, cache: c, Dialects: AllDialects}
	if err := l.setup(fd, fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return l, nil
}

func openRoot(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("layer %s: %w", path, err)
	}
	return fd, nil
}

// setup fills l from plain, a descriptor on the mount that the user named, and
// makes root, which may lie on a clone of it, the layer's root.
func (l *Layer) setup(plain, root int) error {
	var st unix.Stat_t
	if err := unix.Fstat(plain, &st); err != nil {
		return fmt.Errorf("layer %s: %w", l.Path, err)
	}
	l.Dev, l.RootIno = uint64(st.Dev), st.Ino
	l.FSType, l.Depth, l.DepthWhy = depthOf(plain)
	l.FSUUID = fsUUID(plain)
	// File systems in user space may number an inode anew each time it is
	// looked up, and lowers do not change: only upper is held to its numbers.
	l.stableIno = l.Index == 0 && !strings.HasPrefix(l.FSType, "fuse")
	l.root = &Dir{layer: l, id: identity{l.Dev, l.RootIno}}
	l.root.state.Store(uint64(root+1)<<fdShift | 1)
	return nil
}

// Root is the layer's directory itself. Its descriptor is always open.
func (l *Layer) Root() *Dir { return l.root }

// Close closes all descriptors of the layer, each one that is pinned at its
// last Release. The layer and its directories must not be used afterwards:
// EBADF is what they answer.
func (l *Layer) Close() error {
	l.cache.mu.Lock()
	closed := l.root.state.Load()>>fdShift == 0 || l.root.state.Load()&doomed != 0
	if !closed {
		l.root.state.Or(doomed)
	}
	l.cache.mu.Unlock()
	if closed {
		return nil
	}
	l.cache.doom(func(d *Dir) bool { return d.layer == l })
	l.root.Release()
	return nil
}
