// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLowerWithoutACL: files of a lower layer whose file system cannot hold ACLs
// (squashfs and many others) are judged by their modes. That there is no ACL is
// ENODATA, as on kernel overlayfs: any other error fails the access.
func TestLowerWithoutACL(t *testing.T) {
	for _, fstype := range []string{"ramfs", "squashfs"} {
		t.Run(fstype, func(t *testing.T) {
			low := makeTree(t, filepath.Join(newFS(t, "ramfs", 0), "low"), []string{"open=1 {0644 1000:1000}", "closed=1 {0600 1000:1000}", "d/ {0755 1000:1000}", "d/f=1 {0640 1000:2000}"})
			if fstype == "squashfs" {
				low = squash(t, low)
			}
			if _, err := lgetxattr(low+"/open", "system.posix_acl_access"); err != unix.EOPNOTSUPP {
				t.Fatalf("the lower file system has ACLs: %v", err)
			}
			u := newMount(t, mountOpts{lowerDirs: []string{low}})
			for _, who := range []user{root, bob} {
				as(t, who, func() {
					for name, readable := range map[string]bool{"open": true, "closed": who.uid == 0, "d/f": who.uid == 0} {
						if _, err := os.ReadFile(u.path(name)); (err == nil) != readable || err != nil && !os.IsPermission(err) {
							t.Errorf("user %d reads %s: %v", who.uid, name, err)
						}
					}
				})
			}
			for _, attr := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
				_, err := lgetxattr(u.path("d"), attr)
				wantErrno(t, attr, err, unix.ENODATA)
			}
			must(t, withFile(u.path("open"), os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
				_, err := f.WriteString("2")
				return err
			}))
		})
	}
}

// squash makes a squashfs of a tree and mounts it.
func squash(t testing.TB, tree string) string {
	t.Helper()
	mksquashfs, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Skip("mksquashfs is not installed")
	}
	dir := tempDir(t)
	mp := makeTree(t, filepath.Join(dir, "fs"), nil)
	run(t, "", mksquashfs, tree, filepath.Join(dir, "image"), "-quiet", "-no-progress")
	out, err := exec.Command("mount", "-o", "loop,ro", filepath.Join(dir, "image"), mp).CombinedOutput()
	if err != nil && strings.Contains(string(out), "unknown filesystem type") {
		t.Skip("this kernel has no squashfs")
	} else if err != nil {
		t.Fatalf("mounting the squashfs: %v: %s", err, out)
	}
	t.Cleanup(func() { must(t, unmountSoon(mp)) })
	return mp
}
