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

// What must never happen: bytes that a policy redacts leave the mount by any
// way. The secret of these tests is a marker, of which the redacted range of a
// file is full.

// The redacted range of a secret file, and its size.
const (
	secretOff  = 4096
	secretEnd  = 12288
	secretSize = 40_000
)

// secretRules redact that range of all below /secret.
const secretRules = "- {path: /secret, name: secret, program: redact, ranges: [4096-12287]}\n"

// secret is a mount with secret files.
type secret struct {
	*union
	dir    string // of the test
	policy string
	marker string
}

// secretBytes is the content of a secret file: the marker fills the range, and
// all besides is a pattern.
func secretBytes(marker string) []byte {
	b := pattern(secretSize, 4711)
	for i := secretOff; i < secretEnd; i += copy(b[i:secretEnd], marker) {
	}
	return b
}

// blanked is what shall be seen of content: zeros in the range.
func blanked(content []byte) []byte {
	b := bytes.Clone(content)
	if len(b) > secretOff {
		clear(b[secretOff:min(secretEnd, len(b))])
	}
	return b
}

// newSecret mounts a tree of secret files. Each name is a file in the lower
// layer's secret directory; open/other is one that no rule covers.
func newSecret(t *testing.T, option string, names ...string) *secret {
	t.Helper()
	s := prepareSecret(t, names...)
	s.opts.options = []string{option, "policy=" + s.policy}
	s.mount()
	return s
}

// prepareSecret makes the layers and the policy alone.
func prepareSecret(t *testing.T, names ...string) *secret {
	t.Helper()
	s := &secret{dir: tempDir(t), marker: newMarker(t)}
	lower := makeTree(t, filepath.Join(s.dir, "lower"), []string{"secret/", "open/other=#40000"})
	for _, n := range names {
		p := filepath.Join(lower, "secret", n)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, secretBytes(s.marker), 0o644))
	}
	s.policy = writePolicy(t, s.dir, "policy.yaml", secretRules)
	s.union = prepare(t, mountOpts{dir: s.dir, lowerDirs: []string{lower}})
	return s
}

// wantBlank expects what a way of reading gave.
func (s *secret) wantBlank(what string, got []byte) {
	s.Helper()
	if bytes.Contains(got, []byte(s.marker[:16])) {
		s.Errorf("%s: SHOWS THE SECRET", what)
		return
	}
	wantBytes(s, what, got, blanked(secretBytes(s.marker)))
}

// wantBlankFile expects what a file of the mount shows.
func (s *secret) wantBlankFile(p ...string) {
	s.Helper()
	b, err := os.ReadFile(s.path(p...))
	if err != nil {
		s.Errorf("reading: %v", err)
		return
	}
	s.wantBlank(filepath.Join(p...), b)
}

// wantNotOnDisk expects that the marker is nowhere in upper and work.
func (s *secret) wantNotOnDisk(when string) {
	s.Helper()
	if f := filesWith(s, s.marker[:16], s.upper, s.work); len(f) > 0 {
		s.Errorf("%s: THE SECRET IS IN %.5q", when, f)
	}
}

// TestPolicyLeakRead reads a redacted file in every way there is.
func TestPolicyLeakRead(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := newSecret(t, option, "a")
		s.wantServed("secret/a", "server", "secret")
		s.readAllWays("secret/a")
		s.wantNotOnDisk("after reading")
		if n := s.status().CopyUps.Files; n != 0 {
			t.Errorf("reading copied %d files up", n)
		}
		if st := s.status(); st.Opens.Server == 0 {
			t.Errorf("no open was served by the daemon: %+v", st.Opens)
		}
	})
}

// readAllWays reads a file of the mount in each way.
func (s *secret) readAllWays(path string) {
	s.Helper()
	s.eachWay(path, func(name string, got []byte) { s.wantBlank(name, got) })
}

// eachWay gives what each way of reading a file came to, but for those that
// may be refused and were.
func (s *secret) eachWay(path string, f func(name string, got []byte)) {
	s.Helper()
	for _, w := range readWays {
		switch got, err := w.read(s, s.path(path)); {
		case err == nil:
			f(w.name+" of "+path, got)
		case errors.Is(err, errNotTried):
			s.Logf("NOT TRIED: %s: %v", w.name, err)
		case !isOneOf(err, w.refused):
			s.Errorf("%s of %s: %v", w.name, path, err)
		}
	}
}

