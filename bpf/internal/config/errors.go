// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"fmt"
	"slices"
	"strings"
)

// maxErrors is how many errors of one file are reported.
const maxErrors = 20

// An Error is one thing that is wrong with a policy file.
type Error struct {
	File   string // as it was given to Load or Parse
	Line   int    // from 1
	Column int    // from 1; 0: unknown
	Text   string // "what is wrong; what to do about it"
}

// Error is "FILE:LINE: what is wrong; what to do about it".
func (e Error) Error() string {
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

// Errors are all errors of a file, by line, at most 20 of them.
type Errors []Error

// Error has one line for each error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// sort puts the errors in the order of the file.
func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b Error) int { return a.Line - b.Line })
}

// quote is s in quotes, cut when it is long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// didYouMean is the mend for a word that is none of words.
func didYouMean(word string, words []string) string {
	if near := nearest(word, words); near != "" {
		return "did you mean " + near + "?"
	}
	return "use one of " + strings.Join(words, ", ")
}

// nearest is the one of words that word is probably meant to be, or "".
func nearest(word string, words []string) string {
	best, found := 3, ""
	if len(word) > 64 {
		return ""
	}
	for _, w := range words {
		if d := Distance(word, w); d < best && d < max(len(w), 2)-1 {
			best, found = d, w
		}
	}
	return found
}

// Distance is how many letters must be changed, added, left out or swapped
// with their neighbour to make b of a.
func Distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			d := last[j-1]
			if a[i-1] != b[j-1] {
				d++
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, before[j-2]+1)
			}
			row[j] = min(d, last[j]+1, row[j-1]+1)
		}
		before, last = last, row
	}
	return last[len(b)]
}
