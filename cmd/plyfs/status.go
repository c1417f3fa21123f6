// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/stack"
)

// newStatus is the subcommand that shows what live mounts do.
func newStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [MOUNTPOINT] [--json]",
		Short: "show layers, counters and the journal of live mounts",
		Long: `Show a live mount: its layers with file system, stacking depth and capabilities;
requests by opcode; opens by the way they are served (passthrough: by the
kernel, server: by the daemon) with the reasons of refusals; copy-ups; the
journal; errors; the policy, and for each program how often it was asked, how
long a run took (half of them, 99 in 100: P50, P99), and whether it was switched
off. Without MOUNTPOINT, all plyfs mounts.

With --json: an object for one mount, an array for all of them.`,
		Example: `  plyfs status
  plyfs status /mnt --json | jq .opens`,
		Args:              between(0, 1, ""),
		ValidArgsFunction: completeMounts,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return statusAll(cmd.OutOrStdout(), asJSON)
			}
			return statusOne(cmd.OutOrStdout(), args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// statusOne shows the mount that a path lies on.
func statusOne(w io.Writer, name string, asJSON bool) error {
	p, err := onMount(name, false)
	if err != nil {
		return err
	}
	var s stack.Status
	if err := ask(p.mount, request{Verb: verbStatus}, &s); err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, s)
	}
	return printStatus(w, &s)
}

// mountStatus is a line of the list of all mounts.
type mountStatus struct {
	Mountpoint string        `json:"mountpoint"`
	Device     string        `json:"device"`
	Error      string        `json:"error,omitempty"` // why there is no status
	Status     *stack.Status `json:"status,omitempty"`
}

// statusAll shows all mounts. One that does not answer is shown with the
// reason and makes the exit code 1.
func statusAll(w io.Writer, asJSON bool) error {
	mounts, err := plyfsMounts()
	if err != nil {
		return err
	}
	list := []mountStatus{}
	var failed error
	for _, m := range mounts {
		s := mountStatus{Mountpoint: m.Mountpoint, Device: m.device(), Status: new(stack.Status)}
		if err := ask(m, request{Verb: verbStatus}, s.Status); err != nil {
			s.Status, s.Error = nil, err.Error()
			failed = &exitError{code: exitCode(err)}
		}
		list = append(list, s)
	}
	if asJSON {
		err = printJSON(w, list)
	} else {
		err = printList(w, list)
	}
	if err != nil {
		return err
	}
	return failed
}

// printJSON prints for people and programs.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
