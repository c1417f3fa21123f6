// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A token of a pattern: a star, or the set of bytes that it takes.
type token struct {
	star bool
	set  [256]bool
}

// parse is the model of the syntax that match.h tells; false for no pattern.
func parse(p string) (ts []token, ok bool) {
	for len(p) > 0 {
		var t token
		c := p[0]
		p = p[1:]
		switch c {
		case '*':
			t.star = true
		case '?':
			for i := range t.set {
				t.set[i] = true
			}
		case '\\':
			if p == "" {
				return nil, false
			}
			t.set[p[0]] = true
			p = p[1:]
		case '[':
			not := p != "" && (p[0] == '!' || p[0] == '^')
			if not {
				p = p[1:]
			}
			for first := true; first || p == "" || p[0] != ']'; first = false {
				var lo, hi byte
				if lo, p, ok = setByte(p); !ok {
					return nil, false
				}
				hi = lo
				if len(p) > 1 && p[0] == '-' && p[1] != ']' {
					if hi, p, ok = setByte(p[1:]); !ok {
						return nil, false
					}
				}
				for i := int(lo); i <= int(hi); i++ {
					t.set[i] = true
				}
			}
			p = p[1:]
			if not {
				for i := range t.set {
					t.set[i] = !t.set[i]
				}
			}
		default:
			t.set[c] = true
		}
		ts = append(ts, t)
	}
	return ts, true
}

func setByte(p string) (c byte, rest string, ok bool) {
	switch {
	case p == "",
		p[0] == '\\' && len(p) == 1,
		p[0] == '[' && len(p) > 1 && strings.IndexByte(":.=", p[1]) >= 0:
		return 0, "", false
	case p[0] == '\\':
		p = p[1:]
	}
	return p[0], p[1:], true
}

// match is the model: all states at once, no going back.
func match(ts []token, name string) bool {
	at := make([]bool, len(ts)+1)
	skip := func() {
		for i, t := range ts {
			if t.star && at[i] {
				at[i+1] = true
			}
		}
	}
	at[0] = true
	skip()
	for i := range len(name) {
		next := make([]bool, len(ts)+1)
		for k, t := range ts {
			switch {
			case !at[k]:
			case t.star:
				next[k] = true
			case t.set[name[i]]:
				next[k+1] = true
			}
		}
		at = next
		skip()
	}
	return at[len(ts)]
}

// A matcher is redact as an oracle of names: it blanks what matches.
type matcher struct{ *program }

func newMatcher(tb testing.TB, patterns ...string) matcher {
	tb.Helper()
	a := arrays{"patterns": nil}
	for _, p := range patterns {
		a["patterns"] = append(a["patterns"], mkPattern(p))
	}
	return matcher{load(tb, "redact", vars{"n_patterns": uint32(len(patterns)), "whole": uint32(1)}, a)}
}

// match returns 1, 0 or a negative errno.
func (m matcher) match(tb testing.TB, name string) int {
	in := input{Op: opOpen, Size: 1}
	in.setName(name)
	ret, out := m.ask(tb, &in)
	if ret != 0 {
		return int(ret)
	}
	return int(out.NExtents)
}

func (m matcher) set(tb testing.TB, i int, p string) {
	tb.Helper()
	if err := m.coll.Maps["patterns"].Put(uint32(i), mkPattern(p)); err != nil {
		tb.Fatal(err)
	}
}

