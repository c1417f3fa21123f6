// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
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
		Short: "look into the journal, or write it anew",
		Long: `The journal, in the work directory, records what hides lower entries: names that
were deleted or replaced, and directories that were renamed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("no subcommand given; see %s --help", cmd.CommandPath())
		},
	}
	cmd.AddCommand(newDump(), newCompact())
	return cmd
}

// newDump is the subcommand that prints a journal.
func newDump() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dump [--json] WORKDIR|MOUNTPOINT",
		Short: "print the journal as text",
		Long: `Print the records of a journal, one a line: of a live mount by its mount point,
or of a work directory that is not mounted, which is not changed. With --json as
one document; names are escaped in it as in Go strings.`,
		Example: `  plyfs journal dump /mnt
  plyfs journal dump /data/work`,
		Args: exactly(1, "WORKDIR or MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return dumpJournal(cmd.OutOrStdout(), args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// newCompact is the subcommand that writes a journal anew.
func newCompact() *cobra.Command {
	return &cobra.Command{
		Use:   "compact WORKDIR",
		Short: "write the journal anew, without the room that removed records left",
		Long: `Write the journal of a work directory that is not mounted anew, as small as it
can be. The new one takes the place of the old one in one step, once it is on
the disk. A damaged journal is refused and left as it is.`,
		Example: `  plyfs journal compact /data/work`,
		Args:    exactly(1, "WORKDIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return compactJournal(cmd.OutOrStdout(), args[0])
		},
	}
}

// compactJournal writes the journal of a work directory anew.
func compactJournal(w io.Writer, work string) error {
	dir, err := journalDir(work)
	if err != nil {
		return err
	}
	before, after, err := journal.Compact(dir)
	if errors.Is(err, journal.ErrLocked) {
		if mp := userOf(work); mp != "" {
			return fail(exitBusy, "%s: is in use by the live mount %s; plyfs umount it first", work, mp)
		}
		return err
	}
	if err != nil {
		return noJournal(err)
	}
	_, err = fmt.Fprintf(w, "%s: %d bytes before, %d after\n", filepath.Join(dir, journal.DBName), before, after)
	return err
}

// journalDir is where the journal of a work directory is.
func journalDir(work string) (string, error) {
	dir := filepath.Join(work, "plyfs")
	if st, e := os.Stat(dir); e != nil || !st.IsDir() {
		return "", usagef("%s: neither a plyfs mount point nor a work directory with a journal", work)
	}
	return dir, nil
}

// noJournal makes a missing journal a mistake of the caller.
func noJournal(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fail(exitUsage, "%w", err)
	}
	return err
}

// dumpJournal prints the journal of a mount or of a work directory.
func dumpJournal(w io.Writer, name string, asJSON bool) error {
	if p, err := locate(name, false); err == nil && p.FSType == fsType && p.isRoot() {
		verb := yesNo(asJSON, verbDump, verbJournal)
		var text []byte
		if err := ask(p.mount, request{Verb: verb}, &text); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return dumpOffline(w, name, asJSON)
}

// dumpOffline prints the journal of a work directory.
func dumpOffline(w io.Writer, work string, asJSON bool) (err error) {
	dir, err := journalDir(work)
	if err != nil {
		return err
	}
	s, err := journal.OpenReadOnly(dir)
	switch {
	case errors.Is(err, journal.ErrLocked):
		return fail(exitBusy, "%w; name its mount point instead", err)
	case err != nil:
		return noJournal(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if asJSON {
		return s.DumpJSON(w)
	}
	return s.Dump(w)
}
