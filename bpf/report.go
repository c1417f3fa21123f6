// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes the report as aligned tables.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ABI %d, license %s%s\n", r.Name, r.ABI, orNone(r.License), callerText(r.Caller))
	table(&b, "SECTION\tFUNCTION\tINSTRUCTIONS\tVERIFIED\tVERIFICATION\tMACHINE CODE\tA RUN", r.Programs, programRow)
	table(&b, "MAP\tTYPE\tKEY\tVALUE\tENTRIES", r.Maps, mapRow)
	table(&b, "VARIABLE\tTYPE\tVALUE", r.Variables, varRow)
	for i, warning := range r.Warnings {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "warning: %s\n", warning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// table writes an empty line, the head and the rows; nothing without rows.
func table[T any](b *strings.Builder, head string, rows []T, row func(T) string) {
	if len(rows) == 0 {
		return
	}
	b.WriteByte('\n')
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	for _, r := range rows {
		fmt.Fprintln(t, row(r))
	}
	_ = t.Flush() // a strings.Builder has no errors
}

func programRow(p ProgramReport) string {
	run := "-"
	if p.RunNS > 0 {
		run = roughly(p.RunNS)
	}
	if p.Slow != "" {
		run += " (see below)"
	}
	return fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%s\t%s", p.Section, p.Function, p.Instructions,
		orDash(p.Verified), roughly(p.VerifyNS), orDash(p.JITed)+" B", run)
}

func mapRow(m MapReport) string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%d", m.Name, m.Type,
		typeOrSize(m.Key, m.KeyBytes), typeOrSize(m.Value, m.ValueBytes), m.MaxEntries)
}

func varRow(v VarReport) string {
	typ := typeOrSize(v.Type, v.Bytes)
	if v.Const {
		typ = "const " + typ
	}
	return fmt.Sprintf("%s\t%s\t%s", v.Name, typ, v.Value)
}

func callerText(caller bool) string {
	if caller {
		return ", answers depend on who asks"
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func typeOrSize(name string, size uint32) string {
	if name == "" {
		return fmt.Sprintf("%d bytes", size)
	}
	return name
}

// roughly rounds to three digits.
func roughly(ns int64) string {
	unit := time.Duration(1)
	for d := time.Duration(ns); d/unit >= 1000; {
		unit *= 10
	}
	return time.Duration(ns).Round(unit).String()
}
