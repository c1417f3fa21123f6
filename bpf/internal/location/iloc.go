// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "encoding/binary"

// reader takes numbers from the front of b. Beyond its end they are zero, and
// short is true.
type reader struct {
	b     []byte
	short bool
}

// take takes a number of n bytes, which are 0 to 8.
func (r *reader) take(n int) uint64 {
	if n > len(r.b) || n > 8 {
		r.short, r.b = true, nil
		return 0
	}
	var b [8]byte
	copy(b[8-n:], r.b[:n])
	r.b = r.b[n:]
	return binary.BigEndian.Uint64(b[:])
}

// sizes are how many bytes the numbers of an item location box have.
type sizes struct{ version, id, count, offset, length, base, index int }

// locate searches the items whose places an item location box gives: a version
// and flags, the sizes of numbers, a count, and for each item an id, the way to
// count offsets, another file, a base, and extents.
func (m *meta) locate(s stream) error {
	b, err := s.read(0, s.size)
	if err != nil {
		return err
	}
	r := reader{b: b}
	z := ilocSizes(&r)
	for n := r.take(z.count); n > 0 && !r.short; n-- {
		if err := m.place(&r, z); err != nil {
			return err
		}
	}
	if r.short {
		return damaged("the places of items are cut off")
	}
	return nil
}

// ilocSizes takes the head of an item location box, up to the count.
func ilocSizes(r *reader) sizes {
	z := sizes{version: int(r.take(4) >> 24), id: 2, count: 2}
	a, b := int(r.take(1)), int(r.take(1))
	z.offset, z.length, z.base = a>>4, a&15, b>>4
	if z.version > 0 {
		z.index = b & 15
	}
	if z.version > 1 {
		z.id, z.count = 4, 4
	}
	return z
}

// place takes one item's place and searches the item.
func (m *meta) place(r *reader, z sizes) error {
	search := m.items[uint32(r.take(z.id))].search()
	way := uint64(0)
	if z.version > 0 {
		way = r.take(2) & 15
	}
	elsewhere := r.take(2) != 0
	base := r.take(z.base)
	n := r.take(2)
	if n > maxParts || n > 1 && z.index+z.offset+z.length == 0 {
		return damaged("an item in %d pieces", n)
	}
	var parts []stream
	for ; n > 0 && !r.short; n-- {
		r.take(z.index)
		off, size := r.take(z.offset), r.take(z.length)
		if search == nil {
			continue
		}
		p, err := m.extent(way, base, off, size)
		if err != nil {
			return err
		}
		parts = append(parts, p)
	}
	if search == nil || r.short || elsewhere {
		return nil
	}
	s, err := join(parts)
	if err != nil || s.size == 0 {
		return err
	}
	return search(s)
}

// extent is the stream of size bytes at off from base, in the file or in the box for
// data. A size of 0 is all from there.
func (m *meta) extent(way, base, off, size uint64) (stream, error) {
	from := m.s
	switch {
	case way == 1:
		from = m.idat
	case way > 1:
		return stream{}, damaged("an item within items")
	}
	limit := uint64(from.size)
	if base > limit || off > limit-base || size > limit {
		return stream{}, damaged("an item of %d bytes at %d of %d", size, off, from.size)
	}
	off += base
	if size == 0 {
		return from.from(int64(off)), nil
	}
	return from.slice(int64(off), int64(size))
}
