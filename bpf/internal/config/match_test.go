// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMatch(t *testing.T) {
	cases := []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", ".a", true}, {"a", "a", true}, {"a", "ab", false}, {"", "", true},
		{"*.jpg", "x.jpg", true}, {"*.jpg", "x.jpg.jpg", true}, {"*.jpg", "x.jpgs", false},
		{"a*b*c", "axxbxxc", true}, {"a*b*c", "axxcxxb", false}, {"?", "ä", false}, {"??", "ä", true},
		{"[a-c]x", "bx", true}, {"[!a-c]", "d", true}, {"[^a-c]", "b", false}, {"[]]", "]", true}, {"[!]]", "]", false},
		{"[a-]", "-", true}, {`[\]x]`, "]", true}, {`\*`, "*", true}, {`\*`, "x", false}, {"[!", "!", false},
		{"**a", "bba", true}, {"*[", "[", false}, {strings.Repeat("*a", 30), strings.Repeat("a", 255), true},
		{strings.Repeat("*a", 30) + "b", strings.Repeat("a", 255), false},
	}
	for _, c := range cases {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("%q and %q: %v", c.pattern, c.name, got)
		}
	}
}

func TestCheckPattern(t *testing.T) {
	for _, s := range []string{"*", "[]]", "[!]]", "[a-c]", `\\`, "[a-]", `[\]]`, "[[]", strings.Repeat("x", maxPattern)} {
		if err := CheckPattern(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "[", "[]", "[!]", `a\`, `[\`, `[a\]`, "[c-a]", "a/b", "a\x00", "[a-", "[[:alpha:]]", "[a[.x]", strings.Repeat("x", maxPattern+1)} {
		if err := CheckPattern(s); err == nil {
			t.Errorf("%q is good", s)
		}
	}
}

// TestMatchModel compares with path.Match where that has the same rules.
func TestMatchModel(t *testing.T) {
	pattern := rapid.StringOfN(rapid.SampledFrom([]rune(`ab*?[]^-\`)), 0, 12, -1)
	name := rapid.StringOfN(rapid.SampledFrom([]rune(`ab*?[]^-\`)), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		p, n := pattern.Draw(t, "pattern"), name.Draw(t, "name")
		want, err := path.Match(p, n)
		if err != nil || CheckPattern(p) != nil {
			t.Skip()
		}
		if got := Match(p, n); got != want {
			t.Fatalf("%q and %q: %v", p, n, got)
		}
	})
}
