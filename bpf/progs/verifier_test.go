// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// Every object loads fast, whatever the loader sets, and says so.
func TestVerifierTime(t *testing.T) {
	usec := regexp.MustCompile(`verification time (\d+) usec`)
	insns := regexp.MustCompile(`processed \d+ insns`)
	all := vars{"n_patterns": uint32(32)}
	for _, c := range []struct {
		name string
		v    vars
	}{
		{"redact", vars{"n_ranges": uint32(1 << 20), "use_handler": uint32(1)}},
		{"prepend", vars{"prefix_len": uint64(4096)}},
		{"prepend", vars{"prefix_len": uint64(4096), "prefix_part": uint32(1)}},
		{"split", vars{"n_table": uint32(1 << 20), "total": uint64(1 << 40)}},
		{"split", vars{"n_table": uint32(1 << 20), "size_from_self": uint32(1)}},
		{"select", vars{"n_clauses": uint32(64)}},
	} {
		if c.name != "select" {
			for k, x := range all {
				c.v[k] = x
			}
		}
		p := load(t, c.name, c.v, nil)
		m := usec.FindStringSubmatch(p.VerifierLog)
		if m == nil {
			t.Fatalf("%s: no time in %q", c.name, p.VerifierLog)
		}
		n, _ := strconv.Atoi(m[1])
		t.Logf("%s: %d µs, %s", c.name, n, insns.FindString(p.VerifierLog))
		if n > 500_000 {
			t.Errorf("%s: the verifier took %d µs", c.name, n)
		}
	}
}

// The objects tell nobody where they were built.
func TestNoAbsolutePath(t *testing.T) {
	for _, name := range []string{"redact", "prepend", "split", "select"} {
		b, err := os.ReadFile(name + ".o")
		if err != nil {
			t.Fatal(err)
		}
		if m := regexp.MustCompile(`(?:^|\x00)(?:/[\w.-]{2,}){2,}`).Find(b); m != nil {
			t.Errorf("%s: %q", name, m)
		}
		if !bytes.Contains(b, []byte(".BTF.ext")) || bytes.Contains(b, []byte(".debug_info")) {
			t.Errorf("%s: sections", name)
		}
		if binary.LittleEndian.Uint16(b[18:]) != 247 { // EM_BPF
			t.Errorf("%s: not for BPF", name)
		}
	}
}
