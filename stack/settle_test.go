// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// whiteoutsIn lists the whiteouts of an upper directory.
func whiteoutsIn(t testing.TB, dir string) (out []string) {
	t.Helper()
	for _, n := range names(t, dir) {
		st := statOf(t, dir+"/"+n)
		if layers.IsWhiteoutStat(&st) {
			out = append(out, n)
		}
	}
	return out
}

// A whiteout stands in for a record until that is durable; Sync takes it away,
// and the name stays hidden.
func TestSettleAfterSync(t *testing.T) {
	m := mountOver(t, still, layer(t, "file a 1", "file d/b 1", "file r 1", "dir old", "file old/x 1"))
	for _, p := range []string{"a", "d/b"} {
		writePath(t, m.path(p), "2")
		must(t, unix.Unlink(m.path(p)))
	}
	must(t, unix.Rename(m.path("r"), m.path("r2")))
	must(t, unix.Rename(m.path("old"), m.path("old2")))
	if got := whiteoutsIn(t, m.upper); !slices.Equal(got, []string{"a", "old", "r"}) {
		t.Errorf("whiteouts before the sync: %q", got)
	}
	if got := whiteoutsIn(t, m.upper+"/d"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("whiteouts in d before the sync: %q", got)
	}
	wantNames(t, m.mnt, "d", "old2", "r2")
	before := statOf(t, m.path("d"))
	must(t, m.Sync())
	for _, d := range []string{m.upper, m.upper + "/d"} {
		if got := whiteoutsIn(t, d); len(got) != 0 {
			t.Errorf("whiteouts after the sync in %s: %q", d, got)
		}
	}
	after := statOf(t, m.upper+"/d")
	if after.Mtim != before.Mtim {
		t.Errorf("settling changed the time of the directory: %v, was %v", after.Mtim, before.Mtim)
	}
	check := func() {
		wantNames(t, m.mnt, "d", "old2", "r2")
		wantNames(t, m.path("d"))
		wantNames(t, m.path("old2"), "x")
		var st unix.Stat_t
		for _, p := range []string{"a", "d/b", "r", "old"} {
			wantErrno(t, p, unix.Lstat(m.path(p), &st), unix.ENOENT)
		}
	}
	check()
	if s := m.Status(); s.Journal.Dirty {
		t.Error("the journal is dirty after Sync")
	}
	m = m.remount(nil)
	check()
}

// A name that was made again before its whiteout was settled stays.
func TestSettleSparesNewEntries(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file a 1", "file dir/x 1", "file b 1"))
	for _, p := range []string{"a", "b"} {
		writePath(t, m.path(p), "2")
		must(t, unix.Unlink(m.path(p)))
	}
	writePath(t, m.path("a"), "3")
	mkdir(t, m.path("b"))
	must(t, unix.Unlink(m.path("dir/x")))
	must(t, unix.Rmdir(m.path("dir")))
	must(t, m.Sync())
	check := func() {
		wantNames(t, m.mnt, "a", "b")
		wantNames(t, m.path("b"))
		if got := readPath(t, m.path("a")); got != "3" {
			t.Errorf("a: %q", got)
		}
	}
	check()
	m = m.remount(nil)
	check()
}

// Unmounting settles too; and nothing of what was under way is left in work.
func TestCloseSettles(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file a 1", "file d/x 1"))
	writePath(t, m.path("a"), "2")
	writePath(t, m.path("d/x"), "2")
	must(t, unix.Unlink(m.path("a")))
	must(t, unix.Unlink(m.path("d/x")))
	must(t, unix.Rmdir(m.path("d")))
	m.unmount()
	if got := names(t, m.upper); len(got) != 0 {
		t.Errorf("upper holds %q", got)
	}
	wantNames(t, m.work+"/plyfs/tmp", sharedWhiteout)
	wantNames(t, m.work+"/plyfs/index")
}

