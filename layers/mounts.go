// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountOf finds the mount that fd is on in the mount table.
func mountOf(fd int) (*mountinfo.Info, error) {
	id, err := mountID(fd)
	if err != nil {
		return nil, err
	}
	found, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return uint64(m.ID) != id, uint64(m.ID) == id
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("mount %d is not in the mount table", id)
	}
	return found[0], nil
}

// mountAt is mountOf for a path.
func mountAt(path string) (*mountinfo.Info, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	return mountOf(fd)
}

// fsNames names the file systems worth naming when the mount table has no
// answer (the directory is on a detached mount, say).
var fsNames = map[int64]string{
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.ECRYPTFS_SUPER_MAGIC:  "ecryptfs",
	unix.EROFS_SUPER_MAGIC_V1:  "erofs",
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.FUSE_SUPER_MAGIC:      "fuse",
	unix.NFS_SUPER_MAGIC:       "nfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.SQUASHFS_MAGIC:        "squashfs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.XFS_SUPER_MAGIC:       "xfs",
}

// typeByMagic names the file system that fd is on by its magic number.
func typeByMagic(fd int) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return "unknown"
	}
	if name := fsNames[int64(st.Type)]; name != "" {
		return name
	}
	return fmt.Sprintf("unknown (0x%x)", uint64(st.Type))
}
