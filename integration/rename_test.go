// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// rename2 is renameat2 inside the mount.
func (u *union) rename2(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, u.path(from), unix.AT_FDCWD, u.path(to), flags)
}

// TestRenameFiles renames lower files over everything there may be.
func TestRenameFiles(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"a=1", "b=2", "c=3", "d/x=4", "e=5", "link -> a", "s=6"}}})
	must(t, u.rename2("a", "new", 0))
	must(t, u.rename2("b", "c", 0))
	must(t, u.rename2("d/x", "d/y", 0))
	must(t, u.rename2("link", "d/link", 0))
	wantErrno(t, "NOREPLACE", u.rename2("new", "c", unix.RENAME_NOREPLACE), unix.EEXIST)
	must(t, u.rename2("new", "a", unix.RENAME_NOREPLACE))
	must(t, u.rename2("e", "s", unix.RENAME_EXCHANGE))
	check := func() {
		t.Helper()
		wantNames(t, u.mp, "a", "c", "d", "e", "s")
		wantNames(t, u.path("d"), "link", "y")
		for p, w := range map[string]string{"a": "1", "c": "2", "d/y": "4", "e": "6", "s": "5"} {
			wantFile(t, u.path(p), w)
		}
	}
	check()
	u.remount()
	check()
}

// TestRenameDirs renames lower, merged and upper directories: never EXDEV, and
// the contents go along.
func TestRenameDirs(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{
		{"merged/top=1", "merged/sub/top=2"}, {"merged/bottom=3", "merged/sub/bottom=4", "low/x/y/z=5", "p/q/r=6"},
	}})
	must(t, u.rename2("merged", "m2", 0))
	must(t, u.rename2("low", "m2/low", 0))
	must(t, u.rename2("m2/low/x/y", "y", 0))
	must(t, os.WriteFile(u.path("m2/sub/new"), []byte("7"), 0o644))
	must(t, u.rename2("m2/sub", "p/sub", 0))
	must(t, u.rename2("p", "p2", 0))
	must(t, u.rename2("p2", "p", 0))
	must(t, os.Mkdir(u.path("merged"), 0o755)) // the old name again: an empty directory
	check := func() {
		t.Helper()
		wantNames(t, u.mp, "m2", "merged", "p", "y")
		wantNames(t, u.path("merged"))
		wantNames(t, u.path("m2"), "bottom", "low", "top")
		wantNames(t, u.path("m2/low/x"))
		wantNames(t, u.path("p"), "q", "sub")
		wantNames(t, u.path("p/sub"), "bottom", "new", "top")
		wantFile(t, u.path("y/z"), "5")
		wantFile(t, u.path("p/q/r"), "6")
		wantFile(t, u.path("p/sub/bottom"), "4")
	}
	check()
	u.remount()
	check()
}

// TestRenameDirAgain is the case that brings deleted contents back where a
// directory is merged by its name alone: remove, make again, rename.
func TestRenameDirAgain(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d1/old=1", "d1/sub/old=2"}}})
	must(t, os.RemoveAll(u.path("d1")))
	must(t, os.Mkdir(u.path("d1"), 0o755))
	must(t, u.rename2("d1", "d9", 0))
	check := func() {
		t.Helper()
		wantNames(t, u.mp, "d9")
		wantNames(t, u.path("d9"))
	}
	check()
	u.remount()
	check()
	must(t, u.rename2("d9", "d1", 0))
	must(t, os.Mkdir(u.path("d1/sub"), 0o755))
	wantNames(t, u.path("d1"), "sub")
	u.remount()
	wantNames(t, u.path("d1"), "sub")
	wantNames(t, u.path("d1/sub"))
}

// TestRenameExchange swaps directories and files of all layers.
func TestRenameExchange(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d1/a=1", "d2/b=2", "f=3", "d3/c=4"}}})
	must(t, os.WriteFile(u.path("up"), []byte("5"), 0o644))
	must(t, u.rename2("d1", "d2", unix.RENAME_EXCHANGE))
	must(t, u.rename2("f", "d3", unix.RENAME_EXCHANGE))
	must(t, u.rename2("up", "d1/b", unix.RENAME_EXCHANGE))
	wantErrno(t, "exchange with nothing", u.rename2("f", "none", unix.RENAME_EXCHANGE), unix.ENOENT)
	wantErrno(t, "exchange with its own child", u.rename2("d2", "d2/a", unix.RENAME_EXCHANGE), unix.EINVAL)
	check := func() {
		t.Helper()
		wantNames(t, u.path("d1"), "b")
		wantNames(t, u.path("d2"), "a")
		wantNames(t, u.path("f"), "c")
		for p, w := range map[string]string{"d1/b": "5", "up": "2", "d2/a": "1", "d3": "3", "f/c": "4"} {
			wantFile(t, u.path(p), w)
		}
	}
	check()
	u.remount()
	check()
}

// TestRenameErrors expects the errno of a plain directory.
func TestRenameErrors(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/x=1", "e/", "f=2", "full/y=3"}}})
	for _, c := range []struct {
		from, to string
		want     error
	}{
		{"d", "full", unix.ENOTEMPTY}, {"d", "f", unix.ENOTDIR}, {"f", "d", unix.EISDIR}, {"none", "f", unix.ENOENT},
		{"d", "d/sub", unix.EINVAL}, {"d/x", "d", unix.ENOTEMPTY}, {"f", "none/f", unix.ENOENT}, {"f", "d/x/y", unix.ENOTDIR},
	} {
		if err := u.rename2(c.from, c.to, 0); !errors.Is(err, c.want) {
			t.Errorf("rename %s to %s: got %v, want %v", c.from, c.to, err, c.want)
		}
	}
	must(t, os.Remove(u.path("full/y")))
	must(t, u.rename2("d", "full", 0)) // holds whiteouts only: empty
	must(t, u.rename2("full", "e", 0))
	wantNames(t, u.mp, "e", "f")
	wantNames(t, u.path("e"), "x")
	u.remount()
	wantNames(t, u.mp, "e", "f")
	wantNames(t, u.path("e"), "x")
}

// TestRenameOpenFiles: descriptors and working places go along with a rename.
func TestRenameOpenFiles(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"a/b/f=1", "x/"}}})
	f, err := os.OpenFile(u.path("a/b/f"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	dir, err := unix.Open(u.path("a/b"), unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(dir)
	must(t, u.rename2("a", "x/a2", 0))
	_, err = f.WriteAt([]byte("written"), 0)
	must(t, err)
	fd, err := unix.Openat(dir, "new", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	unix.Close(fd)
	wantFile(t, u.path("x/a2/b/f"), "written")
	wantNames(t, u.path("x/a2/b"), "f", "new")
}

// TestRenameMany renames one directory again and again, up and down the tree.
func TestRenameMany(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/f=1", "deep/er/est/"}}})
	at := "d"
	for i := range 50 {
		to := fmt.Sprintf("n%d", i)
		if i%2 == 0 {
			to = "deep/er/est/" + to
		}
		must(t, u.rename2(at, to, 0))
		at = to
		if i%10 == 0 {
			u.remount()
		}
		wantFile(t, u.path(at, "f"), "1")
		wantGone(t, u.path("d"))
	}
}
