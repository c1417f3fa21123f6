// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// newRun is the subcommand that runs a command in a throw-away overlay.
func newRun(r *rootCommand) *cobra.Command {
	o := &runOptions{root: r}
	cmd := &cobra.Command{
		Use:   "run [--base DIR] [--keep DIR] [-o OPTIONS] -- COMMAND [ARG...]",
		Short: "run a command in a throw-away overlay of a directory",
		Long: `Run a command that sees a writable overlay in place of a directory (default: the
current one), and print on standard error what it has added (A), modified (M)
and deleted (D). The directory itself is not touched, and the changes are thrown
away, unless --keep says where to keep them.

Only the command and what it starts see the overlay: it is mounted in a mount
namespace of its own, over the directory's own path. Processes that the command
leaves behind are ended with it. The exit code is that of the command, 128+N if
signal N ended it; 125 to 127 are explained by "plyfs help exit-codes".

Other file systems mounted below the directory (with --base /: /proc, /dev, a
separate /home) are shown as they are: changes there are real.`,
		Example: `  plyfs run -- make install
  plyfs run --base / -- apt-get install -y hello
  plyfs run --base /etc --keep /root/try -- vi /etc/fstab`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("no command given; usage: plyfs run [--base DIR] [--keep DIR] -- COMMAND [ARG...]")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.messages = cmd.ErrOrStderr()
			return asRunFailure(o.run(args))
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&o.base, "base", ".", "directory to overlay")
	f.StringVar(&o.keep, "keep", "", "keep the changes in this directory (upper and work); an earlier one is gone on with")
	f.StringArrayVarP(&o.options, "options", "o", nil, "mount options other than directories; see plyfs help options")
	return cmd
}

// asRunFailure gives failures of plyfs itself the exit code of plyfs run,
// apart from those of its command line.
func asRunFailure(err error) error {
	var coded *exitError
	if err == nil || errors.As(err, &coded) && (coded.msg == "" || coded.code == exitUsage) {
		return err
	}
	return &exitError{code: exitRunFailed, msg: err.Error(), err: err}
}

// runOptions are the flags of plyfs run.
type runOptions struct {
	root       *rootCommand
	base, keep string
	options    []string
	messages   io.Writer
}

// run runs a command.
func (o *runOptions) run(command []string) (err error) {
	m, err := parseOptions(o.options, false)
	if err != nil {
		return err
	}
	if len(m.Lowers) > 0 || m.Upper != "" || m.Work != "" {
		return usagef("lowerdir, upperdir and workdir are not for plyfs run; use --base and --keep")
	}
	if err := checkMachine(); err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return fail(exitRunFailed, "the working directory cannot be told: %w", err)
	}
	base, err := resolveBase(o.base)
	if err != nil {
		return err
	}
	signals := catchSignals()
	s, err := newScratch(o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	r := &runner{
		spec:     runSpec{Base: base, Scratch: s.dir, Keep: s.keep, Options: o.options, LogLevel: o.root.logLevel, LogFile: o.root.logFile, Namespace: ownNamespace()},
		enter:    enterSpec{Base: base, Cwd: cwd, Command: command},
		messages: o.messages,
		signals:  signals,
	}
	err = r.run()
	o.printKept(s, base)
	return err
}

// resolveBase gives the path of the directory to overlay.
func resolveBase(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", usagef("%s: the base directory cannot be used: %w", name, errors.Unwrap(err))
	}
	if st, err := os.Stat(resolved); err != nil || !st.IsDir() {
		return "", usagef("%s: the base is not a directory", name)
	}
	return resolved, nil
}

// printKept says how to mount what was kept.
func (o *runOptions) printKept(s *scratch, base string) {
	if !s.keep || !s.used() {
		return
	}
	options := "lowerdir=" + escapeOption(base) + ",upperdir=" + escapeOption(s.dir+"/upper") + ",workdir=" + escapeOption(s.dir+"/work")
	if s.volatile() {
		options += ",after_volatile=keep"
	}
	fmt.Fprintf(o.messages, "plyfs: kept in %s; see it again with\n  plyfs mount -o %s MOUNTPOINT\n", s.dir, shellQuote(options))
}

// shellQuote quotes a word for a shell if it needs it.
func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-=,:+@%"
	if strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// scratch is the directory with upper and work.
type scratch struct {
	dir     string
	keep    bool
	created []string // what was made and is removed again if nothing was kept
}

// newScratch makes a scratch directory, in the directory for temporary files
// or where the changes shall be kept.
func newScratch(keep string) (*scratch, error) {
	if keep == "" {
		dir, err := os.MkdirTemp("", "plyfs-run-")
		if err != nil {
			return nil, fail(exitRunFailed, "no scratch directory: %w; set TMPDIR to a directory with space", err)
		}
		s := &scratch{dir: dir}
		return s, s.mkdirs()
	}
	dir, err := filepath.Abs(keep)
	if err != nil {
		return nil, err
	}
	s := &scratch{dir: dir, keep: true}
	if err := s.checkKept(); err != nil {
		return nil, err
	}
	return s, s.mkdirs()
}

// checkKept accepts a directory that is not there yet, an empty one, or one
// that an earlier run kept its changes in.
func (s *scratch) checkKept() error {
	names, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return usagef("%s: cannot be used for --keep: %w", s.dir, errors.Unwrap(err))
	}
	for _, n := range names {
		if n.Name() != "upper" && n.Name() != "work" {
			return usagef("%s: holds other files than those of plyfs run (%s); give --keep a new or an empty directory", s.dir, n.Name())
		}
	}
	return nil
}

// mkdirs makes what is missing of the directories.
func (s *scratch) mkdirs() error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{s.dir, 0o700}, {s.dir + "/upper", 0o755}, {s.dir + "/work", 0o700}} {
		err := os.Mkdir(d.path, d.mode)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			s.undo()
			return usagef("%s: cannot be made: %w", d.path, errors.Unwrap(err))
		}
		s.created = append(s.created, d.path)
	}
	return nil
}

// undo removes the empty directories that were made.
func (s *scratch) undo() {
	for _, d := range slices.Backward(s.created) {
		_ = os.Remove(d)
	}
}

// used says whether a journal was made.
func (s *scratch) used() bool {
	_, err := os.Stat(s.dir + "/work/plyfs")
	return err == nil
}

// volatile says whether what is kept was never synced (-o volatile).
func (s *scratch) volatile() bool {
	_, err := os.Stat(s.dir + "/work/plyfs/volatile")
	return err == nil
}

// remove removes the scratch directory, unless it shall be kept.
func (s *scratch) remove() error {
	if !s.keep {
		return os.RemoveAll(s.dir)
	}
	if !s.used() {
		s.undo()
	}
	return nil
}

// printChanges prints the list of changes, sorted by path. That nobody reads
// it is no reason to fail: the exit code is the command's.
func printChanges(w io.Writer, list []change) {
	slices.SortFunc(list, func(a, b change) int { return strings.Compare(string(a.Path), string(b.Path)) })
	out := bufio.NewWriter(w)
	for _, c := range list {
		fmt.Fprintf(out, "%c %s\n", c.Kind, printable(string(c.Path)))
	}
	_ = out.Flush()
}

// printable quotes a name that would not stay on its line.
func printable(name string) string {
	if q := strconv.Quote(name); q[1:len(q)-1] != name {
		return q
	}
	return name
}

// foregroundGroup says whether the terminal sends its signals to this process
// group.
func foregroundGroup() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
