// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

// TestMountLife: mount, write, ask, unmount, and all again, with relative
// paths as container engines give them.
func TestMountLife(t *testing.T) {
	dir := layersDir(t)
	for round := range 2 {
		call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "")
		wantMounted(t, dir+"/m", true)
		if round == 0 {
			wantFile(t, dir+"/m/f", "lower a")
			write(t, dir+"/m/f", "changed")
			if err := os.Remove(dir + "/m/h"); err != nil {
				t.Fatal(err)
			}
		}
		wantFile(t, dir+"/m/f", "changed")
		wantGone(t, dir+"/m/h")
		s := status(t, dir+"/m")
		if s.PID == 0 || s.CapSysRes || len(s.Layers) != 3 || s.ReadOnly {
			t.Errorf("status %+v", s)
		}
		call(t, dir, "umount", "m").want(t, 0, "")
		wantMounted(t, dir+"/m", false)
		if alive(s.PID) {
			t.Error("the daemon lives on")
		}
	}
	wantFile(t, dir+"/a/f", "lower a")
	wantFile(t, dir+"/b/h", "lower b too")
}

// status asks for the status as JSON.
func status(t testing.TB, mountpoint string) stack.Status {
	t.Helper()
	r := call(t, "/", "status", "--json", mountpoint)
	var s stack.Status
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || r.code != 0 {
		t.Fatalf("status: %v %+v", err, r)
	}
	return s
}

// TestMountForms: the ways in which others call a mount program.
func TestMountForms(t *testing.T) {
	dir := layersDir(t)
	if err := os.Mkdir(dir+"/l", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../a", dir+"/l/ABC"); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{
		"-o lowerdir=l/ABC:b,upperdir=u,workdir=w,nodev,metacopy=on %s/m",
		"-o lowerdir=a:b,upperdir=u,workdir=w -o noatime m", // the same layers without the link
		"overlay %s/m -o workdir=w -o upperdir=u -o lowerdir=a:b,dev,suid",
		"mount -o lowerdir=a src m",
		"-o lowerdir=a:b,allow_other,default_permissions,x-systemd.automount m",
	} {
		args := strings.Fields(form)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "%s", dir)
		}
		call(t, dir, args...).want(t, 0, "")
		wantFile(t, dir+"/m/f", "lower a")
		call(t, dir, "umount", dir+"/m").want(t, 0, "")
	}
	helper := func(args ...string) *exec.Cmd {
		cmd := program(append([]string{"src", dir + "/m"}, args...)...)
		cmd.Args[0], cmd.Dir = "/sbin/mount.plyfs", dir
		return cmd
	}
	finish(t, helper("-f", "-o", "lowerdir=a")).want(t, 0, "")
	wantMounted(t, dir+"/m", false)
	finish(t, helper("-o", "lowerdir=a,frobnicate")).want(t, exitUsage, "frobnicate")
	finish(t, helper("-s", "-n", "-v", "-o", "rw,lowerdir=a,frobnicate", "-t", "plyfs")).want(t, 0, "")
	if p, err := locate(dir+"/m", false); err != nil || p.Source != "src" {
		t.Errorf("source %q, %v", p.Source, err)
	}
	call(t, dir, "umount", "m").want(t, 0, "")
}

// TestMountQuietPipes: an engine that reads the outputs to their end is not
// kept waiting by the daemon.
func TestMountQuietPipes(t *testing.T) {
	dir := layersDir(t)
	done := make(chan result)
	go func() { done <- call(t, dir, "mount", "-o", layerOptions, "m") }()
	select {
	case r := <-done:
		r.want(t, 0, "")
	case <-time.After(patience):
		t.Fatal("the daemon keeps the outputs open")
	}
	call(t, dir, "umount", "m").want(t, 0, "")
}

// TestMountForeground: -f serves until a signal comes.
func TestMountForeground(t *testing.T) {
	dir := layersDir(t)
	cmd := program("mount", "-f", "-o", layerOptions, "m")
	cmd.Dir = dir
	stderr, err := os.Create(dir + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	log := func() string { b, _ := os.ReadFile(stderr.Name()); return string(b) }
	cmd.Stderr = stderr
	start(t, cmd)
	eventually(t, "the mount", func() bool { _, err := os.Stat(dir + "/m/f"); return err == nil })
	if s := status(t, dir+"/m"); s.PID != cmd.Process.Pid || s.CapSysRes {
		t.Errorf("pid %d, want %d; CAP_SYS_RESOURCE %v", s.PID, cmd.Process.Pid, s.CapSysRes)
	}
	f, err := os.Open(dir + "/m/f")
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGINT) // busy: goes on
	eventually(t, "a word about the first signal", func() bool { return strings.Contains(log(), "second signal") })
	wantMounted(t, dir+"/m", true)
	_ = f.Close()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, log())
	}
	wantMounted(t, dir+"/m", false)
}

