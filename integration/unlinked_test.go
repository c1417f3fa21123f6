// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnlinkedOpenFiles works on files whose names are gone: lower, copied up
// and new ones.
func TestUnlinkedOpenFiles(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{lowers: [][]string{{"lower=#10000", "copied=#10000"}}, options: []string{"io=" + mode}})
		must(t, os.Chmod(u.path("copied"), 0o600))
		must(t, os.WriteFile(u.path("new"), pattern(10000, 10000), 0o644))
		for _, name := range []string{"lower", "copied", "new"} {
			f, err := os.OpenFile(u.path(name), os.O_RDWR, 0)
			must(t, err)
			must(t, os.Remove(u.path(name)))
			wantGone(t, u.path(name))
			checkUnlinked(t, name, f)
			must(t, os.WriteFile(u.path(name), []byte("another"), 0o644))
			checkUnlinked(t, name, f)
			wantFile(t, u.path(name), "another")
			f.Close()
		}
	})
}

// checkUnlinked uses a file without a name in all ways.
func checkUnlinked(t *testing.T, name string, f *os.File) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	if st.Nlink != 0 {
		t.Errorf("%s: nlink %d after unlink, want 0", name, st.Nlink)
	}
	_, err := f.WriteAt([]byte("written"), 5000)
	must(t, err)
	got := make([]byte, 7)
	_, err = f.ReadAt(got, 5000)
	must(t, err)
	if !bytes.Equal(got, []byte("written")) {
		t.Errorf("%s: read %q after writing", name, got)
	}
	must(t, f.Truncate(20000))
	must(t, f.Chmod(0o640))
	must(t, unix.Fsetxattr(int(f.Fd()), "user.gone", []byte("x"), 0))
	must(t, f.Sync())
	must(t, unix.Fstat(int(f.Fd()), &st))
	if st.Size != 20000 || st.Mode&0o777 != 0o640 {
		t.Errorf("%s: size %d mode %o", name, st.Size, st.Mode)
	}
}

// TestUnlinkedReader: a lower file opened for reading stays readable after
// unlink, and after its place is taken.
func TestUnlinkedReader(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{lowers: [][]string{{"d/f=#100000"}}, options: []string{"io=" + mode}})
		f, err := os.Open(u.path("d/f"))
		must(t, err)
		defer f.Close()
		must(t, os.RemoveAll(u.path("d")))
		must(t, os.MkdirAll(u.path("d"), 0o755))
		must(t, os.WriteFile(u.path("d/f"), []byte("another"), 0o644))
		got := make([]byte, 100_000)
		_, err = f.ReadAt(got, 0)
		must(t, err)
		if !bytes.Equal(got, pattern(100_000, 100_000)) {
			t.Error("the contents changed under an open descriptor")
		}
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		if (st.Nlink != 0 && sut == sutPlyfs) || st.Size != 100_000 { // overlayfs shows the lower file's count
			t.Errorf("nlink %d size %d", st.Nlink, st.Size)
		}
	})
}

// TestUnlinkedDirectory: an open directory that is removed is not listed and
// takes nothing in.
func TestUnlinkedDirectory(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/f=1"}}})
	fd, err := unix.Open(u.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, os.RemoveAll(u.path("d")))
	_, err = unix.Openat(fd, "new", unix.O_CREAT|unix.O_WRONLY, 0o644)
	wantErrno(t, "create in a removed directory", err, unix.ENOENT)
	wantErrno(t, "mkdir in a removed directory", unix.Mkdirat(fd, "new", 0o755), unix.ENOENT)
	_, err = unix.Getdents(fd, make([]byte, 4096))
	wantErrno(t, "listing a removed directory", err, unix.ENOENT)
}
