// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"math"
	"strconv"
	"strings"
)

// byteSize is an option of a number of bytes, as 4096, 64K, 1M or 2G. 0 is kept
// as -1, for the zero value of a configuration is its default.
func byteSize(field func(m *mountOptions) *int64) optionFunc {
	return func(m *mountOptions, o option) error {
		n, ok := parseSize(o.value)
		if !ok {
			return usagef("%s=%s is no size; give bytes, as 4096, 64K, 1M or 2G", o.name, o.value)
		}
		if err := m.once(o); err != nil {
			return err
		}
		if n == 0 {
			n = -1
		}
		*field(m) = n
		return nil
	}
}

// parseSize reads a number of bytes with an optional suffix of powers of 1024.
func parseSize(s string) (int64, bool) {
	digits := strings.TrimRight(strings.ToUpper(s), "KMGTIB")
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s)[len(digits):], "B"), "I")
	shift := strings.Index("KMGT", unit)*10 + 10
	switch {
	case unit == "":
		shift = 0
	case len(unit) != 1 || shift < 10:
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift || strings.HasPrefix(digits, "+") {
		return 0, false
	}
	return n << shift, true
}
