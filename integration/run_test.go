// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// runIn calls `plyfs run` with a base of its own and returns the outputs.
func runIn(t *testing.T, base string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command(plyfsBin, append([]string{"run"}, args...)...)
	cmd.Dir = base
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// newBase is a directory for plyfs run, proved unchanged at the end.
func newBase(t *testing.T, lines ...string) string {
	t.Helper()
	requirePlyfs(t, "run")
	requireRoot(t)
	base := makeTree(t, filepath.Join(tempDir(t), "base"), lines)
	before := mustDump(t, base, dumpOptions{inode: true, dirNlink: true})
	mounts := mountsAt(t, base)
	t.Cleanup(func() {
		for _, d := range diffTrees(before, mustDump(t, base, dumpOptions{inode: true, dirNlink: true}), nil) {
			t.Errorf("the base changed: %s", d)
		}
		if after := mountsAt(t, base); after != mounts {
			t.Errorf("mounts are left: %s", after)
		}
	})
	return base
}

// TestRunChanges prints what the command added, changed and deleted, and
// leaves the base as it was.
func TestRunChanges(t *testing.T) {
	base := newBase(t, "keep=1", "change=2", "dir/gone=3", "dir/stays=4", "moved/x=5")
	out, changes, err := runIn(t, base, "--", "sh", "-c",
		`pwd; cat keep; echo new >change; rm dir/gone; mkdir -p a/b; echo x >a/b/c; mv moved away; ls`)
	must(t, err)
	if want := base + "\n1a\naway\nchange\ndir\nkeep\n"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
	for _, w := range []string{"A a", "A a/b", "A a/b/c", "M change", "D dir/gone", "D moved", "A away"} {
		if !strings.Contains("\n"+changes, "\n"+w+"\n") {
			t.Errorf("the changes do not list %q:\n%s", w, changes)
		}
	}
	for _, w := range []string{"keep", "dir/stays"} {
		if strings.Contains(changes, w) {
			t.Errorf("the changes list %q, which did not change:\n%s", w, changes)
		}
	}
}

// TestRunExitCode hands the code of the command on, and 128+signal.
func TestRunExitCode(t *testing.T) {
	base := newBase(t, "f=1")
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 143} {
		_, stderr, err := runIn(t, base, "--", "sh", "-c", script)
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != want {
			t.Errorf("%s: exit code %d, want %d (%s)", script, code, want, stderr)
		}
	}
	_, _, err := runIn(t, base, "--", base+"/no-such-program")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 127 {
		t.Errorf("a missing program: %v, want exit code 127", err)
	}
}

// TestRunStdin hands standard input to the command.
func TestRunStdin(t *testing.T) {
	base := newBase(t, "f=1")
	cmd := exec.Command(plyfsBin, "run", "--base", base, "--", "cat")
	cmd.Stdin = strings.NewReader("typed")
	out, err := cmd.Output()
	if err != nil || string(out) != "typed" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestRunKeep keeps upper and journal, which can be mounted again.
func TestRunKeep(t *testing.T) {
	base := newBase(t, "gone=1", "d/x=2")
	keep := filepath.Join(tempDir(t), "keep")
	_, stderr, err := runIn(t, base, "--keep", keep, "--", "sh", "-c", "rm gone; echo 3 >new; mv d e")
	must(t, err)
	if !strings.Contains(stderr, keep) {
		t.Errorf("it does not say how to mount it again: %s", stderr)
	}
	mp := makeTree(t, filepath.Join(tempDir(t), "mnt"), nil)
	out, err := plyfs("mount", "-o", "lowerdir="+base+",upperdir="+keep+"/upper,workdir="+keep+"/work", mp)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantNames(t, mp, "e", "new")
	wantFile(t, mp+"/e/x", "2")
	if out, err := plyfs("umount", mp); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestRunKilled: when plyfs run is killed nothing of it stays: no process, no
// mount.
func TestRunKilled(t *testing.T) {
	base := newBase(t, "f=1")
	seconds := "64123." + itoa(os.Getpid()) // nobody else sleeps that long
	command := "sleep\x00" + seconds + "\x00"
	for _, started := range []bool{false, true} {
		cmd := exec.Command(plyfsBin, "run", "--base", base, "--", "sleep", seconds)
		must(t, cmd.Start())
		if started { // the command itself, not plyfs that has it for its arguments
			waitFor(t, "the command starts", patience, func() bool { return len(processesOf(command)) > 0 })
		}
		must(t, cmd.Process.Signal(unix.SIGKILL))
		cmd.Wait()
		waitFor(t, "no process is left", patience, func() bool { return len(processesWith(command)) == 0 && len(processesWith(base)) == 0 })
	}
}

// processesWith lists the other processes whose command line has the text in it.
func processesWith(text string) []string {
	return processes(func(line []byte) bool { return bytes.Contains(line, []byte(text)) })
}

// processesOf lists the other processes that have the command line.
func processesOf(line string) []string {
	return processes(func(l []byte) bool { return string(l) == line })
}

func processes(like func(line []byte) bool) []string {
	var pids []string
	names, _ := readNames("/proc")
	for _, n := range names {
		b, err := os.ReadFile("/proc/" + n + "/cmdline")
		if err == nil && n[0] >= '0' && n[0] <= '9' && n != itoa(os.Getpid()) && like(b) {
			pids = append(pids, n)
		}
	}
	return pids
}

// TestRunMountsBelow keeps other mounts below the base visible.
func TestRunMountsBelow(t *testing.T) {
	base := newBase(t, "d/", "f=1")
	must(t, unix.Mount("tmpfs", base+"/d", "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(base+"/d", unix.MNT_DETACH) })
	must(t, os.WriteFile(base+"/d/inside", []byte("below"), 0o644))
	out, stderr, err := runIn(t, base, "--", "cat", "d/inside")
	if err != nil || out != "below" {
		t.Errorf("got %q, %v (%s)", out, err, stderr)
	}
	must(t, unix.Unmount(base+"/d", 0))
}