// fsync of anything makes the records before it durable.
func TestFsyncMakesRecordsDurable(t *testing.T) {
	m := mountOver(t, still, layer(t, "file a 1", "file b 1"))
	must(t, unix.Unlink(m.path("a")))
	if !m.j.Dirty() {
		t.Fatal("a removal that is durable at once: this test proves nothing")
	}
	d := openFD(t, m.mnt, unix.O_RDONLY|unix.O_DIRECTORY)
	must(t, unix.Fsync(d.fd))
	if m.j.Dirty() {
		t.Error("the journal is dirty after fsync of a directory")
	}
	must(t, unix.Unlink(m.path("b")))
	f := openFD(t, m.path("c"), unix.O_RDWR|unix.O_CREAT)
	must(t, unix.Fsync(f.fd))
	if m.j.Dirty() {
		t.Error("the journal is dirty after fsync of a file")
	}
}

// Directories that move keep what they merge with, by redirects.
func TestRedirects(t *testing.T) {
	low1 := layer(t, "file a/b/x 1", "file a/y 1", "file p/q/r/z 1", "file e1/m 1", "file e2/n 1", "file same/s 1")
	low2 := layer(t, "file a/b/w 2", "file e1/o 2", "file target/t 2")
	m := mountOver(t, nil, low1, low2)
	move := func(from, to string) { must(t, unix.Rename(m.path(from), m.path(to))) }
	move("a", "A")
	move("A/b", "B")        // out of a directory that was itself moved
	move("p/q", "B/q")      // into a moved one
	move("B/q/r", "B/q/r2") // below
	move("same", "away")    // there
	move("away", "same")    // and back
	must(t, unix.Renameat2(unix.AT_FDCWD, m.path("e1"), unix.AT_FDCWD, m.path("e2"), unix.RENAME_EXCHANGE))
	mkdir(t, m.path("a")) // at the old name: nothing of the old directory
	mkdir(t, m.path("fresh"))
	must(t, unix.Unlink(m.path("target/t")))
	must(t, unix.Rmdir(m.path("target")))
	move("fresh", "target") // over a lower name: nothing of it
	want := []string{
		"A/", "A/y=1", "B/", "B/q/", "B/q/r2/", "B/q/r2/z=1", "B/w=2", "B/x=1", "a/", "e1/", "e1/n=1", "e2/", "e2/m=1", "e2/o=2",
		"p/", "same/", "same/s=1", "target/",
	}
	check := func(when string) {
		if got := treeOf(t, m.mnt); !slices.Equal(got, want) {
			t.Errorf("%s\n %q, want\n %q", when, got, want)
		}
	}
	check("at once")
	for dir, redirect := range map[string]string{"A": "/a", "B": "/a/b", "B/q": "/p/q", "B/q/r2": "/p/q/r", "e1": "/e2", "e2": "/e1"} {
		var buf [64]byte
		n, err := unix.Getxattr(m.upper+"/"+dir, xattrDir, buf[:])
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		if mark, err := decodeMark(buf[:n]); err != nil || mark.redirect != redirect {
			t.Errorf("%s is marked %+v, %v, want a redirect to %s", dir, mark, err, redirect)
		}
	}
	m = m.remount(nil)
	check("after a remount")
	move("A", "A2")
	want[0], want[1] = "A2/", "A2/y=1"
	m = m.remount(nil)
	check("after a further move")
	// Nothing of it is to be seen through the mount.
	var buf [1024]byte
	n, err := unix.Listxattr(m.path("B"), buf[:])
	must(t, err)
	if strings.Contains(string(buf[:n]), "plyfs") {
		t.Errorf("private xattrs are listed: %q", buf[:n])
	}
	if _, err := unix.Getxattr(m.path("B"), xattrDir, buf[:]); err != unix.ENODATA {
		t.Errorf("a private xattr is read: %v", err)
	}
}

