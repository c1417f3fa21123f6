// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// eachXattrWay runs a test with getxattrat and its like, if the kernel has
// them, and without.
func eachXattrWay(t *testing.T, test func(t *testing.T)) {
	have := haveXattrat
	defer func() { haveXattrat = have }()
	t.Run("proc", func(t *testing.T) {
		haveXattrat = func() bool { return false }
		test(t)
	})
	t.Run("xattrat", func(t *testing.T) {
		if !have() {
			t.Skip("this kernel has no getxattrat")
		}
		haveXattrat = func() bool { return true }
		test(t)
	})
}

func TestXattrs(t *testing.T) {
	needRoot(t)
	eachXattrWay(t, func(t *testing.T) {
		root := upper(t, t.TempDir(), 16).Root()
		must(t, root.Mkdir("d", 0o755))
		write(t, root, "f", "")
		must(t, root.Symlink("f", "link"))
		must(t, root.Mknod("fifo", unix.S_IFIFO|0o600, 0))
		for _, at := range []At{{root, "d"}, {root.Child("d"), ""}, {root, "f"}, {root, "link"}, {root, "fifo"}} {
			testXattr(t, at, func(attr string) error { return at.Dir.Removexattr(at.Name, attr) })
			fd, err := at.Dir.Open(at.Name, unix.O_PATH, 0)
			must(t, err)
			testXattr(t, FD(fd), FD(fd).Removexattr)
			unix.Close(fd)
		}
		must(t, root.Setxattr("link", "trusted.own", []byte("the link's"), 0))
		_, err := root.Getxattr("f", "trusted.own", nil)
		wantErr(t, err, unix.ENODATA)
		_, err = root.Getxattr("none", "trusted.own", nil)
		wantErr(t, err, unix.ENOENT)
	})
}

// testXattr goes through the life of an attribute of one inode.
func testXattr(t *testing.T, x Xattrs, remove func(attr string) error) {
	t.Helper()
	const attr = "trusted.plyfs.test"
	_, err := x.Getxattr(attr, nil)
	wantErr(t, err, unix.ENODATA)
	wantErr(t, x.Setxattr(attr, []byte("v"), unix.XATTR_REPLACE), unix.ENODATA)
	must(t, x.Setxattr(attr, []byte("value"), unix.XATTR_CREATE))
	wantErr(t, x.Setxattr(attr, []byte("v"), unix.XATTR_CREATE), unix.EEXIST)
	if n, err := x.Getxattr(attr, nil); n != 5 || err != nil {
		t.Errorf("length %d %v", n, err)
	}
	buf := make([]byte, 16)
	if n, err := x.Getxattr(attr, buf); err != nil || string(buf[:n]) != "value" {
		t.Errorf("value %q %v", buf[:n], err)
	}
	_, err = x.Getxattr(attr, buf[:3])
	wantErr(t, err, unix.ERANGE)
	must(t, x.Setxattr("trusted.empty", nil, 0))
	if n, err := x.Getxattr("trusted.empty", buf); n != 0 || err != nil {
		t.Errorf("empty value: %d %v", n, err)
	}
	names, err := listXattrs(x)
	must(t, err)
	if !slices.Contains(names, attr) || !slices.Contains(names, "trusted.empty") {
		t.Errorf("names %q", names)
	}
	_, err = x.Listxattr(buf[:1])
	wantErr(t, err, unix.ERANGE)
	must(t, remove(attr))
	must(t, remove("trusted.empty"))
	wantErr(t, remove(attr), unix.ENODATA)
}

func TestFeaturesExplainThemselves(t *testing.T) {
	for _, f := range Features() {
		if f.Name == "" || f.Have != (f.Why == "") {
			t.Errorf("%+v", f)
		}
	}
}

func TestCopyXattrs(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		root := upper(t, dir, 16).Root()
		write(t, root, "src", "")
		write(t, root, "dst", "")
		big := bytes.Repeat([]byte("b"), 3000)
		acl := []byte(probeACL)
		capability := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		set := map[string][]byte{
			"user.big": big, "trusted.some": []byte("t"), "user.empty": {},
			"system.posix_acl_access": acl, "security.capability": capability,
			"trusted.plyfs.private": []byte("p"),
		}
		for attr, val := range set {
			must(t, root.Setxattr("src", attr, val, 0))
		}
		keep := func(attr string) bool { return !strings.HasPrefix(attr, "trusted.plyfs.") }
		must(t, CopyXattrs(At{root, "src"}, At{root, "dst"}, keep))
		for attr, val := range set {
			got, err := readXattr(At{root, "dst"}, attr)
			if !keep(attr) {
				wantErr(t, err, unix.ENODATA)
				continue
			}
			must(t, err)
			if !bytes.Equal(got, val) {
				t.Errorf("%s: %q", attr, got)
			}
		}
		fd, err := root.Open("dst", unix.O_PATH, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, CopyXattrs(At{root, "src"}, FD(fd), nil))
		if _, err := readXattr(At{root, "dst"}, "trusted.plyfs.private"); err != nil {
			t.Errorf("not copied without a filter: %v", err)
		}
	})
}

// fakeXattrs is a source of one attribute or a target that refuses.
type fakeXattrs struct {
	attr              string
	list, get, refuse error
}

func (f fakeXattrs) Listxattr(buf []byte) (int, error) {
	return copy(buf, f.attr+"\x00"), f.list
}
func (f fakeXattrs) Getxattr(string, []byte) (int, error) { return 0, f.get }
func (f fakeXattrs) Setxattr(string, []byte, int) error   { return f.refuse }

// What a copy may leave out and what it must not.
func TestCopyXattrsErrors(t *testing.T) {
	for _, x := range []struct {
		attr              string
		list, get, refuse error
		want              error
	}{
		{"user.a", nil, nil, nil, nil},
		{"user.a", nil, nil, unix.EOPNOTSUPP, nil},
		{"user.a", nil, nil, unix.ENOSPC, unix.ENOSPC},
		{"user.a", nil, nil, unix.EPERM, unix.EPERM},
		{"user.a", unix.EOPNOTSUPP, nil, nil, nil},
		{"user.a", unix.EIO, nil, nil, unix.EIO},
		{"user.a", nil, unix.ENODATA, unix.EIO, nil}, // removed meanwhile
		{"user.a", nil, unix.EIO, nil, unix.EIO},
		{"system.nfs4_acl", nil, nil, unix.EPERM, nil},
		{"btrfs.compression", nil, nil, unix.EINVAL, nil},
		{"system.posix_acl_access", nil, nil, unix.EOPNOTSUPP, unix.EOPNOTSUPP},
		{"system.posix_acl_default", nil, nil, unix.EINVAL, unix.EINVAL},
		{"security.capability", nil, nil, unix.EOPNOTSUPP, unix.EOPNOTSUPP},
		{"security.selinux", nil, nil, unix.EPERM, unix.EPERM},
	} {
		src := fakeXattrs{attr: x.attr, list: x.list, get: x.get}
		if err := CopyXattrs(src, fakeXattrs{refuse: x.refuse}, nil); !errors.Is(err, x.want) {
			t.Errorf("%+v: %v", x, err)
		}
	}
}
