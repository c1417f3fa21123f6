// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A lowerCase is a stack of layers, topmost first, and what their merged view
// shows: directories as "PATH/", files as "PATH=CONTENT".
type lowerCase struct {
	name   string
	layers [][]string
	want   []string
	// kernel: the marks are kernel overlayfs', which is mounted over the
	// same layers to prove the expectation.
	kernel bool
}

const (
	tOpaque   = "trusted.overlay.opaque"
	tRedirect = "trusted.overlay.redirect"
	tMetacopy = "trusted.overlay.metacopy"
)

var lowerCases = []lowerCase{
	{name: "one layer", kernel: true,
		layers: [][]string{{"file a 1", "file d/b 2", "dir e"}},
		want:   []string{"a=1", "d/", "d/b=2", "e/"}},
	{name: "merge", kernel: true,
		layers: [][]string{{"file d/x 1", "file top 1"}, {"file d/x 2", "file d/y 2", "file top 2"}, {"file d/z 3", "file low 3"}},
		want:   []string{"d/", "d/x=1", "d/y=2", "d/z=3", "low=3", "top=1"}},
	{name: "file above directory", kernel: true,
		layers: [][]string{{"file d 1"}, {"file d/x 2"}},
		want:   []string{"d=1"}},
	{name: "directory above file", kernel: true,
		layers: [][]string{{"file d/x 1"}, {"file d 2"}},
		want:   []string{"d/", "d/x=1"}},
	{name: "file between directories", kernel: true,
		layers: [][]string{{"file d/x 1"}, {"file d 2"}, {"file d/z 3"}},
		want:   []string{"d/", "d/x=1"}},
	{name: "whiteout", kernel: true,
		layers: [][]string{{"whiteout a", "whiteout d", "whiteout none"}, {"file a 2", "file d/x 2", "file b 2"}},
		want:   []string{"b=2"}},
	{name: "whiteout at the bottom", kernel: true,
		layers: [][]string{{"file b 1"}, {"whiteout a"}},
		want:   []string{"b=1"}},
	{name: "whiteout in the only layer",
		layers: [][]string{{"whiteout a", "file b 1", "whiteout d/x", "file d/y 1"}},
		want:   []string{"b=1", "d/", "d/y=1"}},
	{name: "whiteout between directories", kernel: true,
		layers: [][]string{{"file d/x 1"}, {"whiteout d"}, {"file d/z 3"}},
		want:   []string{"d/", "d/x=1"}},
	{name: "file below a whiteout comes back above it", kernel: true,
		layers: [][]string{{"file a 1"}, {"whiteout a"}, {"file a 3"}},
		want:   []string{"a=1"}},
	{name: "opaque", kernel: true,
		layers: [][]string{{"file d/x 1"}, {"file d/y 2", "xattr d " + tOpaque + " y"}, {"file d/z 3", "file e 3"}},
		want:   []string{"d/", "d/x=1", "d/y=2", "e=3"}},
	{name: "opaque with another value", kernel: true,
		layers: [][]string{{"file d/x 1", "xattr d " + tOpaque + " n"}, {"file d/z 3"}},
		want:   []string{"d/", "d/x=1", "d/z=3"}},
	{name: "opaque deeper", kernel: true,
		layers: [][]string{{"file d/e/x 1", "xattr d/e " + tOpaque + " y"}, {"file d/e/z 3", "file d/f 3"}},
		want:   []string{"d/", "d/e/", "d/e/x=1", "d/f=3"}},
	{name: "user dialect",
		layers: [][]string{{"file d/x 1", "xattr d user.overlay.opaque y"}, {"file d/z 3"}},
		want:   []string{"d/", "d/x=1"}},
	{name: "xwhiteout", kernel: true,
		layers: [][]string{
			{"file d/x 1"},
			{"file d/a", "xattr d " + tOpaque + " x", "xattr d/a trusted.overlay.whiteout y", "file d/full 2", "xattr d/full trusted.overlay.whiteout y"},
			{"file d/a 3", "file d/b 3", "file d/full 3"}},
		want: []string{"d/", "d/b=3", "d/full=2", "d/x=1"}},
	{name: "xwhiteout of the user dialect",
		layers: [][]string{
			{"file d/x 1", "file d/a", "xattr d user.overlay.opaque x", "xattr d/a user.overlay.whiteout y"},
			{"file d/a 3", "file d/b 3"}},
		want: []string{"d/", "d/b=3", "d/x=1"}},
	// Kernel overlayfs is of two minds here: it lists the name, and hides it
	// from lookups.
	{name: "xwhiteout needs its directory's mark",
		layers: [][]string{{"file d/x 1"}, {"file d/a", "xattr d/a trusted.overlay.whiteout y"}, {"file d/a 3"}},
		want:   []string{"d/", "d/a=", "d/x=1"}},
	{name: "xwhiteout in the only layer",
		layers: [][]string{{"file d/a", "xattr d " + tOpaque + " x", "xattr d/a trusted.overlay.whiteout y", "file d/b 1"}},
		want:   []string{"d/", "d/b=1"}},
	{name: "OCI whiteout",
		layers: [][]string{{"file .wh.a", "file d/.wh.x", "file d/y 1"}, {"file a 2", "file b 2", "file d/x 2", "file d/z 2"}},
		want:   []string{"b=2", "d/", "d/y=1", "d/z=2"}},
	{name: "OCI whiteout beside the name",
		layers: [][]string{{"file d/.wh.a", "file d/a 1", "file .wh.e", "file e/x 1"}, {"file d/a 2", "file e/z 2"}},
		want:   []string{"d/", "d/a=1", "e/", "e/x=1"}},
	{name: "OCI whiteout of a directory",
		layers: [][]string{{"file t 1"}, {"file .wh.d"}, {"file d/x 3"}},
		want:   []string{"t=1"}},
	{name: "OCI opaque",
		layers: [][]string{{"file d/.wh..wh..opq", "file d/x 1"}, {"file d/z 2", "file e 2"}},
		want:   []string{"d/", "d/x=1", "e=2"}},
	{name: "OCI names of aufs",
		layers: [][]string{{"file .wh..wh.plnk", "dir .wh..wh.orph", "file .wh. 1"}, {"file .wh..wh.aufs", "file a 2"}},
		want:   []string{".wh.=1", "a=2"}},
	{name: "OCI in the only layer",
		layers: [][]string{{"file .wh.a", "file d/.wh..wh..opq", "file d/x 1"}},
		want:   []string{"d/", "d/x=1"}},
	{name: "opaque root",
		layers: [][]string{{"file a 1"}, {"file b 2", "xattr . " + tOpaque + " y"}, {"file c 3"}},
		want:   []string{"a=1", "b=2"}},
	{name: "relative redirect", kernel: true,
		layers: [][]string{{"file new/x 1", "xattr new " + tRedirect + " old", "whiteout old"}, {"file old/x 2", "file old/y 2", "file new/hidden 2"}},
		want:   []string{"new/", "new/x=1", "new/y=2"}},
	{name: "relative redirect below the root", kernel: true,
		layers: [][]string{{"file p/new/x 1", "xattr p/new " + tRedirect + " old", "whiteout p/old"}, {"file p/old/y 2"}},
		want:   []string{"p/", "p/new/", "p/new/x=1", "p/new/y=2"}},
	{name: "absolute redirect", kernel: true,
		layers: [][]string{{"file p/new/x 1", "xattr p/new " + tRedirect + " /a/b", "whiteout a"}, {"file a/b/y 2"}, {"file a/b/z 3"}},
		want:   []string{"p/", "p/new/", "p/new/x=1", "p/new/y=2", "p/new/z=3"}},
	{name: "redirect in the middle", kernel: true,
		layers: [][]string{{"file new/x 1"}, {"file new/y 2", "xattr new " + tRedirect + " /old", "whiteout old"}, {"file old/z 3", "file new/hidden 3"}},
		want:   []string{"new/", "new/x=1", "new/y=2", "new/z=3"}},
	{name: "redirect to nothing", kernel: true,
		layers: [][]string{{"file new/x 1", "xattr new " + tRedirect + " /gone"}, {"file new/z 2"}},
		want:   []string{"new/", "new/x=1"}},
	{name: "redirect ends at an opaque directory", kernel: true,
		layers: [][]string{{"file new/x 1", "xattr new " + tRedirect + " /old", "whiteout old"}, {"file old/y 2", "xattr old " + tOpaque + " y"}, {"file old/z 3"}},
		want:   []string{"new/", "new/x=1", "new/y=2"}},
	{name: "redirects follow each other", kernel: true,
		layers: [][]string{{"file c/x 1", "xattr c " + tRedirect + " /b", "whiteout b"}, {"file b/y 2", "xattr b " + tRedirect + " /a", "whiteout a"}, {"file a/z 3", "file b/hidden 3"}},
		want:   []string{"c/", "c/x=1", "c/y=2", "c/z=3"}},
	{name: "redirect ends at a whiteout", kernel: true,
		layers: [][]string{{"file c/x 1", "xattr c " + tRedirect + " /a"}, {"whiteout a"}, {"file a/z 3"}},
		want:   []string{"c/", "c/x=1"}},
	{name: "redirect ends at a file", kernel: true,
		layers: [][]string{{"file c/x 1", "xattr c " + tRedirect + " /p/a"}, {"file p/a 2"}, {"file p/a/z 3"}},
		want:   []string{"c/", "c/x=1", "p/", "p/a=2"}},
	{name: "redirect ends below an opaque parent", kernel: true,
		layers: [][]string{{"file c/x 1", "xattr c " + tRedirect + " /p/a"}, {"dir p", "xattr p " + tOpaque + " y"}, {"file p/a/z 3"}},
		want:   []string{"c/", "c/x=1", "p/"}},
	{name: "redirect ends at an OCI whiteout",
		layers: [][]string{{"file c/x 1", "xattr c " + tRedirect + " /a"}, {"file .wh.a"}, {"file a/z 3"}},
		want:   []string{"c/", "c/x=1"}},
	{name: "redirect of the user dialect is not followed",
		layers: [][]string{{"file new/x 1", "xattr new user.overlay.redirect /old"}, {"file old/y 2", "file new/z 2"}},
		want:   []string{"new/", "new/x=1", "new/z=2", "old/", "old/y=2"}},
	{name: "redirect to a place that is also seen", kernel: true,
		layers: [][]string{{"file new/x 1", "xattr new " + tRedirect + " /old"}, {"file old/y 2"}},
		want:   []string{"new/", "new/x=1", "new/y=2", "old/", "old/y=2"}},
}

