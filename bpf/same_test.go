// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/stack"
)

var (
	sameSeed   = flag.Uint64("seed", 1, "of the random policies")
	sameRounds = flag.Int("rounds", 12, "how many random policies")
)

// What programs decide is what the policy file means, whoever asks about
// whatever.
func TestSameDecisions(t *testing.T) {
	t.Logf("seed %d", *sameSeed)
	for n := range *sameRounds {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := newSameCase(t, *sameSeed, uint64(n))
			text := c.rules(t)
			p := mustPolicy(t, Options{Lowers: []string{c.dir + "/none", c.dir + "/lower", c.dir, c.dir}}, text)
			for _, r := range p.rules {
				c.model.rules = append(c.model.rules, *r.Rule)
			}
			for range 400 {
				c.sameName(t, p)
				c.sameFile(t, p)
			}
			if t.Failed() {
				t.Logf("the policy:\n%s", text)
			}
		})
	}
}

func (c *sameCase) sameName(t *testing.T, p *Policy) {
	t.Helper()
	q := c.nameQuery()
	if got, want := p.Name(q), c.model.Name(q); got != want {
		t.Errorf("%+v:\n%+v, want\n%+v; %v", q, got, want, p.Rules(q.Place))
	}
}

func (c *sameCase) sameFile(t *testing.T, p *Policy) {
	t.Helper()
	q := c.fileQuery()
	want := c.model.File(q)
	a := p.File(q)
	got := shownBy(t, a, q)
	if got.size != want.size || got.errno != want.errno || !slices.Equal(got.pieces, want.pieces) {
		t.Errorf("%+v:\n%.600s, want\n%.600s; %v", q, fmt.Sprint(got), fmt.Sprint(want), p.Rules(q.Place))
	}
	if a.Plan != nil {
		c.samePieces(t, a.Plan, want)
		a.Plan.Release()
	}
	c.sameSize(t, p, q, want)
}

// samePieces asks for windows that begin anywhere.
func (c *sameCase) samePieces(t *testing.T, plan *stack.Plan, want shown) {
	t.Helper()
	for range min(3, plan.Size) {
		off := c.Int64N(plan.Size)
		w, err := plan.Window(off)
		if err != nil || len(w.Extents) == 0 || w.Extents[0].Off != off {
			t.Errorf("window at %d: %+v, %v", off, w, err)
			return
		}
		i := slices.IndexFunc(want.pieces, func(p piece) bool { return p.off <= off && off-p.off < p.len })
		got, expect := pieceOf(t, plan, w, w.Extents[0]), want.pieces[i]
		skip := off - expect.off
		switch {
		case got.from != expect.from:
		case got.from == "zero", got.from == "literal" && strings.HasPrefix(expect.bytes[skip:], got.bytes), got.from != "literal" && got.src == expect.src+skip:
			continue
		}
		t.Errorf("byte %d: %.300s, want %.300s", off, fmt.Sprint(got), fmt.Sprint(expect))
	}
}

// sameSize compares what is told to those who only ask for the size.
func (c *sameCase) sameSize(t *testing.T, p *Policy, q stack.FileQuery, want shown) {
	t.Helper()
	q.AttrOnly, q.Data = true, nil
	a := p.File(q)
	size := q.Size
	if a.Plan != nil {
		size = a.Plan.Size
		a.Plan.Release()
	}
	if a.Errno != want.errno || a.Errno == 0 && size != want.size {
		t.Errorf("size of %+v: %d, %v, want %d, %v; %v", q, size, a.Errno, want.size, want.errno, p.Rules(q.Place))
	}
}

// What stack.TablePolicy can say, programs say alike.
func TestSameAsTable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(*sameSeed, 1<<32))
	t.Logf("seed %d", *sameSeed)
	table := &stack.TablePolicy{Hide: map[string]bool{}, Layer: map[string]int{}, Blank: map[string][]stack.Range{}, Prepend: map[string][]byte{}}
	names := []string{}
	clauses, rules := "", ""
	for i := range 30 {
		name := fmt.Sprintf("n%d", i)
		names = append(names, name)
		switch i % 3 {
		case 0:
			table.Hide[name] = true
			clauses += fmt.Sprintf("\n      - {match: %s, hide: true}", name)
		case 1:
			table.Layer[name] = 1 + i%4
			clauses += fmt.Sprintf("\n      - {match: %s, layer: %d}", name, 1+i%4)
		}
		if i%2 == 0 {
			table.Blank[name] = []stack.Range{{Off: int64(i), Len: 3}, {Off: int64(i) + 100, Len: 1}, {Off: 5000, Len: 1 << 20}}
			rules += ruleText("/", "redact", "match: "+name, fmt.Sprintf("ranges: [%d+3, %d+1, 5000+1M]", i, i+100))
		} else {
			table.Prepend[name] = []byte(strings.Repeat("p", i*200))
			rules += ruleText("/", "prepend", "match: "+name, "text: "+strings.Repeat("p", i*200))
		}
	}
	p := mustPolicy(t, Options{}, ruleText("/", "select", "clauses:"+clauses)+rules)
	c := &sameCase{Rand: rnd}
	for range 2000 {
		n, f := c.nameQuery(), c.fileQuery()
		name := one(rnd, names)
		n.Place, n.Name, f.Place, f.Name = "/x/"+name, name, "/x/"+name, name
		if n.Holders &^= 1; n.Layer == 0 { // what is in upper stays there: stack sees to that for a table
			n.Layer = 1
		}
		if got, want := p.Name(n), table.Name(n); got != want {
			t.Errorf("%+v: %+v, want %+v", n, got, want)
		}
		if f.Size == math.MaxInt64 {
			continue // a table's prefix would overflow
		}
		a := p.File(f)
		got, want := shownBy(t, a, f), shownBy(t, table.File(f), f)
		if got.size != want.size || got.errno != want.errno || !slices.Equal(got.pieces, want.pieces) {
			t.Errorf("%+v: %.300s, want %.300s", f, fmt.Sprint(got), fmt.Sprint(want))
		}
		if a.Plan != nil {
			a.Plan.Release()
		}
	}
}
