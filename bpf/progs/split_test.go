// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"fmt"
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSplit(t *testing.T) {
	r := newRand(t)
	for range 150 * *rounds {
		fromSelf := uint32(r.IntN(2))
		n := r.IntN(100)
		table := make([]extent, n)
		a := arrays{"table": nil}
		var total uint64
		for i := range table {
			e := extent{Off: total, Len: 1 + r.Uint64N(50), Src: r.Uint64N(1 << 50), Backing: part0 + uint32(r.IntN(5))}
			switch r.IntN(5) {
			case 0:
				e.Kind, e.Src, e.Backing = zero, 0, 0
			case 1:
				e.Src, e.Backing = total, self
			}
			total += e.Len
			table[i] = e
			a["table"] = append(a["table"], e)
		}
		p := load(t, "split", vars{"n_table": uint32(n), "total": total, "size_from_self": fromSelf}, a)
		for range 30 {
			in := input{Size: r.Uint64N(total + 100), Layer: 1}
			in.setName("a")
			size := total
			if fromSelf == 1 {
				size = in.Size
			}
			if r.IntN(2) == 0 && size > 0 && n > 0 {
				in.Offset = r.Uint64N(size)
			}
			var want []extent
			for _, e := range append(table, extent{total, math.MaxUint64 - total, total, backing, self}) {
				cut := uint64(0)
				if in.Offset > e.Off {
					cut = in.Offset - e.Off
				}
				if cut >= e.Len || e.Off+cut >= size {
					continue
				}
				e.Off += cut
				e.Len = min(e.Len-cut, size-e.Off)
				if e.Kind == backing {
					e.Src += cut
				}
				want = append(want, e)
			}
			if n == 0 {
				want = nil
			}
			ext, got, _ := p.plan(t, in, nil)
			if got != size || fmt.Sprint(ext) != fmt.Sprint(want) {
				t.Fatalf("table of %d, size %d, offset %d: size %d, %v, want %v", n, size, in.Offset, got, ext, want)
			}
			in.Flags = inAttr
			ret, out := p.ask(t, &in)
			if ret != 0 || out.NExtents != 0 || fromSelf == 0 && out.Size != total {
				t.Fatalf("size only: %d, flags %#x, %d", ret, out.Flags, out.Size)
			}
			in.Flags, in.Layer = 0, 0
			if ret, out := p.ask(t, &in); ret != 0 || out.Flags != 0 || out.NExtents != 0 {
				t.Fatalf("upper: %d, flags %#x", ret, out.Flags)
			}
		}
		p.coll.Close()
	}
	// The table does not have what total says.
	p := load(t, "split", vars{"n_table": uint32(1), "total": uint64(20)}, arrays{"table": {extent{Len: 10}}})
	if ret, _ := p.ask(t, &input{Layer: 1}); ret != -int32(unix.EIO) {
		t.Errorf("short table: %d", ret)
	}
	if ret, _ := p.ask(t, &input{Layer: 1, Offset: 15}); ret != -int32(unix.EIO) {
		t.Errorf("behind a short table: %d", ret)
	}
}

func TestSplitMillion(t *testing.T) {
	const n = 1 << 20
	v := make([]extent, n)
	for i := range v {
		v[i] = extent{uint64(i) * 4096, 4096, uint64(n-i) * 4096, backing, part0}
	}
	p := loadBig(t, "split", "table", v, vars{"total": uint64(n * 4096)})
	in := input{Layer: 1}
	r := newRand(t)
	for range 2000 {
		in.Offset = r.Uint64N(n * 4096)
		ret, out := p.ask(t, &in)
		if ret != 0 || out.NExtents != uint32(min(maxExtents, n-in.Offset/4096)) {
			t.Fatalf("offset %d: %d, %d extents", in.Offset, ret, out.NExtents)
		}
		off := in.Offset
		for _, e := range out.Extents[:out.NExtents] {
			k := off % 4096
			if want := (extent{off, 4096 - k, (n-off/4096)*4096 + k, backing, part0}); e != want {
				t.Fatalf("offset %d: %+v, want %+v", off, e, want)
			}
			off += e.Len
		}
	}
}