func (c *lowerCase) dirs(t *testing.T) (dirs []string) {
	for _, l := range c.layers {
		dirs = append(dirs, layer(t, l...))
	}
	return dirs
}

func TestLowerStack(t *testing.T) {
	needRoot(t)
	for _, c := range lowerCases {
		t.Run(c.name, func(t *testing.T) {
			dirs := c.dirs(t)
			if c.kernel {
				if got := kernelTree(t, dirs); !slices.Equal(got, c.want) {
					t.Fatalf("the expectation is wrong: kernel overlayfs shows\n %q, expected\n %q", got, c.want)
				}
			}
			fs := openFS(t, Config{Lowers: dirs, Mountpoint: t.TempDir()})
			if got := lowerTree(t, fs); !slices.Equal(got, c.want) {
				t.Errorf("shows\n %q, want\n %q", got, c.want)
			}
		})
	}
}

// kernelTree is what kernel overlayfs shows of the layers.
func kernelTree(t *testing.T, dirs []string) []string {
	t.Helper()
	mnt := t.TempDir()
	opts := "redirect_dir=follow,metacopy=on,lowerdir=" + strings.Join(append(dirs[:len(dirs):len(dirs)], t.TempDir()), ":")
	if err := unix.Mount("overlay", mnt, "overlay", unix.MS_RDONLY, opts); err != nil {
		t.Skipf("no kernel overlayfs to compare with: %v", err)
	}
	defer func() { must(t, unix.Unmount(mnt, 0)) }()
	var out []string
	err := filepath.WalkDir(mnt, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(mnt, path)
		switch {
		case err != nil || rel == ".":
			return err
		case d.IsDir():
			out = append(out, rel+"/")
			return nil
		}
		b, err := os.ReadFile(path)
		out = append(out, rel+"="+string(b))
		return err
	})
	must(t, err)
	slices.Sort(out)
	return out
}

