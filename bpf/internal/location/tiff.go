// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"encoding/binary"
	"slices"
)

// The tags that lead to location, or to directories or images that may.
const (
	tagJpgFromRaw   = 0x002e // Panasonic RW2: a whole JPEG
	tagCompression  = 0x0103
	tagStripOffsets = 0x0111
	tagStripCounts  = 0x0117
	tagSubIFDs      = 0x014a
	tagGlobalIFD    = 0x0190
	tagJPEGOffset   = 0x0201
	tagJPEGLength   = 0x0202
	tagXMP          = 0x02bc
	tagPhotoshop    = 0x8649
	tagExifIFD      = 0x8769
	tagGPSIFD       = 0x8825
	tagInteropIFD   = 0xa005
)

// maxPointers is how many directories one entry may point to.
const maxPointers = 256

// typeSize is the size in bytes of one value of a TIFF type, 0 if unknown.
var typeSize = map[uint16]int64{
	1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
	16: 8, 17: 8, 18: 8, // BigTIFF
	129: 1, // UTF-8, of Exif 3.0
}

// tiff is one TIFF structure: a TIFF or raw file, or the Exif block of
// another image. Its offsets count from the byte order mark.
type tiff struct {
	s     stream
	bo    binary.ByteOrder
	big   bool           // BigTIFF
	seen  map[int64]bool // directories walked, by offset; true for GPS
	table []Range        // of the directories that stay, and the header, within s
	gps   []Range        // what is blanked, within s
}

// entry is one entry of a directory. Its value is the size bytes at value.
type entry struct {
	tag, typ uint16
	count    uint64
	at       int64 // of the entry
	value    int64
	size     int64 // -1 if the type is unknown or the count is absurd
	inline   bool
}

// directory is an IFD: its entries, where they begin, and the next one's
// offset, 0 if none.
type directory struct {
	at, entries int64
	list        []entry
	next        int64
}

// tiffKind says whether b begins with a TIFF header, and of which kind: the
// byte order, whether it is a BigTIFF.
func tiffKind(b []byte) (bo binary.ByteOrder, big, ok bool) {
	if len(b) < 4 {
		return nil, false, false
	}
	switch string(b[:4]) {
	case "II*\x00", "IIRO", "IIRS", "IIU\x00":
		return binary.LittleEndian, false, true
	case "MM\x00*", "MMOR":
		return binary.BigEndian, false, true
	case "II+\x00":
		return binary.LittleEndian, true, true
	case "MM\x00+":
		return binary.BigEndian, true, true
	}
	return nil, false, false
}

// tiffBlock searches a TIFF structure. It is ErrDamaged if s is none.
func tiffBlock(s stream) error {
	t, first, err := openTIFF(s)
	if err != nil {
		return err
	}
	if err := t.chain(first, 0); err != nil {
		return err
	}
	return t.apart()
}

// openTIFF reads the header of a TIFF structure, and the offset of its first
// directory.
func openTIFF(s stream) (t *tiff, first int64, err error) {
	head, err := s.read(0, min(s.size, 16))
	if err != nil {
		return nil, 0, err
	}
	bo, big, ok := tiffKind(head)
	if !ok || len(head) < 8 || big && len(head) < 16 {
		return nil, 0, damaged("no TIFF header")
	}
	t = &tiff{s: s, bo: bo, big: big, seen: map[int64]bool{}}
	t.table = append(t.table, Range{0, t.pick(8, 16)})
	return t, t.offset(head[t.pick(4, 8):]), nil
}

// pick is a number for a classic TIFF, or that for a BigTIFF.
func (t *tiff) pick(classic, big int64) int64 {
	if t.big {
		return big
	}
	return classic
}

// chain searches the directory at off, and those that follow it.
func (t *tiff) chain(off int64, level int) error {
	for off != 0 {
		if gps, ok := t.seen[off]; ok {
			return conflict(gps, false, off)
		}
		d, err := t.directory(off, false)
		if err != nil {
			return err
		}
		if err := t.search(d, level); err != nil {
			return err
		}
		off = d.next
	}
	return nil
}

// single searches the directory at off, without those that follow it: the
// directories of Exif have none, and what stands there is often rubbish.
func (t *tiff) single(off int64, level int) error {
	if gps, ok := t.seen[off]; ok {
		return conflict(gps, false, off)
	}
	d, err := t.directory(off, false)
	if err != nil {
		return err
	}
	return t.search(d, level)
}

// conflict is the error for a directory met again: none, unless it is one of
// GPS in one place and another in the other.
func conflict(was, is bool, off int64) error {
	if was != is {
		return damaged("the directory at %d is GPS and is not", off)
	}
	return nil
}

