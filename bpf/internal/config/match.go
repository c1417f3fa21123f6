// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxPattern  = 63 // bytes of a pattern
	maxPatterns = 32 // patterns of a rule
)

// CheckPattern checks a pattern of names.
func CheckPattern(pattern string) error {
	switch {
	case pattern == "":
		return errors.New(`a pattern is empty; write "*" for all names`)
	case len(pattern) > maxPattern:
		return fmt.Errorf("pattern %s is %d bytes long; the most is %d", quote(pattern), len(pattern), maxPattern)
	case strings.ContainsRune(pattern, '/'):
		return fmt.Errorf("pattern %s has a /; patterns are of names, put the directory into path", quote(pattern))
	case strings.ContainsRune(pattern, 0):
		return fmt.Errorf("pattern %s has a zero byte; no name has one", quote(pattern))
	}
	return checkSyntax(pattern)
}

// checkSyntax checks that each [ is closed and each \ has something behind it.
func checkSyntax(pattern string) error {
	for i := 0; i < len(pattern); {
		switch pattern[i] {
		case '\\':
			if i+1 == len(pattern) {
				return fmt.Errorf(`pattern %s ends with a \; write \\ for a backslash`, quote(pattern))
			}
			i += 2
		case '[':
			_, n := matchSet(pattern[i:], 0)
			if n == 0 {
				return fmt.Errorf(`pattern %s has a [ without a good set behind it; close it with ], or write \[`, quote(pattern))
			}
			i += n
		default:
			i++
		}
	}
	return nil
}

// Match reports whether a name matches a pattern, byte by byte: * is any
// bytes, ? one byte, [a-c] one of a set, [!a-c] or [^a-c] one that is not in
// it; \ takes the meaning from what follows it. A ] that is the first of a set
// is a member of it. There are no classes, such as [[:alpha:]]. A leading dot
// needs no special care. A bad pattern matches nothing.
func Match(pattern, name string) bool {
	star, again := -1, 0 // where to go on when what follows the last * does not match
	p, i := 0, 0
	for i < len(name) || p < len(pattern) {
		if p < len(pattern) && pattern[p] == '*' {
			star, again = p, i
			p++
			continue
		}
		if i < len(name) {
			if n := matchByte(pattern[p:], name[i]); n > 0 {
				p, i = p+n, i+1
				continue
			}
		}
		if star < 0 || again >= len(name) {
			return false
		}
		again++
		p, i = star+1, again
	}
	return true
}

// matchByte matches a byte with the beginning of a pattern, which is no *, and
// returns how long that is; 0: no match.
func matchByte(pattern string, c byte) int {
	switch {
	case pattern == "":
		return 0
	case pattern[0] == '?':
		return 1
	case pattern[0] == '[':
		if in, n := matchSet(pattern, c); in {
			return n
		}
		return 0
	case pattern[0] == '\\':
		if len(pattern) > 1 && pattern[1] == c {
			return 2
		}
		return 0
	case pattern[0] == c:
		return 1
	}
	return 0
}

// matchSet matches a byte with the set that a pattern begins with, and returns
// how long the set is; 0: it is bad.
func matchSet(pattern string, c byte) (in bool, n int) {
	i, not := 1, false
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		i, not = i+1, true
	}
	for first := true; ; first = false {
		if i < len(pattern) && pattern[i] == ']' && !first {
			return in != not, i + 1
		}
		low, high, n := setMember(pattern[i:])
		if n == 0 {
			return false, 0
		}
		in = in || low <= c && c <= high
		i += n
	}
}

// setMember reads a byte or a range of a set; n is 0 if there is none.
func setMember(s string) (low, high byte, n int) {
	low, n = setByte(s)
	if n == 0 || len(s) < n+2 || s[n] != '-' || s[n+1] == ']' {
		return low, low, n
	}
	high, m := setByte(s[n+1:])
	if m == 0 || high < low {
		return 0, 0, 0
	}
	return low, high, n + 1 + m
}

// setByte reads a byte of a set.
func setByte(s string) (c byte, n int) {
	switch {
	case s == "":
		return 0, 0
	case s[0] == '[' && len(s) > 1 && strings.IndexByte(":.=", s[1]) >= 0:
		return 0, 0 // a class of fnmatch's, which the programs do not have
	case s[0] != '\\':
		return s[0], 1
	case len(s) == 1:
		return 0, 0
	}
	return s[1], 2
}