// lowerTree is what the merged view of the lower layers shows; list and lookup
// must agree about it.
func lowerTree(t *testing.T, fs *FS) []string {
	t.Helper()
	var out []string
	var walk func(s *lowerStack, at string)
	walk = func(s *lowerStack, at string) {
		types := map[string]uint8{}
		inos := map[string]uint64{}
		err := s.list(fs, func(name string, ino uint64, typ uint8) {
			if _, dup := types[name]; dup {
				t.Errorf("%s%s is listed twice", at, name)
			}
			types[name], inos[name] = typ, ino
		})
		must(t, err)
		for _, name := range slices.Sorted(maps.Keys(types)) {
			h, err := s.lookup(fs, name)
			if err != nil || h == nil {
				t.Errorf("%s%s is listed, and looking it up gives %v, %v", at, name, h, err)
				continue
			}
			if typ := uint8(h.st.Mode >> 12 & 15); typ != types[name] || h.st.Ino != inos[name] {
				t.Errorf("%s%s is listed as type %d inode %d and is %d, %d", at, name, types[name], inos[name], typ, h.st.Ino)
			}
			if h.dirs != nil {
				if got, want := h.dirs.path(), "/"+at+name; got != want {
					t.Errorf("its path is %q, want %q", got, want)
				}
				out = append(out, at+name+"/")
				walk(h.dirs, at+name+"/")
				continue
			}
			fd, err := h.d.Open(name, unix.O_RDONLY, 0)
			must(t, err)
			f := &testFD{t: t, fd: fd, path: name}
			out = append(out, at+name+"="+f.content())
			f.close()
		}
		for _, absent := range []string{"no such name", "hidden", "none", ".wh.a", ".wh..wh..opq"} {
			if h, err := s.lookup(fs, absent); h != nil || err != nil {
				t.Errorf("%s%s: %v, %v", at, absent, h, err)
			}
		}
	}
	walk(fs.lowRoot, "")
	slices.Sort(out)
	return out
}

