// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCopyUpKeepsAll copies up by a change of one attribute and expects that
// all others are kept: data, times, owner, mode, xattrs, ACL, capability.
func TestCopyUpKeepsAll(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		t.Run(fs, func(t *testing.T) {
			dir := newFS(t, fs, 400)
			l := makeTree(t, dir+"/l", []string{"d/ {2775 1000:2000}", "d/f=#123456 {4755 1000:1001 user.a=x trusted.b=y}", "d/big=#3000000"})
			must(t, unix.Setxattr(l+"/d/f", "security.capability", capability(unix.CAP_NET_RAW), 0))
			must(t, unix.Setxattr(l+"/d/f", "system.posix_acl_access", aclBytes([]aclEntry{{aclUserObj, 7, aclNoID}, {aclUser, 5, 1001},
				{aclGroupObj, 5, aclNoID}, {aclMask, 5, aclNoID}, {aclOther, 5, aclNoID}}), 0))
			must(t, unix.Chmod(l+"/d/f", 0o4755))
			must(t, setTimes(map[string]time.Time{l + "/d/f": fixtureTime, l + "/d": fixtureTime}))
			u := newMount(t, mountOpts{lowerDirs: []string{l}, upperDir: makeTree(t, dir+"/rw", nil)})
			want := mustDump(t, u.path("d"), dumpOptions{})
			must(t, unix.Setxattr(u.path("d/f"), "user.new", []byte("n"), 0))
			must(t, unix.Setxattr(u.path("d/big"), "user.new", []byte("n"), 0))
			want["f"]["xattr user.new"] = `"n"`
			want["big"]["xattr user.new"] = `"n"`
			for _, d := range diffTrees(want, mustDump(t, u.path("d"), dumpOptions{}), nil) {
				t.Error(d)
			}
			u.remount()
			for _, d := range diffTrees(want, mustDump(t, u.path("d"), dumpOptions{}), nil) {
				t.Errorf("after the remount: %s", d)
			}
			if _, err := os.Stat(filepath.Join(u.upper, "d/f")); err != nil {
				t.Errorf("it is not in upper: %v", err)
			}
		})
	}
}

// TestCopyUpOnce lets many writers ask for the copy-up of one file at once.
func TestCopyUpOnce(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"a/b/c/big=#5000000"}}})
	const writers = 16
	var wg sync.WaitGroup
	for i := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := withFile(u.path("a/b/c/big"), os.O_RDWR, func(f *os.File) error {
				_, err := f.WriteAt([]byte(fmt.Sprintf("writer %02d", i)), int64(i)*100)
				return err
			})
			if err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		}()
	}
	wg.Wait()
	want := pattern(5_000_000, 5_000_000)
	for i := range writers {
		copy(want[i*100:], fmt.Sprintf("writer %02d", i))
	}
	wantFile(t, u.path("a/b/c/big"), string(want))
	if sut == sutPlyfs {
		if n := u.status().CopyUps.Files; n != 1 {
			t.Errorf("%d copy-ups of files, want 1", n)
		}
	}
}

// TestCopyUpNoSpace: a whole copy-up that does not fit fails with ENOSPC, leaves
// the lower contents in place and nothing in upper or work; later ones that fit
// work. (A partial one costs what is written: TestCopyUpNoSpacePartial.)
func TestCopyUpNoSpace(t *testing.T) {
	rw := tempDir(t) + "/rw"
	must(t, os.Mkdir(rw, 0o755))
	must(t, unix.Mount("tmpfs", rw, "tmpfs", 0, "size=2m,mode=755"))
	t.Cleanup(func() { unix.Unmount(rw, unix.MNT_DETACH) })
	u := newMount(t, mountOpts{lowers: [][]string{{"d/big=#8000000", "d/small=ok"}}, upperDir: rw, options: []string{"copyup=whole"}})
	err := withFile(u.path("d/big"), os.O_RDWR, func(f *os.File) error {
		_, err := f.WriteAt([]byte("x"), 100)
		return err
	})
	wantErrno(t, "writing to a file that does not fit", err, unix.ENOSPC)
	wantFile(t, u.path("d/big"), string(pattern(8_000_000, 8_000_000)))
	must(t, withFile(u.path("d/small"), os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
		_, err := f.WriteString("!")
		return err
	}))
	wantFile(t, u.path("d/small"), "ok!")
	if _, err := os.Lstat(filepath.Join(u.upper, "d/big")); !os.IsNotExist(err) {
		t.Errorf("half a copy is in upper: %v", err)
	}
	walk(u.work, ".", func(p string) error {
		if st := lstat(t, filepath.Join(u.work, p)); st.Size > 1<<20 && !strings.Contains(p, "journal") {
			t.Errorf("%s of %d bytes is left in work", p, st.Size)
		}
		return nil
	})
}

