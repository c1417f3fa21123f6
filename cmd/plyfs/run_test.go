// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runDirs makes a base directory and a directory for temporary files.
func runDirs(t testing.TB) (dir, base string) {
	t.Helper()
	requireRoot(t)
	dir = publicDir(t, "base/sub", "base/old", "tmp")
	base = dir + "/base"
	write(t, base+"/f", "base")
	write(t, base+"/sub/g", "base")
	write(t, base+"/old/x", "base")
	t.Setenv("TMPDIR", dir+"/tmp")
	return dir, base
}

// wantClean expects that nothing is left of plyfs run.
func wantClean(t testing.TB, dir, base string) {
	t.Helper()
	wantFile(t, base+"/f", "base")
	wantFile(t, base+"/sub/g", "base")
	wantFile(t, base+"/old/x", "base")
	wantGone(t, base+"/new")
	eventually(t, "the end of the scratch directory", func() bool {
		left, err := os.ReadDir(dir + "/tmp")
		return err == nil && len(left) == 0
	})
}

// script changes a bit of everything.
const script = `cat f; echo 1 >new; rm sub/g; echo 2 >>f; rm -r old; mkdir dir; mv new dir/new`

// changes is what script changes.
const changes = "A dir\nA dir/new\nM f\nD old\nD sub/g\n"

func TestRun(t *testing.T) {
	dir, base := runDirs(t)
	r := call(t, base, "run", "--", "sh", "-c", script+"; exit 7")
	if r.code != 7 || r.stdout != "base" || r.stderr != changes {
		t.Errorf("%+v, want changes %q", r, changes)
	}
	wantClean(t, dir, base)
}

// TestRunPlaces: the working directory is that of the caller, seen through
// the overlay if it lies in it.
func TestRunPlaces(t *testing.T) {
	dir, base := runDirs(t)
	onRoot, err := locate(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ cwd, base, script, want string }{
		{base + "/sub", base, "pwd -P; ls; cat ../f", base + "/sub\ng\nbase"},
		{base + "/sub", ".", "pwd -P; echo x >new; ls; ls ..", base + "/sub\ng\nnew\nf\nold\nsub\n"},
		{dir, "base", "pwd -P; rm base/f; ls base", dir + "\nold\nsub\n"},
		{base + "/sub", "/", "pwd -P; rm g; ls", base + "/sub\n"},
		{base + "/sub", filepath.Dir(dir), "pwd -P; rm ../f; ls ..", base + "/sub\nold\nsub\n"},
	} {
		if c.base == "/" && onRoot.Mountpoint != "/" {
			continue // on another file system, which is shown as it is
		}
		r := call(t, c.cwd, "run", "--base", c.base, "sh", "-c", c.script)
		if r.code != 0 || r.stdout != c.want {
			t.Errorf("%+v: %+v", c, r)
		}
		wantClean(t, dir, base)
	}
}

// TestRunExitCodes: those of the command, or the usual ones.
func TestRunExitCodes(t *testing.T) {
	dir, base := runDirs(t)
	for _, c := range []struct {
		command []string
		code    int
		text    string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"sh", "-c", "exit 255"}, 255, ""},
		{[]string{"sh", "-c", "kill -9 $$"}, 128 + 9, ""},
		{[]string{"no-such-command"}, exitRunNotFound, "not found"},
		{[]string{base + "/no/such"}, exitRunNotFound, "no such file"},
		{[]string{base + "/f"}, exitRunNotExec, "permission denied"},
	} {
		call(t, base, append([]string{"run", "--"}, c.command...)...).want(t, c.code, c.text)
	}
	call(t, base, "run", "--base", "none", "true").want(t, exitUsage, "none")
	call(t, base, "run", "--base", "f", "true").want(t, exitUsage, "not a directory")
	call(t, base, "run", "--keep", dir, "true").want(t, exitUsage, "holds other files")
	wantClean(t, dir, base)
}

