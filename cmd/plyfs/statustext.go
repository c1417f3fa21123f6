// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/plyfs/plyfs/stack"
)

// table writes aligned columns and keeps the first error.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)} }

// row writes one line.
func (t table) row(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }

// printList prints one line for each mount.
func printList(w io.Writer, list []mountStatus) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no plyfs mounts")
		return err
	}
	t := newTable(w)
	t.row("MOUNTPOINT", "PID", "MODE", "LAYERS", "OPENS", "COPY-UPS", "ERRORS")
	for _, m := range list {
		if s := m.Status; s == nil {
			t.row(m.Mountpoint, "-", m.Error)
		} else {
			t.row(m.Mountpoint, fmt.Sprint(s.PID), access(s), fmt.Sprint(len(s.Layers)),
				fmt.Sprint(s.Opens.Passthrough+s.Opens.Server), fmt.Sprint(s.CopyUps.Files), errorText(s))
		}
	}
	return t.Flush()
}

// printStatus prints all about one mount.
func printStatus(w io.Writer, s *stack.Status) error {
	t := newTable(w)
	t.row("mount point", s.Mountpoint)
	t.row("daemon", fmt.Sprintf("process %d, up %v, %d threads, %d descriptors (%d directories), %d nodes", s.PID,
		time.Duration(s.UptimeSeconds*float64(time.Second)).Round(time.Second), s.Threads, s.FDs, s.DirFDs, s.Nodes))
	t.row("mode", fmt.Sprintf("%s, io=%s, max_stack_depth=%d%s", access(s), s.IO, s.MaxStackDepth, when(s.Volatile, ", volatile")))
	t.row("capabilities", fmt.Sprintf("%s (CAP_SYS_RESOURCE %s)", s.CapEffective, yesNo(s.CapSysRes, "IS SET", "dropped")))
	t.row("errors", errorText(s))
	t.row("panics", fmt.Sprint(s.Panics))
	for _, e := range s.LastErrors {
		t.row("last error", e)
	}
	printOpens(t, s)
	printPartial(t, s.Partial)
	if j := s.Journal; j != nil {
		t.row("journal", fmt.Sprintf("%s: %s records; database %d bytes, log %d bytes, %d syncs, %d folds, %s", j.Path,
			counts(j.Records), j.DBBytes, j.LogBytes, j.Syncs, j.Folds, yesNo(j.Dirty, "dirty", "clean")))
		if j.Error != "" {
			t.row("journal error", j.Error)
		}
	}
	t.row("requests", counts(s.Requests))
	if s.Policy != nil {
		printPolicy(t, s.Policy)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := printLayers(w, s.Layers); err != nil || s.Policy == nil {
		return err
	}
	return printRules(w, s.Policy)
}

// printPolicy prints what is in force.
func printPolicy(t table, p *stack.PolicyStatus) {
	t.row("policy", fmt.Sprintf("%s, generation %d, fail=%s, budget %v", p.Source, p.Generation, p.Fail, time.Duration(p.BudgetNS)))
	t.row("  wrong answers", fmt.Sprint(p.WrongAnswers))
	for _, e := range p.LastErrors {
		t.row("  last error", e)
	}
}

// printRules prints what asking each program came to.
func printRules(w io.Writer, p *stack.PolicyStatus) error {
	t := newTable(w)
	t.row("\nRULE", "PATH", "SECTION", "RUNS", "P50", "P99", "SLOW", "ERRORS", "WRONG", "NOTES")
	for _, r := range p.Rules {
		var notes []string
		if r.Caller {
			notes = append(notes, "by caller")
		}
		if r.Off != "" {
			notes = append(notes, "SWITCHED OFF: "+r.Off)
		}
		for _, q := range r.Questions {
			t.row(r.Name, r.Path, q.Section, fmt.Sprint(q.Runs), runTime(q.P50NS), runTime(q.P99NS),
				fmt.Sprint(q.Slow), fmt.Sprint(q.Errors), fmt.Sprint(r.Wrong), strings.Join(notes, ", "))
		}
	}
	return t.Flush()
}

// runTime rounds to three digits.
func runTime(ns int64) string {
	if ns == 0 {
		return "-"
	}
	unit := time.Duration(1)
	for time.Duration(ns)/unit >= 1000 {
		unit *= 10
	}
	return time.Duration(ns).Round(unit).String()
}

// printOpens prints how files were opened and copied.
func printOpens(t table, s *stack.Status) {
	o := s.Opens
	t.row("opens", fmt.Sprintf("passthrough %d, server %d", o.Passthrough, o.Server))
	for _, why := range byCount(o.Refusals) {
		t.row("  not passed", fmt.Sprintf("%d: %s", o.Refusals[why], why))
	}
	if o.PolicyRetired > 0 {
		t.row("  by the policy", fmt.Sprintf("%d nodes retired: it decides otherwise than for live handles", o.PolicyRetired))
	}
	t.row("  overtaken", fmt.Sprintf("%d handles by a copy-up, %d nodes retired, %d opens repeated", o.Overtaken, o.Retired, o.Stale))
	c := s.CopyUps
	t.row("copy-ups", fmt.Sprintf("files %d, directories %d, others %d, failed %d; %d bytes %s", c.Files, c.Dirs, c.Others, c.Failed, c.Bytes, counts(c.How)))
}

// printPartial prints what is copied up in part.
func printPartial(t table, p *stack.PartialStatus) {
	if p == nil {
		return
	}
	how := "copyup=" + p.CopyUp
	if p.Why != "" {
		how += ": always whole and synced: " + p.Why
	}
	t.row("copy-up", how)
	t.row("  partial", fmt.Sprintf("%d files, %s of them in upper, %s left; %d with metadata alone; %d not synced yet",
		p.Files, size(p.UpperBytes), size(p.BytesLeft), p.MetadataOnly, p.Unsynced))
	for _, f := range p.Largest {
		t.row("    "+f.Path, fmt.Sprintf("%s of %s in upper, %s left", size(f.UpperBytes), size(f.Size), size(f.BytesLeft)))
	}
	rate := "none in the background"
	if p.Rate > 0 {
		rate = fmt.Sprintf("%s/s in the background", size(p.Rate))
	}
	if p.Current != "" {
		rate += fmt.Sprintf(", now %s (%.0f%%)", p.Current, p.CurrentPercent)
	}
	if p.Waiting != "" {
		rate += ", waits: " + p.Waiting
	}
	t.row("  completion", fmt.Sprintf("%d files, %s done; %s", p.Completed, size(int64(p.CompletedBytes)), rate))
}

// size is a number of bytes for people.
func size(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i, f := 0, float64(n)
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// printLayers prints the layers, topmost first.
func printLayers(w io.Writer, list []stack.LayerStatus) error {
	t := newTable(w)
	t.row("\nLAYER", "FILE SYSTEM", "DEPTH", "READS", "PATH", "NOTES")
	for _, l := range list {
		var notes []string
		notes = append(notes, l.Caps...)
		if l.Attrs != "" {
			notes = append(notes, "no xattrs: plyfs keeps its own in "+l.Attrs)
		}
		for _, n := range []string{l.Why, l.DepthWhy, when(l.ReadOnly, "read-only clone")} {
			if n != "" {
				notes = append(notes, n)
			}
		}
		t.row(l.Role, l.FSType, fmt.Sprint(l.Depth), yesNo(l.Passthrough, "passthrough", "server"), l.Path, strings.Join(notes, ", "))
	}
	return t.Flush()
}

func access(s *stack.Status) string { return yesNo(s.ReadOnly, "read-only", "read-write") }

// errorText sums up the errors.
func errorText(s *stack.Status) string {
	text := counts(s.Errors)
	if text == "" {
		text = "none"
	}
	return text + when(s.Panics > 0, fmt.Sprintf(", %d panics", s.Panics))
}

// byCount sorts names by their counts, highest first.
func byCount(m map[string]uint64) []string {
	names := slices.Sorted(maps.Keys(m))
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(m[b], m[a]) })
	return names
}

// counts is "LOOKUP 7, OPEN 3", highest first.
func counts(m map[string]uint64) string {
	var parts []string
	for _, name := range byCount(m) {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func when(b bool, text string) string { return yesNo(b, text, "") }