// directory reads the directory at off and remembers it.
func (t *tiff) directory(off int64, gps bool) (directory, error) {
	d := directory{at: off}
	if len(t.seen) >= maxIFDs {
		return d, damaged("more than %d directories", maxIFDs)
	}
	t.seen[off] = gps
	count, err := t.count(off)
	if err != nil {
		return d, err
	}
	d.entries = off + t.pick(2, 8)
	size := count * t.pick(12, 20)
	b, err := t.s.read(d.entries, size)
	if err != nil {
		return d, err
	}
	for i := int64(0); i < size; i += t.pick(12, 20) {
		d.list = append(d.list, t.entry(b[i:], d.entries+i))
	}
	if !gps {
		t.table = append(t.table, Range{off, d.entries - off + size})
		d.next, err = t.next(d.entries + size)
	}
	return d, err
}

// count reads how many entries the directory at off has.
func (t *tiff) count(off int64) (int64, error) {
	b, err := t.s.read(off, t.pick(2, 8))
	if err != nil {
		return 0, err
	}
	if !t.big {
		return int64(t.bo.Uint16(b)), nil
	}
	n := t.bo.Uint64(b)
	if n > 0xffff {
		return 0, damaged("a directory of %d entries", n)
	}
	return int64(n), nil
}

// next reads the offset of the next directory, which is at off; none if it was
// left out at the end of s.
func (t *tiff) next(off int64) (int64, error) {
	n := t.pick(4, 8)
	if !t.s.has(off, n) {
		return 0, nil
	}
	b, err := t.s.read(off, n)
	if err != nil {
		return 0, err
	}
	return t.offset(b), nil
}

// offset decodes an offset. One that no file reaches is negative.
func (t *tiff) offset(b []byte) int64 {
	if t.big {
		return int64(t.bo.Uint64(b))
	}
	return int64(t.bo.Uint32(b))
}

// entry decodes the entry b, which is at off.
func (t *tiff) entry(b []byte, off int64) entry {
	e := entry{tag: t.bo.Uint16(b), typ: t.bo.Uint16(b[2:]), at: off, size: -1}
	head := t.pick(8, 12)
	if t.big {
		e.count = t.bo.Uint64(b[4:])
	} else {
		e.count = uint64(t.bo.Uint32(b[4:]))
	}
	if unit := typeSize[e.typ]; unit > 0 && e.count <= uint64(t.s.size) {
		e.size = int64(e.count) * unit
	}
	e.inline = e.size <= t.pick(4, 8)
	e.value = off + head
	if !e.inline {
		e.value = t.offset(b[head:])
	}
	return e
}

// numbers reads the whole numbers of an entry.
func (t *tiff) numbers(e entry) ([]int64, error) {
	if e.size < 0 || e.count > maxPointers {
		return nil, damaged("entry %#x has type %d, count %d", e.tag, e.typ, e.count)
	}
	b, err := t.s.read(e.value, e.size)
	if err != nil {
		return nil, err
	}
	var all []int64
	for unit := typeSize[e.typ]; len(b) > 0; b = b[unit:] {
		n, ok := t.number(b, e.typ)
		if !ok {
			return nil, damaged("entry %#x has type %d", e.tag, e.typ)
		}
		all = append(all, n)
	}
	return all, nil
}

// number decodes one whole number of a type that can be an offset.
func (t *tiff) number(b []byte, typ uint16) (int64, bool) {
	switch typ {
	case 3:
		return int64(t.bo.Uint16(b)), true
	case 4, 13:
		return int64(t.bo.Uint32(b)), true
	case 16, 18:
		return int64(t.bo.Uint64(b)), true
	}
	return 0, false
}

// search follows the entries of a directory.
func (t *tiff) search(d directory, level int) error {
	if level >= maxLevel {
		return damaged("directories %d deep", level)
	}
	for _, e := range d.list {
		if err := t.follow(e, level); err != nil {
			return err
		}
	}
	return t.images(d)
}

// follow searches what one entry points to.
func (t *tiff) follow(e entry, level int) error {
	switch e.tag {
	case tagGPSIFD:
		return t.each(e, t.blankGPS)
	case tagExifIFD, tagInteropIFD, tagGlobalIFD:
		return t.each(e, func(off int64) error { return t.single(off, level+1) })
	case tagSubIFDs:
		return t.each(e, func(off int64) error { return t.chain(off, level+1) })
	case tagXMP:
		return t.block(e, xmpPacket)
	case tagPhotoshop:
		return t.block(e, photoshop)
	}
	return nil
}

// each calls f for each directory that an entry points to.
func (t *tiff) each(e entry, f func(off int64) error) error {
	all, err := t.numbers(e)
	if err != nil {
		return err
	}
	for _, off := range slices.Compact(all) {
		if off == 0 {
			continue // none
		}
		if err := f(off); err != nil {
			return err
		}
	}
	return nil
}

// block calls f for an entry's value.
func (t *tiff) block(e entry, f func(stream) error) error {
	s, err := t.s.slice(e.value, e.size)
	if err != nil {
		return err
	}
	return f(s)
}