// TestPolicyLeakControl: without a policy each way gives the secret. A way that
// does not would prove nothing.
func TestPolicyLeakControl(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := prepareSecret(t, "a")
		s.opts.options = []string{option}
		s.mount()
		n := 0
		s.eachWay("secret/a", func(name string, got []byte) {
			n++
			wantBytes(t, name, got, secretBytes(s.marker))
		})
		if n < len(readWays)-6 {
			t.Errorf("only %d of %d ways gave anything", n, len(readWays))
		}
	})
}

// TestPolicyLeakHoles: where a backing file has holes is not shown, neither by
// lseek nor by FIEMAP, and blocks cannot be mapped.
func TestPolicyLeakHoles(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := prepareSecret(t)
		p := filepath.Join(s.lowers[0], "secret/holes")
		must(t, withFile(p, os.O_CREATE|os.O_RDWR, func(f *os.File) error {
			if _, err := f.WriteAt([]byte(s.marker), 8192); err != nil {
				return err
			}
			return f.Truncate(1 << 20)
		}))
		s.before = nil // just changed
		s.opts.options = []string{option, "policy=" + s.policy}
		s.mount()
		for _, off := range []int64{0, 4096, 8192, 100_000} {
			must(t, withFile(s.path("secret/holes"), os.O_RDONLY, func(f *os.File) error {
				data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
				if err != nil || data != off {
					t.Errorf("SEEK_DATA from %d: %d, %v; want %d", off, data, err, off)
				}
				hole, err := unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE)
				if err != nil || hole != 1<<20 {
					t.Errorf("SEEK_HOLE from %d: %d, %v; want the size", off, hole, err)
				}
				_, err = unix.Seek(int(f.Fd()), 1<<20, unix.SEEK_DATA)
				wantErrno(t, "SEEK_DATA from the end", err, unix.ENXIO)
				if err := fiemap(f); err != unix.EOPNOTSUPP && err != unix.ENOTTY {
					t.Errorf("FIEMAP: got %v, want a refusal", err)
				}
				if block, err := fibmap(f); block != 0 {
					t.Errorf("FIBMAP: got block %d, %v; want none", block, err)
				}
				return nil
			}))
		}
		b, err := os.ReadFile(s.path("secret/holes"))
		must(t, err)
		wantBytes(t, "a file with holes", b, make([]byte, 1<<20))
	})
}

// copyUpWays change a file so that it is copied up; each gives the name under
// which it is afterwards, and the content (of which the range is blank).
var copyUpWays = []struct {
	name string
	do   func(s *secret, p string) error
	want func(b []byte) []byte // nil: unchanged
	now  string                // nil: where it was
}{
	{name: "chmod", do: func(_ *secret, p string) error { return os.Chmod(p, 0o600) }},
	{name: "chown", do: func(_ *secret, p string) error { return os.Chown(p, 1000, 1000) }},
	{name: "utimens", do: func(_ *secret, p string) error { return os.Chtimes(p, fixtureTime, fixtureTime) }},
	{name: "setxattr", do: func(_ *secret, p string) error { return unix.Setxattr(p, "user.x", []byte("y"), 0) }},
	{name: "extend", do: func(_ *secret, p string) error { return os.Truncate(p, secretSize+5000) },
		want: func(b []byte) []byte { return append(b, make([]byte, 5000)...) }},
	{name: "shrink", do: func(_ *secret, p string) error { return os.Truncate(p, secretOff+100) },
		want: func(b []byte) []byte { return b[:secretOff+100] }},
	{name: "append", do: func(_ *secret, p string) error {
		return withFile(p, os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("tail"); return err })
	}, want: func(b []byte) []byte { return append(b, "tail"...) }},
	{name: "rdwr", do: func(s *secret, p string) error {
		return withFile(p, os.O_RDWR, func(f *os.File) error { return s.checkOpen("O_RDWR", f) })
	}},
	{name: "rdwrappend", do: func(s *secret, p string) error {
		return withFile(p, os.O_RDWR|os.O_APPEND, func(f *os.File) error { return s.checkOpen("O_RDWR|O_APPEND", f) })
	}},
	{name: "write", do: func(s *secret, p string) error {
		return withFile(p, os.O_RDWR, func(f *os.File) error {
			if _, err := f.WriteAt([]byte("written"), secretOff-3); err != nil {
				return err
			}
			return f.Sync()
		})
	}, want: func(b []byte) []byte { copy(b[secretOff-3:], "wri"); return b }},
	{name: "mmapped", do: func(_ *secret, p string) error {
		return withFile(p, os.O_RDWR, func(f *os.File) error {
			m, err := unix.Mmap(int(f.Fd()), 0, secretSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			copy(m[secretEnd:], "mapped")
			return unix.Munmap(m)
		})
	}, want: func(b []byte) []byte { copy(b[secretEnd:], "mapped"); return b }},
	{name: "falloc", do: func(_ *secret, p string) error {
		return withFile(p, os.O_RDWR, func(f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, 0, secretSize) })
	}},
	{name: "link", do: func(s *secret, p string) error { return os.Link(p, s.path("open/link")) }, now: "open/link"},
	{name: "rename", do: func(s *secret, p string) error { return os.Rename(p, s.path("open/renamed")) }, now: "open/renamed"},
	{name: "exchange", do: func(s *secret, p string) error {
		return s.rename2("secret/exchange", "open/other", unix.RENAME_EXCHANGE)
	}, now: "open/other"},
	{name: "chattr", do: func(_ *secret, p string) error {
		return withFile(p, os.O_RDONLY, func(f *os.File) error {
			flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
			if err != nil {
				return err
			}
			return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|fsNodump)
		})
	}},
}

