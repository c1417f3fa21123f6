// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
)

// What extents are made of, with the numbers of plyfs.h.
const (
	KindBacking = 0   // PLY_EXT_BACKING
	KindZero    = 1   // PLY_EXT_ZERO
	BackingSelf = 64  // PLY_SELF
	BackingPart = 128 // PLY_PART(0)
)

// An Extent is struct ply_extent.
type Extent struct {
	Off, Len, Src uint64
	Kind, Backing uint32
}

// A Table is what the program split works from.
type Table struct {
	Extents []Extent // from 0 to Total: sorted, without a gap, as few as can be
	Parts   []string // the files that extents name as PLY_PART, each once
	Total   uint64
}

// Layout makes the table of a rule of the program split. Sizes is asked for the
// sizes of files; for that of the file itself with an empty path, and only if
// it is the base of the rule.
func Layout(r *Rule, sizes func(path string) (int64, error)) (*Table, error) {
	l := &layout{sizes: sizes, index: make(map[string]uint32)}
	var err error
	if len(r.Parts) > 0 {
		err = l.concatenate(r.Parts)
	} else {
		err = l.patch(r)
	}
	if err != nil {
		return nil, fmt.Errorf("rule %s (line %d): %w", r.Name, r.Line, err)
	}
	if r.Size != nil {
		l.total = *r.Size
	}
	return &Table{Extents: flatten(l.strokes, l.total), Parts: l.parts, Total: l.total}, nil
}

// A layout is a table in the making.
type layout struct {
	sizes   func(string) (int64, error)
	parts   []string
	index   map[string]uint32 // of parts
	strokes []stroke
	total   uint64
}

// A stroke is a range that a file shows in, unless a later stroke lies over it.
type stroke struct {
	off, end, src uint64
	backing       uint32
}

// concatenate lays one part behind the other.
func (l *layout) concatenate(parts []string) error {
	for _, part := range parts {
		size, err := l.size(part)
		if err != nil {
			return err
		}
		if size > maxOffset-l.total {
			return fmt.Errorf("the parts together are larger than the largest file; name fewer")
		}
		l.paint(l.total, size, 0, l.backing(part))
		l.total += size
	}
	return nil
}

// patch lays the patches over the base.
func (l *layout) patch(r *Rule) error {
	size, err := l.size(r.Base)
	if err != nil {
		return err
	}
	l.total = size
	l.paint(0, size, 0, l.backing(r.Base))
	for i := range r.Patches {
		if err := l.patchOne(&r.Patches[i]); err != nil {
			return fmt.Errorf("patch in line %d: %w", r.Patches[i].Line, err)
		}
	}
	return nil
}

// patchOne lays one patch over what is there.
func (l *layout) patchOne(p *Patch) error {
	size, err := l.size(p.File)
	if err != nil {
		return err
	}
	if p.From > size {
		return fmt.Errorf("%s has only %d bytes, from is %d; make it smaller", p.File, size, p.From)
	}
	n := size - p.From
	if p.Length != nil {
		if *p.Length > n {
			return fmt.Errorf("%s has only %d bytes from %d on, length is %d; make it smaller", p.File, n, p.From, *p.Length)
		}
		n = *p.Length
	}
	if n > maxOffset-min(p.Offset, maxOffset) {
		return fmt.Errorf("the patch ends beyond the largest file; make offset or length smaller")
	}
	l.paint(p.Offset, n, p.From, l.backing(p.File))
	return nil
}

// size asks for the size of a file.
func (l *layout) size(path string) (uint64, error) {
	n, err := l.sizes(path)
	if err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, fmt.Errorf("%s has the size %d", path, n)
	}
	return uint64(n), nil
}

// backing is the number by which extents name a file.
func (l *layout) backing(path string) uint32 {
	if path == "" {
		return BackingSelf
	}
	i, ok := l.index[path]
	if !ok {
		i = BackingPart + uint32(len(l.parts))
		l.index[path] = i
		l.parts = append(l.parts, path)
	}
	return i
}

// paint adds a stroke.
func (l *layout) paint(off, n, src uint64, backing uint32) {
	if n > 0 {
		l.strokes = append(l.strokes, stroke{off, off + n, src, backing})
	}
}

// flatten is what is seen of strokes, of which later ones lie over earlier
// ones, from 0 to total. Where no stroke is, there are zeros.
func flatten(strokes []stroke, total uint64) []Extent {
	begin := byBegin(strokes)
	var out []Extent
	top := &pile{strokes: strokes}
	edges := edges(strokes, total)
	for i := 0; i+1 < len(edges); i++ {
		at, n := edges[i], edges[i+1]-edges[i]
		for len(begin) > 0 && strokes[begin[0]].off <= at {
			heap.Push(top, begin[0])
			begin = begin[1:]
		}
		for top.Len() > 0 && top.top().end <= at {
			heap.Pop(top)
		}
		e := Extent{Off: at, Len: n, Kind: KindZero}
		if top.Len() > 0 {
			s := top.top()
			e.Kind, e.Backing, e.Src = KindBacking, s.backing, s.src+at-s.off
		}
		out = appendExtent(out, e)
	}
	return out
}

// byBegin has the numbers of the strokes in the order in which they begin.
func byBegin(strokes []stroke) []int {
	order := make([]int, len(strokes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(strokes[a].off, strokes[b].off) })
	return order
}

// edges has where strokes begin and end, 0 and total, each once and in order.
func edges(strokes []stroke, total uint64) []uint64 {
	out := []uint64{0, total}
	for _, s := range strokes {
		out = append(out, min(s.off, total), min(s.end, total))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// appendExtent appends e, to the last extent if it goes on where that ends.
func appendExtent(out []Extent, e Extent) []Extent {
	if len(out) > 0 {
		last := &out[len(out)-1]
		goesOn := e.Kind == KindZero || last.Src+last.Len == e.Src
		if last.Kind == e.Kind && last.Backing == e.Backing && goesOn {
			last.Len += e.Len
			return out
		}
	}
	return append(out, e)
}

// A pile is a heap of numbers of strokes, the last one on top.
type pile struct {
	strokes []stroke
	numbers []int
}

func (p *pile) top() stroke        { return p.strokes[p.numbers[0]] }
func (p *pile) Len() int           { return len(p.numbers) }
func (p *pile) Less(i, j int) bool { return p.numbers[i] > p.numbers[j] }
func (p *pile) Swap(i, j int)      { p.numbers[i], p.numbers[j] = p.numbers[j], p.numbers[i] }
func (p *pile) Push(x any)         { p.numbers = append(p.numbers, x.(int)) }

func (p *pile) Pop() any {
	last := len(p.numbers) - 1
	x := p.numbers[last]
	p.numbers = p.numbers[:last]
	return x
}
