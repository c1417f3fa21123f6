// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"fmt"
	"slices"
)

// cutData is what a file may hold after a power cut: the contents that are
// durable, and what was written over them since. What was written without a
// sync reaches the disk in any order and in parts, so each part of the file is
// checked for itself: it is what it was at some moment since the last sync.
// Sizes are in order, as a journal keeps them, and what a size cut off does not
// come back when the file grows again.
type cutData struct {
	base  []byte // durable; shared with others until it is changed
	own   bool   // base is ours to change
	lower []byte // what the lower layer has, to say so in a report
	ops   []cutWrite
	past  []cutWrite // before the last cut
	first int        // number of operations that are in base already
	done  int        // number of operations that have returned
	size  int64      // after all operations, for the worker to read without a lock
}

func newCutData(b []byte) cutData { return cutData{base: b, lower: b, size: int64(len(b))} }

// cutWrite is an operation on contents.
type cutWrite struct {
	off   int64
	data  []byte // nil: only the size is set
	size  int64  // of the file after it
	loose bool   // stores through a mapping: each byte is for itself
	punch bool   // a hole; ext4 may set the size to its end, where that is more
}

// cutBlock is the largest block: when a file is cut off there may be zeros in
// its last block before it has the new size.
const cutBlock = 4096

// cutUnit is the smallest unit in which data reach a disk.
const cutUnit = 512

// write is a write of data at off.
func (d *cutData) write(off int64, data []byte) cutWrite {
	return cutWrite{off: off, data: data, size: max(d.size, off+int64(len(data)))}
}

// begin notes an operation that is about to be done.
func (d *cutData) begin(op cutWrite) { d.ops, d.size = append(d.ops, op), op.size }

// finish notes that all operations have returned.
func (d *cutData) finish() { d.done = d.first + len(d.ops) }

// mapped says whether there are stores through mappings since the last sync.
func (d *cutData) mapped() bool {
	return slices.ContainsFunc(d.ops, func(op cutWrite) bool { return op.loose })
}

// durable notes that the first n of all operations are on disk.
func (d *cutData) durable(n int) {
	for ; d.first < n; d.first++ {
		if !d.own {
			d.base, d.own = bytes.Clone(d.base), true
		}
		d.base = d.ops[0].apply(d.base)
		d.ops = d.ops[1:]
	}
}

// found is the file as it was found: all its contents are durable.
func (d *cutData) found(b []byte) {
	d.past = append(d.past, cutWrite{data: d.base})
	d.past = append(d.past, d.ops...)
	d.base, d.own, d.ops, d.first, d.done, d.size = b, true, nil, 0, 0, int64(len(b))
}

// apply does the operation on contents.
func (op cutWrite) apply(b []byte) []byte {
	if n := op.size - int64(len(b)); n > 0 {
		b = append(b, make([]byte, n)...)
	}
	b = b[:op.size:op.size]
	copy(b[min(op.off, op.size):], op.data)
	return b
}

// check says what is wrong with the contents: "" for nothing, or the kind of
// what is wrong and a sentence about it.
func (d *cutData) check(got []byte) (kind, text string) {
	kind = "size"
	for k := len(d.ops); k >= 0; k-- {
		if !d.fits(int64(len(got)), k) {
			continue
		}
		kd, tx := d.compare(got, k)
		if kd == "" {
			return "", ""
		}
		if kind == "size" {
			kind, text = kd, tx
		}
	}
	if kind == "size" {
		sizes := []int{len(d.base)}
		for _, op := range d.ops {
			sizes = append(sizes, int(op.size))
		}
		text = fmt.Sprintf("%d bytes, want one of the sizes since the last sync: %d", len(got), sizes)
	}
	return kind, text
}

// sizeAt is the size after k operations.
func (d *cutData) sizeAt(k int) int64 {
	if k == 0 {
		return int64(len(d.base))
	}
	return d.ops[k-1].size
}

// fits says whether the size is that after k operations, or that of a part of
// the last one.
func (d *cutData) fits(size int64, k int) bool {
	if size == d.sizeAt(k) {
		return true
	}
	if k == 0 || size >= d.sizeAt(k) {
		return false
	}
	op := d.ops[k-1]
	if op.data == nil { // xfs writes zeros to the end of the block first
		return size > d.sizeAt(k-1) && size == roundUp(d.sizeAt(k-1))
	}
	if op.punch && size == op.off+int64(len(op.data)) {
		return true
	}
	return size%cutUnit == 0 && d.sizeAt(k-1) < size
}

