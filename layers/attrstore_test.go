// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const testAttr = PrivateAttrs + "test"

// storeIn makes a layer of dir whose private attributes a store keeps, which is
// in the directory "attrs" of it.
func storeIn(t testing.TB, dir string) (root *Dir, s *AttrStore) {
	t.Helper()
	if err := os.Mkdir(dir+"/attrs", 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	l := upper(t, dir, 16)
	s, err := OpenAttrStore(l.Root().Child("attrs"), AttrStoreOptions{})
	must(t, err)
	l.UseAttrStore(s)
	return l.Root(), s
}

// eachStore runs a test on ramfs, which has no xattrs, and on file systems that
// have some.
func eachStore(t *testing.T, test func(t *testing.T, dir string)) {
	t.Run("ramfs", func(t *testing.T) {
		needRoot(t)
		dir := t.TempDir()
		mount(t, "ramfs", dir, "ramfs", "")
		test(t, dir)
	})
	eachFS(t, test)
}

func TestAttrStore(t *testing.T) {
	eachStore(t, func(t *testing.T, dir string) {
		root, s := storeIn(t, dir)
		must(t, root.Mkdir("d", 0o755))
		write(t, root, "f", "")
		must(t, root.Symlink("f", "link"))
		must(t, root.Mknod("fifo", unix.S_IFIFO|0o600, 0))
		for _, at := range []At{{root, "d"}, {root, ""}, {root, "f"}, {root, "link"}, {root, "fifo"}} {
			testStored(t, at)
		}
		if n := s.Len(); n != 0 {
			t.Errorf("%d records, and all attributes were removed", n)
		}
		must(t, root.Setxattr("link", testAttr, []byte("the link's"), 0))
		_, err := root.Getxattr("f", testAttr, nil)
		wantErr(t, err, unix.ENODATA)
		_, err = root.Getxattr("none", testAttr, nil)
		wantErr(t, err, unix.ENOENT)
		wantErr(t, root.Setxattr("f", testAttr, make([]byte, maxRecordValue+1), 0), unix.E2BIG)
		must(t, root.Setxattr("f", testAttr, make([]byte, maxRecordValue), 0))
	})
}

// testStored goes through the life of an attribute of one inode.
func testStored(t *testing.T, at At) {
	t.Helper()
	_, err := at.Getxattr(testAttr, nil)
	wantErr(t, err, unix.ENODATA)
	wantErr(t, at.Dir.Removexattr(at.Name, testAttr), unix.ENODATA)
	wantErr(t, at.Setxattr(testAttr, []byte("v"), unix.XATTR_REPLACE), unix.ENODATA)
	must(t, at.Setxattr(testAttr, []byte("value"), unix.XATTR_CREATE))
	wantErr(t, at.Setxattr(testAttr, []byte("v"), unix.XATTR_CREATE), unix.EEXIST)
	must(t, at.Setxattr(PrivateAttrs+"empty", nil, 0))
	if n, err := at.Getxattr(testAttr, nil); n != 5 || err != nil {
		t.Errorf("length %d %v", n, err)
	}
	buf := make([]byte, 256)
	if n, err := at.Getxattr(testAttr, buf); err != nil || string(buf[:n]) != "value" {
		t.Errorf("value %q %v", buf[:n], err)
	}
	_, err = at.Getxattr(testAttr, buf[:3])
	wantErr(t, err, unix.ERANGE)
	if n, err := at.Getxattr(PrivateAttrs+"empty", buf); n != 0 || err != nil {
		t.Errorf("empty value: %d %v", n, err)
	}
	names, err := listXattrs(at)
	must(t, err)
	if len(names) < 2 || !slices.Equal(names[:2], []string{PrivateAttrs + "empty", testAttr}) {
		t.Errorf("names %q", names)
	}
	n, err := at.Listxattr(nil)
	must(t, err)
	if got, err := at.Listxattr(buf[:n]); got != n || err != nil {
		t.Errorf("%d bytes of names %v, %d said before", got, err, n)
	}
	_, err = at.Listxattr(buf[:n-1])
	wantErr(t, err, unix.ERANGE)
	must(t, at.Dir.Removexattr(at.Name, testAttr))
	must(t, at.Dir.Removexattr(at.Name, PrivateAttrs+"empty"))
}

// What is listed besides is what the file system holds itself.
func TestAttrStoreListsTheOthers(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		root, _ := storeIn(t, dir)
		write(t, root, "f", "")
		must(t, root.Setxattr("f", "trusted.other", []byte("v"), 0))
		must(t, root.Setxattr("f", testAttr, []byte("v"), 0))
		names, err := listXattrs(At{root, "f"})
		must(t, err)
		if !slices.Contains(names, "trusted.other") || !slices.Contains(names, testAttr) {
			t.Errorf("names %q", names)
		}
		if _, err := unix.Getxattr(dir+"/f", testAttr, nil); err != unix.ENODATA {
			t.Errorf("on the file itself: %v", err)
		}
	})
}

