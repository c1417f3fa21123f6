// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

func spans(r *rand.Rand, n int, limit uint64) (s []span) {
	var off uint64
	for range n {
		off += r.Uint64N(2*limit/uint64(n)+1) + 1
		l := 1 + r.Uint64N(limit/uint64(n)+1)
		s = append(s, span{off - 1, l})
		off += l
	}
	return s
}

// blanked tells of each byte of the plan whether it reads as zero, and fails
// the test for whatever is no byte of the file at its place.
func blanked(t *testing.T, ext []extent, size uint64) []bool {
	t.Helper()
	b := make([]bool, size)
	for _, e := range ext {
		switch {
		case e.Kind == zero:
			for i := range e.Len {
				b[e.Off+i] = true
			}
		case e.Kind != backing || e.Backing != self || e.Src != e.Off:
			t.Fatalf("extent %+v", e)
		}
	}
	return b
}

func TestRedact(t *testing.T) {
	r := newRand(t)
	windows := 0
	for round := range 150 * *rounds {
		limit := uint64(1 + r.IntN(2000))
		var ranges, hints []span
		if r.IntN(5) > 0 {
			ranges = spans(r, 1+r.IntN(80), limit)
		}
		handler := uint32(r.IntN(2))
		a := arrays{"ranges": nil}
		for _, s := range ranges {
			a["ranges"] = append(a["ranges"], s)
		}
		p := load(t, "redact", vars{"n_ranges": uint32(len(ranges)), "use_handler": handler}, a)
		for range 40 {
			hints = nil
			if handler == 1 && r.IntN(5) > 0 {
				hints = spans(r, 1+r.IntN(80), limit)
			}
			size := r.Uint64N(2*limit + 2)
			want := make([]bool, size)
			some := false
			for _, s := range append(append([]span(nil), ranges...), hints...) {
				for i := s.Off; i < s.Off+s.Len && i < size; i++ {
					want[i], some = true, true
				}
			}
			in := input{Size: size, Layer: uint32(r.IntN(3))}
			in.setName("a")
			ext, got, _ := p.plan(t, in, hints)
			if got != size {
				t.Fatalf("round %d: the size was %d, now %d", round, size, got)
			}
			if !some && ext != nil && len(hints) < maxHints {
				t.Fatalf("round %d: nothing to blank, but a plan of %d extents", round, len(ext))
			}
			if b := blanked(t, ext, size); !equal(b, want) {
				t.Fatalf("round %d: size %d, ranges %v, hints %v: %v", round, size, ranges, hints, ext)
			}
			windows += len(ext) / maxExtents
			// From an offset in the middle.
			if some {
				in.Offset = r.Uint64N(size)
				mid := in.Offset
				ext, _, _ = p.plan(t, in, hints)
				if b := blanked(t, ext, size); !equal(b[mid:], want[mid:]) {
					t.Fatalf("round %d: from %d of %d, ranges %v, hints %v: %v", round, mid, size, ranges, hints, ext)
				}
			}
			// For its size alone.
			in.Flags = inAttr
			if ret, out := p.ask(t, &in); ret != 0 || out.Flags != 0 {
				t.Fatalf("size only: %d, flags %#x", ret, out.Flags)
			}
		}
		p.coll.Close()
	}
	t.Logf("more than %d windows", windows)
}

