// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// newNoXattrs is a mount whose upper is on ramfs, which has no xattrs. The
// random operations on such a one are in TestOracleRAM, the power cuts in
// TestCutPointsWithoutXattrs of package stack.
func newNoXattrs(t testing.TB, lower ...string) *union {
	t.Helper()
	requirePlyfs(t, "a store of attributes")
	dir := newFS(t, "ramfs", 0)
	low := makeTree(t, filepath.Join(tempDir(t), "low"), lower)
	return newMount(t, mountOpts{dir: dir, lowerDirs: []string{low}})
}

// TestNoXattrs: what plyfs writes on inodes is kept elsewhere, which status
// says, and outlives a kill.
func TestNoXattrs(t *testing.T) {
	u := newNoXattrs(t, "d/a=lower", "d/sub/b=lower", "removed/old=lower", "f=lower", "g => f", "big=#3000000", "gone=lower")
	if st := u.status(); st.Layers[0].Attrs != filepath.Join(u.work, "plyfs", "attrs") {
		t.Errorf("status says that attributes are in %q", st.Layers[0].Attrs)
	}
	if why := u.partialStatus().Why; !strings.Contains(why, "no xattrs") {
		t.Errorf("why copies are whole: %q", why)
	}
	must(t, os.Rename(u.path("d"), u.path("moved")))
	must(t, os.RemoveAll(u.path("removed")))
	must(t, os.Mkdir(u.path("removed"), 0o755))
	must(t, os.Remove(u.path("gone")))
	must(t, os.WriteFile(u.path("new"), []byte("new"), 0o644))
	must(t, os.WriteFile(u.path("g"), []byte("changed"), 0o644))
	u.writeAt("big", 5, "new")
	ino := lstat(t, u.path("f")).Ino
	for _, again := range []func(){func() {}, u.remount, func() { u.kill9(); u.again("cleaned it up", u.mountCommand()) }} {
		again()
		wantNames(t, u.path("moved"), "a", "sub")
		wantFile(t, u.path("moved/sub/b"), "lower")
		wantGone(t, u.path("d"))
		wantNames(t, u.path("removed"))
		wantFile(t, u.path("f"), "changed")
		if f, g := lstat(t, u.path("f")), lstat(t, u.path("g")); f.Ino != ino || g.Ino != ino || f.Nlink != 2 {
			t.Errorf("f has inode %d with %d links, g %d; f had %d", f.Ino, f.Nlink, g.Ino, ino)
		}
		wantNames(t, u.mp, "big", "f", "g", "moved", "new", "removed")
		if _, err := os.Stat(filepath.Join(u.upper, "big")); err != nil {
			t.Error(err)
		}
	}
}

// TestNoXattrsPair: an upper is refused without the work directory whose journal
// is about it, and is one like any other once its mark is removed.
func TestNoXattrsPair(t *testing.T) {
	u := newNoXattrs(t, "f=lower", "g=lower")
	must(t, os.Remove(u.path("f")))
	u.unmount()
	work := u.work
	u.work = filepath.Join(filepath.Dir(work), "other")
	must(t, os.Mkdir(u.work, 0o755))
	u.wantRefused("rm " + u.upper + "/.plyfs.pair-*")
	if list, err := os.ReadDir(u.work); err != nil || len(list) != 0 {
		t.Errorf("the refused mount left %v (%v)", list, err)
	}
	run(t, "", "sh", "-c", "rm "+u.upper+"/.plyfs.pair-*")
	u.mount()
	wantNames(t, u.mp, "f", "g")
	u.unmount()
	u.work = work
	u.wantRefused("do not belong together")
}

// TestNoXattrsDamaged: a record that cannot be read is said, with the mend.
func TestNoXattrsDamaged(t *testing.T) {
	u := newNoXattrs(t, "f=lower")
	must(t, os.Mkdir(u.path("d"), 0o755))
	u.unmount()
	store := filepath.Join(u.work, "plyfs", "attrs")
	records, err := os.ReadDir(store)
	if err != nil || len(records) == 0 {
		t.Fatalf("no records: %v", err)
	}
	for _, r := range records {
		must(t, os.WriteFile(filepath.Join(store, r.Name()), nil, 0o600))
	}
	u.wantRefused("restore the work directory from a copy")
	if out, err := plyfs(append([]string{"check"}, u.layersOf()...)...); err == nil || strings.Contains(out, "clean") {
		t.Errorf("check: %v, %s", err, out)
	}
}

// TestNoXattrsElsewhere: where another process says which inode is which, an
// upper without xattrs is refused in words.
func TestNoXattrsElsewhere(t *testing.T) {
	requirePlyfs(t, "a refusal in words")
	dir := tempDir(t)
	loopback, err := fs.NewLoopbackRoot(makeTree(t, filepath.Join(dir, "behind"), []string{"mnt/", "upper/", "work/"}))
	must(t, err)
	mp := makeTree(t, filepath.Join(dir, "fs"), nil)
	server, err := fs.Mount(mp, loopback, &fs.Options{MountOptions: fuse.MountOptions{DisableXAttrs: true, DirectMount: true, AllowOther: true}})
	must(t, err)
	t.Cleanup(func() { must(t, server.Unmount()) })
	u := prepare(t, mountOpts{dir: mp, lowers: [][]string{{"f=1"}}})
	must(t, os.Chtimes(u.work, time.Time{}, time.Now()))
	u.wantRefused("another process or machine numbers its inodes")
}

// TestNoXattrsCheck: a check finds nothing before the first mount, on a mount
// whose upper held files, and after it; and names the store when that is gone,
// for which a mount is refused that leaves no other one behind.
func TestNoXattrsCheck(t *testing.T) {
	requirePlyfs(t, "a check")
	dir := newFS(t, "ramfs", 0)
	low := makeTree(t, filepath.Join(tempDir(t), "low"), []string{"d/a=lower", "gone=lower"})
	u := prepare(t, mountOpts{dir: dir, lowerDirs: []string{low}})
	makeTree(t, u.upper, []string{"own=upper"})
	if kinds := runCheck(t, exitClean, u.layersOf()...).kinds("note"); !slices.Equal(kinds, []string{"never-mounted"}) {
		t.Errorf("before the first mount: %q", kinds)
	}
	u.mount()
	must(t, os.Rename(u.path("d"), u.path("moved")))
	must(t, os.Remove(u.path("gone")))
	runCheck(t, exitClean, u.mp)
	u.unmount()
	runCheck(t, exitClean, u.layersOf()...)
	store := filepath.Join(u.work, "plyfs", "attrs")
	must(t, os.Rename(store, filepath.Join(dir, "saved")))
	if kinds := runCheck(t, exitViolation, u.layersOf()...).kinds("violation"); !slices.Equal(kinds, []string{"pair"}) {
		t.Errorf("without the store: %q", kinds)
	}
	u.wantRefused("used with another workdir")
	must(t, os.Rename(filepath.Join(dir, "saved"), store))
	runCheck(t, exitClean, u.layersOf()...)
	u.mount()
	wantNames(t, u.mp, "moved", "own")
}
