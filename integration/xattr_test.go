// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestXattrTypes sets, lists, reads and removes attributes on files,
// directories and symlinks (not on what they point to), lower and new.
func TestXattrTypes(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"file=1", "dir/", "link -> file", "dangling -> nowhere", "pipe {fifo}"}}})
	for _, name := range []string{"file", "dir", "link", "dangling", "pipe"} {
		p := u.path(name)
		_, err := lgetxattr(p, "trusted.a")
		wantErrno(t, name+": absent attribute", err, unix.ENODATA)
		must(t, unix.Lsetxattr(p, "trusted.a", []byte("of "+name), unix.XATTR_CREATE))
		wantErrno(t, name+": XATTR_CREATE again", unix.Lsetxattr(p, "trusted.a", nil, unix.XATTR_CREATE), unix.EEXIST)
		wantErrno(t, name+": XATTR_REPLACE of nothing", unix.Lsetxattr(p, "trusted.b", nil, unix.XATTR_REPLACE), unix.ENODATA)
		must(t, unix.Lsetxattr(p, "trusted.empty", nil, 0))
	}
	if _, err := lgetxattr(u.path("dangling"), "user.a"); err == nil {
		t.Error("a symlink has a user attribute")
	}
	wantErrno(t, "user. on a symlink", unix.Lsetxattr(u.path("link"), "user.a", []byte("x"), 0), unix.EPERM)
	check := func() {
		t.Helper()
		for _, name := range []string{"file", "dir", "link", "dangling", "pipe"} {
			xs, err := readXattrs(u.path(name))
			must(t, err)
			if len(xs) != 2 || xs["trusted.a"] != "of "+name || xs["trusted.empty"] != "" {
				t.Errorf("%s: attributes %q", name, xs)
			}
		}
	}
	check()
	u.remount()
	check()
	for _, name := range []string{"file", "dir", "link"} {
		must(t, unix.Lremovexattr(u.path(name), "trusted.a"))
		wantErrno(t, "removing twice", unix.Lremovexattr(u.path(name), "trusted.a"), unix.ENODATA)
	}
}

// TestXattrPrivate: the attributes of the union file system itself are not
// listed, not readable and not to be set through the mount.
func TestXattrPrivate(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/a=1", "gone=1"}, {"d/b=2"}}})
	must(t, u.rename2("d", "moved", 0)) // leaves marks on the directory
	must(t, os.Chmod(u.path("moved/a"), 0o600))
	must(t, walk(u.mp, ".", func(p string) error {
		xs, err := readXattrs(u.path(p))
		must(t, err)
		for x := range xs {
			if strings.Contains(x, "overlay.") || strings.Contains(x, "plyfs.") {
				t.Errorf("%s shows %s", p, x)
			}
		}
		return nil
	}))
	if sut != sutPlyfs {
		return
	}
	inUpper, err := readXattrs(u.upper + "/moved")
	must(t, err)
	private := ""
	for x := range inUpper {
		if strings.HasPrefix(x, "trusted.plyfs.") {
			private = x
		}
	}
	if private == "" {
		t.Fatalf("a renamed directory has no mark in upper: %q", inUpper)
	}
	if v, err := lgetxattr(u.path("moved"), private); err == nil {
		t.Errorf("%s is readable: %q", private, v)
	}
	if err := unix.Lremovexattr(u.path("moved"), private); err == nil {
		t.Errorf("%s can be removed through the mount", private)
	}
	// Setting one either fails or is kept apart from our own; both survive.
	unix.Lsetxattr(u.path("moved"), private, []byte("forged"), 0)
	u.remount()
	wantNames(t, u.path("moved"), "a", "b")
}