func equal(a, b []bool) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestRedactEdges(t *testing.T) {
	const top = math.MaxUint64
	p := load(t, "redact", vars{"n_ranges": uint32(2)}, arrays{"ranges": {span{10, 5}, span{1 << 40, top}}})
	in := input{Size: top - 1}
	in.setName("a")
	ext, _, _ := p.plan(t, in, nil)
	want := []extent{
		{0, 10, 0, backing, self}, {10, 5, 0, zero, 0}, {15, 1<<40 - 15, 15, backing, self},
		{1 << 40, top - 1 - 1<<40, 0, zero, 0},
	}
	if fmt.Sprint(ext) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", ext, want)
	}
	in.Size = 10
	if ext, _, _ = p.plan(t, in, nil); ext != nil {
		t.Errorf("a file that ends before the ranges: %v", ext)
	}

	// More ranges than are merged at once, side by side: the answer ends early.
	a := arrays{"ranges": nil}
	for i := range uint64(1000) {
		a["ranges"] = append(a["ranges"], span{10 + i, 1})
	}
	p = load(t, "redact", vars{"n_ranges": uint32(1000)}, a)
	in.Size = 2000
	ext, _, _ = p.plan(t, in, nil)
	for i, b := range blanked(t, ext, in.Size) {
		if b != (i >= 10 && i < 1010) {
			t.Fatalf("ranges side by side, byte %d: %v", i, b)
		}
	}

	// Sixteen hints that end before the window: what is behind is not known.
	p = load(t, "redact", vars{"use_handler": uint32(1)}, nil)
	in = input{Size: 1000, Offset: 500, Flags: inHandled, NHints: maxHints}
	in.setName("a")
	for i := range in.Hints {
		in.Hints[i] = span{uint64(i), 1}
	}
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("hints before the window: %d", ret)
	}
	in.NHints = maxHints + 1
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("too many hints: %d", ret)
	}
	// One hint for all of it.
	in.Flags, in.Offset = 0, 0
	ext, _, _ = p.plan(t, in, []span{{0, top}})
	if fmt.Sprint(ext) != fmt.Sprint([]extent{{0, 1000, 0, zero, 0}}) {
		t.Errorf("one hint: %v", ext)
	}

	p = load(t, "redact", vars{"whole": uint32(1), "use_handler": uint32(1)}, nil)
	in.Flags, in.Offset = 0, 7
	ext, _, _ = p.plan(t, in, nil)
	if fmt.Sprint(ext) != fmt.Sprint([]extent{{7, 993, 0, zero, 0}}) {
		t.Errorf("whole: %v", ext)
	}
	in.Size, in.Offset = 0, 0
	if ext, _, _ = p.plan(t, in, nil); ext != nil {
		t.Errorf("an empty file: %v", ext)
	}
}

// loadBig is load for a table too large to fill entry by entry.
func loadBig[T any](tb testing.TB, name, table string, entries []T, v vars) *program {
	tb.Helper()
	all := vars{"n_" + table: uint32(len(entries))}
	for n, x := range v {
		all[n] = x
	}
	p := loadEmpty(tb, name, all, map[string]int{table: len(entries)})
	k := make([]uint32, len(entries))
	for i := range k {
		k[i] = uint32(i)
	}
	if _, err := p.coll.Maps[table].BatchUpdate(k, entries, nil); err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestRedactMillion(t *testing.T) {
	const n = 1 << 20
	v := make([]span, n)
	for i := range v {
		v[i] = span{uint64(i)*100 + 10, 20}
	}
	p := loadBig(t, "redact", "ranges", v, nil)
	in := input{Size: n * 100}
	in.setName("a")
	r := newRand(t)
	for range 2000 {
		in.Offset = r.Uint64N(in.Size)
		ret, out := p.ask(t, &in)
		if ret != 0 || out.NExtents == 0 {
			t.Fatalf("offset %d: %d, %d extents", in.Offset, ret, out.NExtents)
		}
		off := in.Offset
		for _, e := range out.Extents[:out.NExtents] {
			k := off % 100
			want := extent{off, 110 - k, off, backing, self}
			switch {
			case k < 10:
				want.Len = 10 - k
			case k < 30:
				want = extent{off, 30 - k, 0, zero, 0}
			}
			want.Len = min(want.Len, in.Size-off)
			if e != want {
				t.Fatalf("offset %d: %+v, want %+v", off, e, want)
			}
			off += e.Len
		}
		if out.NExtents < maxExtents && off < in.Size {
			t.Fatalf("offset %d: %d extents, ends at %d", in.Offset, out.NExtents, off)
		}
	}
}
