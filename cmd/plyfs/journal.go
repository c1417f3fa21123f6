// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/stack/journal"
)

// newJournal is the subcommand with what is done to journals.
func newJournal() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "look into the journal",
		Long: `The journal, in the work directory, records what hides lower entries: names that
were deleted or replaced, and directories that were renamed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("no subcommand given; see %s --help", cmd.CommandPath())
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "dump WORKDIR|MOUNTPOINT",
		Short: "print the journal as text",
		Long: `Print the records of a journal, one a line: of a live mount by its mount point,
or of a work directory that is not mounted, which is not changed.`,
		Example: `  plyfs journal dump /mnt
  plyfs journal dump /data/work`,
		Args: exactly(1, "WORKDIR or MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return dumpJournal(cmd.OutOrStdout(), args[0])
		},
	})
	return cmd
}

// dumpJournal prints the journal of a mount or of a work directory.
func dumpJournal(w io.Writer, name string) error {
	if p, err := locate(name, false); err == nil && p.FSType == fsType && p.isRoot() {
		var text []byte
		if err := ask(p.mount, request{Verb: verbJournal}, &text); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return dumpOffline(w, name)
}

// dumpOffline prints the journal of a work directory.
func dumpOffline(w io.Writer, work string) (err error) {
	dir := filepath.Join(work, "plyfs")
	if st, e := os.Stat(dir); e != nil || !st.IsDir() {
		return usagef("%s: neither a plyfs mount point nor a work directory with a journal", work)
	}
	s, err := journal.OpenReadOnly(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(exitUsage, "%w", err)
	case errors.Is(err, journal.ErrLocked):
		return fail(exitBusy, "%w; name its mount point instead", err)
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.Dump(w)
}
