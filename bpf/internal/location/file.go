// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The limits of one Find. A file that needs more is ErrDamaged.
const (
	maxMeta   = 64 << 20  // bytes of metadata read, each read counted with readCost more
	maxScan   = 512 << 20 // bytes of coded pixels passed over to find the end of a JPEG
	maxPacket = 16 << 20  // bytes of one XMP packet, text or profile, also when inflated
	maxParts  = 4096      // pieces of one block of metadata (JPEG segments, HEIF extents)
	maxNest   = 4         // images within images
	maxIFDs   = 1 << 14   // directories of one TIFF structure
	maxLevel  = 12        // directories within directories
	readCost  = 32
	scanChunk = 64 << 10
)

// damaged is an ErrDamaged with words on what was found.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// limit is damaged for a limit that was reached.
func (f *file) limit(format string, args ...any) error {
	f.spent = true
	return damaged(format, args...)
}

// file is the file under search: what may still be read, and what was found.
type file struct {
	r    io.ReaderAt
	size int64
	meta int64 // bytes of metadata that may still be read
	scan int64 // bytes of pixels that may still be passed over
	nest int   // images that hold the present one

	spent bool // a limit was reached

	out []Range // what must read as zeros, in the order found
	// What may read as zeros or not, without harm either way: it holds no
	// location and is seen by no reader. Unless a PNG's checksum wants it
	// otherwise (see fixCRC), hide is blanked and keep is not.
	hide, keep []Range
}

func newFile(r io.ReaderAt, size, meta int64) *file {
	return &file{r: r, size: size, meta: meta, scan: maxScan}
}

// stream is a block of data that lies in one or more runs of a file, in order.
// Its offsets count from the start of the first.
type stream struct {
	f     *file
	parts []part
	size  int64
}

// part is a run of the file, which begins at at in its stream.
type part struct {
	Range
	at int64
}

// stream is the stream of some runs of f.
func (f *file) stream(ranges []Range) stream {
	s := stream{f: f, parts: make([]part, len(ranges))}
	for i, r := range ranges {
		s.parts[i] = part{r, s.size}
		s.size += r.Len
	}
	return s
}

// whole is the stream of a whole file.
func (f *file) whole() stream {
	return f.stream([]Range{{0, f.size}})
}

// read returns the n bytes at off: ErrDamaged if they are not all in s or the
// limit is reached, else the reader's error.
func (s stream) read(off, n int64) ([]byte, error) {
	if !s.has(off, n) {
		return nil, damaged("%d bytes at %d of %d", n, off, s.size)
	}
	if s.f.meta -= n + readCost; s.f.meta < 0 {
		return nil, s.f.limit("more than %d bytes of metadata", maxMeta)
	}
	b := make([]byte, n)
	return b, s.fill(b, off)
}

// has reports whether the n bytes at off lie in s.
func (s stream) has(off, n int64) bool {
	return off >= 0 && n >= 0 && n <= s.size && off <= s.size-n
}

// fill reads b at off, which lie in s.
func (s stream) fill(b []byte, off int64) error {
	for _, r := range s.ranges(off, int64(len(b))) {
		n, err := s.f.r.ReadAt(b[:r.Len], r.Off)
		if int64(n) < r.Len {
			return readError(err)
		}
		b = b[r.Len:]
	}
	return nil
}

// readError is what a short read means: a file that ended early is damaged.
func readError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return damaged("the file is shorter than its size")
	}
	return err
}

// ranges are the runs of the file that hold the n bytes at off, which lie in s.
func (s stream) ranges(off, n int64) []Range {
	i, _ := slices.BinarySearchFunc(s.parts, off, func(p part, off int64) int {
		return cmp.Compare(p.at+p.Len, off+1) // the first that ends after off
	})
	var out []Range
	for ; n > 0 && i < len(s.parts); i++ {
		p := s.parts[i]
		take := min(n, p.at+p.Len-off)
		if take > 0 {
			out = append(out, Range{p.Off + off - p.at, take})
		}
		off, n = off+take, n-take
	}
	return out
}

// slice is the stream of the n bytes at off.
func (s stream) slice(off, n int64) (stream, error) {
	if !s.has(off, n) {
		return stream{}, damaged("%d bytes at %d of %d", n, off, s.size)
	}
	return s.f.stream(s.ranges(off, n)), nil
}

// from is the rest of s from off, empty if off is beyond its end.
func (s stream) from(off int64) stream {
	return s.part(off, s.size)
}

// part is the stream from one offset to before another, which is in s.
func (s stream) part(from, to int64) stream {
	from = min(from, to)
	return s.f.stream(s.ranges(from, to-from))
}

// join is the stream of several, one after the other.
func join(all []stream) (stream, error) {
	if len(all) == 0 {
		return stream{}, nil
	}
	var ranges []Range
	for _, s := range all {
		for _, p := range s.parts {
			ranges = append(ranges, p.Range)
		}
	}
	if len(ranges) > maxParts {
		return stream{}, damaged("%d pieces of one block", len(ranges))
	}
	return all[0].f.stream(ranges), nil
}

// blank marks the n bytes at off as location. They must lie in s.
func (s stream) blank(off, n int64) error {
	if !s.has(off, n) {
		return damaged("location of %d bytes at %d of %d", n, off, s.size)
	}
	s.f.out = append(s.f.out, s.ranges(off, n)...)
	return nil
}

// found is what Find returns: sorted, merged, inside the file.
func (f *file) found() ([]Range, error) {
	all := merge(slices.Concat(f.out, f.hide))
	if len(all) == 0 {
		return nil, nil
	}
	if last := all[len(all)-1]; all[0].Off < 0 || last.Off+last.Len > f.size {
		return nil, damaged("location outside the file")
	}
	return all, nil
}

// merge sorts ranges, joins those that touch or overlap, drops empty ones.
func merge(all []Range) []Range {
	all = slices.DeleteFunc(all, func(r Range) bool { return r.Len <= 0 })
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	var out []Range
	for _, r := range all {
		if n := len(out); n > 0 && r.Off <= out[n-1].Off+out[n-1].Len {
			out[n-1].Len = max(out[n-1].Len, r.Off+r.Len-out[n-1].Off)
			continue
		}
		out = append(out, r)
	}
	return out
}
