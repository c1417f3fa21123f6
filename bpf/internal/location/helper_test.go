// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"
)

// picture is a small image with a pattern.
func picture() image.Image {
	m := image.NewRGBA(image.Rect(0, 0, 64, 48))
	for y := range 48 {
		for x := range 64 {
			m.Set(x, y, color.RGBA{uint8(4 * x), uint8(5 * y), uint8(x ^ y), 255})
		}
	}
	return m
}

// jpegBase is picture as a JPEG.
func jpegBase() []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, picture(), nil); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// pngBase is picture as a PNG.
func pngBase() []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, picture()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// segment is a JPEG segment of a marker and data.
func segment(mark byte, data ...string) []byte {
	var all []byte
	for _, d := range data {
		all = append(all, d...)
	}
	b := []byte{0xff, mark, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(len(all)+2))
	return append(b, all...)
}

// jpegWith is a JPEG with segments after its start.
func jpegWith(segments ...[]byte) []byte {
	base := jpegBase()
	return append(append(bytes.Clone(base[:2]), bytes.Join(segments, nil)...), base[2:]...)
}

// ifdEntry is an entry of a directory that a test makes: its value, or the
// index of the directory it points to.
type ifdEntry struct {
	tag, typ uint16
	count    uint32
	value    []byte
	to       int // 0 for none
}

// short and long and ascii and rational make entries.
func short(tag, v uint16) ifdEntry {
	return ifdEntry{tag: tag, typ: 3, count: 1, value: []byte{byte(v), byte(v >> 8)}}
}

func ascii(tag uint16, s string) ifdEntry {
	return ifdEntry{tag: tag, typ: 2, count: uint32(len(s) + 1), value: append([]byte(s), 0)}
}

func blob(tag uint16, s string) ifdEntry {
	return ifdEntry{tag: tag, typ: 7, count: uint32(len(s)), value: []byte(s)}
}

func pointer(tag uint16, to int) ifdEntry {
	return ifdEntry{tag: tag, typ: 4, count: 1, to: to}
}

func rationals(bo binary.AppendByteOrder, tag uint16, v ...uint32) ifdEntry {
	e := ifdEntry{tag: tag, typ: 5, count: uint32(len(v) / 2)}
	for _, n := range v {
		e.value = bo.AppendUint32(e.value, n)
	}
	return e
}

// byteOrder is both of binary's.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// tiffFile assembles a classic TIFF of directories, of which the first is the
// first, and next[i] follows i, 0 for none. Values come after all directories.
func tiffFile(bo byteOrder, next map[int]int, dirs ...[]ifdEntry) []byte {
	at := make([]uint32, len(dirs))
	off := uint32(8)
	for i, d := range dirs {
		at[i] = off
		off += 2 + 12*uint32(len(d)) + 4
	}
	b := bo.AppendUint32(magic(bo), 8)
	var values []byte
	for i, d := range dirs {
		b = bo.AppendUint16(b, uint16(len(d)))
		for _, e := range d {
			v := e.value
			if e.to > 0 {
				v = bo.AppendUint32(nil, at[e.to])
			}
			if e.typ == 3 && len(v) == 2 {
				v = bo.AppendUint16(nil, binary.LittleEndian.Uint16(v))
			}
			b = bo.AppendUint16(bo.AppendUint16(b, e.tag), e.typ)
			b = bo.AppendUint32(b, e.count)
			if len(v) > 4 {
				b = bo.AppendUint32(b, off+uint32(len(values)))
				values = append(values, v...)
				continue
			}
			b = append(b, append(bytes.Clone(v), 0, 0, 0, 0)[:4]...)
		}
		n := uint32(0)
		if next[i] > 0 {
			n = at[next[i]]
		}
		b = bo.AppendUint32(b, n)
	}
	return append(b, values...)
}

// magic is the byte order mark and 42.
func magic(bo byteOrder) []byte {
	if bo == byteOrder(binary.LittleEndian) {
		return bo.AppendUint16([]byte("II"), 42)
	}
	return bo.AppendUint16([]byte("MM"), 42)
}

// gpsEntries is a GPS directory, in a place that no test data else name.
func gpsEntries(bo byteOrder) []ifdEntry {
	return []ifdEntry{
		ascii(1, "N"), rationals(bo, 2, 48, 1, 8, 1, 1234, 100),
		ascii(3, "E"), rationals(bo, 4, 11, 1, 34, 1, 5678, 100),
		ascii(29, "2021:02:03"), blob(27, "ASCII\x00\x00\x00PLACEPLACE"),
	}
}

// exifFile is an Exif block with tags, GPS, and a second directory.
func exifFile(bo byteOrder) []byte {
	return tiffFile(bo, map[int]int{0: 3},
		[]ifdEntry{ascii(0x010f, "Maker of things"), pointer(tagExifIFD, 1), pointer(tagGPSIFD, 2)},
		[]ifdEntry{ascii(0x9003, "2021:02:03 04:05:06"), rationals(bo, 0x829a, 1, 100)},
		gpsEntries(bo),
		[]ifdEntry{short(tagCompression, 6)})
}

// blanked is b with ranges zeroed, after a check of what Find promises.
func blanked(t testing.TB, b []byte, ranges []Range) []byte {
	t.Helper()
	checkRanges(t, ranges, int64(len(b)))
	out := bytes.Clone(b)
	for _, r := range ranges {
		clear(out[r.Off : r.Off+r.Len])
	}
	return out
}

// checkRanges fails unless ranges are as Find promises.
func checkRanges(t testing.TB, ranges []Range, size int64) {
	t.Helper()
	end := int64(-1)
	for i, r := range ranges {
		if r.Off <= end || r.Len <= 0 || r.Len > size || r.Off > size-r.Len {
			t.Fatalf("range %d of %v is wrong for %d bytes", i, ranges, size)
		}
		end = r.Off + r.Len
	}
	if ranges != nil && len(ranges) == 0 {
		t.Fatal("no ranges, but not nil")
	}
}

// find is Find of bytes, which must not fail.
func find(t testing.TB, b []byte) []Range {
	t.Helper()
	ranges, err := Find(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}