// checkOpen expects zeros by an open descriptor.
func (s *secret) checkOpen(what string, f *os.File) error {
	b := make([]byte, secretSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	s.wantBlank(what, b)
	return nil
}

// TestPolicyLeakCopyUp copies up in each way, and looks at what is shown and
// at what is on the disk; then after a remount, a kill, and without the policy.
func TestPolicyLeakCopyUp(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		var names []string
		for _, w := range copyUpWays {
			names = append(names, w.name)
		}
		s := newSecret(t, option, names...)
		for _, w := range copyUpWays {
			if err := w.do(s, s.path("secret", w.name)); err != nil {
				t.Errorf("%s: %v", w.name, err)
			}
		}
		s.wantCopied("after copy-up")
		s.remount()
		s.wantCopied("after a remount")
		s.kill9()
		s.mount()
		s.wantCopied("after a kill")
		if n := len(filesWith(t, string(pattern(secretSize, 4711)[:64]), s.upper)); n != len(copyUpWays)+1 {
			t.Errorf("%d files with the pattern are in upper, want %d (one has two names): what was to be copied up was not", n, len(copyUpWays)+1)
		}
		s.remountWith(option)
		s.wantNotOnDisk("mounted without a policy")
		if f := filesWith(t, s.marker[:16], s.mp); len(f) > 0 {
			t.Errorf("mounted without a policy: THE SECRET IS IN %.5q", f)
		}
	})
}

// wantCopied looks at all files that were copied up.
func (s *secret) wantCopied(when string) {
	s.Helper()
	for _, w := range copyUpWays {
		want := blanked(secretBytes(s.marker))
		if w.want != nil {
			want = w.want(want)
		}
		p := filepath.Join("secret", w.name)
		if w.now != "" {
			p = w.now
		}
		got, err := os.ReadFile(s.path(p))
		if err != nil {
			s.Errorf("%s: %s: %v", when, w.name, err)
			continue
		}
		if bytes.Contains(got, []byte(s.marker[:16])) {
			s.Errorf("%s: %s: SHOWS THE SECRET", when, w.name)
		}
		wantBytes(s, when+": "+w.name, got, want)
	}
	s.wantNotOnDisk(when)
}

// TestPolicyLeakTruncated: a file opened with O_TRUNC shows nothing of what it
// was, and is not copied up for it.
func TestPolicyLeakTruncated(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := newSecret(t, option, "a", "b")
		for name, flags := range map[string]int{"a": os.O_RDWR | os.O_TRUNC, "b": os.O_RDONLY | os.O_TRUNC} {
			must(t, withFile(s.path("secret", name), flags, func(f *os.File) error {
				b := make([]byte, secretSize)
				if n, _ := f.ReadAt(b, 0); n != 0 {
					t.Errorf("%s: %d bytes after O_TRUNC: %.40q", name, n, b)
				}
				if flags&os.O_RDWR != 0 {
					if err := f.Truncate(secretSize); err != nil {
						return err
					}
					f.ReadAt(b, 0)
					wantBytes(t, name+" grown again", b, make([]byte, secretSize))
				}
				return nil
			}))
		}
		s.wantNotOnDisk("after O_TRUNC")
	})
}

