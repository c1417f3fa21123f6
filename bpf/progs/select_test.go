// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	hasUID, hasGID, invert, orHide = 1, 2, 4, 8

	actHide, actChoose, actSkip, actShow, actDeny = 1, 2, 3, 4, 5
)

// decide is the model of select.
func decide(cs []clause, in *input, name string) (ret int32, flags, layer uint32, skip uint64) {
	for _, c := range cs {
		stern := c.Action == actHide || c.Action == actDeny
		test := func(known, is bool) bool { return known && is || !known && stern }
		uid := c.Flags&hasUID == 0 || in.UID >= c.UIDLo && in.UID <= c.UIDHi
		gid := c.Flags&hasGID == 0 || in.GID >= c.GIDLo && in.GID <= c.GIDHi
		known := in.UID != nobody && in.GID != nobody
		if c.Flags&(hasUID|hasGID) != 0 && !test(known, (uid && gid) != (c.Flags&invert != 0)) {
			continue
		}
		if typ := in.Mode & unix.S_IFMT; c.TypeFmt != 0 && !test(typ != 0, typ == c.TypeFmt) {
			continue
		}
		ts, ok := parse(string(c.Pattern.Text[:c.Pattern.Len]))
		if !ok {
			panic("no pattern")
		}
		if c.Pattern.Len != 0 && !match(ts, name) {
			continue
		}
		switch c.Action {
		case actHide:
			return 0, outHide, 0, 0
		case actChoose:
			switch {
			case in.Layers&1 != 0, in.Op == opReaddir && in.Layers == 0:
			case c.Layer > 0 && c.Layer < 63 && in.Layers&(1<<c.Layer) != 0:
				return 0, outChoose, c.Layer, 0
			case c.Flags&orHide != 0:
				return 0, outHide, 0, 0
			}
		case actSkip:
			return 0, 0, 0, c.Skip &^ 1
		case actDeny:
			if in.Op != opReaddir {
				return -int32(unix.EACCES), 0, 0, 0
			}
		}
		return 0, 0, 0, 0
	}
	return 0, 0, 0, 0
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func TestSelect(t *testing.T) {
	r := newRand(t)
	seen := map[string]int{}
	for range 200 * *rounds {
		cs := make([]clause, pick(r, 0, 1, 2, 3, 8, 64))
		a := arrays{"clauses": nil}
		for i := range cs {
			c := clause{
				Flags:  uint32(r.IntN(16)),
				Action: 1 + uint32(r.IntN(5)),
				Layer:  pick[uint32](r, 0, 1, 2, 3, 62, 63, 64, nobody),
				UIDLo:  pick[uint32](r, 0, 1000), UIDHi: pick[uint32](r, 0, 1000, nobody),
				GIDLo: pick[uint32](r, 0, 1000), GIDHi: pick[uint32](r, 0, 1000, nobody),
				TypeFmt: pick[uint32](r, 0, 0, unix.S_IFREG, unix.S_IFDIR),
				Skip:    r.Uint64(),
			}
			for {
				p := patternOf(r, randBytes(r, "abc", 1+r.IntN(6)))
				if r.IntN(10) == 0 {
					p = ""
				}
				if _, ok := parse(p); ok && len(p) <= 64 {
					c.Pattern = mkPattern(p)
					break
				}
			}
			cs[i] = c
			a["clauses"] = append(a["clauses"], c)
		}
		p := load(t, "select", vars{"n_clauses": uint32(len(cs))}, a)
		for range 300 {
			name := randBytes(r, "abc", 1+r.IntN(6))
			in := input{
				Op: pick[uint32](r, opLookup, opReaddir), Mode: pick[uint32](r, unix.S_IFREG, unix.S_IFDIR, 0),
				UID: pick[uint32](r, 0, 1, 999, 1000, 1001, nobody), GID: pick[uint32](r, 0, 1, 1000, 1001, nobody),
				Layers: pick(r, 0, 1, 2, 4, 6, 7, 14, 14, 1<<62, 1<<63, r.Uint64()),
			}
			in.setName(name)
			ret, out := p.ask(t, &in)
			wret, wflags, wlayer, wskip := decide(cs, &in, name)
			if ret != wret || out.Flags != wflags || out.Layer != wlayer || out.Skip != wskip {
				t.Fatalf("%q of %+v: %d %d %d %#x, want %d %d %d %#x\n%+v", name, in, ret, out.Flags, out.Layer, out.Skip,
					wret, wflags, wlayer, wskip, cs)
			}
			seen[fmt.Sprint(ret, out.Flags, out.Skip != 0)]++
		}
		p.coll.Close()
	}
	t.Log(seen)
}

func TestSelectBroken(t *testing.T) {
	c := clause{Pattern: mkPattern("[a"), Action: actHide}
	p := load(t, "select", vars{"n_clauses": uint32(1)}, arrays{"clauses": {c}})
	in := input{Op: opLookup}
	in.setName("a")
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("no pattern: %d", ret)
	}
	c = clause{Action: 9}
	p = load(t, "select", vars{"n_clauses": uint32(1)}, arrays{"clauses": {c}})
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("no action: %d", ret)
	}
	p = load(t, "select", vars{"n_clauses": uint32(65)}, nil)
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("65 clauses: %d", ret)
	}
}
