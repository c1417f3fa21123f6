// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

//go:build !nobpf

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/bpf"
)

// newPolicy is the subcommand for policies of live mounts.
func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "set which programs govern a live mount, and change their maps",
		Long: `A policy file says which program governs which part of a mount:

  version: 1
  rules:
    - path: /photos            # this directory and all below it
      program: redact          # redact, prepend, split, select, or an object
      match: "*.jpg"
      handler: image-location  # where the picture was taken reads as zeros

It is given at the mount (-o policy=FILE), or to a live mount by "policy set",
which replaces all programs at once, or leaves everything as it was if the new
policy does not load. Names that were looked up, pages in the kernel's cache
and files that the daemon serves follow at once. A descriptor or mapping that
is passed through to a backing file goes on showing that file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("no subcommand given; see %s --help", cmd.CommandPath())
		},
	}
	cmd.AddCommand(newPolicySet(), newPolicyClear(), newPolicyCheck(), newPolicyMap())
	return cmd
}

func newPolicySet() *cobra.Command {
	return &cobra.Command{
		Use:   "set MOUNTPOINT FILE",
		Short: "replace the policy of a live mount",
		Long: `Replace the policy of a live mount by a policy file, or by an object (FILE.o) for
the whole mount. If it does not load, everything stays as it was. bpf_fail=,
bpf_budget= and bpf_pin= of the mount hold for the new policy, too. A mount that
began without a policy takes none whose answers about names depend on who asks.`,
		Example: `  plyfs policy set /mnt policy.yaml
  plyfs policy set /mnt prog.o`,
		Args: exactly(2, "MOUNTPOINT and FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			r := request{Verb: verbPolicySet}
			r.File = file
			return askMount(args[0], r, nil)
		},
	}
}

// askMount asks the daemon of a mount point.
func askMount(mountpoint string, r request, into any) error {
	p, err := atMount(mountpoint)
	if err != nil {
		return err
	}
	return ask(p.mount, r, into)
}

func newPolicyClear() *cobra.Command {
	return &cobra.Command{
		Use:   "clear MOUNTPOINT",
		Short: "take the policy of a live mount away",
		Long: `Take the policy of a live mount away: names and files are as the layers have
them, from now on.`,
		Example: `  plyfs policy clear /mnt`,
		Args:    exactly(1, "MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			return askMount(args[0], request{Verb: verbPolicyClear}, nil)
		},
	}
}

func newPolicyCheck() *cobra.Command {
	var lowers []string
	cmd := &cobra.Command{
		Use:     "check FILE",
		Short:   "check a policy file without a mount",
		Long:    "Read a policy file, load all programs that it names, and unload them again.",
		Example: `  plyfs policy check --lowerdir /base policy.yaml`,
		Args:    exactly(1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := bpf.LoadFile(args[0], bpf.Options{Lowers: lowers, Logger: logger})
			if err != nil {
				return policyError(err)
			}
			defer p.Close()
			n := len(p.Status().Rules)
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d rule%s, all programs load\n", args[0], n, when(n != 1, "s"))
			return err
		},
	}
	cmd.Flags().StringArrayVar(&lowers, "lowerdir", nil, "a lower directory of the mount, topmost first; may be given many times")
	return cmd
}

// newPolicyMap is the subcommand for maps.
func newPolicyMap() *cobra.Command {
	var rule string
	cmd := &cobra.Command{
		Use:   "map",
		Short: "look at and change the maps of a live mount's programs",
		Long: `Maps are what programs look up: tables that can be changed while they run. Keys
and values are integers (decimal or 0x...), str:TEXT, hex:0011aa, or JSON for
arrays and structs. What the mount shows follows at once. With one rule, --rule
may be left out. Maps that are pinned (bpf_pin=DIR) can be changed by others:
who does so adds 1 to ply_epoch[0] afterwards, and the mount follows.`,
		Example: `  plyfs policy map list /mnt
  plyfs policy map dump /mnt allowed
  plyfs policy map set /mnt --rule mine:/x allowed 1000 1
  plyfs policy map delete /mnt allowed 1000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("no subcommand given; see %s --help", cmd.CommandPath())
		},
	}
	cmd.PersistentFlags().StringVar(&rule, "rule", "", "the rule whose map is meant")
	cmd.AddCommand(mapList(), mapDumpCommand(&rule),
		mapChange(&rule, verbMapSet, 4, "set MOUNTPOINT MAP KEY VALUE", "make or change an entry",
			"  plyfs policy map set /mnt allowed 1000 1\n  plyfs policy map set /mnt config 0 '{\"limit\": 4096}'"),
		mapChange(&rule, verbMapDelete, 3, "delete MOUNTPOINT MAP KEY", "remove an entry",
			"  plyfs policy map delete /mnt allowed 1000"))
	return cmd
}

func mapList() *cobra.Command {
	return &cobra.Command{
		Use:   "list MOUNTPOINT",
		Short: "list the maps of all rules",
		Long: `List the maps of the programs of all rules, with the types of their keys and
values, and where they are pinned.`,
		Example: `  plyfs policy map list /mnt`,
		Args:    exactly(1, "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []bpf.RuleMaps
			if err := askMount(args[0], request{Verb: verbMapList}, &list); err != nil {
				return err
			}
			return printMaps(cmd.OutOrStdout(), list)
		},
	}
}

func printMaps(w io.Writer, list []bpf.RuleMaps) error {
	t := newTable(w)
	t.row("RULE", "MAP", "TYPE", "KEY", "VALUE", "ENTRIES", "PINNED")
	for _, r := range list {
		for _, m := range r.Maps {
			t.row(r.Rule, m.Name, m.Type, m.Key, m.Value, fmt.Sprintf("%d of %d", m.Entries, m.MaxEntries), m.Pinned)
		}
	}
	return t.Flush()
}

func mapDumpCommand(rule *string) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "dump MOUNTPOINT MAP",
		Short: "print the entries of a map",
		Long: `Print the entries of a map, one a line: the key and the value, as the object's
type information has them.`,
		Example: `  plyfs policy map dump /mnt --rule mine:/x allowed`,
		Args:    exactly(2, "MOUNTPOINT and MAP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := request{Verb: verbMapDump}
			r.Rule, r.Map, r.Limit = *rule, args[1], limit
			var d mapDump
			if err := askMount(args[0], r, &d); err != nil {
				return err
			}
			return printEntries(cmd.OutOrStdout(), &d)
		},
	}
	cmd.Flags().IntVar(&limit, "most", 1000, "how many entries to print")
	return cmd
}

func printEntries(w io.Writer, d *mapDump) error {
	var list []bpf.MapEntry
	if err := json.Unmarshal(d.Entries, &list); err != nil {
		return err
	}
	t := newTable(w)
	for _, e := range list {
		if len(e.PerCPU) > 0 {
			t.row(e.Key, "by processor: "+strings.Join(e.PerCPU, ", "))
			continue
		}
		t.row(e.Key, e.Value)
	}
	if d.More {
		t.row("...", "more; see --most")
	}
	return t.Flush()
}

func mapChange(rule *string, verb string, n int, use, short, example string) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Long: `Change a map of a live mount's programs. Keys and values are integers, str:TEXT,
hex:0011aa, or JSON. What the mount shows follows before the command returns.`,
		Example: example,
		Args:    exactly(n, "MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			r := request{Verb: verb}
			r.Rule, r.Map, r.Key = *rule, args[1], args[2]
			if n == 4 {
				r.Value = args[3]
			}
			return askMount(args[0], r, nil)
		},
	}
}
