// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// cloneReadOnly clones the mount that fd is on, with fd's directory as its
// root and without the mounts below, detached from every namespace, private
// and read-only. The clone lives as long as the descriptor, and what was
// opened through it. It needs CAP_SYS_ADMIN (EPERM), and within a user
// namespace a directory with nothing locked mounted below it (EINVAL).
func cloneReadOnly(fd int) (int, error) {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("cloning the mount (open_tree): %w", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(clone)
		return -1, fmt.Errorf("making the cloned mount read-only (mount_setattr): %w", err)
	}
	return clone, nil
}
