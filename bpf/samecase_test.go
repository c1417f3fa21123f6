// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/bpf/internal/config"
	"github.com/plyfs/plyfs/stack"
)

// sameCase makes random policies and questions.
type sameCase struct {
	*rand.Rand
	dir   string
	parts []string // files that rules name
	model *model
}

var (
	sameDirs  = []string{"/", "/d", "/d/e", "/d/e/d", "/de", "/f"}
	sameNames = []string{"a", "b", "ab", "aab", "a.b", ".a", "a*", "[a]", "x-y", "\\", "d", "e", "ü", "zzzzzzzzzz.txt"}
)

// one takes one of a list.
func one[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func newSameCase(t *testing.T, seed, n uint64) *sameCase {
	t.Helper()
	c := &sameCase{Rand: rand.New(rand.NewPCG(seed, n)), dir: t.TempDir()}
	c.model = &model{sizes: map[string]int64{}, lower: map[string]int64{}}
	for i, size := range []int{0, 1, 7, 100, 4096, 5000, 65536} {
		name := filepath.Join(c.dir, fmt.Sprintf("part%d", i))
		writeFile(t, name, strings.Repeat(string(rune('A'+i)), size))
		c.parts = append(c.parts, name)
		c.model.sizes[name] = int64(size)
	}
	return c
}

// rules is the text of a random policy.
func (c *sameCase) rules(t *testing.T) string {
	var b strings.Builder
	places := append(slices.Clone(sameDirs), "/d/a", "/d/e/ab", "/a.b")
	c.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	for i, place := range append([]string{"/"}, slices.DeleteFunc(places, func(s string) bool { return s == "/" })[:1+c.IntN(4)]...) {
		if i == 0 || c.IntN(2) > 0 {
			b.WriteString(ruleText(place, "select", "clauses:"+c.clauses()))
		}
		switch {
		case c.IntN(3) > 0:
			for range 1 + c.IntN(3) {
				b.WriteString(c.fileRule(place, "match: ["+c.patterns()+"]"))
			}
		case c.IntN(3) > 0:
			b.WriteString(c.splitRule(t, place))
		default:
			b.WriteString(c.fileRule(place, ""))
		}
	}
	return b.String()
}

// pattern is a random pattern that a policy file may have. Classes like
// "[[:alpha:]]" are none that programs take.
func (c *sameCase) pattern() string {
	if c.IntN(2) == 0 {
		return one(c.Rand, []string{"*", "a*", "*b*", "?", "[ab]*", "[!ab]*", `[\[\\]*`, "*.*"})
	}
	for {
		var b strings.Builder
		for range 1 + c.IntN(8) {
			b.WriteString(one(c.Rand, []string{"a", "b", ".", "*", "*", "?", "[", "]", "!", "^", "-", `\`, "x", "ü", "[ab]", "[!a]", "[^.]", "[]-]", "[a-z]"}))
		}
		if s := b.String(); config.CheckPattern(s) == nil {
			return s
		}
	}
}

// quoted writes a string as YAML has it.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (c *sameCase) patterns() string {
	var list []string
	for range 1 + c.IntN(3) {
		list = append(list, quoted(c.pattern()))
	}
	return strings.Join(list, ", ")
}

// offset is a random place in a file, near to where something happens.
func (c *sameCase) offset() int64 {
	switch c.IntN(4) {
	case 0:
		return int64(c.IntN(20))
	case 1:
		return 4096 - 3 + int64(c.IntN(6))
	case 2:
		return int64(c.IntN(1 << 17))
	}
	return int64(1)<<c.IntN(40) + int64(c.IntN(3)) - 1
}

func (c *sameCase) ranges() string {
	var list []string
	n := one(c.Rand, []int{1, 2, 16, 17, 60, 300})
	for range n {
		off := c.offset()
		if n > 10 {
			off = int64(c.IntN(n * 40))
		}
		list = append(list, fmt.Sprintf("\"%d+%d\"", off, 1+c.IntN(30)))
	}
	return strings.Join(list, ", ")
}

// fileRule is a rule for redact or prepend.
func (c *sameCase) fileRule(place, match string) string {
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a' + byte(c.IntN(26))
		}
		return "text: " + string(b)
	}
	switch c.IntN(6) {
	case 0:
		return ruleText(place, "redact", match, "whole: true")
	case 1:
		return ruleText(place, "prepend", match, text(1+c.IntN(20)))
	case 2:
		return ruleText(place, "prepend", match, text(one(c.Rand, []int{4095, 4096, 4097, 9000})))
	case 3:
		return ruleText(place, "prepend", match, "file: "+one(c.Rand, c.parts[1:]))
	}
	return ruleText(place, "redact", match, "ranges: ["+c.ranges()+"]")
}

// splitRule is a rule for split: parts, or patches over a base.
func (c *sameCase) splitRule(t *testing.T, place string) string {
	more := []string{}
	if c.IntN(2) == 0 {
		list := []string{c.parts[2]}
		for range c.IntN(40) {
			list = append(list, one(c.Rand, c.parts))
		}
		more = append(more, "parts: ["+strings.Join(list, ", ")+"]")
		if c.IntN(3) == 0 {
			more = append(more, fmt.Sprintf("size: %d", 1+c.IntN(1000)))
		}
		return ruleText(place, "split", more...)
	}
	more = append(more, "patches: ["+c.patches()+"]")
	switch c.IntN(3) {
	case 0:
		more = append(more, "base: "+one(c.Rand, c.parts[1:]))
	case 1:
		if slices.Contains(sameDirs, place) {
			break // a size of its own is for one file
		}
		c.lowerFile(t, place)
		more = append(more, fmt.Sprintf("size: %d", 1+c.IntN(10_000)))
	}
	return ruleText(place, "split", more...)
}

func (c *sameCase) patches() string {
	var list []string
	for range 1 + c.IntN(40) {
		i := 1 + c.IntN(len(c.parts)-1)
		size := c.model.sizes[c.parts[i]]
		from := c.Int64N(size)
		list = append(list, fmt.Sprintf("{offset: %d, file: %s, from: %d, length: %d}", c.IntN(20_000), c.parts[i], from, 1+c.Int64N(size-from)))
	}
	return strings.Join(list, ", ")
}

// lowerFile makes the file of a place in a lower layer.
func (c *sameCase) lowerFile(t *testing.T, place string) {
	name := filepath.Join(c.dir, "lower", place)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	c.model.lower[place] = int64(c.IntN(9000))
	writeFile(t, name, strings.Repeat("l", int(c.model.lower[place])))
}

// clauses is a random list of them.
func (c *sameCase) clauses() string {
	var b strings.Builder
	b.WriteByte('\n')
	for range one(c.Rand, []int{2, 5, 20, 64}) {
		fmt.Fprintf(&b, "      - {match: %s, %s", quoted(c.pattern()), one(c.Rand, []string{
			"hide: true", "deny: true", "show: true", "skip: 1", "skip: [1, 3]", "layer: 1", "layer: 2", "layer: 3, or: hide", "layer: 2, or: leave"}))
		if c.IntN(3) == 0 {
			fmt.Fprintf(&b, ", type: %s", one(c.Rand, []string{"file", "dir", "symlink"}))
		}
		ids := c.IntN(6)
		if ids&1 == 1 {
			fmt.Fprintf(&b, ", uid: %s", one(c.Rand, []string{"0", "1000-1999", "1005"}))
		}
		if ids&2 == 2 {
			fmt.Fprintf(&b, ", gid: %s", one(c.Rand, []string{"0", "1000-1999", "5"}))
		}
		if ids&3 > 0 && c.IntN(2) == 0 {
			b.WriteString(", not: true")
		}
		b.WriteString("}\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (c *sameCase) place() string { return path.Join(one(c.Rand, sameDirs), one(c.Rand, sameNames)) }

func (c *sameCase) who() stack.Caller {
	id := func() uint32 { return one(c.Rand, []uint32{0, 5, 999, 1000, 1005, 1999, 2000, stack.NobodyID}) }
	return stack.Caller{UID: id(), GID: id(), PID: 1}
}

func (c *sameCase) nameQuery() stack.NameQuery {
	q := nameOf(c.place())
	typ := one(c.Rand, []uint32{unix.S_IFREG, unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, 0})
	q.Caller, q.Type, q.Mode, q.Layers = c.who(), typ, typ|0o644, 5
	q.Holders = uint64(1 + c.IntN(31))
	q.Layer = slices.IndexFunc([]int{0, 1, 2, 3, 4}, func(k int) bool { return q.Holders>>k&1 == 1 })
	if c.IntN(3) == 0 {
		q.Listing, q.Layer, q.Holders, q.Mode, q.Size = true, -1, 0, 0, 0
	}
	return q
}

func (c *sameCase) fileQuery() stack.FileQuery {
	q := fileOf(c.place(), c.offset())
	switch c.IntN(20) {
	case 0:
		q.Size = 0
	case 1:
		q.Size = math.MaxInt64
	}
	q.Caller, q.Data = c.who(), strings.NewReader("")
	if c.IntN(5) == 0 {
		q.Layer, q.Holders = 0, 1
	}
	return q
}
