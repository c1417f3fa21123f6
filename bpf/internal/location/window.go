// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "bytes"

// window is a walk through the pixels of a stream. What it reads counts as
// such.
type window struct {
	s  stream
	at int64 // of b
	b  []byte
}

// from returns what is at off: need bytes or more, fewer only at the end. They
// are valid until the next call.
func (w *window) from(off, need int64) ([]byte, error) {
	end := w.at + int64(len(w.b))
	if off >= w.at && (off+need <= end || off < end && end == w.s.size) {
		return w.b[off-w.at:], w.spend(readCost)
	}
	size := max(need, 1024)
	if off < end+scanChunk && off >= w.at && len(w.b) > 0 {
		size = scanChunk // one thing after the other
	}
	size = max(0, min(size, w.s.size-off))
	if err := w.spend(size + readCost); err != nil {
		return nil, err
	}
	if int64(cap(w.b)) < size {
		w.b = make([]byte, size)
	}
	w.at, w.b = off, w.b[:size]
	return w.b, w.s.fill(w.b, off)
}

// spend counts n bytes.
func (w *window) spend(n int64) error {
	if w.s.f.scan -= n; w.s.f.scan < 0 {
		return w.s.f.limit("more than %d bytes to search", maxScan)
	}
	return nil
}

// find returns where the first of some marks is from off on, and which; the end
// if there is none. The marks are short and equally long.
func (w *window) find(off int64, marks ...string) (at int64, mark string, err error) {
	n := int64(len(marks[0]))
	for {
		b, err := w.from(off, n)
		if err != nil || int64(len(b)) < n {
			return w.s.size, "", err
		}
		first := len(b)
		for _, m := range marks {
			if i := bytes.Index(b[:min(len(b), first+int(n)-1)], []byte(m)); i >= 0 {
				first, mark = i, m
			}
		}
		if mark != "" {
			return off + int64(first), mark, nil
		}
		off += int64(len(b)) - n + 1
	}
}