// A redirect whose directory is gone leaves the upper part; a path that would
// not fit is EXDEV.
func TestRedirectLimits(t *testing.T) {
	var deep []string
	for i := range 12 {
		deep = append(deep, strings.Repeat(string(rune('a'+i)), 200))
	}
	path := strings.Join(deep, "/")
	m := mountOver(t, nil, layer(t, "file "+path+"/f 1"))
	short, long := strings.Join(deep[:9], "/"), path
	must(t, unix.Rename(m.path(long+"/f"), m.path("f")))
	wantErrno(t, "a move with a redirect of 2,412 bytes", unix.Rename(m.path(long), m.path("x")), unix.EXDEV)
	var st unix.Stat_t
	must(t, unix.Lstat(m.path(long), &st))
	must(t, unix.Rename(m.path(short), m.path("y")))
	wantNames(t, m.path("y"), deep[9])
	m = m.remount(nil)
	wantNames(t, m.path("y"), deep[9])
}

// Marks of other tools can be kept on files of upper, and read back.
func TestOverlayXattrsOfUsersInUpper(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file d/x 1", "file f 1"))
	for _, p := range []string{"d", "f"} {
		for _, name := range []string{"user.overlay.mine", "trusted.overlay.mine"} {
			must(t, unix.Setxattr(m.path(p), name, []byte("v"), 0))
			var buf [8]byte
			n, err := unix.Getxattr(m.path(p), name, buf[:])
			if err != nil || string(buf[:n]) != "v" {
				t.Errorf("%s of %s: %q, %v", name, p, buf[:max(n, 0)], err)
			}
		}
		wantErrno(t, "setting a private xattr", unix.Setxattr(m.path(p), xattrDir, []byte("v"), 0), unix.EPERM)
	}
}

// All names of a lower inode are one inode before, during and after copy-up.
func TestHardLinks(t *testing.T) {
	m := mountOver(t, still, layer(t, "file a 1", "link a b", "link a d/c"))
	wantLinks := func(n uint64, content string, names ...string) {
		t.Helper()
		ino := statOf(t, m.path(names[0])).Ino
		for _, name := range names {
			st := statOf(t, m.path(name))
			if st.Ino != ino || st.Nlink != n {
				t.Errorf("%s: inode %d with %d links, want %d with %d", name, st.Ino, st.Nlink, ino, n)
			}
			if got := readPath(t, m.path(name)); got != content {
				t.Errorf("%s: %q, want %q", name, got, content)
			}
		}
	}
	wantLinks(3, "1", "a", "b", "d/c")
	must(t, unix.Unlink(m.path("a")))
	wantLinks(2, "1", "b", "d/c")
	writePath(t, m.path("b"), "2")
	wantLinks(2, "2", "b", "d/c")
	must(t, unix.Link(m.path("d/c"), m.path("new")))
	wantLinks(3, "2", "b", "d/c", "new")
	m = m.remount(still)
	wantLinks(3, "2", "d/c", "new", "b")
	must(t, unix.Rename(m.path("d/c"), m.path("moved")))
	wantLinks(3, "2", "b", "moved", "new")
	for i, name := range []string{"b", "moved", "new"} {
		must(t, unix.Unlink(m.path(name)))
		if left := []string{"b", "moved", "new"}[i+1:]; len(left) > 0 {
			wantLinks(uint64(len(left)), "2", left...)
		}
	}
	wantNames(t, m.mnt, "d")
	if got := names(t, m.work+"/plyfs/index"); len(got) != 1 {
		t.Errorf("the index holds %q before the records are durable", got)
	}
	must(t, m.Sync())
	wantNames(t, m.work+"/plyfs/index")
	m = m.remount(nil)
	wantNames(t, m.mnt, "d")
	wantNames(t, m.path("d"))
	if got := fmt.Sprint(m.Status().LastErrors); got != "[]" {
		t.Errorf("errors: %s", got)
	}
}