func TestGlobTable(t *testing.T) {
	m := newMatcher(t, "")
	const eio = -int(unix.EIO)
	long := strings.Repeat("a", 255)
	for _, c := range []struct {
		pattern, name string
		want          int
	}{
		{"*", "a", 1},
		{"*", ".a", 1},
		{"**", "a", 1},
		{"", "a", 0},
		{"a", "a", 1},
		{"a", "ab", 0},
		{"ab", "a", 0},
		{"a*", "a", 1},
		{"*a", "a", 1},
		{"*a*", "xay", 1},
		{"*.key", ".key", 1},
		{"*.key", "a.key.key", 1},
		{"*.key", "a.keys", 0},
		{"?", "a", 1},
		{"?", "ab", 0},
		{"??", "a", 0},
		{"a?c", "abc", 1},
		{"[abc]", "b", 1},
		{"[abc]", "d", 0},
		{"[!abc]", "d", 1},
		{"[!abc]", "a", 0},
		{"[^abc]", "a", 0},
		{"[a-c]x", "bx", 1},
		{"[a-cx-z]", "y", 1},
		{"[c-a]", "b", 0},
		{"[]]", "]", 1},
		{"[]-a]", "^", 1},
		{"[!]]", "]", 0},
		{"[!]]", "a", 1},
		{"[a-]", "-", 1},
		{"[-a]", "-", 1},
		{"[--0]", ".", 1},
		{`[\]]`, "]", 1},
		{`[\a-\c]`, "b", 1},
		{`[a\-c]`, "b", 0},
		{`[a\-c]`, "-", 1},
		{"[[]", "[", 1},
		{"[!!]", "!", 0},
		{"[*]", "*", 1},
		{"[?]", "a", 0},
		{`\*`, "*", 1},
		{`\*`, "a", 0},
		{`\\`, `\`, 1},
		{`*\?`, "a?", 1},
		{"*[0-9]", "a1b2", 1},
		{"*[0-9]", "a1b", 0},
		{"*[!0-9]*z", "1a2z", 1},
		{"[\x80-\xff]", "\xc3", 1},
		{"[!a]", "\xff", 1},
		{strings.Repeat("*", 64), "a", 1},
		{strings.Repeat("a", 64), long, 0},
		{strings.Repeat("a", 63) + "*", long, 1},
		{strings.Repeat("?", 64), long[:64], 1},
		{strings.Repeat("*a", 32), long, 1},
		{strings.Repeat("*a", 31) + "*b", long, 0},
		{"*" + strings.Repeat("a", 62) + "b", long, 0},
		{"*" + strings.Repeat("[a]", 20) + "[b]", long, 0},
		{"*" + strings.Repeat("a", 62) + "b", long[:254] + "b", 1},
		{worst, long, 0},
		{strings.Repeat("*a", 31) + "ba", long, 0},
		// No patterns, no decisions.
		{"[", "a", eio},
		{"[a", "a", eio},
		{"[]", "a", eio},
		{"[!]", "a", eio},
		{"[a-", "a", eio},
		{`[\`, "a", eio},
		{`[a-\`, "a", eio},
		{`[\]`, "a", eio},
		{`\`, "a", eio},
		{`a\`, "ab", eio},
		{"[[:alpha:]]", "a", eio},
		{"[a-[.-.]]", "a", eio},
		{"*[", "a", eio},
		{"*[a", "b", eio},
		{"*", "", eio}, // a file without a name
	} {
		m.set(t, 0, c.pattern)
		if got := m.match(t, c.name); got != c.want {
			t.Errorf("%q, name %q: %d, want %d", c.pattern, c.name, got, c.want)
		}
	}
}

func randBytes(r *rand.Rand, from string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = from[r.IntN(len(from))]
	}
	return string(b)
}

// A pattern that comes from a name and so has a chance to match it.
func patternOf(r *rand.Rand, name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch c := name[i]; r.IntN(9) {
		case 0:
			b.WriteByte('?')
		case 1:
			fmt.Fprintf(&b, "[%c]", c)
		case 2:
			fmt.Fprintf(&b, "[!%c]", c+1)
		case 3:
			fmt.Fprintf(&b, "[%c-%c]", c-1, c+1)
		case 4:
			fmt.Fprintf(&b, `\%c`, c)
		case 5:
			b.WriteByte('*')
			i += r.IntN(4)
		case 6:
			b.WriteByte('*')
			i--
			if r.IntN(2) == 0 {
				i++
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func TestGlobRandom(t *testing.T) {
	m := newMatcher(t, "")
	r := newRand(t)
	matched, bad := 0, 0
	for range 60_000 * *rounds {
		name := randBytes(r, "abab.d", 1+r.IntN(12))
		var p string
		switch r.IntN(3) {
		case 0:
			p = patternOf(r, name)
		case 1:
			p = randBytes(r, "ab*?.", r.IntN(12))
		case 2:
			p = randBytes(r, `ab-!^[[]]\*:.`, r.IntN(12))
		}
		if len(p) > 64 {
			continue
		}
		m.set(t, 0, p)
		got := m.match(t, name)
		ts, ok := parse(p)
		switch {
		case !ok:
			bad++
			if got > 0 {
				t.Fatalf("%q is no pattern but matches %q", p, name)
			}
		case match(ts, name):
			matched++
			if got != 1 {
				t.Fatalf("%q, name %q: %d, want 1", p, name, got)
			}
		case got != 0:
			t.Fatalf("%q, name %q: %d, want 0", p, name, got)
		}
		// The library knows the same syntax but for "[!", a ']' that
		// comes first, a bare '-' and classes.
		if ok && !strings.ContainsAny(p, "!-") && !strings.Contains(p, "[]") && !strings.Contains(p, "[^]") {
			want, err := path.Match(p, name)
			if err == nil && want != (got == 1) {
				t.Fatalf("%q, name %q: %d, path.Match says %v", p, name, got, want)
			}
		}
	}
	t.Logf("%d matched, %d were no patterns", matched, bad)
}

// A fault in one pattern is not made good by the next.
func TestBrokenPattern(t *testing.T) {
	for _, ps := range [][]string{{"[a", "b"}, {"b", "[a"}, {"[a", "*"}} {
		if got := newMatcher(t, ps...).match(t, "a"); got != -int(unix.EIO) {
			t.Errorf("%q: %d", ps, got)
		}
	}
	p := load(t, "redact", vars{"n_patterns": uint32(33)}, nil)
	in := input{Size: 1}
	in.setName("a")
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("33 patterns: %d", ret)
	}
}

func TestManyPatterns(t *testing.T) {
	r := newRand(t)
	for _, n := range []int{0, 1, 2, 32} {
		ps := make([]string, n)
		m := newMatcher(t, ps...)
		for range 3000 * *rounds {
			name := randBytes(r, "abcd", 1+r.IntN(8))
			want := n == 0
			for i := range ps {
				for {
					ps[i] = patternOf(r, randBytes(r, "abcd", 1+r.IntN(8)))
					if ts, ok := parse(ps[i]); ok && len(ps[i]) <= 64 {
						want = want || match(ts, name)
						break
					}
				}
				m.set(t, i, ps[i])
			}
			if got := m.match(t, name) == 1; got != want {
				t.Fatalf("%q, name %q: %v, want %v", ps, name, got, want)
			}
		}
	}
}