// TestMountRefused: each refusal is one line, with nothing mounted or made.
func TestMountRefused(t *testing.T) {
	dir := layersDir(t)
	write(t, dir+"/file", "")
	for _, c := range []struct {
		args, text string
		code       int
	}{
		{"-o lowerdir=none m", "does not exist", exitUsage},
		{"-o lowerdir=file m", "not a directory", exitUsage},
		{"-o lowerdir=a:none,upperdir=u,workdir=w m", "none", exitUsage},
		{"-o lowerdir=a,upperdir=none,workdir=w m", "upperdir does not exist", exitUsage},
		{"-o lowerdir=a,upperdir=u,workdir=none m", "workdir does not exist", exitUsage},
		{"-o lowerdir=a,upperdir=u m", "upperdir without workdir", exitUsage},
		{"-o lowerdir=a,workdir=w m", "workdir without upperdir", exitUsage},
		{"-o upperdir=u,workdir=w m", "no lower directory", exitUsage},
		{"-o lowerdir=a,upperdir=u,workdir=u m", "overlaps", exitUsage},
		{"-o lowerdir=a,upperdir=a,workdir=w m", "overlaps", exitUsage},
		{"-o lowerdir=a:a m", "overlaps", exitUsage},
		{"-o lowerdir=a,upperdir=u,workdir=/dev/shm m", "workdir is not on the same mount", exitUsage},
		{"-o lowerdir=a none", "mount point does not exist", exitUsage},
		{"-o lowerdir=a file", "mount point is not a directory", exitUsage},
		{"-o lowerdir=a --log-file none/log m", "log file", exitUsage},
		{"-o lowerdir=a,log_level=loud m", "choices", exitUsage},
	} {
		t.Run(c.args, func(t *testing.T) {
			call(t, dir, strings.Fields(c.args)...).want(t, c.code, c.text)
			wantMounted(t, dir+"/m", false)
			wantGone(t, dir+"/none")
			wantGone(t, dir+"/u/plyfs")
		})
	}
}

// TestMountInUse: a layer of a live mount is refused to a second one.
func TestMountInUse(t *testing.T) {
	dir := layersDir(t)
	for _, d := range []string{"m2", "w2"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "")
	call(t, dir, "mount", "-o", "lowerdir=a:b,upperdir=u,workdir=w2", "m2").want(t, exitBusy, "in use by another live plyfs mount")
	call(t, dir, "mount", "-o", "lowerdir=u", "m2").want(t, exitBusy, "in use")
	call(t, dir, "journal", "dump", "w").want(t, exitBusy, "mount")
	call(t, dir, "umount", "m").want(t, 0, "")
	call(t, dir, "mount", "-o", "lowerdir=b:a,upperdir=u,workdir=w", "m").want(t, exitJournal, "another set of layers")
}

// TestMountOverDead: a mount whose daemon was killed is replaced.
func TestMountOverDead(t *testing.T) {
	dir := layersDir(t)
	call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "")
	write(t, dir+"/m/new", "survives")
	killDaemon(t, dir+"/m")
	r := call(t, dir, "status", "m")
	r.want(t, exitFailure, "the daemon is dead")
	call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "found a dead plyfs mount, whose daemon had ended without unmounting; cleaned it up")
	wantFile(t, dir+"/m/new", "survives")
	killDaemon(t, dir+"/m")
	call(t, dir, "umount", "m").want(t, 0, "the daemon had died")
	wantMounted(t, dir+"/m", false)
}

// killDaemon kills the daemon of a mount, and waits for its end: that of all its
// threads, the last of which closes its files.
func killDaemon(t testing.TB, mountpoint string) {
	t.Helper()
	pid := status(t, mountpoint).PID
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon's end", func() bool { return ended(pidfd, 0) })
}

// TestStatusOfTheDying: a daemon that was killed is told as dead from the first
// moment, while its last threads end.
func TestStatusOfTheDying(t *testing.T) {
	dir := layersDir(t)
	for range 5 {
		call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "")
		p, err := atMount(dir + "/m")
		if err != nil {
			t.Fatal(err)
		}
		pid := status(t, dir+"/m").PID
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for alive(pid) {
			runtime.Gosched()
		}
		if err := ask(p.mount, request{Verb: verbStatus}, nil); err == nil || !strings.Contains(err.Error(), "the daemon is dead") {
			t.Errorf("%v", err)
		}
		call(t, dir, "umount", "m").want(t, 0, "the daemon had died")
	}
}

