// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

func TestDirMarkRoundTrip(t *testing.T) {
	for _, m := range []dirMark{
		{},
		{flags: markOpaque},
		{flags: markImpure, id: 1},
		{flags: markOpaque | markImpure, id: 1<<64 - 1},
		{id: 7, redirect: "/a"},
		{id: 7, redirect: "/a b/\x01\xff/..c/d.."},
		{redirect: "/" + strings.Repeat("x", maxRedirect-1)},
	} {
		got, err := decodeMark(m.encode())
		if err != nil || got != m {
			t.Errorf("%+v came back as %+v, %v", m, got, err)
		}
	}
	m := dirMark{flags: markOpaque}
	if !m.opaque() || m.impure() {
		t.Error("flags are mixed up")
	}
}

// The layout is on disk: it must not change without a new version.
func TestDirMarkLayout(t *testing.T) {
	got := dirMark{flags: markOpaque, id: 0x0102030405060708, redirect: "/r"}.encode()
	want := []byte{1, 1, 1, 2, 3, 4, 5, 6, 7, 8, '/', 'r'}
	if !bytes.Equal(got, want) {
		t.Errorf("encoded % x, want % x", got, want)
	}
	got = originMark{Origin: journal.Origin{Layer: 0x01020304, Ino: 0x05060708090a0b0c}}.encode()
	want = []byte{1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	if !bytes.Equal(got, want) {
		t.Errorf("origin encoded % x, want % x", got, want)
	}
}

func TestDirMarkRefusesWhatItCannotKnow(t *testing.T) {
	head := func(version byte) []byte { return []byte{version, 0, 0, 0, 0, 0, 0, 0, 0, 0} }
	for name, b := range map[string][]byte{
		"empty":             nil,
		"short":             head(1)[:9],
		"version 0":         head(0),
		"version 2":         head(2),
		"relative redirect": append(head(1), "a/b"...),
		"climbs at the end": append(head(1), "/a/.."...),
		"climbs inside":     append(head(1), "/../a"...),
		"climbs":            append(head(1), "/a/../b"...),
	} {
		if m, err := decodeMark(b); !errors.Is(err, errMark) || m != (dirMark{}) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if e := toErrno(errMark); e != unix.EIO {
		t.Errorf("a damaged mark is %v, want EIO", e)
	}
}

func TestOriginRoundTrip(t *testing.T) {
	for _, o := range []journal.Origin{{}, {Layer: 1, Ino: 2}, {Layer: 1<<32 - 1, Ino: 1<<64 - 1}} {
		got, err := decodeOrigin(originMark{Origin: o}.encode())
		if err != nil || got.Origin != o || got.partial {
			t.Errorf("%+v came back as %+v, %v", o, got, err)
		}
	}
	for _, m := range []originMark{{partial: true, limit: 7}, {partial: true, cut: true, limit: 1<<63 - 1, path: "/a/b"}} {
		if got, err := decodeOrigin(m.encode()); err != nil || got != m {
			t.Errorf("%+v came back as %+v, %v", m, got, err)
		}
	}
	good := originMark{Origin: journal.Origin{Layer: 1, Ino: 2}}.encode()
	newer := bytes.Clone(good)
	newer[0] = 4
	for name, b := range map[string][]byte{"empty": nil, "short": good[:12], "long": append(bytes.Clone(good), 0), "newer": newer} {
		if o, err := decodeOrigin(b); !errors.Is(err, errMark) {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
}

func FuzzDirMark(f *testing.F) {
	f.Add([]byte{})
	f.Add(dirMark{flags: 3, id: 9, redirect: "/a/b"}.encode())
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00/../x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMark(b)
		if err != nil {
			if m != (dirMark{}) {
				t.Fatalf("an error and an answer: %+v", m)
			}
			return
		}
		if !bytes.Equal(m.encode(), b) {
			t.Fatalf("% x decodes to %+v, which encodes to % x", b, m, m.encode())
		}
		for _, part := range strings.Split(m.redirect, "/") {
			if part == ".." {
				t.Fatalf("redirect %q climbs", m.redirect)
			}
		}
	})
}

func FuzzOrigin(f *testing.F) {
	f.Add([]byte{})
	f.Add(originMark{Origin: journal.Origin{Layer: 3, Ino: 4}}.encode())
	f.Add(originMark{Origin: journal.Origin{Layer: 3, Ino: 4}, partial: true, limit: 5, path: "/a/b"}.encode())
	f.Add(originMark{Origin: journal.Origin{Layer: 3, Ino: 4}, partial: true, cut: true, limit: 5}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decodeOrigin(b)
		if err == nil && !bytes.Equal(o.encode(), b) {
			t.Fatalf("% x decodes to %+v", b, o)
		}
	})
}

func FuzzIndexName(f *testing.F) {
	f.Add("")
	f.Add(indexName(journal.Origin{Layer: 1, Ino: 1 << 40}))
	f.Add("zz0000010000000000000002")
	f.Fuzz(func(t *testing.T, s string) {
		o, ok := parseIndexName(s)
		if ok && indexName(o) != strings.ToLower(s) {
			t.Fatalf("%q parses as %+v, whose name is %q", s, o, indexName(o))
		}
	})
}

func TestIndexNames(t *testing.T) {
	o := journal.Origin{Layer: 0x1a, Ino: 0x2b}
	if got, want := indexName(o), "0000001a000000000000002b"; got != want {
		t.Errorf("index name %q, want %q", got, want)
	}
	seen := map[string]journal.Origin{}
	for _, o := range []journal.Origin{{}, {Layer: 1}, {Ino: 1}, {Layer: 1, Ino: 1}, {Layer: 256, Ino: 1}, {Layer: 1<<32 - 1, Ino: 1<<64 - 1}} {
		name := indexName(o)
		if other, dup := seen[name]; dup {
			t.Errorf("%+v and %+v share the name %q", o, other, name)
		}
		seen[name] = o
		if got, ok := parseIndexName(name); !ok || got != o {
			t.Errorf("%+v came back as %+v, %v", o, got, ok)
		}
	}
	for _, bad := range []string{"", "00", "0000001a000000000000002", "0000001a000000000000002b00", "0000001a000000000000002g", "whiteout", "#1"} {
		if o, ok := parseIndexName(bad); ok {
			t.Errorf("%q is taken for %+v", bad, o)
		}
	}
}

// A damaged private xattr is EIO for its own inode, and harms nothing else.
func TestDamagedMarkHarmsItsDirectoryAlone(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file d/low", "file other 1"))
	mkdir(t, m.path("d/sub"))
	mkdir(t, m.path("good"))
	m.unmount()
	must(t, unix.Setxattr(m.upper+"/d", xattrDir, []byte{9, 9, 9}, 0))
	m = m.remount(nil)
	var st unix.Stat_t
	wantErrno(t, "stat of the damaged directory", unix.Lstat(m.path("d"), &st), unix.EIO)
	if got := readPath(t, m.path("other")); got != "1" {
		t.Errorf("other: %q", got)
	}
	if err := unix.Lstat(m.path("good"), &st); err != nil {
		t.Errorf("good: %v", err)
	}
	wantNames(t, m.mnt, "d", "good", "other")
}
