// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPrepend(t *testing.T) {
	r := newRand(t)
	text := []byte(randBytes(r, "abcdefgh\x00\xff", 4096))
	for _, part := range []uint32{0, 1} {
		for _, n := range []uint64{0, 1, 7, 512, 4095, 4096, 1 << 40} {
			if part == 0 && n > 4096 {
				continue
			}
			p := load(t, "prepend", vars{"prefix_len": n, "prefix_part": part, "n_patterns": uint32(1)},
				arrays{"patterns": {mkPattern("*.c")}, "prefix": {text}})
			for range 100 {
				size := r.Uint64N(10000)
				if r.IntN(4) == 0 {
					size = 0
				}
				in := input{Size: size, Layer: 1}
				in.setName("a.c")
				if r.IntN(2) == 0 {
					in.Offset = pick(r, n, r.Uint64N(n+size+1))
				}
				var want []extent
				if n > 0 && in.Offset < n {
					e := extent{in.Offset, n - in.Offset, in.Offset, inline, 0}
					if part == 1 {
						e.Kind, e.Backing = backing, part0
					}
					want = append(want, e)
				}
				if at := max(in.Offset, n); n > 0 && at < n+size {
					want = append(want, extent{at, n + size - at, at - n, backing, self})
				}
				ext, got, data := p.plan(t, in, nil)
				if got != n+size || fmt.Sprint(ext) != fmt.Sprint(want) {
					t.Fatalf("prefix %d, size %d, offset %d: size %d, %v, want %v", n, size, in.Offset, got, ext, want)
				}
				if part == 0 && in.Offset < n && !bytes.Equal(data, text[:n]) {
					t.Fatalf("prefix %d: other bytes", n)
				}
				in.Flags = inAttr
				ret, out := p.ask(t, &in)
				if ret != 0 || (n > 0) != (out.Flags == outSize) || n > 0 && out.Size != n+size {
					t.Fatalf("size only: %d, flags %#x, %d", ret, out.Flags, out.Size)
				}
				in.Flags = 0
				for range 2 { // upper; another name
					in.Layer = 1 - in.Layer
					if ret, out := p.ask(t, &in); ret != 0 || out.Flags != 0 || out.NExtents != 0 {
						t.Fatalf("layer %d: %d, flags %#x", in.Layer, ret, out.Flags)
					}
					in.setName("a.h")
				}
			}
			if n > 0 {
				in := input{Size: math.MaxUint64, Layer: 1}
				in.setName("a.c")
				if ret, _ := p.ask(t, &in); ret != -int32(unix.EFBIG) {
					t.Fatalf("too large: %d", ret)
				}
			}
			p.coll.Close()
		}
	}
	p := load(t, "prepend", vars{"prefix_len": uint64(4097)}, nil)
	if ret, _ := p.ask(t, &input{Layer: 1}); ret != -int32(unix.EIO) {
		t.Fatalf("more than fits: %d", ret)
	}
}
