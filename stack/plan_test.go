// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// windowBounds are those of the table below: 100 bytes are shown; the file
// itself has 100, lower layer 2 has 50, part 0 has 10, and there is no more.
func windowBounds(inPlace, serves bool) planBounds {
	return planBounds{size: 100, inPlace: inPlace, serves: serves, length: func(b Backing) (int64, error) {
		switch b {
		case Self:
			return 100, nil
		case LayerBacking(2):
			return 50, nil
		case PartBacking(0):
			return 10, nil
		}
		return 0, errors.New("there is no such backing file")
	}}
}

// Extents by kind, for tables.
func extSelf(off, n int64) Extent { return Extent{Off: off, Len: n, Src: off} }
func extZero(off, n int64) Extent { return Extent{Off: off, Len: n, Kind: ExtentZero} }
func extFrom(b Backing, off, n, src int64) Extent {
	return Extent{Off: off, Len: n, Src: src, Backing: b}
}
func extInline(off, n, src int64) Extent {
	return Extent{Off: off, Len: n, Src: src, Kind: ExtentInline}
}
func extServer(off, n int64) Extent { return Extent{Off: off, Len: n, Kind: ExtentServer} }

// Every wrong window is refused, in words.
func TestCheckWindow(t *testing.T) {
	const max = math.MaxInt64
	for _, c := range []struct {
		name    string
		off     int64
		ext     []Extent
		data    string
		inPlace bool
		serves  bool
		want    string // "" if it is right
	}{
		{name: "itself", ext: []Extent{extSelf(0, 100)}},
		{name: "less than all", ext: []Extent{extSelf(0, 1)}},
		{name: "from the middle", off: 40, ext: []Extent{extSelf(40, 60)}},
		{name: "the last byte", off: 99, ext: []Extent{extZero(99, 1)}},
		{name: "all kinds", ext: []Extent{extSelf(0, 10), extZero(10, 10), extInline(20, 3, 1), extServer(23, 7),
			extFrom(LayerBacking(2), 30, 50, 0), extFrom(PartBacking(0), 80, 10, 0), extSelf(90, 10)}, data: "abcd", serves: true},
		{name: "a backing file to its end", ext: []Extent{extFrom(LayerBacking(2), 0, 1, 49)}},
		{name: "the same bytes twice", ext: []Extent{extFrom(PartBacking(0), 0, 10, 0), extFrom(PartBacking(0), 10, 10, 0)}},

		{name: "none", want: "no extent"},
		{name: "length 0", ext: []Extent{extSelf(0, 0)}, want: "no positive"},
		{name: "length 0 after one", ext: []Extent{extSelf(0, 5), extSelf(5, 0)}, want: "no positive"},
		{name: "negative length", ext: []Extent{extZero(0, -1)}, want: "no positive"},
		{name: "least length", ext: []Extent{extZero(0, math.MinInt64)}, want: "no positive"},
		{name: "late begin", off: 5, ext: []Extent{extSelf(6, 1)}, want: "a gap"},
		{name: "early begin", off: 5, ext: []Extent{extSelf(4, 10)}, want: "overlaps"},
		{name: "gap", ext: []Extent{extSelf(0, 5), extSelf(6, 5)}, want: "a gap"},
		{name: "overlap", ext: []Extent{extSelf(0, 5), extSelf(4, 5)}, want: "overlaps"},
		{name: "twice", ext: []Extent{extSelf(0, 5), extSelf(0, 5)}, want: "overlaps"},
		{name: "out of order", ext: []Extent{extSelf(5, 5), extSelf(0, 5)}, want: "a gap"},
		{name: "negative offset", ext: []Extent{extZero(-1, 5)}, want: "overlaps"},
		{name: "beyond the size", ext: []Extent{extZero(0, 101)}, want: "beyond the size"},
		{name: "beyond the size later", ext: []Extent{extSelf(0, 99), extZero(99, 2)}, want: "beyond the size"},
		{name: "at the size", ext: []Extent{extSelf(0, 100), extZero(100, 1)}, want: "beyond the size"},
		{name: "offset and length overflow", off: 99, ext: []Extent{extZero(99, max)}, want: "beyond the size"},
		{name: "source and length overflow", ext: []Extent{extFrom(Self, 0, 2, max-1)}, want: "overflows"},
		{name: "the largest source", ext: []Extent{extFrom(Self, 0, 1, max)}, want: "overflows"},
		{name: "negative source", ext: []Extent{extFrom(Self, 0, 1, -1)}, want: "overflows"},
		{name: "least source", ext: []Extent{extFrom(Self, 0, 1, math.MinInt64)}, want: "overflows"},
		{name: "negative inline source", ext: []Extent{extInline(0, 1, -1)}, data: "abc", want: "overflows"},
		{name: "negative zero source", ext: []Extent{{Len: 1, Src: -1, Kind: ExtentZero}}, want: "overflows"},
		{name: "beyond itself", ext: []Extent{extFrom(Self, 0, 100, 1)}, want: "ends at 100"},
		{name: "beyond a layer's", ext: []Extent{extFrom(LayerBacking(2), 0, 51, 0)}, want: "ends at 50"},
		{name: "just beyond a layer's", ext: []Extent{extFrom(LayerBacking(2), 0, 1, 50)}, want: "ends at 50"},
		{name: "beyond a part", ext: []Extent{extFrom(PartBacking(0), 0, 5, 6)}, want: "ends at 10"},
		{name: "no such layer", ext: []Extent{extFrom(LayerBacking(3), 0, 1, 0)}, want: "no such backing"},
		{name: "no such part", ext: []Extent{extFrom(PartBacking(1), 0, 1, 0)}, want: "no such backing"},
		{name: "negative backing", ext: []Extent{extFrom(-1, 0, 1, 0)}, want: "no such backing"},
		{name: "largest backing", ext: []Extent{extFrom(math.MaxInt32, 0, 1, 0)}, want: "no such backing"},
		{name: "unknown kind", ext: []Extent{{Len: 1, Kind: 4}}, want: "no such kind"},
		{name: "largest kind", ext: []Extent{{Len: 1, Kind: 255}}, want: "no such kind"},
		{name: "inline without data", ext: []Extent{extInline(0, 1, 0)}, want: "inline bytes"},
		{name: "inline beyond its data", ext: []Extent{extInline(0, 4, 0)}, data: "abc", want: "inline bytes"},
		{name: "inline beyond its data by source", ext: []Extent{extInline(0, 3, 1)}, data: "abc", want: "inline bytes"},
		{name: "nobody serves", ext: []Extent{extServer(0, 1)}, want: "nobody serves"},
		{name: "the second is wrong", ext: []Extent{extSelf(0, 1), {Off: 1, Len: 1, Kind: 9}}, want: "extent 1"},

		{name: "in place", inPlace: true, ext: []Extent{extSelf(0, 10), extZero(10, 80), extSelf(90, 10)}},
		{name: "in place, moved", inPlace: true, ext: []Extent{extFrom(Self, 0, 10, 1)}, want: "only be blanked"},
		{name: "in place, a layer", inPlace: true, ext: []Extent{extFrom(LayerBacking(2), 0, 10, 0)}, want: "only be blanked"},
		{name: "in place, a part", inPlace: true, ext: []Extent{extFrom(PartBacking(0), 0, 10, 0)}, want: "only be blanked"},
		{name: "in place, inline", inPlace: true, ext: []Extent{extInline(0, 1, 0)}, data: "abc", want: "only be blanked"},
		{name: "in place, served", inPlace: true, serves: true, ext: []Extent{extServer(0, 1)}, want: "only be blanked"},
		{name: "in place, unknown kind", inPlace: true, ext: []Extent{{Len: 1, Kind: 4}}, want: "only be blanked"},
		{name: "in place, gap", inPlace: true, ext: []Extent{extZero(0, 1), extSelf(2, 1)}, want: "a gap"},
	} {
		err := checkWindow(Window{Extents: c.ext, Data: []byte(c.data)}, c.off, windowBounds(c.inPlace, c.serves))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: refused: %v", c.name, err)
		case c.want != "" && err == nil:
			t.Errorf("%s: taken, want %q", c.name, c.want)
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %q does not say %q", c.name, err, c.want)
		}
	}
}

