// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/stack"
)

// newExplain is the subcommand that says why a path shows what it shows.
func newExplain() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain PATH",
		Short: "say which layer serves a path, what it hides, and how it is read",
		Long: `Say about a path on a plyfs mount: which layer serves it, which entries of lower
layers it hides or is hidden by, what the journal and the private attributes
record about it, which rules of the policy have a say about it, and how it is
read and written and why. Where programs answer by caller, it says what root
sees. The path may name something that was deleted. A symbolic link at its end is itself explained.`,
		Example: `  plyfs explain /mnt/etc/passwd`,
		Args:    exactly(1, "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := onMount(args[0], true)
			if err != nil {
				return err
			}
			var e stack.Explanation
			if err := ask(p.mount, request{Verb: verbExplain, Path: []byte(p.rel)}, &e); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), e)
			}
			return printExplanation(cmd.OutOrStdout(), p.path, &e)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printExplanation prints for people.
func printExplanation(w io.Writer, path string, e *stack.Explanation) error {
	t := newTable(w)
	t.row("path", path)
	if e.Exists {
		t.row("type", fmt.Sprintf("%s, inode %d", e.Type, e.Ino))
	} else {
		t.row("type", "does not exist"+when(e.HiddenBy == "" && len(e.Hidden) == 0, " in any layer"))
	}
	optional := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	optional("layer", e.Layer)
	optional("served by", e.ServedBy)
	for _, m := range e.Merged {
		t.row("merged", m)
	}
	optional("hidden by", e.HiddenBy)
	for _, h := range e.Hidden {
		t.row("hides", h)
	}
	for _, r := range e.Records {
		t.row("record", r)
	}
	if e.Place != "" && e.Place != e.Path {
		t.row("place", e.Place+" (by which the policy goes)")
	}
	for _, r := range e.Rules {
		t.row("rule", r)
	}
	optional("decided by", e.DecidedBy)
	if e.IOMode != "" {
		t.row("i/o", e.IOMode+when(e.IOWhy != "", ": "+e.IOWhy))
	}
	return t.Flush()
}
