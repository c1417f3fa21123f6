// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/stack"
	"github.com/plyfs/plyfs/stack/journal"
)

// Exit codes. They are stable: scripts may rely on them.
const (
	exitOK          = 0
	exitFailure     = 1   // something failed that the caller could not know
	exitUsage       = 2   // the command line or an option is wrong
	exitEnvironment = 3   // the machine lacks something: /dev/fuse, a privilege, a kernel feature
	exitBusy        = 4   // in use by another mount or process
	exitJournal     = 5   // the journal is newer, damaged, or of other layers
	exitViolation   = 6   // plyfs check: something is not as it should be
	exitRunFailed   = 125 // plyfs run: plyfs itself failed
	exitRunNotExec  = 126 // plyfs run: the command cannot be executed
	exitRunNotFound = 127 // plyfs run: the command was not found
)

// exitError is an error with an exit code.
type exitError struct {
	code  int
	msg   string
	err   error // the cause, if any; not printed
	lines bool  // msg has several lines, each to be shown as one
}

// Error implements error.
func (e *exitError) Error() string { return e.msg }

// Unwrap gives the cause.
func (e *exitError) Unwrap() error { return e.err }

// usagef is a mistake in the command line.
func usagef(format string, args ...any) error { return fail(exitUsage, format, args...) }

// fail is an error that ends the process with code. A cause is given with %w.
func fail(code int, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &exitError{code: code, msg: err.Error(), err: errors.Unwrap(err)}
}

// exitCode is the exit code for an error.
func exitCode(err error) int {
	var coded *exitError
	var refusal *stack.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case isJournal(err):
		return exitJournal
	case errors.Is(err, journal.ErrLocked):
		return exitBusy
	case errors.As(err, &refusal):
		return kindCode(refusal.Kind)
	}
	return errnoCode(err)
}

// isJournal says whether the journal was refused.
func isJournal(err error) bool {
	for _, e := range []error{journal.ErrNewer, journal.ErrDamaged, journal.ErrLayerSet} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// kindCode is the exit code for a kind of refusal.
func kindCode(k stack.ErrorKind) int {
	switch k {
	case stack.KindUsage:
		return exitUsage
	case stack.KindEnvironment:
		return exitEnvironment
	case stack.KindBusy:
		return exitBusy
	case stack.KindJournal:
		return exitJournal
	}
	return exitFailure
}

// errnoCode is the exit code for an error of the system that nobody sorted.
func errnoCode(err error) int {
	switch {
	case errors.Is(err, syscall.EBUSY):
		return exitBusy
	case errors.Is(err, fs.ErrPermission):
		return exitEnvironment
	}
	return exitFailure
}

// oneLine makes an error one line, for it is shown as one, unless it is a list.
func oneLine(err error) string {
	var e *exitError
	if errors.As(err, &e) && e.lines {
		return "plyfs: " + strings.ReplaceAll(strings.TrimSpace(e.msg), "\n", "\nplyfs: ")
	}
	s := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	return "plyfs: " + strings.TrimPrefix(s, "plyfs: ")
}

// exitCodesTopic is the help topic about exit codes.
var exitCodesTopic = &cobra.Command{
	Use:   "exit-codes",
	Short: "what the exit codes mean",
	Long: `Exit codes of plyfs. They are stable.

    0  done; for "mount": the mount is usable
    1  failed: an error of the file system below, or one nobody foresaw
    2  usage: an unknown or contradicting option, a wrong directory
    3  environment: /dev/fuse, a privilege or a kernel feature is missing
    4  busy: in use by another mount, or by processes
    5  journal: newer than this program, damaged, or of other layers
    6  "check" has found violations

"plyfs run" exits with the code of its command, 128+N if signal N ended it, and

  125  plyfs itself failed
  126  the command cannot be executed
  127  the command was not found`,
}
