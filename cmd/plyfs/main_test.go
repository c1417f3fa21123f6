// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
	"github.com/plyfs/plyfs/stack/journal"
)

// asProgram makes the test binary the program under test.
const asProgram = "PLYFS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(realMain(os.Args))
	}
	unix.Umask(0o022) // others are to enter the directories that tests make
	os.Exit(m.Run())
}

// program prepares a call of the program.
func program(args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Args[0] = "plyfs"
	// The race detector would have each process sleep for a second at its end.
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return cmd
}

// result is what a call gave.
type result struct {
	code           int
	stdout, stderr string
}

// call calls the program in a directory.
func call(t testing.TB, dir string, args ...string) result {
	t.Helper()
	cmd := program(args...)
	cmd.Dir = dir
	return finish(t, cmd)
}

// finish runs a prepared call.
func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// want checks a result: the exit code, and that standard error is one line
// with a text (or nothing, for "").
func (r result) want(t testing.TB, code int, text string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; %s%s", r.code, code, r.stdout, r.stderr)
	}
	lines := strings.Count(r.stderr, "\n")
	if text == "" && r.stderr != "" || text != "" && (lines != 1 || !strings.HasPrefix(r.stderr, "plyfs: ") || !strings.Contains(r.stderr, text)) {
		t.Errorf("standard error %q, want one line with %q", r.stderr, text)
	}
}

