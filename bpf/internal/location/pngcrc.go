// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// maxFree is how many bytes are tried to keep a checksum.
const maxFree = 4096

// free is a byte of the file that may read as zero or not, and what the choice
// changes in the checksum of its chunk.
type free struct {
	off   int64
	delta uint32
}

// fixCRC chooses, for the chunk whose name and data are the n bytes at off, which
// bytes of hide and keep to blank so that the checksum that follows is right
// for what is then read: some decoders refuse an image for the checksum of any
// chunk. A checksum is linear, so that each byte that may be zero or not flips
// a fixed set of its 32 bits, and 32 independent ones can make any. If there
// are too few, the checksum will be wrong. The chunk's own bytes of out, hide
// and keep are all that f has.
func fixCRC(s stream, off, n int64) error {
	f := s.f
	if n > maxPacket {
		return nil
	}
	b, err := s.read(off, n+4)
	if err != nil {
		return err
	}
	start := s.ranges(off, 1)[0].Off
	data, sum := b[:n], b[n:]
	zero(data, start, f.out)
	list := freeBytes(data, start, f.hide)
	hidden := len(list)
	list = append(list, crcBytes(sum, start+n)...)
	list = append(list, freeBytes(data, start, f.keep)...)
	zero(data, start, f.hide)
	want := crc32.ChecksumIEEE(data) ^ binary.BigEndian.Uint32(sum)
	if chosen, ok := solve(list, want); ok {
		f.choose(list, hidden, chosen)
	}
	return nil
}

// choose blanks the bytes of a list that are chosen, of the first hidden those
// that are not.
func (f *file) choose(list []free, hidden int, chosen map[int64]bool) {
	f.hide, f.keep = nil, nil
	for i, b := range list {
		if chosen[b.off] != (i < hidden) {
			f.out = append(f.out, Range{b.off, 1})
		}
	}
}

// zero clears the bytes of b, which begins at start in the file, that lie in
// some ranges.
func zero(b []byte, start int64, ranges []Range) {
	for _, r := range ranges {
		clear(b[r.Off-start : r.Off-start+r.Len])
	}
}

// freeBytes lists the bytes of ranges in the data of a chunk that are not zero
// already.
func freeBytes(data []byte, start int64, ranges []Range) []free {
	var list []free
	for _, r := range merge(append([]Range(nil), ranges...)) {
		for off := r.Off; off < r.Off+r.Len && len(list) < maxFree; off++ {
			i := off - start
			if data[i] == 0 {
				continue
			}
			delta := shift(crc32.IEEETable[data[i]], int64(len(data))-1-i)
			list = append(list, free{off, delta})
		}
	}
	return list
}

// crcBytes lists the bytes of a checksum at off that are not zero.
func crcBytes(sum []byte, off int64) []free {
	var list []free
	for i, c := range sum[:4] {
		if c != 0 {
			list = append(list, free{off + int64(i), uint32(c) << (24 - 8*i)})
		}
	}
	return list
}

// solve chooses bytes of a list whose changes together are want. The result has
// their offsets.
func solve(list []free, want uint32) (map[int64]bool, bool) {
	var used []free // at most 32, independent of each other
	var basis [32]struct{ delta, of uint32 }
	reduce := func(v, of uint32) (uint32, uint32) {
		for v != 0 {
			b := basis[bits.Len32(v)-1]
			if b.delta == 0 {
				break
			}
			v, of = v^b.delta, of^b.of
		}
		return v, of
	}
	for _, b := range list {
		if v, of := reduce(b.delta, 0); v != 0 {
			basis[bits.Len32(v)-1] = struct{ delta, of uint32 }{v, of ^ 1<<len(used)}
			used = append(used, b)
		}
	}
	rest, of := reduce(want, 0)
	chosen := map[int64]bool{}
	for i, b := range used {
		if of&(1<<i) != 0 {
			chosen[b.off] = true
		}
	}
	return chosen, rest == 0
}

// shift is what a checksum's change becomes n bytes later: multiplied by x to
// the power 8n, modulo the polynomial.
func shift(c uint32, n int64) uint32 {
	for power := uint32(1) << 23; n > 0; n >>= 1 { // x to the power 8
		if n&1 != 0 {
			c = multiply(c, power)
		}
		power = multiply(power, power)
	}
	return c
}

// multiply multiplies polynomials modulo that of the checksum. The highest bit
// is the one without x.
func multiply(a, b uint32) uint32 {
	var p uint32
	for ; a != 0; a <<= 1 {
		if a>>31 != 0 {
			p ^= b
		}
		low := b & 1
		b = b>>1 ^ low*crc32.IEEE
	}
	return p
}
