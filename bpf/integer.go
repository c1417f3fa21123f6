// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// integer is a value between -2^63 and 2^64-1.
type integer struct {
	bits     uint64 // two's complement if it is negative
	negative bool
}

// toInteger takes what YAML, JSON or a command line give for an integer.
func toInteger(v any) (integer, error) {
	switch v := v.(type) {
	case int:
		return integer{uint64(v), v < 0}, nil
	case int64:
		return integer{uint64(v), v < 0}, nil
	case uint64:
		return integer{bits: v}, nil
	case uint32:
		return integer{bits: uint64(v)}, nil
	case bool:
		return boolInteger(v), nil
	case float64:
		if n := int64(v); float64(n) == v {
			return integer{uint64(n), n < 0}, nil
		}
	case json.Number:
		return parseInteger(v.String())
	case string:
		return parseInteger(v)
	}
	return integer{}, fmt.Errorf("%v: %w", v, errNoInteger)
}

func boolInteger(v bool) integer {
	if v {
		return integer{bits: 1}
	}
	return integer{}
}

// parseInteger reads decimal, 0x..., true and false. A leading 0 means nothing.
func parseInteger(s string) (integer, error) {
	if s == "true" || s == "false" {
		return boolInteger(s == "true"), nil
	}
	digits, negative := strings.CutPrefix(s, "-")
	base := 10
	if h, ok := strings.CutPrefix(strings.ToLower(digits), "0x"); ok {
		digits, base = h, 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return integer{}, fmt.Errorf("%s: %w", s, errNoInteger)
	}
	if !negative {
		return integer{bits: n}, nil
	}
	if n > 1<<63 {
		return integer{}, fmt.Errorf("%s: %w of 64 bits", s, errNoInteger)
	}
	return integer{-n, n != 0}, nil
}

// fits says whether bits bits can hold it.
func (i integer) fits(bits int, e btf.IntEncoding) bool {
	asSigned := int64(i.bits)<<(64-bits)>>(64-bits) == int64(i.bits)
	switch {
	case e == btf.Bool:
		return i.bits <= 1
	case i.negative:
		return e != btf.Unsigned && asSigned
	case e == btf.Signed:
		return i.bits>>(bits-1) == 0
	}
	return bits == 64 || i.bits>>bits == 0
}
