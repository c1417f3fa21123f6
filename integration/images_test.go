// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// newFS makes a file system of the type (ext4, xfs, btrfs by an image on a
// loop device, tmpfs) with the size in MiB and mounts it for the test. The
// arguments are for mkfs.
func newFS(t testing.TB, fstype string, size int64, args ...string) string {
	t.Helper()
	requireRoot(t)
	dir := tempDir(t)
	mp := makeTree(t, filepath.Join(dir, "fs"), nil)
	if fstype == "tmpfs" || fstype == "ramfs" {
		must(t, unix.Mount(fstype, mp, fstype, 0, "mode=755"))
	} else {
		image := filepath.Join(dir, "image")
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, size<<20))
		mkfs, err := exec.LookPath("mkfs." + fstype)
		if err != nil {
			t.Skipf("mkfs.%s is not installed", fstype)
		}
		run(t, "", mkfs, slices.Concat([]string{"-q"}, args, []string{image})...)
		run(t, "", "mount", "-o", "loop", image, mp)
	}
	t.Cleanup(func() {
		if err := unmountSoon(mp); err != nil {
			t.Errorf("unmounting the %s of the test: %v", fstype, err)
			unix.Unmount(mp, unix.MNT_DETACH)
		}
	})
	return mp
}

// run runs a command in dir and returns its output; its failure ends the test.
func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}
