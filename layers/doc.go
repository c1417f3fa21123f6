// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package layers gives confined access to the backing directories of a mount.
//
// A [Layer] is one backing directory: the upper (or the work directory), which
// is writable, or a lower, which is reached through a private read-only clone
// of its mount so that nothing done through this package, and nothing that the
// kernel does with a descriptor that came from it, can write there.
//
// A [Dir] is a directory of a layer, known by its parent and its name. It
// costs no system call and no descriptor until it is used. When it is used, an
// O_PATH descriptor is opened component by component, never following a
// symbolic link, from the nearest ancestor that has one, and is kept in the
// mount's [Cache] until the cache needs the room. No path string is ever
// built, so trees deeper than PATH_MAX work and a component that somebody
// replaces by a symbolic link is refused (ENOTDIR), never followed.
//
// All operations take (Dir, name). The name "" means the directory itself;
// any other name must be one component: a name that is "." or "..", or holds
// a slash or a NUL, is answered EINVAL. The last component is never followed
// either. [FD] has the same operations for an open descriptor, for inodes
// that have no name.
//
// An [AttrStore] stands in for the xattrs of a writable layer whose file system
// has none, for those that are plyfs' own.
//
// Errors of operations are plain [golang.org/x/sys/unix.Errno] values, since
// they are what a file system answers with. Errors of setup (opening a layer,
// probing, locking) are wrapped with words.
//
// # Locks
//
// The order is: the [AttrStore]'s lock, the layer's topology lock (where directories are; taken for
// reading on a cache miss and for writing by a move), then the cache's lock.
// Pinning a directory that has its descriptor takes no lock at all.
//
// # Kernel
//
// Linux 5.12 (mount_setattr) is needed for read-only clones. fchmodat2 (6.6)
// and the xattrat calls (6.13) are used where [Features] finds them, otherwise
// /proc/self/fd stands in.
package layers
