// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"github.com/spf13/cobra"
)

// helperCommand is the hidden subcommand behind mount.plyfs.
const helperCommand = "mount-helper"

// rootCommand is the command line with what its subcommands share.
type rootCommand struct {
	*cobra.Command
	stage    stage
	logLevel string
	logFile  string
}

// newRoot builds the command line.
func newRoot(s stage) *rootCommand {
	r := &rootCommand{stage: s}
	r.Command = &cobra.Command{
		Use:   "plyfs",
		Short: "stack directories into one tree",
		Long: `plyfs stacks directories into one tree and mounts it: the lower layers stay as
they are, an upper layer takes what is written. Plain files are read and
written by the kernel itself (FUSE passthrough).

Try it: run a command in a throw-away copy of the current directory, and see
what it changed:

  plyfs run -- make install`,
		Example: `  plyfs run --base / -- apt-get install -y hello
  plyfs mount -o lowerdir=/base,upperdir=/data/upper,workdir=/data/work /mnt
  plyfs status /mnt
  plyfs explain /mnt/etc/passwd
  plyfs umount /mnt`,
		Version:           versionText(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		PersistentPreRunE: func(*cobra.Command, []string) error { return r.setLogLevel(r.logLevel) },
	}
	r.SetVersionTemplate("{{.Version}}\n")
	r.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; see %s --help", err, cmd.CommandPath())
	})
	f := r.PersistentFlags()
	f.StringVar(&r.logLevel, "log-level", "", "least important messages to log: debug, info, warn or error (default info)")
	f.StringVar(&r.logFile, "log-file", "", "log to this file (default: the systemd journal, or "+logPath+")")
	r.AddCommand(newMount(r), newHelper(r), newUmount(), newRun(r), newStatus(), newExplain(), newComplete(), newSync(),
		newCheck(), newJournal(), newVersion(), exitCodesTopic, optionsTopic, checkTopic)
	r.AddCommand(bpfCommands()...)
	_ = r.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions(logLevels, cobra.ShellCompDirectiveNoFileComp))
	return r
}

// commandNames are the words that name a subcommand.
func (r *rootCommand) commandNames() []string {
	names := []string{"help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}
	for _, c := range r.Commands() {
		names = append(append(names, c.Name()), c.Aliases...)
	}
	return names
}

// exactly wants n arguments, in our words.
func exactly(n int, what string) cobra.PositionalArgs { return between(n, n, what) }

// between wants low to high arguments.
func between(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < low && len(args) > 0:
			return usagef("too few arguments; usage: %s", cmd.UseLine())
		case len(args) < low:
			return usagef("no %s given; usage: %s", what, cmd.UseLine())
		case len(args) > high:
			return usagef("unexpected argument %q; usage: %s", args[high], cmd.UseLine())
		}
		return nil
	}
}
