// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dataScope asks about reads and writes.
func dataScope(string) Scope { return Scope{Files: true, Reads: true, Writes: true} }

// The policy is asked about each read of the daemon: it may refuse it, answer
// it itself, or look at what was read.
func TestDataReads(t *testing.T) {
	var mu sync.Mutex
	answer := func(DataQuery) DataAnswer { return DataAnswer{} }
	set := func(fn func(DataQuery) DataAnswer) {
		mu.Lock()
		defer mu.Unlock()
		answer = fn
	}
	p := &rulePolicy{scope: dataScope, data: func(q DataQuery) DataAnswer {
		mu.Lock()
		defer mu.Unlock()
		return answer(q)
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789", "file g 0123456789"))
	part := tempFile(t, "ABCDEFGHIJ")
	window := func(w Window, parts ...Part) func(DataQuery) DataAnswer {
		return func(q DataQuery) DataAnswer {
			if q.After != 0 {
				return DataAnswer{}
			}
			return DataAnswer{Window: &w, Parts: parts}
		}
	}
	for _, c := range []struct {
		name  string
		do    func(DataQuery) DataAnswer
		want  string
		err   syscall.Errno
		wrong bool
	}{
		{"nothing", func(DataQuery) DataAnswer { return DataAnswer{} }, "0123456789", 0, false},
		{"an error", func(DataQuery) DataAnswer { return DataAnswer{Errno: unix.EACCES} }, "", unix.EACCES, false},
		{"no errno", func(DataQuery) DataAnswer { return DataAnswer{Errno: 600} }, "", unix.EIO, true},
		{"a window", window(Window{Data: []byte("inl"), Extents: []Extent{extInline(0, 3, 0), extZero(3, 1), extSelf(4, 6)}}),
			"inl\x00456789", 0, false},
		{"a part", window(Window{Extents: []Extent{extFrom(PartBacking(0), 0, 10, 0)}}, Part{FD: part}), "ABCDEFGHIJ", 0, false},
		{"too short", window(Window{Extents: []Extent{extSelf(0, 9)}}), "", unix.EIO, true},
		{"too long", window(Window{Extents: []Extent{extSelf(0, 10), extZero(10, 1)}}), "", unix.EIO, true},
		{"a gap", window(Window{Extents: []Extent{extSelf(0, 3), extSelf(4, 6)}}), "", unix.EIO, true},
		{"no such part", window(Window{Extents: []Extent{extFrom(PartBacking(1), 0, 10, 0)}}, Part{FD: part}), "", unix.EIO, true},
		{"no such layer", window(Window{Extents: []Extent{extFrom(LayerBacking(1), 0, 10, 0)}}), "", unix.EIO, true},
		{"nobody serves", window(Window{Extents: []Extent{extServer(0, 10)}}), "", unix.EIO, true},
		{"no extents", window(Window{}), "", unix.EIO, true},
		{"an error after", func(q DataQuery) DataAnswer {
			if q.After == 3 && string(q.Data) == "0123456789" {
				return DataAnswer{Errno: unix.EPERM}
			}
			return DataAnswer{Again: 3}
		}, "", unix.EPERM, false},
		{"a change after", func(q DataQuery) DataAnswer {
			if q.After == 7 {
				copy(q.Data[2:], "changed")
			}
			return DataAnswer{Again: 7}
		}, "01changed9", 0, false},
	} {
		set(c.do)
		wrong := m.count.wrong.Load()
		got, err := tryRead(m.path("f"))
		if toErr(err) != c.err || got != c.want {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, got, err, c.want, c.err)
		}
		if (m.count.wrong.Load() > wrong) != c.wrong {
			t.Errorf("%s: %d wrong answers, were %d", c.name, m.count.wrong.Load(), wrong)
		}
		m.waitReleased("f")
		m.RefreshPolicy() // the pages of the last read
	}
	if s := m.Status().Opens; s.Passthrough != 0 {
		t.Errorf("passed through: %+v", s)
	}
}

// ... and about each write, before and, if it likes, after.
func TestDataWrites(t *testing.T) {
	var before, after atomic.Int64
	p := &rulePolicy{scope: dataScope, data: func(q DataQuery) DataAnswer {
		switch {
		case !q.Write:
		case q.After == 5:
			after.Add(1)
			if string(q.Data) == "late" {
				return DataAnswer{Errno: unix.ENOSPC}
			}
		case string(q.Data) == "bad":
			return DataAnswer{Errno: unix.EPERM}
		case string(q.Data) == "wrong":
			return DataAnswer{Errno: 4000}
		default:
			before.Add(1)
			if q.Off != 2 || q.Len != len(q.Data) || q.Caller.PID == 0 {
				t.Errorf("%d bytes at %d by %+v", q.Len, q.Off, q.Caller)
			}
			return DataAnswer{Again: 5}
		}
		return DataAnswer{}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789"))
	w := openFD(t, m.path("f"), unix.O_RDWR)
	w.writeAt("ok", 2)
	for s, want := range map[string]syscall.Errno{"bad": unix.EPERM, "wrong": unix.EIO, "late": unix.ENOSPC} {
		_, err := unix.Pwrite(w.fd, []byte(s), 2)
		wantErrno(t, s, err, want)
	}
	if before.Load() != 2 || after.Load() != 2 {
		t.Errorf("asked %d times before and %d times after", before.Load(), after.Load())
	}
	b, err := os.ReadFile(m.upper + "/f")
	must(t, err)
	wantSame(t, "upper", string(b), "01late6789")
	if m.count.wrong.Load() != 1 {
		t.Errorf("%d wrong answers", m.count.wrong.Load())
	}
}

// A window answers reads of a file in upper that grows while it is open.
func TestDataReadsOfGrowingFile(t *testing.T) {
	p := &rulePolicy{scope: dataScope, data: func(q DataQuery) DataAnswer {
		if q.Write || q.After != 0 {
			return DataAnswer{}
		}
		w := Window{Extents: []Extent{extSelf(q.Off, int64(q.Len))}}
		if q.Off == 0 {
			w.Extents = []Extent{extZero(0, 2), extSelf(2, int64(q.Len)-2)}
		}
		w.Extents = clipExtents(w.Extents, q.Size)
		return DataAnswer{Window: &w}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789"))
	w := openFD(t, m.path("f"), unix.O_RDWR)
	wantSame(t, "at first", w.content(), "\x00\x0023456789")
	w.writeAt(strings.Repeat("x", 9000), 10)
	wantSame(t, "grown", w.content(), "\x00\x0023456789"+strings.Repeat("x", 9000))
	must(t, unix.Ftruncate(w.fd, 5))
	wantSame(t, "cut", w.content(), "\x00\x00234")
}

// clipExtents ends extents at a size.
func clipExtents(all []Extent, size int64) (out []Extent) {
	for _, e := range all {
		if e.Len = min(e.Len, size-e.Off); e.Len > 0 {
			out = append(out, e)
		}
	}
	return out
}
