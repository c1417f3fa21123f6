// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fields is what was seen of one entry, by name: type, mode, owner, ...
type fields map[string]string

// treeDump is what was seen of a tree, by path relative to its root, which
// is ".".
type treeDump map[string]fields

// dumpOptions choose what is seen.
type dumpOptions struct {
	inode    bool // inode number, change time, exact modification time: for "nothing has changed"
	noData   bool // leave out the contents
	dirNlink bool // link counts of directories
}

// newTime is the border between times kept from a fixture or set by a test
// and those that a change has just made, which are seen as "now".
var newTime = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)

// dumpTree walks the tree at root.
func dumpTree(root string, o dumpOptions) (treeDump, error) {
	d := treeDump{}
	groups := map[uint64]string{}
	err := walk(root, ".", func(p string) error {
		f, st, err := seeEntry(filepath.Join(root, p), o)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if groups[st.Ino] == "" {
				groups[st.Ino] = p
			}
			f["links"] = groups[st.Ino]
		}
		d[p] = f
		return nil
	})
	return d, err
}

// walk calls fn for p below root and all that is under it, in order of names.
func walk(root, p string, fn func(p string) error) error {
	if err := fn(p); err != nil {
		return err
	}
	names, err := readNames(filepath.Join(root, p))
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	sort.Strings(names)
	for _, n := range names {
		if err := walk(root, filepath.Join(p, n), fn); err != nil {
			return err
		}
	}
	return nil
}

// readNames lists a directory without following a link at its place.
func readNames(dir string) ([]string, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	return f.Readdirnames(-1)
}

// seeEntry looks at one entry with all that belongs to it.
func seeEntry(path string, o dumpOptions) (fields, *unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, nil, err
	}
	f := seeStat(&st, o)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return nil, nil, err
		}
		f["target"] = target
	case unix.S_IFREG:
		if !o.noData {
			sum, err := hashFile(path)
			if err != nil {
				return nil, nil, err
			}
			f["data"] = sum
		}
	}
	xs, err := readXattrs(path)
	if err != nil {
		return nil, nil, err
	}
	for k, v := range xs {
		f["xattr "+k] = fmt.Sprintf("%q", v)
	}
	return f, &st, nil
}

// seeStat takes from st what can be compared between file systems.
func seeStat(st *unix.Stat_t, o dumpOptions) fields {
	f := fields{
		"type":  typeName(st.Mode),
		"mode":  fmt.Sprintf("%04o", st.Mode&0o7777),
		"owner": fmt.Sprintf("%d:%d", st.Uid, st.Gid),
	}
	f["mtime"] = "now"
	if mt := time.Unix(st.Mtim.Unix()); o.inode || mt.Before(newTime) {
		f["mtime"] = mt.UTC().Format(time.RFC3339Nano)
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !dir {
		f["size"] = fmt.Sprint(st.Size)
	}
	if !dir || o.dirNlink {
		f["nlink"] = fmt.Sprint(st.Nlink)
	}
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		f["rdev"] = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if o.inode {
		f["ino"] = fmt.Sprint(st.Ino)
		f["ctime"] = time.Unix(st.Ctim.Unix()).UTC().Format(time.RFC3339Nano)
	}
	return f
}

// typeName names the file type of a mode.
func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "sock"
	case unix.S_IFCHR:
		return "chr"
	case unix.S_IFBLK:
		return "blk"
	}
	return fmt.Sprintf("%#o", mode)
}

// hashFile reads a whole file and says its length and hash.
func hashFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NOATIME, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d bytes %x", n, h.Sum(nil)[:8]), nil
}

// readXattrs reads all extended attributes of path itself.
func readXattrs(path string) (map[string]string, error) {
	n, err := unix.Llistxattr(path, nil)
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		return nil, fmt.Errorf("listxattr: %w", err)
	}
	buf := make([]byte, n+256)
	if n, err = unix.Llistxattr(path, buf); err != nil {
		return nil, fmt.Errorf("listxattr: %w", err)
	}
	xs := map[string]string{}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		v, err := lgetxattr(path, name)
		if err != nil {
			return nil, fmt.Errorf("getxattr %s, which was listed: %w", name, err)
		}
		xs[name] = v
	}
	return xs, nil
}

// lgetxattr reads one extended attribute of path itself.
func lgetxattr(path, name string) (string, error) {
	buf := make([]byte, 65536)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// diffTrees says in lines how got differs from want; ignore leaves out a field
// of an entry.
func diffTrees(want, got treeDump, ignore func(path, field string) bool) []string {
	var out []string
	for _, p := range sortedKeys(want, got) {
		w, g := want[p], got[p]
		switch {
		case w == nil:
			out = append(out, fmt.Sprintf("%s: is there (%s), must not be", p, g["type"]))
			continue
		case g == nil:
			out = append(out, fmt.Sprintf("%s: is missing (%s)", p, w["type"]))
			continue
		}
		for _, k := range sortedKeys(w, g) {
			if w[k] != g[k] && (ignore == nil || !ignore(p, k)) {
				out = append(out, fmt.Sprintf("%s: %s: got %q, want %q", p, k, g[k], w[k]))
			}
		}
	}
	return out
}

// sortedKeys is the sorted union of the keys of two maps.
func sortedKeys[V any, M ~map[string]V](a, b M) []string {
	set := map[string]struct{}{}
	for k := range a {
		set[k] = struct{}{}
	}
	for k := range b {
		set[k] = struct{}{}
	}
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
