// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// renumberedDir is the root of a FUSE file system that shows the files of a
// directory with inode numbers of its own.
type renumberedDir struct {
	fs.LoopbackNode
	number func(name string) uint64
}

// Lookup finds a file.
func (n *renumberedDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child, errno := n.LoopbackNode.Lookup(ctx, name, out)
	if errno != 0 {
		return nil, errno
	}
	id := child.StableAttr()
	id.Ino = n.number(name)
	return n.NewInode(ctx, &fs.LoopbackNode{RootData: n.RootData}, id), 0
}

// renumbered mounts one, and returns what unmounts it.
func renumbered(t *testing.T, dir, mp string, number func(name string) uint64) func() {
	t.Helper()
	root := &renumberedDir{number: number}
	root.RootData = &fs.LoopbackRoot{Path: dir, RootNode: root}
	server, err := fs.Mount(mp, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, AllowOther: true, Name: "renumbered"}})
	must(t, err)
	return func() { must(t, server.Unmount()) }
}

// TestLowerNumbersChange: a FUSE file system need not give its inodes the same
// numbers when it is mounted again. What was copied up from it, in part or as a
// hard link, is not taken for another file then, and nothing is missing.
func TestLowerNumbersChange(t *testing.T) {
	requireRoot(t)
	dir := tempDir(t)
	behind := makeTree(t, filepath.Join(dir, "behind"), []string{
		"big=#3000000", "chmod=#5000", "f=first", "f2 => f", "g=second", "g2 => g"})
	mp := makeTree(t, filepath.Join(dir, "fs"), nil)
	number := func(turn uint64) func(string) uint64 {
		of := map[string]uint64{"big": 0, "chmod": 1, "f": 2, "f2": 3, "g": 4, "g2": 5}
		return func(name string) uint64 { return 11 + (of[name]+turn)%6 }
	}
	end := renumbered(t, behind, mp, number(0))
	u := newMount(t, mountOpts{lowerDirs: []string{mp}, noLowerCheck: true})
	big := pattern(3000000, 3000000)
	copy(big[1_500_000:], "written")
	u.writeAt("big", 1_500_000, "written")
	must(t, os.Chmod(u.path("chmod"), 0o600))
	must(t, os.Rename(u.path("chmod"), u.path("moved")))
	appendTo(t, u.path("f"), "+")
	must(t, os.Remove(u.path("g2")))
	for turn := range uint64(6) {
		u.unmount()
		end()
		end = renumbered(t, behind, mp, number(turn))
		u.mount()
		wantFile(t, u.path("big"), string(big))
		wantFile(t, u.path("moved"), string(pattern(5000, 5000)))
		wantFile(t, u.path("f"), "first+")
		wantFile(t, u.path("g"), "second")
		wantNames(t, u.mp, "big", "f", "f2", "g", "moved")
		u.wantClean()
	}
	u.unmount()
	end()
}

// TestLowerSizesLie: files of /sys say that they have 4096 bytes, and have less.
// What a copy of one holds is what could be read, also if its attributes were
// copied up first.
func TestLowerSizesLie(t *testing.T) {
	const lower, name = "/sys/kernel/cgroup", "features"
	want, err := os.ReadFile(filepath.Join(lower, name))
	if err != nil {
		t.Skip(err)
	}
	if st := lstat(t, filepath.Join(lower, name)); st.Size <= int64(len(want)) {
		t.Skipf("%d of %d bytes can be read", len(want), st.Size)
	}
	requirePlyfs(t, "no zeros after the content")
	u := newMount(t, mountOpts{lowerDirs: []string{lower}, noLowerCheck: true})
	wantFile(t, u.path(name), string(want))
	must(t, os.Chmod(u.path(name), 0o600))
	wantFile(t, u.path(name), string(want))
	appendTo(t, u.path(name), "more")
	for _, again := range []func(){func() {}, u.remount} {
		again()
		wantFile(t, u.path(name), string(want)+"more")
	}
}
