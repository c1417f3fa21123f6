// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// volume is what each part of the layers of these tests holds.
func volume(v string) []string {
	return []string{
		v + "/f=of " + v, v + "/g => " + v + "/f", v + "/big=#3000000", v + "/single=of " + v,
		v + "/d/x=of " + v, v + "/d/fifo {fifo}", v + "/d/fifo2 => " + v + "/d/fifo",
	}
}

// subvolumes makes a btrfs layer with two subvolumes and a read-only snapshot
// of the first in it, whose files have equal inode numbers.
func subvolumes(t *testing.T) string {
	t.Helper()
	requireRoot(t)
	if _, err := exec.LookPath("btrfs"); err != nil {
		t.Skip("btrfs is not installed")
	}
	low := makeTree(t, filepath.Join(newFS(t, "btrfs", 256), "low"), nil)
	for _, v := range []string{"v1", "v2"} {
		run(t, low, "btrfs", "subvolume", "create", v)
		makeTree(t, low, volume(v))
	}
	run(t, low, "btrfs", "subvolume", "snapshot", "-r", "v1", "v3")
	if a, b := lstat(t, low+"/v1/f"), lstat(t, low+"/v2/f"); a.Ino != b.Ino || a.Dev == b.Dev {
		t.Fatalf("inodes %d and %d of devices %d and %d", a.Ino, b.Ino, a.Dev, b.Dev)
	}
	return low
}

// overlayOf mounts a kernel overlay without xino over layers of several file
// systems, whose files show the inode numbers of these, and devices for each.
func overlayOf(t *testing.T, fstypes ...string) string {
	t.Helper()
	requireRoot(t)
	var lowers []string
	for i, fstype := range fstypes {
		lowers = append(lowers, makeTree(t, filepath.Join(newFS(t, fstype, 64), "l"), volume(fmt.Sprintf("v%d", i+1))))
	}
	mp := makeTree(t, filepath.Join(tempDir(t), "overlay"), nil)
	run(t, "", "mount", "-t", "overlay", "-o", "xino=off,lowerdir="+strings.Join(lowers, ":"), "overlay", mp)
	t.Cleanup(func() { must(t, unmountSoon(mp)) })
	return mp
}

// wantApart expects that all entries have inode numbers of their own, but for
// the hard links in one directory.
func wantApart(t *testing.T, u *union) {
	t.Helper()
	seen := map[uint64]string{}
	must(t, filepath.Walk(u.mp, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := lstat(t, p)
		if other, dup := seen[st.Ino]; dup && (fi.IsDir() || st.Nlink < 2 || filepath.Dir(other) != filepath.Dir(p)) {
			t.Errorf("%s and %s have inode number %d", other, p, st.Ino)
		}
		seen[st.Ino] = p
		return nil
	}))
}

// TestSubvolumes: inodes of a layer that have equal numbers, for they are of
// several devices, are not taken for each other: hard links are kept within a
// subvolume, and what is written to one file is in no other; also after a
// rename, a remount and a completion.
func TestSubvolumes(t *testing.T) {
	requirePlyfs(t, "numbers of their own, and hard links that are kept on any layer")
	for name, layer := range map[string]func(*testing.T) string{
		"btrfs":   subvolumes,
		"overlay": func(t *testing.T) string { return overlayOf(t, "ext4", "ext4") },
	} {
		t.Run(name, func(t *testing.T) {
			u := newMount(t, mountOpts{lowerDirs: []string{layer(t)}})
			content, inos := map[string]string{}, map[string]uint64{}
			volumes, err := filepath.Glob(u.path("v?"))
			must(t, err)
			for _, p := range volumes {
				v := filepath.Base(p)
				of := map[string]string{"v1": "of v1", "v2": "of v2", "v3": "of v1"}[v]
				inos[v+"/f"], inos[v+"/g"], inos[v+"-moved"] = lstat(t, p+"/f").Ino, lstat(t, p+"/g").Ino, lstat(t, p+"/single").Ino
				appendTo(t, p+"/f", "+"+v)
				must(t, os.Chmod(p+"/single", 0o600))
				u.writeAt(v+"/big", 1_500_000, "of "+v)
				must(t, os.Chmod(p+"/d/fifo", 0o600))
				must(t, os.Rename(p+"/single", u.path(v+"-moved")))
				must(t, os.Rename(p+"/d", u.path(v+"-d")))
				content[v+"/f"], content[v+"/g"] = of+"+"+v, of+"+"+v
				content[v+"-moved"], content[v+"-d/x"] = of, of
				big := pattern(3000000, 3000000)
				copy(big[1_500_000:], "of "+v)
				content[v+"/big"] = string(big)
			}
			for _, again := range []func(){func() {}, u.remount, func() { run(t, "", plyfsBin, "complete", u.mp) }, u.remount} {
				again()
				wantApart(t, u)
				for name, want := range content {
					wantFile(t, u.path(name), want)
				}
				for name, ino := range inos {
					if st := lstat(t, u.path(name)); st.Ino != ino || strings.HasSuffix(name, "/f") && st.Nlink != 2 {
						t.Errorf("%s has inode number %d, and had %d; it has %d links", name, st.Ino, ino, st.Nlink)
					}
				}
				for _, p := range volumes {
					if a, b := lstat(t, p+"-d/fifo"), lstat(t, p+"-d/fifo2"); a.Ino != b.Ino || b.Mode&0o777 != 0o600 {
						t.Errorf("%s: the fifo has inodes %d and %d, mode %#o", p, a.Ino, b.Ino, b.Mode)
					}
				}
				u.wantClean()
			}
		})
	}
}

// TestSubvolumesUnnamed: where such inodes have no file handles either (an
// overlay of ramfs), hard links are not kept, but nothing is taken for another.
func TestSubvolumesUnnamed(t *testing.T) {
	u := newMount(t, mountOpts{lowerDirs: []string{overlayOf(t, "ext4", "ramfs")}})
	content := map[string]string{}
	for _, v := range []string{"v1", "v2"} {
		appendTo(t, u.path(v, "f"), "+"+v)
		must(t, os.Chmod(u.path(v, "single"), 0o600))
		must(t, os.Rename(u.path(v, "single"), u.path(v+"-moved")))
		must(t, os.Remove(u.path(v, "d/fifo")))
		content[v+"/f"], content[v+"-moved"] = "of "+v+"+"+v, "of "+v
	}
	for _, again := range []func(){func() {}, u.remount} {
		again()
		for name, want := range content {
			wantFile(t, u.path(name), want)
		}
		for _, v := range []string{"v1", "v2"} {
			wantNames(t, u.path(v, "d"), "fifo2", "x")
		}
	}
	u.wantClean()
}

// wantClean expects that a check of the live mount finds nothing wrong.
func (u *union) wantClean() {
	u.Helper()
	if u.sut != sutPlyfs {
		return
	}
	if out, err := plyfs("check", u.mp); err != nil {
		u.Errorf("check: %v\n%s", err, out)
	}
}

// appendTo appends to a file.
func appendTo(t testing.TB, path, s string) {
	t.Helper()
	must(t, withFile(path, os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
		_, err := f.WriteString(s)
		return err
	}))
}