// An error of the length of a backing file is one of the window.
func TestCheckWindowPassesErrorsOn(t *testing.T) {
	broken := errors.New("the disk is on fire")
	b := planBounds{size: 10, length: func(Backing) (int64, error) { return math.MaxInt64, broken }}
	if err := checkWindow(Window{Extents: []Extent{extSelf(0, 1)}}, 0, b); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestPlanNames(t *testing.T) {
	for b, want := range map[Backing]string{Self: "self", LayerBacking(3): "layer 3", PartBacking(2): "part 2", -1: "layer -1"} {
		if b.String() != want {
			t.Errorf("%d is %q, want %q", int32(b), b, want)
		}
	}
	for k, want := range map[ExtentKind]string{ExtentBacking: "backing", ExtentZero: "zero", ExtentInline: "inline",
		ExtentServer: "server", 77: "kind 77"} {
		if k.String() != want {
			t.Errorf("%d is %q, want %q", uint8(k), k, want)
		}
	}
	if i, ok := PartBacking(7).part(); !ok || i != 7 {
		t.Errorf("part 7 is %d, %v", i, ok)
	}
	for _, b := range []Backing{Self, -1, math.MinInt32, LayerBacking(500)} {
		if i, ok := b.part(); ok {
			t.Errorf("%v is part %d", b, i)
		}
	}
}

// The static policy's plans are right windows from any offset, and what they
// show is what their words say.
func TestTablePlans(t *testing.T) {
	for _, c := range []struct {
		name string
		plan func(size int64) *Plan
		want string
	}{
		{"nothing", func(n int64) *Plan { return blankPlan(n, nil) }, "0123456789"},
		{"the begin", func(n int64) *Plan { return blankPlan(n, []Range{{0, 3}}) }, "...3456789"},
		{"the end", func(n int64) *Plan { return blankPlan(n, []Range{{8, 2}}) }, "01234567.."},
		{"over the end", func(n int64) *Plan { return blankPlan(n, []Range{{8, math.MaxInt64}}) }, "01234567.."},
		{"beyond the end", func(n int64) *Plan { return blankPlan(n, []Range{{10, 5}, {50, 5}}) }, "0123456789"},
		{"all", func(n int64) *Plan { return blankPlan(n, []Range{{0, math.MaxInt64}}) }, ".........."},
		{"several", func(n int64) *Plan { return blankPlan(n, []Range{{1, 2}, {3, 1}, {6, 0}, {7, 2}}) }, "0...456..9"},
		{"before", func(n int64) *Plan { return prependPlan(n, []byte("abc")) }, "abc0123456789"},
	} {
		p := c.plan(10)
		if p.Size != int64(len(c.want)) {
			t.Errorf("%s: size %d", c.name, p.Size)
		}
		f := planOver(t, p, "0123456789")
		for off := range c.want {
			w, err := p.Window(int64(off))
			must(t, err)
			if err := f.check(w, int64(off), p.Size); err != nil {
				t.Errorf("%s, from %d: %v", c.name, off, err)
			}
			buf := make([]byte, len(c.want)-off)
			if _, err := f.readAt(buf, int64(off), selfFile{fd: f.self(t)}); err != nil {
				t.Errorf("%s, from %d: %v", c.name, off, err)
			}
			if got := strings.ReplaceAll(string(buf), "\x00", "."); got != c.want[off:] {
				t.Errorf("%s, from %d: %q, want %q", c.name, off, got, c.want[off:])
			}
		}
		f.close()
	}
	if p := prependPlan(0, []byte("x")); p.Size != 1 {
		t.Errorf("before nothing: size %d", p.Size)
	} else if w, err := p.Window(0); err != nil || len(w.Extents) != 1 {
		t.Errorf("before nothing: %+v, %v", w, err)
	}
}
