// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A shownTree is all that a tree shows: an entry's description by its path.
type shownTree map[string]string

// oldTime is the modification time of all that layers hold, for these tests.
var oldTime = unix.Timespec{Sec: 1e9}

// showTree walks a tree.
func showTree(root string) (shownTree, error) {
	tree, first := shownTree{}, map[[2]uint64]string{}
	var walk func(rel string) error
	walk = func(rel string) error {
		ents, err := os.ReadDir(filepath.Join(root, rel)) // sorted
		if err != nil {
			return err
		}
		for _, e := range ents {
			at := filepath.Join(rel, e.Name())
			s, err := showEntry(root, at, first)
			if err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
			tree[at] = s
			if s[0] == 'd' {
				if err := walk(at); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return tree, walk("")
}

// showEntry describes an entry: type, mode, owner, link count and the first
// path of the inode, whether it has the time of the layers, xattrs, content.
func showEntry(root, rel string, first map[[2]uint64]string) (string, error) {
	path := filepath.Join(root, rel)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	xattrs, err := showXattrs(path)
	if err != nil {
		return "", err
	}
	typ := st.Mode & unix.S_IFMT
	s := fmt.Sprintf("%o %d:%d %s", st.Mode&07777, st.Uid, st.Gid, xattrs)
	if typ == unix.S_IFDIR {
		return "dir " + s, nil
	}
	ino := [2]uint64{uint64(st.Dev), st.Ino}
	if first[ino] == "" {
		first[ino] = rel
	}
	s += fmt.Sprintf("%d links with %s, old %v ", st.Nlink, first[ino], st.Mtim == oldTime)
	switch typ {
	case unix.S_IFREG:
		data, err := tryRead(path)
		if int64(len(data)) != st.Size {
			s += fmt.Sprintf("size %d ", st.Size)
		}
		return "file " + s + shorten(data), err
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return "symlink " + s + target, err
	}
	return fmt.Sprintf("node %o %s%x", typ, s, st.Rdev), nil
}

// shorten names long contents by their length and first bytes.
func shorten(s string) string {
	if len(s) <= 64 {
		return fmt.Sprintf("%q", s)
	}
	sum := uint32(0)
	for i := range len(s) {
		sum = sum*31 + uint32(s[i])
	}
	return fmt.Sprintf("%q... %d bytes, sum %x", s[:16], len(s), sum)
}

func showXattrs(path string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return "", err
	}
	all := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(all)
	var s strings.Builder
	for _, name := range all {
		if name == "" || name == "security.selinux" || strings.HasPrefix(name, "trusted.SGI_ACL_") { // the last: ACLs as xfs keeps them
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&s, "%s=%x ", name, buf[:n])
	}
	return s.String(), nil
}

// diff says how a tree differs from the wanted one.
func (t shownTree) diff(want shownTree) string {
	var s strings.Builder
	for _, p := range sortedKeys(t, want) {
		if t[p] != want[p] {
			fmt.Fprintf(&s, "\n  %s: %s\n    want %s", p, orNothing(t[p]), orNothing(want[p]))
		}
	}
	return s.String()
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

func sortedKeys(trees ...shownTree) (all []string) {
	for _, t := range trees {
		for p := range t {
			all = append(all, p)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// timeless is the tree without what it says of times.
func (t shownTree) timeless() shownTree {
	out := make(shownTree, len(t))
	for p, s := range t {
		out[p] = strings.NewReplacer(", old true ", " ", ", old false ", " ").Replace(s)
	}
	return out
}

// wantAbsent looks up what a tree did not list: it must not be there for
// lookups either.
func (t shownTree) wantAbsent(tb testing.TB, root string, others ...shownTree) {
	tb.Helper()
	for _, p := range sortedKeys(others...) {
		var st unix.Stat_t
		if t[p] == "" && unix.Lstat(filepath.Join(root, p), &st) == nil {
			tb.Errorf("%s is not listed, and a lookup finds it", p)
		}
	}
}

// age gives all entries of a tree, but for directories, the time of the layers.
func age(root string) error {
	return filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{oldTime, oldTime}, unix.AT_SYMLINK_NOFOLLOW)
	})
}