// The same through a mount, where FUSE, nodes and listings come in.
func TestLowerStackMounted(t *testing.T) {
	needRoot(t)
	for _, c := range lowerCases {
		t.Run(c.name, func(t *testing.T) {
			m := mountOver(t, func(c *Config) { c.Upper, c.Work = "", "" }, c.dirs(t)...)
			if got := treeOf(t, m.mnt); !slices.Equal(got, c.want) {
				t.Errorf("shows\n %q, want\n %q", got, c.want)
			}
		})
	}
}

// treeOf walks a directory by plain system calls.
func treeOf(t testing.TB, root string) (out []string) {
	t.Helper()
	var walk func(at string)
	walk = func(at string) {
		for _, name := range names(t, filepath.Join(root, at)) {
			rel := filepath.Join(at, name)
			if statOf(t, filepath.Join(root, rel)).Mode&unix.S_IFMT == unix.S_IFDIR {
				out = append(out, rel+"/")
				walk(rel)
				continue
			}
			out = append(out, rel+"="+readPath(t, filepath.Join(root, rel)))
		}
	}
	walk("")
	slices.Sort(out)
	return out
}

// `lowerdir=/,upperdir=/var/tmp/u` does not show the scratch directories
// inside the mount.
func TestOwnDirectoriesAreHidden(t *testing.T) {
	needRoot(t)
	for _, more := range [][]string{nil, {"file second 2", "file scratch/from2 2"}} {
		low := layer(t, "file a 1", "file scratch/b 1", "dir scratch/u", "dir scratch/w", "dir other/u", "dir mnt")
		lowers := []string{low}
		if more != nil {
			lowers = append(lowers, layer(t, more...))
		}
		m := mountConfig(t, Config{Lowers: lowers, Upper: low + "/scratch/u", Work: low + "/scratch/w", Mountpoint: low + "/mnt"})
		want := []string{"b"}
		if more != nil {
			want = append(want, "from2")
		}
		wantNames(t, m.path("scratch"), want...)
		wantNames(t, m.path("other"), "u")
		for _, own := range []string{"scratch/u", "scratch/w"} {
			var st unix.Stat_t
			wantErrno(t, "stat of "+own, unix.Lstat(m.path(own), &st), unix.ENOENT)
		}
		writePath(t, m.path("scratch/new"), "n")
		if got := readPath(t, m.path("scratch/new")); got != "n" {
			t.Errorf("written %q", got)
		}
		m.unmount()
	}
}