// Attributes stay with the inode, whatever it is called, until its last name is
// gone, and over a restart.
func TestAttrStoreFollowsTheInode(t *testing.T) {
	eachStore(t, func(t *testing.T, dir string) {
		root, s := storeIn(t, dir)
		mark := func(name string) { t.Helper(); must(t, root.Setxattr(name, testAttr, []byte(name), 0)) }
		for _, name := range []string{"one", "two", "three", "four"} {
			write(t, root, name, "")
			mark(name)
		}
		for _, name := range []string{"d", "e", "target"} {
			must(t, root.Mkdir(name, 0o755))
			mark(name)
		}
		must(t, root.Link("one", root, "one too"))
		must(t, root.Unlink("one"))
		must(t, root.Rename("two", root.Child("d"), "moved", 0))
		must(t, root.Rename("three", root, "four", 0))
		must(t, root.Rename("four", root, "e", unix.RENAME_EXCHANGE)) // "e" is three now
		must(t, root.Child("d").RenameTo(root, "target", 0, nil))
		want := map[string]string{"one too": "one", "target/moved": "two", "e": "three", "four": "e", "target": "d"}
		check := func(root *Dir) {
			t.Helper()
			for path, val := range want {
				d, name := root, path
				if parent, base, ok := strings.Cut(path, "/"); ok {
					d, name = root.Child(parent), base
				}
				buf := make([]byte, 16)
				if n, err := d.Getxattr(name, testAttr, buf); err != nil || string(buf[:n]) != val {
					t.Errorf("%s: %q %v, want %q", path, buf[:n], err, val)
				}
			}
		}
		check(root)
		if s.Len() != len(want) {
			t.Errorf("%d records for %d inodes", s.Len(), len(want))
		}
		again, s2 := storeIn(t, dir)
		check(again)
		must(t, again.Unlink("one too"))
		must(t, again.Rmdir("four"))
		if s2.Len() != len(want)-2 {
			t.Errorf("%d records are left of %d", s2.Len(), len(want))
		}
		must(t, s2.Clear())
		if list, err := os.ReadDir(dir + "/attrs"); err != nil || len(list) != 0 {
			t.Errorf("after Clear: %v %v", list, err)
		}
	})
}

// A damaged record is an error, on whatever it is about, and on nothing else.
func TestAttrStoreDamaged(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	root, _ := storeIn(t, dir)
	write(t, root, "f", "")
	write(t, root, "g", "")
	must(t, root.Setxattr("f", testAttr, []byte("value"), 0))
	key, err := root.Handle("f")
	must(t, err)
	path := filepath.Join(dir, "attrs", key)
	sound, err := os.ReadFile(path)
	must(t, err)
	for i := range len(sound) {
		bad := bytes.Clone(sound)
		bad[i] ^= 0x10
		for _, content := range [][]byte{bad, sound[:i]} {
			must(t, os.WriteFile(path, content, 0o600))
			root, _ := storeIn(t, dir)
			if _, err := root.Getxattr("f", testAttr, nil); !errors.Is(err, ErrAttrRecord) {
				t.Fatalf("byte %d of %d: error %v", i, len(content), err)
			}
			if err := root.Setxattr("f", testAttr, []byte("new"), 0); !errors.Is(err, ErrAttrRecord) {
				t.Fatalf("byte %d of %d: written over: %v", i, len(content), err)
			}
			_, err := root.Getxattr("g", testAttr, nil)
			wantErr(t, err, unix.ENODATA)
		}
	}
	must(t, os.WriteFile(path, make([]byte, maxRecord+1), 0o600))
	root, _ = storeIn(t, dir)
	if _, err := root.Getxattr("f", testAttr, nil); !errors.Is(err, ErrAttrRecord) {
		t.Errorf("a huge record: %v", err)
	}
}