// bornWays move files that were made in upper, unredacted, by a mount without
// the policy, to where no rule says anything.
var bornWays = []struct {
	from, now string
	do        func(s *secret, from, to string) error
}{
	{"secret/stay", "secret/stay", func(*secret, string, string) error { return nil }},
	{"secret/chmod", "secret/chmod", func(_ *secret, from, _ string) error { return os.Chmod(from, 0o600) }},
	{"secret/rename", "open/born-renamed", func(_ *secret, from, to string) error { return os.Rename(from, to) }},
	{"secret/link", "open/born-link", func(_ *secret, from, to string) error { return os.Link(from, to) }},
	{"secret/linkgone", "open/born-linkgone", func(_ *secret, from, to string) error {
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	}},
	{"secret/exchange", "open/other", func(s *secret, _, _ string) error {
		return s.rename2("secret/exchange", "open/other", unix.RENAME_EXCHANGE)
	}},
	{"secret/replace", "open/replaced", func(_ *secret, from, to string) error {
		if err := os.WriteFile(to, []byte("old"), 0o644); err != nil {
			return err
		}
		return os.Rename(from, to)
	}},
	{"secret/d1/f", "open/d1/f", func(s *secret, _, _ string) error { return s.rename2("secret/d1", "open/d1", 0) }},
	{"secret/d2/e/f", "open/e/f", func(s *secret, _, _ string) error { return s.rename2("secret/d2/e", "open/e", 0) }},
	{"secret/d3/f", "open/x/d3/f", func(s *secret, _, _ string) error {
		if err := os.Mkdir(s.path("open/x"), 0o755); err != nil {
			return err
		}
		return s.rename2("secret/d3", "open/x/d3", 0)
	}},
	{"secret/d4/f", "open/f4", func(s *secret, _, _ string) error { // first the directory, then the file
		if err := s.rename2("secret/d4", "open/d4", 0); err != nil {
			return err
		}
		return s.rename2("open/d4/f", "open/f4", 0)
	}},
	{"secret/d5/f", "open/d5x/f", func(s *secret, _, _ string) error {
		if err := os.Mkdir(s.path("open/d5x"), 0o755); err != nil {
			return err
		}
		return s.rename2("secret/d5", "open/d5x", unix.RENAME_EXCHANGE)
	}},
}

// TestPolicyLeakBorn: files that are unredacted in upper stay redacted in the
// mount, wherever they are moved.
func TestPolicyLeakBorn(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := prepareSecret(t)
		s.opts.options = []string{option}
		s.mount()
		for _, w := range bornWays {
			must(t, os.MkdirAll(filepath.Dir(s.path(w.from)), 0o755))
			must(t, os.WriteFile(s.path(w.from), secretBytes(s.marker), 0o644))
			got, err := os.ReadFile(s.path(w.from))
			must(t, err)
			wantBytes(t, "before the policy", got, secretBytes(s.marker))
		}
		s.remountWith(option, "policy="+s.policy)
		for _, w := range bornWays {
			s.wantBlankFile(w.from)
		}
		for _, w := range bornWays {
			if err := w.do(s, s.path(w.from), s.path(w.now)); err != nil {
				t.Errorf("%s: %v", w.from, err)
			}
		}
		s.wantBorn("moved")
		s.remount()
		s.wantBorn("moved, after a remount")
		s.kill9()
		s.mount()
		s.wantBorn("moved, after a kill")
		for _, w := range bornWays {
			s.wantServed(w.now, "server", "secret")
		}
	})
}

func (s *secret) wantBorn(when string) {
	s.Helper()
	for _, w := range bornWays {
		got, err := os.ReadFile(s.path(w.now))
		if err != nil {
			s.Errorf("%s: %v", when, err)
			continue
		}
		s.wantBlank(fmt.Sprintf("%s: %s as %s", when, w.from, w.now), got)
	}
}

// TestPolicyLeakDirs: the whole covered directory, and one above another rule,
// leave their place; what is in them stays redacted.
func TestPolicyLeakDirs(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := newSecret(t, option, "a", "sub/b", "sub/deep/c")
		must(t, os.Rename(s.path("secret/sub"), s.path("open/sub")))
		must(t, os.Rename(s.path("secret"), s.path("open/all")))
		moved := func() {
			t.Helper()
			s.wantBlankFile("open/all/a")
			s.wantBlankFile("open/sub/b")
			s.wantBlankFile("open/sub/deep/c")
			s.wantNotOnDisk("after the rename of directories")
		}
		moved()
		s.remount()
		moved()
		must(t, os.Chmod(s.path("open/sub/b"), 0o600))
		must(t, os.Rename(s.path("open/sub/deep/c"), s.path("c")))
		must(t, os.Rename(s.path("open/sub/deep"), s.path("deep")))
		s.kill9()
		s.mount()
		s.wantBlankFile("open/all/a")
		s.wantBlankFile("open/sub/b")
		s.wantBlankFile("c")
		s.wantNotOnDisk("after a kill")
		// A new directory in the old place is governed, too.
		must(t, os.Mkdir(s.path("secret"), 0o755))
		must(t, os.WriteFile(s.path("secret/new"), secretBytes(s.marker), 0o644))
		s.wantBlankFile("secret/new")
	})
}