func TestLowerManyLayers(t *testing.T) {
	needRoot(t)
	for _, n := range []int{2, 20, 200} {
		var lowers, want []string
		for i := range n {
			lowers = append(lowers, layer(t, fmt.Sprintf("file d/f%03d %d", i, i), fmt.Sprintf("file same %d", i)))
			want = append(want, fmt.Sprintf("d/f%03d=%d", i, i))
		}
		want = append(want, "d/", "same=0")
		slices.Sort(want)
		fs := openFS(t, Config{Lowers: lowers, Mountpoint: t.TempDir()})
		if got := lowerTree(t, fs); !slices.Equal(got, want) {
			t.Errorf("%d layers show %q", n, got)
		}
	}
}

func TestLowerWalkAndPath(t *testing.T) {
	fs := openFS(t, Config{Lowers: []string{layer(t, "file a/b/c/x 1", "file f 1"), layer(t, "dir a/b")}, Mountpoint: t.TempDir()})
	if got := fs.lowRoot.path(); got != "/" {
		t.Errorf("the root's path is %q", got)
	}
	s, err := fs.lowRoot.walk(fs, "/a/b/c")
	if err != nil || s.path() != "/a/b/c" {
		t.Fatalf("walk: %v, %v", s, err)
	}
	if has, err := s.has(fs, "x"); !has || err != nil {
		t.Errorf("has x: %v, %v", has, err)
	}
	for _, gone := range []string{"/a/none", "/f", "/a/b/c/x", "/f/x"} {
		if _, err := fs.lowRoot.walk(fs, gone); err != unix.ESTALE {
			t.Errorf("walk %s: %v, want ESTALE", gone, err)
		}
	}
	if has, err := (*lowerStack)(nil).has(fs, "x"); has || err != nil {
		t.Errorf("nothing has x: %v, %v", has, err)
	}
}

func TestOCIHidden(t *testing.T) {
	for name, want := range map[string]struct {
		target string
		hidden bool
	}{
		"a": {}, ".wh": {}, ".wh.": {}, ".wh.a": {"a", true}, ".wh..a": {".a", true}, ".wh...": {},
		".wh..wh..opq": {"", true}, ".wh..wh.plnk": {"", true}, ".wh..wh.": {"", true}, ".wh.wh.a": {"wh.a", true},
	} {
		if target, hidden := ociHidden(name); target != want.target || hidden != want.hidden {
			t.Errorf("%q: %q, %v", name, target, hidden)
		}
	}
}

func TestMergeEntry(t *testing.T) {
	e := mergeEntry(lowerEnt{}, false, 0, unix.DT_DIR, 10)
	e = mergeEntry(e, true, 2, unix.DT_DIR, 12)
	e = mergeEntry(e, true, 3, unix.DT_DIR, 13)
	if e.stop || e.first != 0 || e.ino != 10 || !slices.Equal(e.rest, []uint16{2, 3}) {
		t.Errorf("three directories: %+v", e)
	}
	if e = mergeEntry(e, true, 4, dtWhiteout, 0); !e.stop || e.typ != unix.DT_DIR || len(e.rest) != 2 {
		t.Errorf("a whiteout below: %+v", e)
	}
	if e = mergeEntry(lowerEnt{}, false, 1, unix.DT_REG, 5); !e.stop || e.first != 1 || e.typ != unix.DT_REG {
		t.Errorf("a file: %+v", e)
	}
}