// TestRunKeep: kept changes are gone on with, and can be mounted as told.
func TestRunKeep(t *testing.T) {
	dir, base := runDirs(t)
	keep := dir + "/keep,it"
	for range 2 {
		r := call(t, base, "run", "--keep", keep, "sh", "-c", "test -d dir || ("+script+")")
		if r.code != 0 || !strings.HasPrefix(r.stderr, changes+"plyfs: kept in "+keep) {
			t.Fatalf("%+v", r)
		}
		_, line, _ := strings.Cut(r.stderr, "\n  plyfs ")
		mnt := dir + "/mnt"
		_ = os.Mkdir(mnt, 0o755)
		cmd := program()
		cmd.Args = []string{"sh", "-c", `"$0" ` + strings.Replace(strings.TrimSpace(line), "MOUNTPOINT", mnt, 1), cmd.Path}
		cmd.Path = "/bin/sh"
		finish(t, cmd).want(t, 0, "")
		wantFile(t, mnt+"/dir/new", "1\n")
		wantGone(t, mnt+"/old")
		call(t, dir, "umount", mnt).want(t, 0, "")
	}
	wantClean(t, dir, base)
}

// TestRunKeepVolatile: what was kept without a sync says how to go on.
func TestRunKeepVolatile(t *testing.T) {
	dir, base := runDirs(t)
	run := func(options string) result {
		return call(t, base, "run", "--keep", dir+"/kept", "-o", options, "sh", "-c", "echo 1 >>new")
	}
	if r := run("volatile"); r.code != 0 || !strings.Contains(r.stderr, ",after_volatile=keep MOUNTPOINT") {
		t.Errorf("%+v", r)
	}
	if r := run("volatile"); r.code != exitRunFailed || !strings.Contains(r.stderr, "or mount with -o after_volatile=keep") {
		t.Errorf("%+v", r)
	}
	if r := run("after_volatile=keep"); r.code != 0 || strings.Contains(r.stderr, "after_volatile") {
		t.Errorf("%+v", r)
	}
	wantFile(t, dir+"/kept/upper/new", "1\n1\n")
	wantClean(t, dir, base)
}

// TestRunSubmounts: what is mounted below the base stays visible, but the
// scratch directory in it does not.
func TestRunSubmounts(t *testing.T) {
	dir, base := runDirs(t)
	for _, p := range []string{base + "/sub", dir + "/tmp"} {
		if err := unix.Mount("none", p, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(p, unix.MNT_DETACH) })
	}
	write(t, base+"/sub/g", "base")
	if err := os.Mkdir(base+"/sub/deep", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", base+"/sub/deep", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(base+"/sub/deep", unix.MNT_DETACH) })
	write(t, base+"/sub/deep/h", "deeper")
	r := call(t, base, "run", "--", "sh", "-c", "cat sub/g sub/deep/h; echo real >sub/real; rm f")
	if r.code != 0 || r.stdout != "basedeeper" || r.stderr != "D f\n" {
		t.Errorf("%+v", r)
	}
	wantFile(t, base+"/sub/real", "real\n")
	r = call(t, dir, "run", "--", "sh", "-c", "ls tmp; ls tmp/*; ls base/sub/deep")
	if strings.Contains(r.stdout, "upper") || !strings.Contains(r.stdout, "h\n") {
		t.Errorf("the scratch directory is reachable: %+v", r)
	}
	wantClean(t, dir, base)
}

// TestRunStreams: the command has the streams of the caller.
func TestRunStreams(t *testing.T) {
	dir, base := runDirs(t)
	cmd := program("run", "--", "sh", "-c", "cat; echo err >&2")
	cmd.Dir, cmd.Stdin = base, bytes.NewReader(bytes.Repeat([]byte("x"), 1<<20))
	if r := finish(t, cmd); len(r.stdout) != 1<<20 || r.stderr != "err\n" {
		t.Errorf("%d bytes, %q", len(r.stdout), r.stderr)
	}
	wantClean(t, dir, base)
}

