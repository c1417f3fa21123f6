// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/stack"
)

// newCheck is the subcommand that proves what a mount relies on.
func newCheck() *cobra.Command {
	var asJSON, repair bool
	cmd := &cobra.Command{
		Use:   "check [--json] [--repair] MOUNTPOINT | UPPERDIR WORKDIR LOWERDIR...",
		Short: "prove that upper, work and journal are as they should be",
		Long: `Prove what a mount relies on: that the journal is sound, and that upper, its
private attributes, the journal's records and the lower layers agree. The
lowers are given as they were mounted, topmost first, one argument each.

Each finding names what is wrong and what it would lose. A violation is a loss,
or would become one. A note is what a crash may leave, or harmless: it does not
keep the check from being clean. "plyfs help check-findings" lists the kinds.

Nothing is changed, but with --repair: it mends what can be mended without
losing anything, after a copy of the journal's files beside them
(WORKDIR/plyfs/journal.backup-TIME), and checks again. It leaves the rest as it
is, and takes no mount.

A live mount is checked by its own daemon, while it is used. Its requests wait
for the time of a walk through upper only if something seems to be wrong.

Exit codes: 0 no violation; 6 violations; else it could not be checked (1 an
error of a file system, 2 usage, 3 a privilege is missing, 4 the directories
are in use, 5 the journal is of a newer plyfs).

With --json: one document with "version" (1), "clean", "complete" (false: a
violation kept the check from looking further), "findings" (each with
"severity", "kind", "path", "what", "loses", "mend", "repairable"), "counts",
and after --repair "repair" ("backup", "done", "failed").`,
		Example: `  plyfs check /srv/upper /srv/work /srv/base
  plyfs check --repair /srv/upper /srv/work /srv/base
  plyfs check /mnt --json | jq .findings`,
		Args: between(1, 1<<16, "MOUNTPOINT, or UPPERDIR WORKDIR LOWERDIR..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := check(args, repair)
			if err != nil {
				return err
			}
			return showCheck(cmd.OutOrStdout(), r, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&repair, "repair", false, "mend what can be mended without losing anything")
	return cmd
}

// check checks a mount, or directories that are not mounted.
func check(args []string, repair bool) (*stack.CheckReport, error) {
	switch {
	case len(args) == 2:
		return nil, usagef("no LOWERDIR given; usage: plyfs check UPPERDIR WORKDIR LOWERDIR..., or plyfs check MOUNTPOINT")
	case len(args) == 1 && repair:
		return nil, usagef("a mount cannot be repaired while it lives; plyfs umount it, then plyfs check --repair UPPERDIR WORKDIR LOWERDIR...")
	case len(args) == 1:
		p, err := atMount(args[0])
		if err != nil {
			return nil, err
		}
		r := new(stack.CheckReport)
		return r, ask(p.mount, request{Verb: verbCheck}, r)
	}
	do := stack.Check
	if repair {
		do = stack.Repair
	}
	// As mount names them, for so the journal knows them.
	m := &mountOptions{Config: stack.Config{Upper: args[0], Work: args[1], Lowers: args[2:]}}
	if err := m.absolute(); err != nil {
		return nil, err
	}
	r, err := do(m.Config)
	return r, inUse(err)
}

// inUse names the live mount that uses the directory which an error says is in
// use.
func inUse(err error) error {
	var refusal *stack.Error
	if !errors.As(err, &refusal) || refusal.Kind != stack.KindBusy {
		return err
	}
	if mp := userOf(refusal.Path); mp != "" {
		return fail(exitBusy, "%s: is in use by the live mount %s; check that: plyfs check %s", refusal.Path, mp, mp)
	}
	return err
}

// userOf finds the mount that has a directory as a layer or as its work
// directory, "" if none says so.
func userOf(dir string) string {
	want, err := os.Stat(dir)
	if err != nil {
		return ""
	}
	mounts, err := plyfsMounts()
	if err != nil {
		return ""
	}
	for _, m := range mounts {
		var s stack.Status
		if ask(m, request{Verb: verbStatus}, &s) != nil {
			continue
		}
		var dirs []string
		for _, l := range s.Layers {
			dirs = append(dirs, l.Path)
		}
		if s.Journal != nil {
			dirs = append(dirs, strings.TrimSuffix(s.Journal.Path, "/plyfs"))
		}
		for _, d := range dirs {
			if st, err := os.Stat(d); err == nil && os.SameFile(st, want) {
				return m.Mountpoint
			}
		}
	}
	return ""
}

// showCheck prints a report. Violations make the exit code 6.
func showCheck(w io.Writer, r *stack.CheckReport, asJSON bool) error {
	var err error
	if asJSON {
		err = printJSON(w, r)
	} else {
		err = printCheck(w, r)
	}
	if err == nil && !r.Clean {
		return &exitError{code: exitViolation}
	}
	return err
}

// printCheck prints for people.
func printCheck(w io.Writer, r *stack.CheckReport) error {
	var b strings.Builder
	if r.Repair != nil {
		printRepair(&b, r.Repair)
	}
	violations := 0
	for _, f := range r.Findings {
		if f.Severity == stack.Violation {
			violations++
		}
		printFinding(&b, f)
	}
	if r.Omitted > 0 {
		fmt.Fprintf(&b, "and %d more findings\n", r.Omitted)
	}
	c := r.Counts
	fmt.Fprintf(&b, "checked: %d directories, %d other entries (%d whiteouts, %d partial), %d copies of hard-linked files; %d records of hidden names, %d accounts; %.1f s\n",
		c.Directories, c.Entries, c.Whiteouts, c.Partial, c.Index, c.Covers, c.Links, r.Seconds)
	switch {
	case !r.Complete:
		fmt.Fprintf(&b, "%d violations; the rest could not be checked because of them\n", violations)
	case violations > 0:
		fmt.Fprintf(&b, "%d violations\n", violations)
	default:
		b.WriteString("clean\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printFinding(b *strings.Builder, f stack.Finding) {
	fmt.Fprintf(b, "%s: %s: %s\n    %s\n", f.Severity, f.Kind, f.Path, f.What)
	if f.Severity == stack.Violation {
		fmt.Fprintf(b, "    loses: %s\n", orNothing(f.Loses))
	}
	if f.Mend != "" {
		fmt.Fprintf(b, "    mend: %s\n", f.Mend)
	}
	if f.Repairable {
		b.WriteString("    --repair mends it\n")
	}
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

func printRepair(b *strings.Builder, did *stack.Repaired) {
	if did.Backup == "" {
		b.WriteString("nothing that could be repaired; nothing was changed\n")
		return
	}
	fmt.Fprintf(b, "the journal was copied to %s\n", did.Backup)
	for _, f := range did.Done {
		fmt.Fprintf(b, "repaired: %s: %s\n    %s\n", f.Kind, f.Path, f.What)
	}
	for _, f := range did.Failed {
		fmt.Fprintf(b, "not repaired: %s: %s\n    %s\n    %s\n", f.Kind, f.Path, f.What, f.Mend)
	}
}

// checkTopic is the help topic about the kinds of findings.
var checkTopic = &cobra.Command{
	Use:   "check-findings",
	Short: "what plyfs check proves, by kind of finding",
	Long:  checkKindsText(),
}

// checkKindsText lists the kinds.
func checkKindsText() string {
	var b strings.Builder
	b.WriteString("Kinds of findings of \"plyfs check\". They are stable. R: --repair mends it, where\nit loses nothing.\n")
	for _, s := range []struct {
		severity stack.Severity
		title    string
	}{{stack.Violation, "Violations: it does not hold that"}, {stack.Note, "Notes:"}} {
		fmt.Fprintf(&b, "\n%s\n\n", s.title)
		for _, k := range stack.CheckKinds() {
			if k.Severity == s.severity {
				fmt.Fprintf(&b, "  %-18s %s %s\n", k.Kind, yesNo(k.Repaired, "R", " "), k.Says)
			}
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}
