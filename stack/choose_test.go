// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// threeLayers hold a name in every combination of layers that is of interest.
func threeLayers(t *testing.T) []string {
	return []string{
		layer(t, "file f one", "file only1 one", "file d/a 1a", "file d/one 1", "dir mixed/x", "file low13 one", "file up one"),
		layer(t, "file f two", "file only2 two", "file d/a 2a", "file d/two 2", "file mixed two", "file e/x 2"),
		layer(t, "file f three", "file d/a 3a", "file d/three 3", "file low13 three", "file e/y 3", "file mixed/y 3"),
	}
}

// chooseMount is a mount of three lower layers and something in upper.
func chooseMount(t *testing.T, p Policy) *mounted {
	t.Helper()
	return mountOver(t, func(c *Config) {
		must(t, os.WriteFile(c.Upper+"/up", []byte("upper"), 0o644))
		c.Policy = p
	}, threeLayers(t)...)
}

// The choice of a layer, what it shows, and where it is wrong.
func TestChooseLayer(t *testing.T) {
	for _, c := range []struct {
		name  string
		a     NameAnswer
		want  string
		err   syscall.Errno
		mask  uint64
		wrong bool
	}{
		{"f", NameAnswer{}, "one", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 1}, "one", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 2}, "two", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 3}, "three", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 4}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Layer: -1}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Layer: 63}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Layer: 1 << 40}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Skip: 0b0010}, "two", 0, 0b1110, false},
		{"f", NameAnswer{Skip: 0b0110}, "three", 0, 0b1110, false},
		{"f", NameAnswer{Skip: 0b0100}, "one", 0, 0b1110, false},
		{"f", NameAnswer{Skip: 0b1110}, "", unix.ENOENT, 0b1110, false},
		{"f", NameAnswer{Skip: ^uint64(0)}, "", unix.ENOENT, 0b1110, false},
		{"f", NameAnswer{Skip: 1}, "one", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 2, Skip: 0b0010}, "two", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 2, Skip: 0b0100}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Hide: true, Layer: 2}, "", unix.ENOENT, 0b1110, false},
		{"low13", NameAnswer{Layer: 3}, "three", 0, 0b1010, false},
		{"low13", NameAnswer{Layer: 2}, "", unix.EIO, 0b1010, true},
		{"only2", NameAnswer{Layer: 2}, "two", 0, 0b0100, false},
		{"only2", NameAnswer{Skip: 0b0100}, "", unix.ENOENT, 0b0100, false},
		{"up", NameAnswer{Layer: 1}, "upper", 0, 0b0011, false},
		{"up", NameAnswer{Skip: 0b0011}, "upper", 0, 0b0011, false},
		{"up", NameAnswer{Hide: true}, "", unix.ENOENT, 0b0011, false},
	} {
		what := fmt.Sprintf("%s by %+v", c.name, c.a)
		p := &rulePolicy{name: func(q NameQuery) NameAnswer {
			if q.Name != c.name || q.Listing {
				return NameAnswer{}
			}
			if q.Holders|1 != c.mask|1 || q.Layers != 4 || q.Place != "/"+c.name {
				t.Errorf("%s: asked %+v", what, q)
			}
			return c.a
		}}
		m := chooseMount(t, p)
		got, err := tryRead(m.path(c.name))
		if got != c.want || toErr(err) != c.err {
			t.Errorf("%s: %q, %v; want %q, %v", what, got, err, c.want, c.err)
		}
		if (m.count.wrong.Load() > 0) != c.wrong {
			t.Errorf("%s: %d wrong answers", what, m.count.wrong.Load())
		}
		if err == nil {
			if st := statOf(t, m.path(c.name)); st.Size != int64(len(c.want)) {
				t.Errorf("%s: size %d", what, st.Size)
			}
			openFD(t, m.path(c.name), unix.O_RDWR|unix.O_APPEND).close()
			wantSame(t, what+", copied up", readPath(t, m.path(c.name)), c.want)
			must(t, unix.Unlink(m.path(c.name)))
			_, err := tryRead(m.path(c.name))
			wantErrno(t, what+", removed", err, unix.ENOENT)
		}
		m.unmount()
		p.wantEnded(t, what)
	}
}

