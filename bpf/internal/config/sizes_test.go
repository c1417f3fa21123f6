// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]uint64{
		"0": 0, "7": 7, "4096": 4096, "0x1f": 31, "1K": 1024, "1k": 1024, "3M": 3 << 20, "2G": 2 << 30, "1T": 1 << 40,
		"0x10K": 16384, "18446744073709551615": math.MaxUint64,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "K", "-1", "+1", "1_000", "1.5", "010", "00", "0x", "0o17", "1KB", "1 K", "1e3", "x", "18446744073709551616", "16777216T", "0x+1"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

// TestNormalize compares ranges with bits that were set.
func TestNormalize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ranges []Range
		var want [80]bool
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			r := Range{rapid.Uint64Range(0, 60).Draw(t, "off"), rapid.Uint64Range(0, 10).Draw(t, "len")}
			ranges = append(ranges, r)
			for i := r.Off; i < r.end(); i++ {
				want[i] = true
			}
		}
		var got [80]bool
		ranges = Normalize(ranges)
		for i, r := range ranges {
			if r.Len == 0 || i > 0 && r.Off <= ranges[i-1].end() {
				t.Fatalf("not sorted and merged: %v", ranges)
			}
			for k := r.Off; k < r.end(); k++ {
				got[k] = true
			}
		}
		if got != want {
			t.Fatalf("other bytes: %v", ranges)
		}
	})
}

// TestNormalizeEnd does not overflow.
func TestNormalizeEnd(t *testing.T) {
	got := Normalize([]Range{{math.MaxUint64 - 1, 10}, {5, math.MaxUint64}})
	if len(got) != 1 || got[0].Off != 5 || got[0].end() != math.MaxUint64 {
		t.Errorf("got %v", got)
	}
}
