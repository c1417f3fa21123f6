// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Run with -bench: ns/op is a whole bpf(2) call, body-ns what the program
// itself takes in it.
func bench(b *testing.B, p *program, in input) {
	if ret, _ := p.ask(b, &in); ret != 0 {
		b.Fatalf("answer %d", ret)
	}
	out := &p.slots[0].Out
	for b.Loop() {
		out.NExtents = 0
		p.call(b)
	}
	b.StopTimer()
	c, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return
	}
	defer c.Close()
	const n = 2000
	for range n {
		out.NExtents = 0
		p.call(b)
	}
	if s, err := p.Stats(); err == nil && s.RunCount > 0 {
		b.ReportMetric(float64(s.Runtime.Nanoseconds())/float64(s.RunCount), "body-ns")
	}
}

func BenchmarkRedact(b *testing.B) {
	for _, n := range []int{1, 100, 1 << 20} {
		b.Run(fmt.Sprintf("ranges=%d", n), func(b *testing.B) {
			v := make([]span, n)
			for i := range v {
				v[i] = span{uint64(i)*100 + 10, 20}
			}
			p := loadBig(b, "redact", "ranges", v, nil)
			in := input{Size: uint64(n) * 100, Offset: uint64(n) * 50}
			if n == 1 {
				in.Offset = 0
			}
			bench(b, p, in)
		})
	}
}

// A pattern that fails late, everywhere in a name of this one letter.
var worst = "*" + strings.Repeat("a", 61) + "ba"

func BenchmarkGlob(b *testing.B) {
	fill := func(n int, p string) (ps []string) {
		for range n {
			ps = append(ps, p)
		}
		return ps
	}
	for _, c := range []struct {
		what     string
		patterns []string
		name     string
	}{
		{"none", nil, "server.key"},
		{"suffix", []string{"*.key"}, "server.key"},
		{"32suffixes", fill(32, "*.key"), "server.crt"},
		{"32literals", fill(32, "id_rsa"), "server.crt"},
		{"contains", []string{"*secret*"}, "quite-an-ordinary-name.txt"},
		{"set", []string{"*.[ch]"}, "server.crt"},
		{"worst", []string{worst}, strings.Repeat("a", 255)},
		{"32worst", fill(32, worst), strings.Repeat("a", 255)},
	} {
		b.Run(c.what, func(b *testing.B) {
			in := input{Size: 1}
			in.setName(c.name)
			bench(b, newMatcher(b, c.patterns...).program, in)
		})
	}
}

func BenchmarkPrepend(b *testing.B) {
	for _, part := range []uint32{0, 1} {
		b.Run(fmt.Sprintf("part=%d", part), func(b *testing.B) {
			bench(b, load(b, "prepend", vars{"prefix_len": uint64(4096), "prefix_part": part}, nil), input{Size: 1, Layer: 1})
		})
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, n := range []int{1, 100, 1 << 20} {
		b.Run(fmt.Sprintf("table=%d", n), func(b *testing.B) {
			v := make([]extent, n)
			for i := range v {
				v[i] = extent{uint64(i) * 4096, 4096, 0, backing, part0}
			}
			p := loadBig(b, "split", "table", v, vars{"total": uint64(n) * 4096})
			bench(b, p, input{Layer: 1, Offset: uint64(n/2) * 4096})
		})
	}
}

func BenchmarkSelect(b *testing.B) {
	for _, c := range []struct {
		what string
		n    int
		c    clause
		name string
	}{
		{"1", 1, clause{Pattern: mkPattern(".*"), Action: actHide}, "Makefile"},
		{"64", 64, clause{Pattern: mkPattern("*.key"), Action: actHide}, "server.crt"},
		{"64callers", 64, clause{Pattern: mkPattern("*.key"), Action: actHide, Flags: hasUID, UIDLo: 5, UIDHi: 5}, "server.crt"},
		{"64worst", 64, clause{Pattern: mkPattern(worst), Action: actHide}, strings.Repeat("a", 255)},
	} {
		b.Run(c.what, func(b *testing.B) {
			a := arrays{"clauses": nil}
			for range c.n {
				a["clauses"] = append(a["clauses"], c.c)
			}
			in := input{Op: opLookup, Layers: 2}
			in.setName(c.name)
			bench(b, load(b, "select", vars{"n_clauses": uint32(c.n)}, a), in)
		})
	}
}
