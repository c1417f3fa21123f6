// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/stack"
)

// BenchmarkDecision is what a policy takes to decide about a file or a name:
// the rule that governs it, the program's run, and what is made of its answer.
// Of a long plan that is the first window.
func BenchmarkDecision(b *testing.B) {
	for _, c := range []struct {
		name  string
		rules func(b *testing.B) string
		names bool
	}{
		{"redact-1", func(*testing.B) string { return ruleText("/", "redact", "ranges: ["+manyRanges(1)+"]") }, false},
		{"redact-4096", func(*testing.B) string { return ruleText("/", "redact", "ranges: ["+manyRanges(4096)+"]") }, false},
		{"prepend", func(*testing.B) string { return ruleText("/", "prepend", "text: a license, say") }, false},
		{"split-64", func(b *testing.B) string { return splitOf(b, 64) }, false},
		{"split-4096", func(b *testing.B) string { return splitOf(b, 4096) }, false},
		{"select-1", func(*testing.B) string { return selectOf(1) }, true},
		{"select-64", func(*testing.B) string { return selectOf(64) }, true},
		{"user-program", func(b *testing.B) string { return ruleText("/", build(b, "../examples/blank_header.c")) }, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := mustPolicy(b, Options{}, c.rules(b))
			b.ReportAllocs()
			if c.names {
				benchNames(b, p)
			} else {
				benchFiles(b, p)
			}
		})
	}
}

func benchFiles(b *testing.B, p *Policy) {
	q := fileOf("/dir/file.txt", 1<<20)
	for b.Loop() {
		a := p.File(q)
		if a.Errno != 0 || a.Plan == nil {
			b.Fatalf("%+v", a)
		}
		a.Plan.Release()
	}
}

func benchNames(b *testing.B, p *Policy) {
	q := nameOf("/dir/file.txt")
	for b.Loop() {
		if a := p.Name(q); a != (stack.NameAnswer{Hide: true}) {
			b.Fatalf("%+v", a)
		}
	}
}

// splitOf is a rule for a file of n extents: a part in n pieces, over zeros.
func splitOf(b *testing.B, n int) string {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "part"), make([]byte, 4096), 0o644); err != nil {
		b.Fatal(err)
	}
	var list []string
	for i := range n / 2 {
		list = append(list, fmt.Sprintf("{offset: %d, file: part, length: 16}", 16+32*i))
	}
	writeFile(b, filepath.Join(dir, "base"), "")
	return ruleText("/", "split", "patches: ["+strings.ReplaceAll(strings.Join(list, ", "), "part", dir+"/part")+"]",
		fmt.Sprintf("base: %s/base", dir), fmt.Sprintf("size: %d", 16*n))
}

// selectOf is a rule of n clauses, of which the last hides the file.
func selectOf(n int) string {
	var list []string
	for range n - 1 {
		list = append(list, `{match: "*.jpg", hide: true}`)
	}
	return ruleText("/", "select", "clauses: ["+strings.Join(append(list, `{match: "*.txt", hide: true}`), ", ")+"]")
}
