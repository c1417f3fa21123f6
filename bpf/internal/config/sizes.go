// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// maxOffset is the end of the largest file.
const maxOffset = math.MaxInt64

var (
	errTooLarge  = errors.New("is too large; the largest number is 18446744073709551615")
	errBeyondEnd = errors.New("is too large; the largest file ends below 8388608T")
	errNoNumber  = errors.New("is no number; write for example 4096, 0x1000 or 4K")
)

// ParseSize reads a number of bytes: decimal, or hexadecimal with 0x, and
// perhaps K, M, G or T behind it (powers of 1024, small letters too).
func ParseSize(s string) (uint64, error) {
	number, shift := cutSuffix(s)
	n, err := parseNumber(number)
	if err != nil {
		return 0, err
	}
	if n > math.MaxUint64>>shift {
		return 0, errTooLarge
	}
	return n << shift, nil
}

// cutSuffix takes K, M, G or T from a size, as the power of two that it means.
func cutSuffix(s string) (number string, shift uint) {
	if s == "" {
		return s, 0
	}
	last := s[len(s)-1]
	if i := strings.IndexByte("KMGT", last&^0x20); i >= 0 && last >= 'A' {
		return s[:len(s)-1], uint(i+1) * 10
	}
	return s, 0
}

// parseNumber reads a number without sign, underscores or leading zeros, which
// are octal to some readers of YAML and not to others.
func parseNumber(s string) (uint64, error) {
	digits, base := s, 10
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		digits, base = hex, 16
	} else if len(s) > 1 && s[0] == '0' && strings.Trim(s, "0123456789") == "" {
		return 0, errors.New("begins with 0; leave the zeros out")
	}
	if digits == "" || digits[0] == '+' {
		return 0, errNoNumber
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, errTooLarge
	}
	if err != nil {
		return 0, errNoNumber
	}
	return n, nil
}

// parseOffset is ParseSize for what must be within a file.
func parseOffset(s string) (uint64, error) {
	n, err := ParseSize(s)
	if errors.Is(err, errTooLarge) || n > maxOffset {
		err = errBeyondEnd
	}
	if err != nil {
		return 0, fmt.Errorf("%s %w", quote(s), err)
	}
	return n, nil
}

// parseRange reads "FIRST-LAST", last included, or "OFFSET+LENGTH".
func parseRange(s string) (Range, error) {
	i := strings.IndexAny(s, "+-")
	if i < 0 {
		return Range{}, fmt.Errorf("%s is no range; write FIRST-LAST, OFFSET+LENGTH or {offset: N, length: N}", quote(s))
	}
	off, err := parseOffset(strings.TrimSpace(s[:i]))
	if err != nil {
		return Range{}, err
	}
	n, err := parseOffset(strings.TrimSpace(s[i+1:]))
	if err != nil {
		return Range{}, err
	}
	if s[i] == '-' {
		if n < off {
			return Range{}, fmt.Errorf("range %s ends before it begins; swap its numbers", quote(s))
		}
		n = n - off + 1
	}
	return newRange(off, n)
}

// newRange checks a range.
func newRange(off, n uint64) (Range, error) {
	if n == 0 {
		return Range{}, errors.New("the range is empty; give it a length of 1 or more, or remove it")
	}
	if n > maxOffset-min(off, maxOffset) {
		return Range{}, errors.New("the range ends beyond the largest file, 8388608T; make it shorter")
	}
	return Range{off, n}, nil
}

// Normalize sorts ranges and merges those that overlap or touch; empty ones
// are dropped. It changes the slice that it is given.
func Normalize(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	out := ranges[:0]
	for _, r := range ranges {
		if r.Len == 0 {
			continue
		}
		if len(out) == 0 || r.Off > out[len(out)-1].end() {
			out = append(out, r)
			continue
		}
		last := &out[len(out)-1]
		last.Len = max(last.end(), r.end()) - last.Off
	}
	return out
}

// end is where r ends.
func (r Range) end() uint64 {
	if r.Len > math.MaxUint64-r.Off {
		return math.MaxUint64
	}
	return r.Off + r.Len
}