// Directories are merged from the layers that are left.
func TestChooseDirectory(t *testing.T) {
	for _, c := range []struct {
		name  string
		a     NameAnswer
		names []string
		a0    string // what d/a holds then
		err   syscall.Errno
	}{
		{"d", NameAnswer{}, []string{"a", "one", "two", "three"}, "1a", 0},
		{"d", NameAnswer{Skip: 0b0010}, []string{"a", "two", "three"}, "2a", 0},
		{"d", NameAnswer{Skip: 0b0100}, []string{"a", "one", "three"}, "1a", 0},
		{"d", NameAnswer{Layer: 2}, []string{"a", "two", "three"}, "2a", 0},
		{"d", NameAnswer{Layer: 3}, []string{"a", "three"}, "3a", 0},
		{"d", NameAnswer{Skip: 0b1110}, nil, "", unix.ENOENT},
		{"d", NameAnswer{Layer: 9}, nil, "", unix.EIO},
		{"e", NameAnswer{Layer: 3}, []string{"y"}, "", 0},
		{"e", NameAnswer{Layer: 1}, nil, "", unix.EIO},
		{"mixed", NameAnswer{}, []string{"x"}, "", 0},
		{"mixed", NameAnswer{Skip: 0b0110}, nil, "", 0},
	} {
		what := fmt.Sprintf("%s by %+v", c.name, c.a)
		m := chooseMount(t, &rulePolicy{name: func(q NameQuery) NameAnswer {
			if q.Name != c.name || q.Listing || q.Holders == 1 {
				return NameAnswer{}
			}
			return c.a
		}})
		ents, err := os.ReadDir(m.path(c.name))
		var got []string
		for _, e := range ents {
			got = append(got, e.Name())
		}
		slices.Sort(c.names)
		if toErr(err) != c.err || c.names != nil && !slices.Equal(got, c.names) {
			t.Errorf("%s: %q, %v; want %q", what, got, err, c.names)
		}
		if c.a0 != "" {
			wantSame(t, what+": a", readPath(t, m.path("d/a")), c.a0)
			writePath(t, m.path("d/new"), "new") // copies the directory up: it stays what it is
			wantNames(t, m.path("d"), append(c.names, "new")...)
			must(t, os.RemoveAll(m.path("d")))
			must(t, unix.Mkdir(m.path("d"), 0o755))
			wantNames(t, m.path("d"))
		}
		m.unmount()
	}
}

// A directory in place of a hard-linked file is a directory in every way.
func TestChooseDirectoryUnderLinkedFile(t *testing.T) {
	m := mountOver(t, func(c *Config) { c.Policy = &TablePolicy{Layer: map[string]int{"n": 2}} },
		layer(t, "file n 1", "link n other"), layer(t, "file n/x 2"))
	wantNames(t, m.path("n"), "x")
	must(t, unix.Unlink(m.path("n/x")))
	must(t, unix.Rmdir(m.path("n")))
	if st := statOf(t, m.path("other")); st.Nlink != 2 {
		t.Errorf("%d links", st.Nlink)
	}
}

// NoCache and TTL.
func TestChooseTTL(t *testing.T) {
	var asked atomic.Int64
	var answer atomic.Pointer[NameAnswer]
	answer.Store(&NameAnswer{})
	p := &rulePolicy{name: func(q NameQuery) NameAnswer {
		if q.Name == "a" && !q.Listing {
			asked.Add(1)
			return *answer.Load()
		}
		return NameAnswer{}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file a 1"), layer(t, "file a 22"))
	stats := func(n int) int64 {
		before := asked.Load()
		for range n {
			statOf(t, m.path("a"))
		}
		return asked.Load() - before
	}
	stats(1)
	if n := leastOf3(func() int64 { return stats(20) }); n != 0 {
		t.Errorf("asked %d times about what may be kept", n)
	}
	answer.Store(&NameAnswer{NoCache: true})
	m.RefreshPolicy()
	if n := stats(20); n < 20 {
		t.Errorf("asked %d times about what may not be kept", n)
	}
	answer.Store(&NameAnswer{Layer: 2, NoCache: true})
	if st := statOf(t, m.path("a")); st.Size != 2 {
		t.Errorf("the next answer is not followed: size %d", st.Size)
	}
	answer.Store(&NameAnswer{TTL: 200 * time.Millisecond})
	m.RefreshPolicy()
	stats(1)
	time.Sleep(300 * time.Millisecond)
	answer.Store(&NameAnswer{Layer: 2, TTL: time.Second})
	if st := statOf(t, m.path("a")); st.Size != 2 {
		t.Errorf("after its time the answer is kept: size %d", st.Size)
	}
}

// Again shows the policy what its choice came to.
func TestChooseAgain(t *testing.T) {
	var after atomic.Pointer[NameQuery]
	p := &rulePolicy{name: func(q NameQuery) NameAnswer {
		switch {
		case q.After == 9:
			after.Store(&q)
			return NameAnswer{Hide: q.Size != 2}
		case q.Name == "a" || q.Name == "b":
			return NameAnswer{Layer: 2, Again: 9}
		}
		return NameAnswer{}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file a 1", "file b 1"), layer(t, "file a 22", "file b 333"))
	wantSame(t, "a", readPath(t, m.path("a")), "22")
	q := after.Load()
	if q == nil || q.Layer != 2 || q.Size != 2 || q.Type != unix.S_IFREG || q.Holders != 0b110 || q.Ino != statOf(t, m.path("a")).Ino {
		t.Errorf("asked %+v", q)
	}
	_, err := tryRead(m.path("b"))
	wantErrno(t, "what it does not like", err, unix.ENOENT)
}

// Directories cannot be merged differently for different callers.
func TestChooseDirectoryByCaller(t *testing.T) {
	m := mountOver(t, func(c *Config) {
		c.Policy = byUser(func(q NameQuery) NameAnswer {
			if q.Name == "d" && !q.Listing {
				return NameAnswer{Layer: 2}
			}
			return NameAnswer{}
		}, nil)
	}, layer(t, "file d/a 1"), layer(t, "file d/b 1"))
	if _, err := os.ReadDir(m.path("d")); !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
	if m.count.wrong.Load() == 0 {
		t.Error("not counted")
	}
}