// TestUmountBusy: those who hold the mount are named, one line.
func TestUmountBusy(t *testing.T) {
	dir := layersDir(t)
	call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "")
	holdBy := func(prepare func(*exec.Cmd), text string) {
		t.Helper()
		cmd := exec.Command("sleep", "60")
		prepare(cmd)
		start(t, cmd)
		call(t, dir, "umount", "m").want(t, exitBusy, fmt.Sprintf("sleep (%d): %s", cmd.Process.Pid, text))
		wantMounted(t, dir+"/m", true)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	holdBy(func(c *exec.Cmd) { c.Dir = dir + "/m" }, "working directory")
	f, err := os.Open(dir + "/m/f")
	if err != nil {
		t.Fatal(err)
	}
	holdBy(func(c *exec.Cmd) { c.Stdin = f; _ = f }, "open file "+dir+"/m/f")
	_ = f.Close()
	if err := unix.Mount("none", dir+"/m/d", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	call(t, dir, "umount", "m").want(t, exitBusy, "mounted inside: "+dir+"/m/d")
	call(t, dir, "umount", "m/d").want(t, exitUsage, "not on a plyfs mount")
	if err := unix.Unmount(dir+"/m/d", 0); err != nil {
		t.Fatal(err)
	}
	call(t, dir, "umount", "m/d").want(t, exitUsage, "not a mount point")
	call(t, dir, "umount", "m").want(t, 0, "")
}

// TestUmountLazy: a busy mount is detached and ends with its last user.
func TestUmountLazy(t *testing.T) {
	dir := layersDir(t)
	call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "")
	pid := status(t, dir+"/m").PID
	f, err := os.Open(dir + "/m/f")
	if err != nil {
		t.Fatal(err)
	}
	call(t, dir, "umount", "--lazy", "m").want(t, 0, "still in use")
	wantMounted(t, dir+"/m", false)
	if !alive(pid) {
		t.Error("the daemon ended under an open file")
	}
	_ = f.Close()
	eventually(t, "the daemon's end", func() bool { return !alive(pid) })
}

// TestUmountOtherNamespace: a mount that another namespace still has is said
// to be so.
func TestUmountOtherNamespace(t *testing.T) {
	dir := layersDir(t)
	call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "")
	pid := status(t, dir+"/m").PID
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	start(t, other)
	call(t, dir, "umount", "m").want(t, 0, "still mounted elsewhere")
	_ = other.Process.Kill()
	_ = other.Wait()
	eventually(t, "the daemon's end", func() bool { return !alive(pid) })
}

// TestQuestions: explain, journal dump and the list of all mounts.
func TestQuestions(t *testing.T) {
	dir := layersDir(t)
	call(t, dir, "mount", "-o", layerOptions, "m").want(t, 0, "")
	if err := os.Remove(dir + "/m/h"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", dir+"/m/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/m/d", dir+"/outside"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"m":         "merged",
		"m/f":       "a/f",
		"m/h":       "does not exist",
		"m/link":    "symlink",
		"m/d/g":     "a/d/g",
		"outside/g": "a/d/g",
		"m/no/such": "does not exist",
	} {
		r := call(t, dir, "explain", path)
		if path == "m/no/such" {
			if r.code == 0 && !strings.Contains(r.stdout, want) {
				t.Errorf("explain %s: %+v", path, r)
			}
		} else if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("explain %s: %+v, want %q", path, r, want)
		}
	}
	var e stack.Explanation
	if r := call(t, dir, "explain", "--json", "m/f"); json.Unmarshal([]byte(r.stdout), &e) != nil || !e.Exists {
		t.Errorf("explain --json: %+v", r)
	}
	live := call(t, dir, "journal", "dump", "m")
	if r := call(t, dir, "status"); !strings.Contains(r.stdout, dir+"/m") { // others may have dead mounts
		t.Errorf("status: %+v", r)
	}
	if r := call(t, dir, "status", "m"); r.code != 0 || !strings.Contains(r.stdout, "CAP_SYS_RESOURCE dropped") {
		t.Errorf("status m: %+v", r)
	}
	call(t, dir, "umount", "m").want(t, 0, "")
	offline := call(t, dir, "journal", "dump", "w")
	if live.stdout != offline.stdout || !strings.Contains(live.stdout, `"h"`) {
		t.Errorf("live dump\n%s%sdump\n%s%s", live.stdout, live.stderr, offline.stdout, offline.stderr)
	}
}

// TestLogFile: a daemon writes where it is told.
func TestLogFile(t *testing.T) {
	dir := layersDir(t)
	call(t, dir, "mount", "--log-file", "log", "-o", layerOptions+",threaded=1", "m").want(t, 0, "")
	call(t, dir, "umount", "m").want(t, 0, "")
	b, err := os.ReadFile(dir + "/log")
	if err != nil || !bytes.Contains(b, []byte("mounted")) || !bytes.Contains(b, []byte("threaded has no effect")) {
		t.Errorf("log %s, %v", b, err)
	}
}

// TestNoFuseDevice: without /dev/fuse the refusal says so.
func TestNoFuseDevice(t *testing.T) {
	dir := layersDir(t)
	script := `mount -t tmpfs none /dev && exec "$0" "$@"`
	cmd := program()
	cmd.Args = append([]string{"sh", "-c", script, cmd.Path}, "mount", "-o", layerOptions, "m")
	cmd.Path, cmd.Dir = "/bin/sh", dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	finish(t, cmd).want(t, exitEnvironment, "/dev/fuse is missing")
	wantGone(t, dir+"/w/plyfs")
}
