// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTrust makes a way of /t/dir/file and a link to it, does something to it,
// and asks whether root trusts it.
func TestTrust(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cases := []struct {
		name string
		do   func(d string) error
		want string // of the error, with D for the directory; "": it is trusted
	}{
		{"good", func(d string) error { return nil }, ""},
		{"file, group", func(d string) error { return os.Chmod(d+"/dir/file", 0o664) },
			"D/dir/file can be written by its group, or by those an ACL of it names; chmod go-w D/dir/file"},
		{"file, others", func(d string) error { return os.Chmod(d+"/dir/file", 0o646) }, "D/dir/file can be written by anybody; chmod go-w D/dir/file"},
		{"file, owner", func(d string) error { return os.Chown(d+"/dir/file", 1234, 0) }, "D/dir/file belongs to uid 1234, who could change it; chown root D/dir/file"},
		{"directory, group", func(d string) error { return os.Chmod(d+"/dir", 0o775) },
			"D/dir can be written by its group, or by those an ACL of it names; chmod go-w D/dir"},
		{"directory, others", func(d string) error { return os.Chmod(d, 0o757) }, "D can be written by anybody; chmod go-w D"},
		{"directory, owner", func(d string) error { return os.Chown(d+"/dir", 1234, 0) }, "D/dir belongs to uid 1234, who could change it; chown root D/dir"},
		{"directory, sticky", func(d string) error { return os.Chmod(d+"/dir", os.ModeSticky|0o777) }, ""},
		{"sticky, owner", func(d string) error {
			return firstError(os.Chmod(d+"/dir", os.ModeSticky|0o777), os.Chown(d+"/dir", 1234, 0))
		}, "D/dir belongs to uid 1234, who could change it; chown root D/dir"},
		{"link, owner", func(d string) error { return os.Lchown(d+"/links/link", 1234, 0) },
			"D/links/link belongs to uid 1234, who could change it; chown -h root D/links/link"},
		{"link, its directory", func(d string) error { return os.Chmod(d+"/links", 0o777) }, "D/links can be written by anybody; chmod go-w D/links"},
		{"no file", func(d string) error { return os.Remove(d + "/dir/file") }, "stat D/dir/file: no such file or directory"},
		{"a directory", func(d string) error {
			return firstError(os.Remove(d+"/dir/file"), os.Mkdir(d+"/dir/file", 0o755))
		}, "D/dir/file is not a regular file; name one"},
		{"a pipe", func(d string) error {
			return firstError(os.Remove(d+"/dir/file"), unix.Mkfifo(d+"/dir/file", 0o644))
		}, "D/dir/file is not a regular file; name one"},
		{"a loop", func(d string) error {
			return firstError(os.Remove(d+"/dir/file"), os.Symlink("file", d+"/dir/file"))
		}, "follow D/dir/file: too many levels of symbolic links"},
		{"a file on the way", func(d string) error {
			return firstError(os.RemoveAll(d+"/dir"), os.WriteFile(d+"/dir", nil, 0o644))
		}, "stat D/dir: not a directory"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := trustedDir(t)
			write(t, d+"/dir/file", "content")
			write(t, d+"/links/x", "")
			if err := firstError(os.Symlink("../dir/../dir/file", d+"/links/link"), c.do(d)); err != nil {
				t.Fatal(err)
			}
			checkTrust(t, d+"/links/link", strings.ReplaceAll(c.want, "D", d))
		})
	}
}

// checkTrust checks what CheckTrusted and OpenTrusted say.
func checkTrust(t *testing.T, path, want string) {
	t.Helper()
	f, err := OpenTrusted(path)
	if err == nil {
		defer f.Close()
	}
	for _, err := range []error{err, CheckTrusted(path)} {
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestTrustUser trusts files of the user and of root.
func TestTrustUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	d := trustedDir(t)
	write(t, d+"/mine", "")
	write(t, d+"/root", "")
	if err := os.Chown(d+"/mine", 1234, 1234); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/mine", "/root"} {
		real, _, err := walkTrusted(d+name, 1234)
		if err != nil || real != d+name {
			t.Errorf("%s: %s, %v", name, real, err)
		}
	}
}

// TestTrustRelative walks from the working directory, and through "..".
func TestTrustRelative(t *testing.T) {
	d := trustedDir(t)
	write(t, d+"/a/file", "")
	t.Chdir(d + "/a")
	for _, path := range []string{"file", "./file", "../a/file", "../../../../../../.." + d + "/a/file"} {
		if real, _, err := walkTrusted(path, uint32(os.Geteuid())); err != nil || real != d+"/a/file" {
			t.Errorf("%s: %s, %v", path, real, err)
		}
	}
	for _, path := range []string{"", "a\x00"} {
		if err := CheckTrusted(path); err == nil {
			t.Errorf("%q is trusted", path)
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
