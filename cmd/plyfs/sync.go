// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import "github.com/spf13/cobra"

// newSync is the subcommand that makes a mount durable.
func newSync() *cobra.Command {
	return &cobra.Command{
		Use:   "sync MOUNTPOINT",
		Short: "make all that was done on a mount durable",
		Long: `Return when all that was done on a plyfs mount so far survives a power cut: the
upper directory's file system, and the journal. fsync(2) of a file or directory
and sync(2) do it too, but of syncfs(2) ("sync -f") the kernel tells a FUSE
daemon nothing. A volatile mount syncs nothing.`,
		Example: `  plyfs sync /mnt`,
		Args:    exactly(1, "MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := atMount(args[0])
			if err != nil {
				return err
			}
			return ask(p.mount, request{Verb: verbSync}, nil)
		},
	}
}
