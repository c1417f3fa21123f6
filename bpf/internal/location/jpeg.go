// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"encoding/binary"
)

// soi is how a JPEG begins: the start marker and the first byte of another.
const soi = "\xff\xd8\xff"

// The JPEG markers that matter.
const (
	markSOI   = 0xd8
	markEOI   = 0xd9
	markSOS   = 0xda
	markAPP1  = 0xe1
	markAPP2  = 0xe2
	markAPP13 = 0xed
)

// jpegWalk is the walk through the segments of one JPEG image.
type jpegWalk struct {
	s      stream
	w      window
	coded  bool // a scan has begun: what looks like a marker may be pixels
	blocks blocks
}

// jpegImage searches the JPEG image at the start of s, and those after it.
func jpegImage(s stream) error {
	end, err := oneJPEG(s)
	if err != nil {
		return err
	}
	return trailer(s.from(end))
}

// oneJPEG searches the JPEG image at the start of s, and those that it points
// to. It returns where the image ends.
func oneJPEG(s stream) (end int64, err error) {
	j := jpegWalk{s: s, w: window{s: s}}
	if end, err = j.walk(2); err != nil {
		return 0, err
	}
	return end, j.blocks.search(s)
}

// walk reads the segments from at to the end marker, or to the end of s if it
// is cut off, and returns where that is.
func (j *jpegWalk) walk(at int64) (int64, error) {
	for {
		mark, next, err := j.marker(at)
		if err != nil || mark == markEOI || mark < 0 {
			return next, err
		}
		if at, err = j.segment(mark, next); err != nil {
			return 0, err
		}
	}
}

// marker returns the next marker from at on, and where it ends; -1 at the end
// of s. Readers pass over what stands before it.
func (j *jpegWalk) marker(at int64) (mark int, next int64, err error) {
	for {
		b, err := j.w.from(at, 2)
		if err != nil || len(b) < 2 {
			return -1, j.s.size, err
		}
		i := bytes.IndexByte(b[:len(b)-1], 0xff)
		switch {
		case i < 0:
			at += int64(len(b)) - 1
		case b[i+1] == 0xff:
			at += int64(i) + 1 // fill
		case b[i+1] == 0 && j.coded:
			at += int64(i) + 2
		default:
			return int(b[i+1]), at + int64(i) + 2, nil
		}
	}
}

// segment reads the segment of a marker that ends at off and returns where the
// next begins.
func (j *jpegWalk) segment(mark int, off int64) (int64, error) {
	if mark == 1 || mark >= 0xd0 && mark <= markSOI {
		return off, nil // no data
	}
	if mark < 0xc0 && !j.coded {
		return 0, damaged("JPEG marker %#x before the image", mark)
	}
	b, err := j.w.from(off, 2)
	if err != nil {
		return 0, err
	}
	size := int64(0)
	if len(b) >= 2 {
		size = int64(binary.BigEndian.Uint16(b))
	}
	if j.coded && (mark < 0xc0 || size < 2 || !j.s.has(off, size)) {
		return off, nil // no marker, but pixels
	}
	if size < 2 && len(b) >= 2 {
		return 0, damaged("JPEG segment %#x at %d has no length", mark, off)
	}
	j.coded = j.coded || mark == markSOS
	// What is cut off is searched as far as it goes: some readers do so.
	end := min(off+max(size, 2), j.s.size)
	return end, j.blocks.add(mark, j.s.part(off+2, end), off+2)
}

// isMetadata reports whether segments of a marker are searched.
func isMetadata(mark int) bool {
	return mark == markAPP1 || mark == markAPP2 || mark == markAPP13
}
