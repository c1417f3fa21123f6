// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import "slices"

// TablePolicy is a static policy, by name anywhere in the tree: names to hide,
// the lower layer that a name comes from, byte ranges to blank, bytes to put
// before a file.
type TablePolicy struct {
	OnlyNames
	Hide    map[string]bool
	Layer   map[string]int
	Blank   map[string][]Range // sorted, disjoint
	Prepend map[string][]byte  // lower files only
	Server  string             // not empty: the reason for which no file is passed through
}

// Range is a run of bytes of a file.
type Range struct{ Off, Len int64 }

// Name implements Policy.
func (p *TablePolicy) Name(q NameQuery) NameAnswer {
	a := NameAnswer{Hide: p.Hide[q.Name]}
	if k := p.Layer[q.Name]; k > 0 && q.Holders>>k&1 == 1 {
		a.Layer = k
	}
	return a
}

// File implements Policy.
func (p *TablePolicy) File(q FileQuery) FileAnswer {
	a := FileAnswer{Server: p.Server != "", Why: p.Server, Rule: "table"}
	if r := p.Blank[q.Name]; len(r) > 0 {
		a.Plan = blankPlan(q.Size, r)
	} else if b := p.Prepend[q.Name]; len(b) > 0 && q.Layer > 0 {
		a.Plan = prependPlan(q.Size, b)
	}
	return a
}

// blankPlan shows a file with ranges as zeros.
func blankPlan(size int64, ranges []Range) *Plan {
	var w Window
	at := int64(0)
	self := func(to int64) {
		if to > at {
			w.Extents = append(w.Extents, Extent{Off: at, Len: to - at, Src: at, Backing: Self})
			at = to
		}
	}
	for _, r := range ranges {
		if r.Off >= size || r.Len <= 0 {
			continue
		}
		self(r.Off)
		end := min(size-r.Off, r.Len) + r.Off
		w.Extents = append(w.Extents, Extent{Off: r.Off, Len: end - r.Off, Kind: ExtentZero})
		at = end
	}
	self(size)
	return &Plan{Size: size, Window: func(off int64) (Window, error) { return w.from(off), nil }}
}

// prependPlan shows bytes before a file.
func prependPlan(size int64, b []byte) *Plan {
	n := int64(len(b))
	w := Window{Data: b, Extents: []Extent{{Len: n, Kind: ExtentInline}}}
	if size > 0 {
		w.Extents = append(w.Extents, Extent{Off: n, Len: size, Backing: Self})
	}
	return &Plan{Size: size + n, Window: func(off int64) (Window, error) { return w.from(off), nil }}
}

// from is the part of a window that begins at off.
func (w Window) from(off int64) Window {
	ext := slices.Clone(w.Extents)
	for len(ext) > 0 && ext[0].Off+ext[0].Len <= off {
		ext = ext[1:]
	}
	if len(ext) > 0 {
		skip := off - ext[0].Off
		ext[0].Off, ext[0].Len = off, ext[0].Len-skip
		if ext[0].Kind != ExtentZero {
			ext[0].Src += skip
		}
	}
	return Window{Extents: ext, Data: w.Data}
}
