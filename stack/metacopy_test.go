// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Metacopies as kernel overlayfs (metacopy=on) leaves them: metadata in an
// upper layer, the data below.
func TestMetacopy(t *testing.T) {
	needRoot(t)
	const content = "the data of the file below"
	meta := func(path string) []string {
		return []string{"file " + path, "size " + path + " 26", "xattr " + path + " " + tMetacopy}
	}
	for _, c := range []struct {
		name   string
		layers [][]string
		want   []string
	}{
		{"same name", [][]string{meta("f"), {"file f " + content}}, []string{"f=" + content}},
		{"two below", [][]string{meta("f"), {"file other 1"}, {"file f " + content}}, []string{"f=" + content, "other=1"}},
		{"chain", [][]string{meta("f"), meta("f"), {"file f " + content}}, []string{"f=" + content}},
		{"absolute redirect", [][]string{
			append(meta("p/new"), "xattr p/new "+tRedirect+" /d/old", "whiteout d"),
			{"file d/old " + content}}, []string{"p/", "p/new=" + content}},
		{"relative redirect", [][]string{
			append(meta("p/new"), "xattr p/new "+tRedirect+" old", "whiteout p/old"),
			{"file p/old " + content}}, []string{"p/", "p/new=" + content}},
		{"chain of redirects", [][]string{
			append(meta("c"), "xattr c "+tRedirect+" /b", "whiteout b"),
			append(meta("b"), "xattr b "+tRedirect+" /a", "whiteout a"),
			{"file a " + content, "file b wrong"}}, []string{"c=" + content}},
		{"in a directory that was moved", [][]string{
			append(meta("new/f"), "xattr new "+tRedirect+" /old", "whiteout old"),
			{"file old/f " + content}}, []string{"new/", "new/f=" + content}},
		{"with large xattrs of its own", [][]string{
			// Overlayfs marks a directory to which it copies up.
			append(meta("f"), "xattr f user.note "+strings.Repeat("x", 2000), "xattr . trusted.overlay.impure y"),
			{"file f " + content}}, []string{"f=" + content}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lc := lowerCase{layers: c.layers}
			dirs := lc.dirs(t)
			if got := kernelTree(t, dirs); !slices.Equal(got, c.want) {
				t.Fatalf("the expectation is wrong: kernel overlayfs shows %q, expected %q", got, c.want)
			}
			m := mountOver(t, nil, dirs...)
			if got := treeOf(t, m.mnt); !slices.Equal(got, c.want) {
				t.Errorf("shows %q, want %q", got, c.want)
			}
			path, _, _ := strings.Cut(c.want[len(c.want)-1], "=")
			if path == "other" {
				path = "f"
			}
			f := openFD(t, m.path(path), unix.O_RDWR)
			f.writeAt("THE", 0)
			f.close()
			if got, want := readPath(t, m.path(path)), "THE"+content[3:]; got != want {
				t.Errorf("after its copy-up it holds %q, want %q", got, want)
			}
			var st unix.Stat_t
			must(t, unix.Lstat(m.path(path), &st))
			if _, err := unix.Lgetxattr(m.upper+"/"+path, tMetacopy, nil); err != unix.ENODATA {
				t.Errorf("the copy is still marked as a metacopy: %v", err)
			}
		})
	}
}

// A metacopy without its data is an error, never a file of zeros.
func TestMetacopyWithoutData(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file f", "size f 100", "xattr f "+tMetacopy, "file g 1"), layer(t, "file other 1"))
	_, err := tryRead(m.path("f"))
	wantErrno(t, "reading it", err, unix.EIO)
	if got := readPath(t, m.path("g")); got != "1" {
		t.Errorf("g holds %q", got)
	}
}

// What merely looks like a metacopy is served as it is.
func TestSparseIsNoMetacopy(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file f", "size f 5"), layer(t, "file f 12345"))
	if got := readPath(t, m.path("f")); got != "\x00\x00\x00\x00\x00" {
		t.Errorf("a sparse file holds %q", got)
	}
}