// TestRunBrokenPipe: that nobody reads the changes does not keep the scratch
// directory from being removed, and the command has the usual SIGPIPE.
func TestRunBrokenPipe(t *testing.T) {
	dir, base := runDirs(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer w.Close()
	cmd := program("run", "--", "sh", "-c", "echo 1 >new; grep SigIgn /proc/self/status; exit 3")
	cmd.Dir, cmd.Stderr = base, w
	out, _ := cmd.Output()
	var ignored uint64
	if _, err := fmt.Sscanf(string(out), "SigIgn:\t%x", &ignored); err != nil || cmd.ProcessState.ExitCode() != 3 {
		t.Fatalf("%v, %v: %s", cmd.ProcessState, err, out)
	}
	if ignored>>(unix.SIGPIPE-1)&1 != 0 {
		t.Errorf("the command ignores SIGPIPE: %#x", ignored)
	}
	wantClean(t, dir, base)
}

// background starts plyfs run and waits for the command's word.
func background(t testing.TB, base, script string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	cmd = program("run", "--", "sh", "-c", script)
	cmd.Dir = base
	// A file: a pipe would be waited for as long as a stray process has it.
	out, err := os.CreateTemp(filepath.Dir(base), "out")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = out
	stderr = new(bytes.Buffer)
	cmd.Stderr, cmd.WaitDelay = stderr, 20*time.Second
	// Without the terminal, if the tests have one: what that sends to its
	// foreground is not sent on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	start(t, cmd)
	eventually(t, "the command", func() bool {
		b, err := os.ReadFile(out.Name())
		return err == nil && strings.Contains(string(b), "ready")
	})
	return cmd, stderr
}

// TestRunSignals: the command gets the signals, and the changes are told.
func TestRunSignals(t *testing.T) {
	dir, base := runDirs(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		cmd, stderr := background(t, base, `trap "echo 1 >new; exit 9" TERM INT HUP USR1; echo ready; while :; do sleep 0.05; done`)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 9 || stderr.String() != "A new\n" {
			t.Errorf("%v: exit code %d, %q", sig, code, stderr)
		}
		wantClean(t, dir, base)
	}
}

// sleep is a call of sleep(1) that no other test makes, also not one of another
// run of the tests.
func sleep(n int) string { return fmt.Sprintf("sleep %d%d", 1000+n, os.Getpid()) }

// sleepers counts the processes whose command line has a text.
func sleepers(mark string) (n int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		if b, _ := os.ReadFile(l); strings.Contains(strings.ReplaceAll(string(b), "\x00", " "), mark) {
			n++
		}
	}
	return n
}

// TestRunLeavesNoProcess: what the command leaves behind ends with it, and
// everything ends with a plyfs run that is killed.
func TestRunLeavesNoProcess(t *testing.T) {
	dir, base := runDirs(t)
	one, two := sleep(1), sleep(2)
	r := call(t, base, "run", "--", "sh", "-c", "setsid "+one+" >/dev/null 2>&1 & echo 1 >new")
	if r.code != 0 || r.stderr != "A new\n" {
		t.Errorf("%+v", r)
	}
	if n := sleepers(one); n != 0 {
		t.Errorf("%d processes left behind", n)
	}
	cmd, _ := background(t, base, two+" & setsid "+two+" & echo 1 >new; echo ready; "+two+"; true")
	if n := sleepers(two); n < 3 {
		t.Errorf("%d processes before the kill", n)
	}
	_ = cmd.Process.Kill()
	eventually(t, "the end of all processes", func() bool { return sleepers(two) == 0 })
	wantClean(t, dir, base)
}

// TestRunLeavesNoDaemon: what makes itself a daemon just when the command ends
// ends with it, too.
func TestRunLeavesNoDaemon(t *testing.T) {
	dir, base := runDirs(t)
	daemon := sleep(4)
	for ms := range 8 {
		script := fmt.Sprintf("(sleep 0.%03d; setsid -f %s) >/dev/null 2>&1 & echo 1 >new", ms, daemon)
		if r := call(t, base, "run", "--", "sh", "-c", script); r.code != 0 || r.stderr != "A new\n" {
			t.Fatalf("after %d ms: %+v", ms, r)
		}
		if n := sleepers(daemon); n != 0 {
			t.Fatalf("after %d ms: %d processes left behind", ms, n)
		}
	}
	wantClean(t, dir, base)
}

// TestRunServerKilled: a dead server is told, and nothing stays.
func TestRunServerKilled(t *testing.T) {
	dir, base := runDirs(t)
	three := sleep(3)
	cmd, stderr := background(t, base, three+" & echo ready; "+three+"; true")
	server := childOf(t, cmd.Process.Pid, "run-serve")
	_ = unix.Kill(server, unix.SIGKILL)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitRunFailed || !strings.Contains(stderr.String(), "server of the overlay died") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	eventually(t, "the end of all processes", func() bool { return sleepers(three) == 0 })
	wantClean(t, dir, base)
}

// childOf finds the child process that was started for a stage.
func childOf(t testing.TB, parent int, stage string) int {
	t.Helper()
	out, err := exec.Command("pgrep", "-P", itoa(parent)).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(out)) {
		if b, _ := os.ReadFile("/proc/" + pid + "/environ"); strings.Contains(string(b), stageEnv+"="+stage) {
			return atoi(t, pid)
		}
	}
	t.Fatalf("no child of %d is a %s", parent, stage)
	return 0
}