// compare compares all parts of the contents, of which the size is that after
// k operations.
func (d *cutData) compare(got []byte, k int) (kind, text string) {
	edges := d.edges(int64(len(got)))
	for i := 1; i < len(edges); i++ {
		a, b := edges[i-1], edges[i]
		cands, loose := d.candidates(a, b, k)
		for a < b {
			end := min(b, (a/cutUnit+1)*cutUnit)
			if len(d.ops) == 0 || len(cands) == 1 {
				end = b
			}
			if at := mismatch(got[a:end], edges[i-1], a, cands, loose); at >= 0 && !d.lostBefore(got[a:end], a, k) {
				return d.describe(got, a+int64(at), k)
			}
			a = end
		}
	}
	return "", ""
}

// edges are the borders between the parts that operations treat differently.
func (d *cutData) edges(size int64) []int64 {
	edges := []int64{0, size, int64(len(d.base))}
	for _, op := range d.ops {
		edges = append(edges, op.off, op.off+int64(len(op.data)), op.size, roundUp(op.size))
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	return slices.DeleteFunc(edges, func(e int64) bool { return e > size })
}

func roundUp(n int64) int64 { return (n + cutBlock - 1) / cutBlock * cutBlock }

// candidates are what may be found from a to b, the newest first.
func (d *cutData) candidates(a, b int64, k int) (cands [][]byte, loose bool) {
	zeros := make([]byte, b-a)
	var now []byte // nil: behind the end of the file
	if a < int64(len(d.base)) {
		now = d.base[a:b]
		cands = append(cands, now)
	}
	for j, op := range d.ops {
		switch was := now; {
		case op.size <= a:
			now = nil
			if j < k {
				cands = nil // cut off for good
			} else if was != nil && b <= roundUp(op.size) {
				cands = append(cands, zeros)
			}
			continue
		case op.data != nil && op.off <= a && b <= op.off+int64(len(op.data)):
			if now == nil {
				cands = append(cands, zeros) // grown; the data may come later
			}
			now = op.data[a-op.off : b-op.off]
			loose = loose || op.loose
		case now == nil:
			now = zeros
		default:
			continue
		}
		cands = append(cands, now)
	}
	slices.Reverse(cands)
	return cands, loose
}

// mismatch is the place in got, a part from a on of a range that begins at
// base, that is like no candidate, or -1.
func mismatch(got []byte, base, a int64, cands [][]byte, loose bool) int {
	for _, c := range cands {
		if bytes.Equal(got, c[a-base:a-base+int64(len(got))]) {
			return -1
		}
	}
	for i, b := range got {
		if !slices.ContainsFunc(cands, func(c []byte) bool { return c[a-base+int64(i)] == b }) {
			return i
		}
	}
	if loose {
		return -1
	}
	return 0
}

// lostBefore says whether a part in the last block that the file had after a
// cut, which has grown since, may be what was written there before that cut:
// the block was on disk then, but not the size, and now it is the other way
// round.
func (d *cutData) lostBefore(got []byte, a int64, k int) bool {
	size := int64(len(d.base))
	if a < size || a+int64(len(got)) > roundUp(size) || k == 0 || d.ops[k-1].data == nil {
		return false
	}
	for i, b := range got {
		at := a + int64(i)
		if b != 0 && !slices.ContainsFunc(d.past, func(op cutWrite) bool {
			return op.off <= at && at < op.off+int64(len(op.data)) && op.data[at-op.off] == b
		}) {
			return false
		}
	}
	return true
}

// describe says what is at a wrong place.
func (d *cutData) describe(got []byte, at int64, k int) (kind, text string) {
	end := min(at+16, int64(len(got)))
	g := got[at:end]
	kind = "mixed"
	switch {
	case bytes.Count(g, []byte{0}) == len(g):
		kind = "zeros"
	case d.wasLast(at, k):
		kind = "uncut"
	case end <= int64(len(d.lower)) && bytes.Equal(g, d.lower[at:end]):
		kind = "old"
	}
	return kind, fmt.Sprintf("at %d of %d bytes: % x, want what was there since the last sync (%s)", at, len(got), g, d.history(at))
}

// wasLast says whether a place was behind the end of the file, in its last
// block: what is there when the file grows later is what had been cut off
// before, if the zeros did not get to the disk.
func (d *cutData) wasLast(at int64, k int) bool {
	for j := 0; j <= k; j++ {
		if size := d.sizeAt(j); size <= at && at < roundUp(size) {
			return true
		}
	}
	return false
}

// history says what was done at a place since the last sync.
func (d *cutData) history(at int64) string {
	s := fmt.Sprintf("synced: %d bytes", len(d.base))
	if at < int64(len(d.base)) {
		s += fmt.Sprintf(", % x", d.base[at:min(at+16, int64(len(d.base)))])
	}
	for i, op := range d.ops {
		if n := int64(len(op.data)); op.off <= at && at < op.off+n {
			s += fmt.Sprintf("; %d: written % x", i, op.data[at-op.off:min(at-op.off+16, n)])
		} else if op.data == nil || at >= op.size {
			s += fmt.Sprintf("; %d: %d bytes", i, op.size)
		}
	}
	return s
}
