// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAcquireOpensBelowNearestAncestor(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	l := upper(t, dir, 16)
	c := l.Root().Child("a").Child("b").Child("c")
	fd, err := c.Acquire()
	must(t, err)
	defer c.Release()
	got, err := identify(fd)
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dir, "a/b/c"), &st))
	if got.ino != st.Ino {
		t.Errorf("inode %d, want %d", got.ino, st.Ino)
	}
	if n := l.cache.Len(); n != 3 {
		t.Errorf("%d descriptors cached, want a, b and c", n)
	}
	if want := dir + "/a/b/c"; c.Path() != want {
		t.Errorf("path %s, want %s", c.Path(), want)
	}
}

func TestAcquireErrors(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	must(t, os.Symlink("/etc", filepath.Join(dir, "link")))
	l := upper(t, dir, 16)
	for name, want := range map[string]error{
		"none": unix.ENOENT, "file": unix.ENOTDIR, "link": unix.ENOTDIR,
		"..": unix.EINVAL, ".": unix.EINVAL, "": unix.EINVAL, "a/b": unix.EINVAL, "a\x00": unix.EINVAL,
	} {
		if _, err := l.Root().Child(name).Acquire(); err != want {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
		if _, err := l.Root().Child(name).Child("x").Acquire(); err != want {
			t.Errorf("below %q: %v, want %v", name, err, want)
		}
	}
}

func TestClosedLayerIsEBADF(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
	c := NewCache(4)
	l, err := OpenUpper(dir, c)
	must(t, err)
	a := l.Root().Child("a")
	_, err = a.Acquire()
	must(t, err)
	must(t, l.Close())
	must(t, l.Close())
	if c.Len() != 1 {
		t.Errorf("a pinned descriptor was closed")
	}
	a.Release()
	if c.Len() != 0 {
		t.Errorf("descriptor not closed at the last Release")
	}
	_, err = a.Acquire()
	wantErr(t, err, unix.EBADF)
}

// A component that is replaced by a symbolic link between Child and Acquire is
// refused.
func TestSymlinkSwapIsRefused(t *testing.T) {
	dir, secret := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	must(t, os.MkdirAll(filepath.Join(secret, "b"), 0o755))
	must(t, os.WriteFile(filepath.Join(secret, "b/key"), nil, 0o600))
	l := upper(t, dir, 16)
	b := l.Root().Child("a").Child("b")
	must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "gone")))
	must(t, os.Symlink(secret, filepath.Join(dir, "a")))
	_, err := b.Acquire()
	wantErr(t, err, unix.ENOTDIR)
	var st unix.Stat_t
	wantErr(t, b.Stat("key", &st), unix.ENOTDIR)
}

// The same, swapped all the time: what is opened is the real directory or
// nothing.
func TestSymlinkSwapRace(t *testing.T) {
	dir, secret := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	must(t, os.MkdirAll(filepath.Join(secret, "b"), 0o755))
	must(t, os.Symlink(secret, filepath.Join(dir, "s")))
	l := upper(t, dir, 16)
	want := stat(t, l.Root().Child("a").Child("b"), "")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/s", unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { close(stop); <-done }()
	opened, refused := 0, 0
	for i := 0; i < 200000 && (opened < 1000 || refused < 100); i++ {
		b := l.Root().Child("a").Child("b")
		fd, err := b.Acquire()
		switch err {
		case nil:
			opened++
			if id, err := identify(fd); err != nil || id.ino != want.Ino {
				t.Fatalf("the link was followed: %v %v", id, err)
			}
			b.Release()
		case unix.ENOTDIR:
			refused++
		default:
			t.Fatal(err)
		}
		b.parent.Forget()
		b.Forget()
	}
	if opened == 0 || refused == 0 {
		t.Errorf("no race: opened %d, refused %d", opened, refused)
	}
}

func TestDeepTree(t *testing.T) {
	const depth = 5000
	l := upper(t, t.TempDir(), 64)
	d := l.Root()
	for range depth {
		must(t, d.Mkdir("component", 0o755))
		d = d.Child("component")
	}
	write(t, d, "file", "deep")
	// A second chain of Dirs, with nothing opened yet.
	e := l.Root()
	for range depth {
		e = e.Child("component")
	}
	if got := read(t, e, "file"); got != "deep" {
		t.Errorf("content %q", got)
	}
	if n := len(e.Path()); n <= unix.PathMax {
		t.Errorf("the path is only %d long", n)
	}
	if n := l.cache.Len(); n > 64 {
		t.Errorf("%d descriptors cached, bound is 64", n)
	}
	must(t, e.Unlink("file"))
	for e != l.Root() {
		parent := e.parent
		must(t, parent.Rmdir("component"))
		e.Forget()
		e = parent
	}
}