func TestDispatch(t *testing.T) {
	names := newRoot(stage{}).commandNames()
	for _, c := range []struct{ in, want string }{
		{"plyfs mount -o a m", "mount -o a m"},
		{"plyfs -o a m", "mount --engine -o a m"},
		{"plyfs -oa m", "mount --engine -oa m"},
		{"plyfs src m -o a", "mount --engine src m -o a"},
		{"plyfs overlay m -o a -o b", "mount --engine overlay m -o a -o b"},
		{"plyfs --options=a m", "mount --engine --options=a m"},
		{"plyfs -f -o a m", "mount --engine -f -o a m"},
		{"plyfs --log-level debug -o a m", "mount --engine --log-level debug -o a m"},
		{"plyfs --log-level debug status m", "--log-level debug status m"},
		{"plyfs run -- cmd -o x", "run -- cmd -o x"},
		{"plyfs run -o volatile cmd", "run -o volatile cmd"},
		{"plyfs umount m", "umount m"},
		{"plyfs src m", "src m"},
		{"plyfs", ""},
		{"plyfs --help", "--help"},
		{"plyfs help options", "help options"},
		{"/sbin/mount.plyfs src m -sfnv -o a", "mount-helper src m -sfnv -o a"},
		{"/sbin/mount.fuse.plyfs src m -o a -t fuse.plyfs", "mount-helper src m -o a -t fuse.plyfs"},
	} {
		if got := strings.Join(dispatch(strings.Fields(c.in), names), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), exitFailure},
		{usagef("x"), exitUsage},
		{fmt.Errorf("wrapped: %w", usagef("x")), exitUsage},
		{&stack.Error{Kind: stack.KindUsage}, exitUsage},
		{&stack.Error{Kind: stack.KindEnvironment}, exitEnvironment},
		{&stack.Error{Kind: stack.KindBusy}, exitBusy},
		{&stack.Error{Kind: stack.KindJournal}, exitJournal},
		{&stack.Error{Kind: stack.KindIO, Err: unix.EIO}, exitFailure},
		{fmt.Errorf("x: %w", journal.ErrNewer), exitJournal},
		{fmt.Errorf("x: %w", journal.ErrDamaged), exitJournal},
		{fmt.Errorf("x: %w", journal.ErrLocked), exitBusy},
		{&os.PathError{Op: "umount", Err: unix.EBUSY}, exitBusy},
		{&os.PathError{Op: "mount", Err: unix.EPERM}, exitEnvironment},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestOneLine(t *testing.T) {
	err := errors.Join(errors.New("a  b"), errors.New("c"))
	if got := oneLine(err); got != "plyfs: a  b; c" {
		t.Errorf("%q", got)
	}
	if got := oneLine(errors.New("plyfs: once")); got != "plyfs: once" {
		t.Errorf("%q", got)
	}
}

// TestPanicIsOneLine: no panic reaches a user.
func TestPanicIsOneLine(t *testing.T) {
	code := func() (code int) {
		defer func() { code = reportPanic(recover()) }()
		panic("at the disco")
	}()
	if code != exitFailure {
		t.Errorf("exit code %d", code)
	}
}

func TestBadCommandLine(t *testing.T) {
	for _, c := range []struct{ args, text string }{
		{"frobnicate", "unknown command"},
		{"src mnt", "unknown command"},
		{"mount", "no MOUNTPOINT given"},
		{"mount mnt", "no lower directory"},
		{"mount -o lowerdir=/a b c d", `unexpected argument "d"`},
		{"mount --frobnicate", "unknown flag"},
		{"-o lowerdri=/a mnt", `did you mean "lowerdir"`},
		{"--log-level loud status", "the choices are"},
		{"umount", "no MOUNTPOINT given"},
		{"umount a b", "unexpected argument"},
		{"umount /", "not on a plyfs mount"},
		{"umount /nowhere/at/all", "does not exist"},
		{"status /proc", "not on a plyfs mount"},
		{"status a b", "unexpected argument"},
		{"explain", "no PATH given"},
		{"explain /", "not on a plyfs mount"},
		{"journal", "no subcommand"},
		{"journal dump", "no WORKDIR or MOUNTPOINT"},
		{"journal dump /proc", "neither"},
		{"run", "no command given"},
		{"run -o lowerdir=/a true", "not for plyfs run"},
		{"version x", "unknown command"},
	} {
		t.Run(c.args, func(t *testing.T) {
			call(t, "/", strings.Fields(c.args)...).want(t, exitUsage, c.text)
		})
	}
}

// TestHelp: every subcommand explains itself.
func TestHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || c.Runnable() && !c.Hidden && c.Long == "" && c.Name() != "version" {
			t.Errorf("%s is not explained", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(stage{}).Command)
	for _, args := range [][]string{{"--help"}, {"mount", "--help"}, {"help", "exit-codes"}, {"help", "options"}, {"--version"}, {"version"}, {"completion", "bash"}} {
		if r := call(t, "/", args...); r.code != 0 || r.stderr != "" || r.stdout == "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// TestOptionsAreDocumented: the help names every option of our own.
func TestOptionsAreDocumented(t *testing.T) {
	for _, o := range []string{"lowerdir", "lowerdir+", "upperdir", "workdir", "io", "passthrough", "max_stack_depth",
		"threads", "fd_cache", "timeout", "log_level", "log_file", "fsync", "context"} {
		if _, ok := optionTable[o]; !ok || !strings.Contains(optionsTopic.Long, o+"=") {
			t.Errorf("option %s: known %v, not in the help", o, ok)
		}
	}
	for _, o := range []string{"volatile", "noacl", "ro", "suid"} {
		if !slices.Contains(strings.Fields(optionsTopic.Long), o) {
			t.Errorf("option %s is not in the help", o)
		}
	}
}

func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	dir := publicDir(t, "lower", "mnt")
	exe := filepath.Join(dir, "plyfs")
	copyExecutable(t, exe)
	for _, c := range []struct{ args, text string }{
		{"mount -o lowerdir=lower mnt", "CAP_SYS_ADMIN"},
		{"run -- true", "CAP_SYS_ADMIN"},
	} {
		cmd := program(strings.Fields(c.args)...)
		cmd.Path, cmd.Dir = exe, dir
		cmd.SysProcAttr = asUser(1000)
		r := finish(t, cmd)
		want := exitEnvironment
		if strings.HasPrefix(c.args, "run") {
			want = exitRunFailed
		}
		r.want(t, want, c.text)
	}
}