// TestXattrACL: access and default lists are kept, inherited and enforced.
func TestXattrACL(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/ {0777}", "f=1 {0600}"}}})
	list := aclBytes([]aclEntry{{aclUserObj, 7, aclNoID}, {aclUser, 6, 1001}, {aclGroupObj, 5, aclNoID},
		{aclMask, 6, aclNoID}, {aclOther, 0, aclNoID}})
	must(t, unix.Setxattr(u.path("d"), "system.posix_acl_default", list, 0))
	as(t, alice, func() {
		if err := os.WriteFile(u.path("d/new"), []byte("x"), 0o666); err != nil {
			t.Error(err)
		}
		if err := os.Mkdir(u.path("d/sub"), 0o777); err != nil {
			t.Error(err)
		}
	})
	for _, p := range []string{"d/new", "d/sub"} {
		if xs, err := readXattrs(u.path(p)); err != nil || xs["system.posix_acl_access"] == "" {
			t.Errorf("%s did not inherit: %q, %v", p, xs, err)
		}
	}
	if st := lstat(t, u.path("d/new")); st.Mode&0o777 != 0o660 || st.Uid != 1000 {
		t.Errorf("new: mode %o owner %d, want 660 and 1000", st.Mode&0o777, st.Uid)
	}
	if _, err := lgetxattr(u.path("d/sub"), "system.posix_acl_default"); err != nil {
		t.Errorf("a directory did not inherit the default list: %v", err)
	}
	as(t, bob, func() {
		if err := withFile(u.path("d/new"), os.O_RDWR, func(*os.File) error { return nil }); err != nil {
			t.Errorf("the list lets user 1001 in, but: %v", err)
		}
	})
	must(t, unix.Setxattr(u.path("f"), "system.posix_acl_access", list, 0))
	u.remount()
	if st := lstat(t, u.path("f")); st.Mode&0o777 != 0o760 {
		t.Errorf("mode %o with the list, want 760", st.Mode&0o777)
	}
	as(t, bob, func() {
		if _, err := os.ReadFile(u.path("f")); err != nil {
			t.Errorf("after the remount: %v", err)
		}
	})
}

// TestXattrCapability: a capability survives the copy-up by chmod of another
// bit and is gone after a write, as on a plain file.
func TestXattrCapability(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1 {0755}"}}})
	must(t, unix.Setxattr(u.path("f"), "security.capability", capability(unix.CAP_NET_RAW), 0))
	u.remount()
	v, err := lgetxattr(u.path("f"), "security.capability")
	must(t, err)
	if !slices.Equal([]byte(v), capability(unix.CAP_NET_RAW)) {
		t.Errorf("capability %x", v)
	}
	must(t, withFile(u.path("f"), os.O_WRONLY, func(f *os.File) error {
		_, err := f.WriteString("x")
		return err
	}))
	_, err = lgetxattr(u.path("f"), "security.capability")
	wantErrno(t, "capability after a write", err, unix.ENODATA)
}

// TestXattrLarge: values up to what the layer takes, and its errors.
func TestXattrLarge(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}})
	big := strings.Repeat("v", 3000)
	must(t, unix.Setxattr(u.path("f"), "user.big", []byte(big), 0))
	v, err := lgetxattr(u.path("f"), "user.big")
	must(t, err)
	if v != big {
		t.Errorf("%d bytes, want %d", len(v), len(big))
	}
	_, err = unix.Getxattr(u.path("f"), "user.big", make([]byte, 10))
	wantErrno(t, "short buffer", err, unix.ERANGE)
	_, err = unix.Listxattr(u.path("f"), make([]byte, 3))
	wantErrno(t, "short list", err, unix.ERANGE)
	if n, err := unix.Getxattr(u.path("f"), "user.big", nil); n != 3000 || err != nil {
		t.Errorf("size query: %d, %v", n, err)
	}
	wantErrno(t, "too large", unix.Setxattr(u.path("f"), "user.huge", make([]byte, 70000), 0), unix.E2BIG)
	wantErrno(t, "unknown class", unix.Setxattr(u.path("f"), "nonsense.a", []byte("x"), 0), unix.EOPNOTSUPP)
}