func TestMoveKeepsDescriptor(t *testing.T) {
	l := upper(t, t.TempDir(), 16)
	root := l.Root()
	must(t, root.Mkdir("a", 0o755))
	must(t, root.Mkdir("p", 0o755))
	a, p := root.Child("a"), root.Child("p")
	must(t, a.Mkdir("below", 0o755))
	fd, err := a.Acquire()
	must(t, err)
	must(t, root.Rename("a", p, "moved", 0))
	a.Move(p, "moved")
	again, err := a.Acquire()
	must(t, err)
	if again != fd {
		t.Errorf("descriptor %d, was %d", again, fd)
	}
	a.Release()
	a.Release()
	below := a.Child("below")
	a.Forget()
	write(t, below, "x", "found at its new place")
	if !strings.HasSuffix(below.Path(), "/p/moved/below") {
		t.Errorf("path %s", below.Path())
	}
}

// Another directory under the old name is not taken for the one that was there.
func TestReplacedDirectoryIsESTALE(t *testing.T) {
	l := upper(t, t.TempDir(), 1)
	root := l.Root()
	must(t, root.Mkdir("a", 0o755))
	must(t, root.Mkdir("b", 0o755))
	a, b := root.Child("a"), root.Child("b")
	stat(t, a, "")
	must(t, root.Rename("a", root, "b", unix.RENAME_EXCHANGE))
	stat(t, b, "") // pushes a out of the cache of one
	_, err := a.Acquire()
	wantErr(t, err, unix.ESTALE)
	a.Forget()
	stat(t, a, "") // and after Forget it is whatever has the name
}

func TestRenameTo(t *testing.T) {
	l := upper(t, t.TempDir(), 16)
	root := l.Root()
	for _, name := range []string{"a", "b", "p"} {
		must(t, root.Mkdir(name, 0o755))
	}
	a, b, p := root.Child("a"), root.Child("b"), root.Child("p")
	inoA, inoB := stat(t, a, "").Ino, stat(t, b, "").Ino
	must(t, a.RenameTo(p, "a2", 0, nil))
	must(t, a.RenameTo(root, "b", unix.RENAME_EXCHANGE, b))
	a.Forget()
	b.Forget()
	if stat(t, a, "").Ino != inoA || stat(t, b, "").Ino != inoB {
		t.Error("directories mixed up by an exchange")
	}
	if a.Path() != l.Path+"/b" || b.Path() != l.Path+"/p/a2" {
		t.Errorf("a is %s, b is %s", a.Path(), b.Path())
	}
	wantErr(t, a.RenameTo(p, "a2", unix.RENAME_NOREPLACE, nil), unix.EEXIST)
	wantErr(t, a.RenameTo(p, "..", 0, nil), unix.EINVAL)
	wantErr(t, root.RenameTo(p, "x", 0, nil), unix.EBUSY)
	if a.Path() != l.Path+"/b" {
		t.Error("a failed rename moved the directory")
	}
	other := upper(t, t.TempDir(), 4)
	wantErr(t, a.RenameTo(other.Root(), "x", 0, nil), unix.EXDEV)
}

func TestAdopt(t *testing.T) {
	l := upper(t, t.TempDir(), 16)
	must(t, l.Root().Mkdir("a", 0o755))
	fd, err := l.Root().Open("a", unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	a := l.Root().Child("a")
	a.Adopt(fd)
	got, err := a.Acquire()
	must(t, err)
	if got != fd {
		t.Errorf("descriptor %d, adopted %d", got, fd)
	}
	second, err := l.Root().Open("a", unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	a.Adopt(second) // closed: a has one
	a.Release()
	if l.cache.Len() != 1 {
		t.Errorf("%d descriptors", l.cache.Len())
	}
}

func TestReleaseWithoutAcquirePanics(t *testing.T) {
	l := upper(t, t.TempDir(), 16)
	d := l.Root().Child("never")
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	d.Release()
}
