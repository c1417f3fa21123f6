// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"math"
	"regexp"
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

// sizes is what parseSize reads.
var sizes = regexp.MustCompile(`^([0-9]+)(?:([KMGT])(?:I?B)?)?$`)

// parseSize reads a number of bytes with an optional suffix of powers of 1024.
func parseSize(s string) (int64, bool) {
	m := sizes.FindStringSubmatch(strings.ToUpper(s))
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	shift := 0
	if m[2] != "" {
		shift = 10 * (1 + strings.Index("KMGT", m[2]))
	}
	if err != nil || n > math.MaxInt64>>shift {
		return 0, false
	}
	return n << shift, true
}
