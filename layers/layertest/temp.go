// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package layertest helps to test what works on layers.
package layertest

import (
	"os"

	"golang.org/x/sys/unix"
)

// TempElsewhere puts the directories of the tests on a tmpfs where they would be
// on an overlay, as in a container: that holds no whiteouts, and little can be
// stacked on it. It is called before any test, and undo after the last.
func TempElsewhere() (undo func()) {
	var st unix.Statfs_t
	if unix.Statfs(os.TempDir(), &st) != nil || st.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return func() {}
	}
	dir, err := os.MkdirTemp("", "plyfs-test-")
	if err != nil || unix.Mount("tmpfs", dir, "tmpfs", 0, "") != nil {
		return func() { _ = os.Remove(dir) }
	}
	_ = os.Setenv("TMPDIR", dir)
	return func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		_ = os.Remove(dir)
	}
}