// A store that was cut off while it wrote a record has the old one.
func TestAttrStoreCutOff(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	root, s := storeIn(t, dir)
	write(t, root, "f", "")
	must(t, root.Setxattr("f", testAttr, []byte("old"), 0))
	must(t, s.writeTemp([]byte("half")))
	root, s = storeIn(t, dir)
	if s.Len() != 1 {
		t.Errorf("%d records", s.Len())
	}
	must(t, root.Setxattr("f", testAttr, []byte("n"), 0))
	buf := make([]byte, 16)
	if n, err := root.Getxattr("f", testAttr, buf); err != nil || string(buf[:n]) != "n" {
		t.Errorf("%q %v", buf[:n], err)
	}
}

// A record that could not be written changes nothing, and the next one can be.
func TestAttrStoreWriteFails(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	root, s := storeIn(t, dir)
	write(t, root, "f", "")
	write(t, root, "g", "")
	must(t, root.Setxattr("f", testAttr, []byte("old"), 0))
	must(t, os.Mkdir(dir+"/attrs/"+storeTemp, 0o700)) // no file can have that name
	for _, name := range []string{"f", "g"} {
		wantErr(t, root.Setxattr(name, testAttr, []byte("new"), 0), unix.EISDIR)
	}
	buf := make([]byte, 8)
	if n, err := root.Getxattr("f", testAttr, buf); err != nil || string(buf[:n]) != "old" {
		t.Errorf("%q %v", buf[:n], err)
	}
	_, err := root.Getxattr("g", testAttr, buf)
	wantErr(t, err, unix.ENODATA)
	if s.Len() != 1 {
		t.Errorf("%d records", s.Len())
	}
	must(t, os.Remove(dir+"/attrs/"+storeTemp))
	must(t, root.Setxattr("g", testAttr, []byte("new"), 0))
}

func TestAttrStoreRaces(t *testing.T) {
	needRoot(t)
	root, s := storeIn(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprint("f", i)
			for range 100 {
				err := root.Mknod(name, unix.S_IFREG|0o600, 0)
				err2 := root.Setxattr(name, testAttr, []byte(name), 0)
				buf := make([]byte, 8)
				n, err3 := root.Getxattr(name, testAttr, buf)
				if err := errors.Join(err, err2, err3, root.Unlink(name)); err != nil || string(buf[:n]) != name {
					t.Errorf("%s has the attribute of %s: %v", name, buf[:n], err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.Len(); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

func TestWantsAttrStore(t *testing.T) {
	needRoot(t)
	ram := t.TempDir()
	mount(t, "ramfs", ram, "ramfs", "")
	tests := []struct {
		name, dir string
		caps      Caps
		why       string
	}{
		{"ramfs", ram, Caps{}, ""},
		{"has xattrs", tmpfs(t), Caps{FileHandles: true, Why: map[string]string{"TrustedXattr": "not permitted"}}, "not permitted"},
		{"no handles, no xattrs", "/proc", Caps{}, "neither"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			why, err := WantsAttrStore(upper(t, test.dir, 4).Root(), test.caps)
			if err != nil || (why == "") != (test.why == "") || !strings.Contains(why, test.why) {
				t.Errorf("%q %v, want %q", why, err, test.why)
			}
		})
	}
}

func FuzzAttrRecord(f *testing.F) {
	f.Add([]byte{})
	f.Add(attrRecord{}.encode())
	f.Add(attrRecord{testAttr: "value", PrivateAttrs + "b": "", "": "x"}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := decodeRecord(b)
		if err != nil {
			if rec != nil || !errors.Is(err, ErrAttrRecord) {
				t.Fatalf("%v %v", rec, err)
			}
			return
		}
		again, err := decodeRecord(rec.encode())
		if err != nil || fmt.Sprint(again) != fmt.Sprint(rec) {
			t.Fatalf("%v encodes to %v (%v)", rec, again, err)
		}
	})
}
