// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// table holds the times of all rows by system.
type table struct {
	systems []system
	times   map[[2]string][]time.Duration
	memory  map[string]int // largest resident memory, KiB
	headed  bool
}

func newTable(systems []system) *table {
	return &table{systems: systems, times: map[[2]string][]time.Duration{}, memory: map[string]int{}}
}

func (t *table) add(row, system string, d time.Duration) {
	k := [2]string{row, system}
	t.times[k] = append(t.times[k], d)
}

func (t *table) addMemory(system string, kib int) {
	t.memory[system] = max(t.memory[system], kib)
}

// print writes a row, and before the first the head. A cell is "least /
// middle (ratio of the least to overlayfs)".
func (t *table) print(w io.Writer, row string) {
	if !t.headed {
		t.headed = true
		fmt.Fprint(w, "| ms: least / median (x overlayfs) |")
		for _, s := range t.systems {
			fmt.Fprintf(w, " %s |", s.name)
		}
		fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(t.systems)))
	}
	fmt.Fprintf(w, "| %s |", row)
	base, _ := leastAndMedian(t.times[[2]string{row, t.systems[0].name}])
	for _, s := range t.systems {
		least, median := leastAndMedian(t.times[[2]string{row, s.name}])
		fmt.Fprintf(w, " %s / %s (%s) |", short(ms(least)), short(ms(median)), short(ms(least)/ms(base)))
	}
	fmt.Fprintln(w)
}

// printMemory writes the daemons' memory as the last row.
func (t *table) printMemory(w io.Writer) {
	if len(t.memory) == 0 {
		return
	}
	fmt.Fprint(w, "| daemon memory after the walk, MiB |")
	for _, s := range t.systems {
		if kib, ok := t.memory[s.name]; ok {
			fmt.Fprintf(w, " %d |", kib/1024)
		} else {
			fmt.Fprint(w, " - |")
		}
	}
	fmt.Fprintln(w)
}

// short writes a number with three digits that count, but no part of a number
// above a hundred.
func short(x float64) string {
	switch {
	case x >= 99.95:
		return fmt.Sprintf("%.0f", x)
	case x >= 9.995:
		return fmt.Sprintf("%.1f", x)
	case x >= 0.1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.4f", x)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// leastAndMedian of some times, which must not be none.
func leastAndMedian(ds []time.Duration) (least, median time.Duration) {
	ds = slices.Sorted(slices.Values(ds))
	return ds[0], ds[len(ds)/2]
}
