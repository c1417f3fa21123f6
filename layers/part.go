// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import "golang.org/x/sys/unix"

// OpenReadOnly opens the file that fd is open on once more, for reading,
// through a private read-only clone of its mount, so that nothing that is done
// with the descriptor, by the kernel's passthrough either, can write the file.
// It needs what [OpenLower] needs.
func OpenReadOnly(fd int) (int, error) {
	clone, err := cloneReadOnly(fd)
	if err != nil {
		return -1, err
	}
	defer unix.Close(clone)
	return FD(clone).Reopen(unix.O_RDONLY | unix.O_NONBLOCK)
}
