// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOCIWhiteout(t *testing.T) {
	for name, want := range map[string]string{
		".wh.gone": "gone", ".wh..hidden": ".hidden", ".wh...": "", ".wh....": "...", ".wh.x.wh.": "x.wh.",
		".wh.": "", ".wh..": "", ".wh..wh..opq": "", ".wh..wh.plnk": "", "plain": "", ".whx": "", "": "",
	} {
		target, ok := OCIWhiteout(name)
		if target != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", name, target, ok, want)
		}
	}
}

func TestIsWhiteoutStat(t *testing.T) {
	needRoot(t)
	root := upper(t, t.TempDir(), 16).Root()
	must(t, root.Mknod("whiteout", unix.S_IFCHR, 0))
	must(t, root.Mknod("null", unix.S_IFCHR, unix.Mkdev(1, 3)))
	must(t, root.Mknod("block", unix.S_IFBLK, 0))
	write(t, root, "file", "")
	for name, want := range map[string]bool{"whiteout": true, "null": false, "block": false, "file": false, "": false} {
		st := stat(t, root, name)
		if got := IsWhiteoutStat(&st); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestDirMarks(t *testing.T) {
	needRoot(t)
	long := "/" + strings.Repeat("r", 600)
	for name, x := range map[string]struct {
		attr, val, entry string
		dialects         Dialect
		want             DirMarks
	}{
		"none":             {dialects: AllDialects},
		"trusted y":        {"trusted.overlay.opaque", "y", "", AllDialects, DirMarks{Opaque: true}},
		"trusted x":        {"trusted.overlay.opaque", "x", "", AllDialects, DirMarks{XWhiteouts: true}},
		"trusted other":    {"trusted.overlay.opaque", "n", "", AllDialects, DirMarks{}},
		"trusted not read": {"trusted.overlay.opaque", "y", "", UserOverlay | OCI, DirMarks{}},
		"user y":           {"user.overlay.opaque", "y", "", UserOverlay, DirMarks{Opaque: true}},
		"user x":           {"user.overlay.opaque", "x", "", AllDialects, DirMarks{XWhiteouts: true}},
		"user not read":    {"user.overlay.opaque", "y", "", Overlay, DirMarks{}},
		"redirect":         {"trusted.overlay.redirect", long, "", AllDialects, DirMarks{Redirect: long}},
		"user redirect":    {"user.overlay.redirect", "/etc", "", AllDialects, DirMarks{}},
		"oci":              {"", "", OpaqueMarker, AllDialects, DirMarks{Opaque: true}},
		"oci not read":     {"", "", OpaqueMarker, Overlay, DirMarks{}},
	} {
		root := upper(t, t.TempDir(), 16).Root()
		if x.attr != "" {
			must(t, root.Setxattr("", x.attr, []byte(x.val), 0))
		}
		if x.entry != "" {
			write(t, root, x.entry, "")
		}
		if got, err := root.Marks(x.dialects); err != nil || got != x.want {
			t.Errorf("%s: %+v %v, want %+v", name, got, err, x.want)
		}
	}
	root := upper(t, t.TempDir(), 16).Root()
	_, err := root.Child("none").Marks(AllDialects)
	wantErr(t, err, unix.ENOENT)
}

func TestFileMarks(t *testing.T) {
	needRoot(t)
	l := upper(t, t.TempDir(), 16)
	root := l.Root()
	write(t, root, "plain", "")
	write(t, root, "meta", "")
	must(t, root.Setxattr("meta", "trusted.overlay.metacopy", nil, 0))
	must(t, root.Setxattr("meta", "trusted.overlay.redirect", []byte("/elsewhere"), 0))
	write(t, root, "forged", "")
	must(t, root.Setxattr("forged", "user.overlay.metacopy", nil, 0))
	must(t, root.Setxattr("forged", "user.overlay.redirect", []byte("/etc/shadow"), 0))
	for name, want := range map[string]FileMarks{
		"plain": {}, "meta": {Metacopy: true, Redirect: "/elsewhere"}, "forged": {},
	} {
		if got, err := root.FileMarks(name); err != nil || got != want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	l.Dialects = OCI
	if got, err := root.FileMarks("meta"); err != nil || got != (FileMarks{}) {
		t.Errorf("read in a dialect not asked for: %+v %v", got, err)
	}
}

func TestIsXWhiteout(t *testing.T) {
	needRoot(t)
	l := upper(t, t.TempDir(), 16)
	root := l.Root()
	for name, x := range map[string]struct {
		attr, content string
		want          bool
	}{
		"trusted": {"trusted.overlay.whiteout", "", true},
		"user":    {"user.overlay.whiteout", "", true},
		"empty":   {"", "", false},
		"content": {"trusted.overlay.whiteout", "data", false},
	} {
		write(t, root, name, x.content)
		if x.attr != "" {
			must(t, root.Setxattr(name, x.attr, []byte("y"), 0))
		}
		if got, err := root.IsXWhiteout(name); err != nil || got != x.want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	must(t, root.Mkdir("dir", 0o755))
	must(t, root.Setxattr("dir", "trusted.overlay.whiteout", nil, 0))
	if got, err := root.IsXWhiteout("dir"); got || err != nil {
		t.Errorf("a directory: %v %v", got, err)
	}
	l.Dialects = Overlay
	if got, err := root.IsXWhiteout("user"); got || err != nil {
		t.Errorf("in a dialect not asked for: %v %v", got, err)
	}
	_, err := root.IsXWhiteout("none")
	wantErr(t, err, unix.ENOENT)
}

// What the kernel itself writes is understood.
func TestMarksOfKernelOverlay(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, sub := range []string{"lower/gone", "lower/remade", "lower/moved", "upper", "work"} {
		must(t, unixMkdirAll(dir, sub))
	}
	mount(t, "overlay", dir+"/mnt", "overlay", "redirect_dir=on,lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work")
	must(t, unix.Rmdir(dir+"/mnt/gone"))
	must(t, unix.Rmdir(dir+"/mnt/remade"))
	must(t, unix.Mkdir(dir+"/mnt/remade", 0o755))
	must(t, unix.Rename(dir+"/mnt/moved", dir+"/mnt/new"))
	up := lower(t, dir+"/upper").Root()
	for _, name := range []string{"gone", "moved"} {
		if st := stat(t, up, name); !IsWhiteoutStat(&st) {
			t.Errorf("%s is no whiteout: %o", name, st.Mode)
		}
	}
	for name, want := range map[string]DirMarks{"remade": {Opaque: true}, "new": {Redirect: "moved"}} {
		if got, err := up.Child(name).Marks(AllDialects); err != nil || got != want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}
