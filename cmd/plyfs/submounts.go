// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// submount is a mount below the base of plyfs run, cloned with all that is
// mounted below it.
type submount struct {
	rel  string // relative to the base
	tree int    // descriptor of the clone
	mask string // directory in it to hide, relative to it, or empty
}

// submounts are put back over the overlay, which does not show them: a layer
// is one file system without what is mounted in it.
type submounts []submount

// cloneSubmounts clones what is mounted strictly below base. The scratch
// directory, if it lies in one of them, is to be hidden: the command must not
// reach behind the overlay.
func cloneSubmounts(base, scratch string) (submounts, error) {
	points, err := pointsBelow(base)
	if err != nil {
		return nil, err
	}
	var list submounts
	for _, p := range points {
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_SYMLINK_NOFOLLOW)
		tree, err := unix.OpenTree(unix.AT_FDCWD, p, flags)
		if err == unix.ENOENT || err == unix.EACCES { // covered by another mount, or gone
			continue
		}
		if err != nil {
			list.close()
			return nil, fail(exitRunFailed, "%s: mounted below the base, cannot be cloned: %w", p, err)
		}
		rel, _ := filepath.Rel(base, p)
		s := submount{rel: rel, tree: tree}
		if inside, ok := strings.CutPrefix(scratch, p+"/"); ok {
			s.mask = inside
		}
		list = append(list, s)
	}
	return list, nil
}

// pointsBelow lists the topmost mount points strictly below a directory.
func pointsBelow(base string) ([]string, error) {
	prefix := strings.TrimSuffix(base, "/") + "/"
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Mountpoint == "/" || !strings.HasPrefix(i.Mountpoint, prefix) || strings.HasSuffix(i.Mountpoint, "//deleted"), false
	})
	if err != nil {
		return nil, err
	}
	var points []string
	for _, i := range infos {
		points = append(points, i.Mountpoint)
	}
	slices.Sort(points)
	var top []string
	for _, p := range slices.Compact(points) {
		if !slices.ContainsFunc(top, func(t string) bool { return strings.HasPrefix(p, t+"/") }) {
			top = append(top, p)
		}
	}
	return top, nil
}

// attach puts the clones over the overlay that is mounted at base.
func (list submounts) attach(base string) error {
	root, err := unix.Open(topOf(base), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: base, Err: err}
	}
	defer unix.Close(root)
	for _, s := range list {
		if err := unix.MoveMount(s.tree, "", root, s.rel, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fail(exitRunFailed, "%s: cannot be mounted over the overlay again: %w", filepath.Join(base, s.rel), err)
		}
		if s.mask == "" {
			continue
		}
		if err := mask(root, filepath.Join(s.rel, s.mask)); err != nil {
			return fail(exitRunFailed, "hiding the scratch directory: %w", err)
		}
	}
	return nil
}

// mask mounts an empty directory over one.
func mask(root int, rel string) error {
	fd, err := unix.Openat(root, rel, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	err = unix.Mount("none", fmt.Sprintf("/proc/self/fd/%d", fd), "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "mode=000,size=4k")
	return os.NewSyscallError("mount", err)
}

// close gives the clones up that were not attached.
func (list submounts) close() {
	for _, s := range list {
		_ = unix.Close(s.tree)
	}
}
