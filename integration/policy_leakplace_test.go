// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPolicyLeakFileRule: a rule about one file sticks to it when a directory
// above it is moved, of which the rule says nothing else.
func TestPolicyLeakFileRule(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := prepareSecret(t, "low/f", "low/g")
		s.policy = writePolicy(t, s.dir, "file.yaml", "- {path: /secret/low/f, name: secret, program: redact, ranges: [4096-12287]}\n"+
			"- {path: /secret/up/d/f, name: secret2, program: redact, ranges: [4096-12287]}\n")
		s.opts.options = []string{option}
		s.mount()
		for _, n := range []string{"f", "g"} {
			must(t, os.MkdirAll(s.path("secret/up/d"), 0o755))
			must(t, os.WriteFile(s.path("secret/up/d", n), secretBytes(s.marker), 0o644))
		}
		s.remountWith(option, "policy="+s.policy)
		check := func(dir string) {
			t.Helper()
			s.wantBlankFile(dir, "f")
			wantFile(t, s.path(dir, "g"), string(secretBytes(s.marker)))
		}
		check("secret/low")
		check("secret/up/d")
		must(t, os.Rename(s.path("secret/low"), s.path("open/low")))
		must(t, os.Rename(s.path("secret/up"), s.path("open/up")))
		check("open/low")
		check("open/up/d")
		must(t, os.Rename(s.path("open/up/d"), s.path("d")))
		must(t, os.Rename(s.path("open/low/f"), s.path("f")))
		s.remount()
		check("d")
		s.wantBlankFile("f")
		must(t, os.Rename(s.path("d/f"), s.path("open/f")))
		must(t, os.RemoveAll(s.path("d")))
		s.kill9()
		s.mount()
		s.wantBlankFile("open/f")
		s.wantBlankFile("f")
	})
}

// TestPolicyLeakPlaceAttr: what is written on a file about its place can be
// neither seen nor changed through the mount, nor is it copied out.
func TestPolicyLeakPlaceAttr(t *testing.T) {
	requirePlyfs(t, "policies")
	s := newSecret(t, policyModes[0].option, "a")
	must(t, os.Chmod(s.path("secret/a"), 0o600))
	must(t, os.WriteFile(s.path("secret/born"), secretBytes(s.marker), 0o644))
	must(t, os.Rename(s.path("secret/a"), s.path("open/a")))
	must(t, os.Rename(s.path("secret/born"), s.path("open/born")))
	for _, p := range []string{"open/a", "open/born"} {
		for _, name := range []string{"trusted.plyfs.place", "trusted.plyfs.copied"} {
			if v, err := lgetxattr(s.path(p), name); err == nil {
				t.Errorf("%s: %s is shown: %q", p, name, v)
			}
			if err := unix.Lsetxattr(s.path(p), name, []byte("/open/a"), 0); err == nil {
				t.Errorf("%s: %s can be set", p, name)
			}
			if err := unix.Lremovexattr(s.path(p), name); err == nil {
				t.Errorf("%s: %s can be removed", p, name)
			}
		}
		if all, err := readXattrs(s.path(p)); err != nil || len(all) > 0 {
			t.Errorf("%s: attributes %v, %v; want none", p, all, err)
		}
		s.wantBlankFile(p)
		out := filepath.Join(s.dir, "out")
		run(t, "", "cp", "-a", s.path(p), out)
		if all, err := readXattrs(out); err != nil || len(all) > 0 {
			t.Errorf("%s copied out: attributes %v, %v; want none", p, all, err)
		}
	}
}

// TestPolicyLeakTmpfile: a file without a name that is given one where it is
// covered, and then another.
func TestPolicyLeakTmpfile(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := newSecret(t, option)
		fd, err := unix.Open(s.path("open"), unix.O_TMPFILE|unix.O_RDWR, 0o644)
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("the mount has no O_TMPFILE")
		}
		must(t, err)
		f := os.NewFile(uintptr(fd), "tmpfile")
		_, err = f.Write(secretBytes(s.marker))
		must(t, err)
		must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, s.path("secret/tmp"), unix.AT_SYMLINK_FOLLOW))
		f.Close()
		s.wantBlankFile("secret/tmp")
		must(t, os.Link(s.path("secret/tmp"), s.path("open/tmp")))
		s.wantBlankFile("open/tmp")
		must(t, os.Remove(s.path("secret/tmp")))
		s.remount()
		s.wantBlankFile("open/tmp")
	})
}

// TestPolicyLeakLowerLinks: of a lower file with two names the covered one is
// blanked, whichever was used first, held open or copied up.
func TestPolicyLeakLowerLinks(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		for _, first := range []string{"secret/a", "open/a"} {
			t.Run(filepath.Dir(first), func(t *testing.T) {
				s := prepareSecret(t, "a")
				must(t, os.Link(filepath.Join(s.lowers[0], "secret/a"), filepath.Join(s.lowers[0], "open/a")))
				s.before = nil // just changed
				s.opts.options = []string{option, "policy=" + s.policy}
				s.mount()
				f, err := os.Open(s.path(first))
				must(t, err)
				defer f.Close()
				s.readAllWays("secret/a")
				b, err := os.ReadFile(s.path("open/a"))
				must(t, err)
				if !bytes.Equal(b, secretBytes(s.marker)) && !bytes.Equal(b, blanked(secretBytes(s.marker))) {
					t.Error("the other name shows neither the file nor what is blanked of it")
				}
				must(t, os.Chmod(s.path("open/a"), 0o600))
				s.wantBlankFile("secret/a")
				must(t, os.Rename(s.path("secret/a"), s.path("open/b")))
				s.wantBlankFile("open/b")
			})
		}
	})
}