// TestCopyUpNoSpacePartial: the first write to a file that would not fit costs
// what is written; when upper is full, the write is ENOSPC, and what was there
// stays right, also where nothing was written.
func TestCopyUpNoSpacePartial(t *testing.T) {
	rw := tempDir(t) + "/rw"
	must(t, os.Mkdir(rw, 0o755))
	must(t, unix.Mount("tmpfs", rw, "tmpfs", 0, "size=4m,mode=755"))
	t.Cleanup(func() { unix.Unmount(rw, unix.MNT_DETACH) })
	u := newMount(t, mountOpts{lowers: [][]string{{"d/big=#8000000"}}, upperDir: rw})
	want := pattern(8_000_000, 8_000_000)
	var full int
	must(t, withFile(u.path("d/big"), os.O_RDWR, func(f *os.File) error {
		copy(want[100:], "x")
		if _, err := f.WriteAt([]byte("x"), 100); err != nil {
			return err
		}
		zeros := make([]byte, 6_000_000)
		for full < len(zeros) {
			n, err := unix.Pwrite(int(f.Fd()), zeros[full:], int64(1_000_000+full))
			if err != nil {
				wantErrno(t, "writing more than fits", err, unix.ENOSPC)
				return nil
			}
			full += n
		}
		t.Errorf("%d bytes were written where 4 MiB fit", full)
		return nil
	}))
	clear(want[1_000_000 : 1_000_000+full])
	wantFile(t, u.path("d/big"), string(want))
	out, err := plyfs("complete", u.mp)
	if exitCodeOf(err) != 1 || !strings.Contains(out, "/d/big: no space left on device; make space") {
		t.Errorf("plyfs complete of what does not fit: %v %q", err, out)
	}
	wantFile(t, u.path("d/big"), string(want))
	must(t, os.Remove(u.path("d/big")))
	// The space is there once the kernel has forgotten the file.
	err = os.WriteFile(u.path("d/other"), make([]byte, 1_000_000), 0o644)
	for deadline := time.Now().Add(patience); errors.Is(err, unix.ENOSPC) && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		err = os.WriteFile(u.path("d/other"), make([]byte, 1_000_000), 0o644)
	}
	must(t, err)
}

// TestCopyUpReading never copies a file up for an open that only reads.
func TestCopyUpReading(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/f=1 {0777}", "l -> d/f"}}})
	wantFile(t, u.path("d/f"), "1")
	wantFile(t, u.path("l"), "1")
	must(t, unix.Access(u.path("d/f"), unix.W_OK))
	_ = lstat(t, u.path("d/f"))
	es, err := os.ReadDir(u.upper)
	must(t, err)
	if len(es) != 0 {
		t.Errorf("upper holds %v", es)
	}
}

// TestCopyUpHardLinks: the names of one lower file stay one file.
func TestCopyUpHardLinks(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"a=linked", "d/b => a", "c => a"}}})
	must(t, withFile(u.path("a"), os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
		_, err := f.WriteString(" and changed")
		return err
	}))
	check := func(when string, nlink uint64, paths ...string) {
		t.Helper()
		ino := lstat(t, u.path(paths[0])).Ino
		for _, p := range paths {
			wantFile(t, u.path(p), "linked and changed")
			if st := lstat(t, u.path(p)); uint64(st.Nlink) != nlink || st.Ino != ino {
				t.Errorf("%s: %s: nlink %d, want %d; inode %d, want %d", when, p, st.Nlink, nlink, st.Ino, ino)
			}
		}
	}
	check("copied up", 3, "a", "d/b", "c")
	must(t, os.Remove(u.path("a")))
	check("one name removed", 2, "d/b", "c")
	must(t, os.Link(u.path("c"), u.path("e")))
	check("one name added", 3, "d/b", "c", "e")
	u.remount()
	check("remounted", 3, "d/b", "c", "e")
	must(t, os.Remove(u.path("e")))
	must(t, os.Remove(u.path("d/b")))
	check("one name left", 1, "c")
}
