// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

//go:build !nobpf

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/bpf"
	"github.com/plyfs/plyfs/stack"
)

// bpfCommands are those that need the bpf room.
func bpfCommands() []*cobra.Command { return []*cobra.Command{newBPF(), newPolicy()} }

// newBPF is the subcommand for those who write programs.
func newBPF() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bpf",
		Short: "check BPF programs, and see what they make of files",
		Long: `BPF programs decide which layer serves a name, and of which pieces of which
files a file is made. The kernel verifies them; plyfs asks them. They are
written in C against plyfs.h, which "plyfs bpf header" prints and which
describes all of it:

  plyfs bpf header > plyfs.h
  clang -O2 -g -target bpf -mcpu=v3 -I . -c prog.c -o prog.o
  plyfs bpf check prog.o
  plyfs mount -o lowerdir=/base,bpf=prog.o /mnt
  plyfs bpf plan /mnt/file`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("no subcommand given; see %s --help", cmd.CommandPath())
		},
	}
	cmd.AddCommand(newBPFCheck(), newBPFPlan(), newBPFHeader())
	return cmd
}

func newBPFHeader() *cobra.Command {
	return &cobra.Command{
		Use:   "header",
		Short: "print plyfs.h, against which programs are written",
		Long: `Print the header that a program includes. It needs no other header, and its
comments describe each question, each answer, and what is checked.`,
		Example: `  plyfs bpf header > plyfs.h`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), bpf.Header)
			return err
		},
	}
}

func newBPFCheck() *cobra.Command {
	var asJSON, log bool
	cmd := &cobra.Command{
		Use:   "check OBJECT",
		Short: "have the kernel verify a program, and say what is in it",
		Long: `Load an object into the kernel, which verifies it, run each of its programs on an
empty question, and unload it again. Prints its programs with what they cost,
its maps and its variables; or, if it is refused, the verifier's words with the
line of C that they are about (compile with -g). Takes a few seconds at most.`,
		Example: `  plyfs bpf check prog.o
  plyfs bpf check --log prog.o   # all that the verifier says of a refused one`,
		Args: exactly(1, "OBJECT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return checkObject(cmd.OutOrStdout(), args[0], asJSON, log)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&log, "log", false, "if the verifier refuses the program, print all it says")
	return cmd
}

func checkObject(w io.Writer, path string, asJSON, log bool) error {
	rep, err := bpf.Check(path)
	var refusal *bpf.VerifierRefusal
	switch {
	case errors.As(err, &refusal):
		if log {
			if e := refusal.WriteLog(w); e != nil {
				return e
			}
		}
		return &exitError{code: exitFailure, msg: refusal.Short() + when(!log, " (--log prints all it said)"), err: err}
	case errors.Is(err, bpf.ErrPrivilege):
		return &exitError{code: exitEnvironment, msg: err.Error(), err: err}
	case errors.Is(err, os.ErrNotExist):
		return usagef("%s: does not exist", path)
	case err != nil:
		return &exitError{code: exitFailure, msg: err.Error(), err: err}
	case asJSON:
		return printJSON(w, rep)
	}
	return rep.WriteText(w)
}

func newBPFPlan() *cobra.Command {
	var asJSON bool
	var uid, gid uint32
	var most int
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "print of which pieces a file on a mount is made",
		Long: `Ask the programs of a mount what a file is made of, and print it as a table of
extents: the bytes of the file, where they come from, and at which offset. Where
programs answer by caller, --uid and --gid say who asks (root by default).`,
		Example: `  plyfs bpf plan /mnt/disk.img
  plyfs bpf plan --uid 1000 /mnt/photos/a.jpg`,
		Args: exactly(1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := onMount(args[0], true)
			if err != nil {
				return err
			}
			var info stack.PlanInfo
			r := request{Verb: verbPlan, Path: []byte(p.rel)}
			r.Caller, r.Limit = &stack.Caller{UID: uid, GID: gid}, most
			if err := ask(p.mount, r, &info); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), info)
			}
			return printPlan(cmd.OutOrStdout(), p.path, &info)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.Uint32Var(&uid, "uid", 0, "the user who asks")
	f.Uint32Var(&gid, "gid", 0, "the group who asks")
	f.IntVar(&most, "most", 10000, "how many extents to print")
	return cmd
}

// printPlan prints for people.
func printPlan(w io.Writer, path string, p *stack.PlanInfo) error {
	t := newTable(w)
	t.row("file", fmt.Sprintf("%s, %d bytes", path, p.Size))
	if p.Rule != "" {
		t.row("rule", p.Rule)
	}
	t.row("i/o", p.IOMode+when(p.IOWhy != "", ": "+p.IOWhy))
	if err := t.Flush(); err != nil {
		return err
	}
	t = newTable(w)
	t.row("\nOFFSET", "LENGTH", "KIND", "SOURCE", "FROM")
	for _, e := range p.Extents {
		source := fmt.Sprint(e.Source)
		if e.Kind == "zero" || e.Kind == "server" {
			source = "-"
		}
		t.row(fmt.Sprint(e.Offset), fmt.Sprint(e.Length), e.Kind, source, e.From)
	}
	if p.More {
		t.row("...", "", "", "", "more; see --most")
	}
	return t.Flush()
}
