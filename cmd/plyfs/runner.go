// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/creds"
)

// runSpec is what the server of plyfs run is told.
type runSpec struct {
	Base     string   `json:"base"`
	Scratch  string   `json:"scratch"` // with upper and work
	Keep     bool     `json:"keep"`
	Options  []string `json:"options,omitempty"`
	LogLevel string   `json:"log_level,omitempty"`
	LogFile  string   `json:"log_file,omitempty"`

	Namespace namespaceID `json:"namespace"` // the parent's mount namespace
}

// message is what the server of plyfs run tells: ready, then changes, then
// done. An error may come in place of ready, or with done.
type message struct {
	Ready  bool    `json:"ready,omitempty"`
	Change *change `json:"change,omitempty"`
	Done   bool    `json:"done,omitempty"`
	Exit   int     `json:"exit,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// change is one line of the list of changes.
type change struct {
	Kind byte   `json:"kind"` // A, M or D
	Path []byte `json:"path"` // relative to the base; bytes, for names need not be UTF-8
}

// runner is the parent of plyfs run's processes.
type runner struct {
	spec     runSpec
	enter    enterSpec
	messages io.Writer
	signals  <-chan os.Signal // caught, for the command

	server    *exec.Cmd
	answers   *json.Decoder
	finish    *os.File // closed or written to: the command has ended
	namespace *os.File // the server's mount namespace
	root      *os.File // the server's root directory
}

// run starts the server, runs the command, and prints the changes.
func (r *runner) run() error {
	// A process that asks to be killed with its parent is killed with the
	// thread that started it.
	runtime.LockOSThread()
	if err := r.startServer(); err != nil {
		return err
	}
	defer r.closeFiles()
	told := make(chan outcome, 1)
	go func() { told <- r.listen() }()
	code, err := r.runCommand()
	end := r.stopServer(told)
	printChanges(r.messages, end.changes)
	err = errors.Join(err, end.err)
	if err != nil || code == exitOK {
		return err
	}
	return &exitError{code: code}
}

// startServer starts the server in a mount namespace of its own and waits
// until it has mounted.
func (r *runner) startServer() error {
	answers, answersW, err := os.Pipe()
	if err != nil {
		return err
	}
	finishR, finish, err := os.Pipe()
	if err != nil {
		return err
	}
	env, err := stageEnviron(stageRunServe, r.spec)
	if err != nil {
		return err
	}
	r.server = &exec.Cmd{
		Path: selfExe, Args: os.Args, Env: env, Stderr: os.Stderr,
		ExtraFiles:  []*os.File{answersW, finishR},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM},
	}
	err = startWithoutResource(r.server)
	_ = answersW.Close()
	_ = finishR.Close()
	if err != nil {
		return fail(exitRunFailed, "starting the server: %w", err)
	}
	r.answers, r.finish = json.NewDecoder(answers), finish
	if err := r.awaitReady(); err != nil {
		return err
	}
	return r.openNamespace()
}

// startWithoutResource starts a process that does not have CAP_SYS_RESOURCE.
// The thread that dropped it stays for as long as this process does.
func startWithoutResource(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		if err := creds.DropBoundingResource(); err != nil {
			started <- err
			return
		}
		started <- cmd.Start()
		select {}
	}()
	return <-started
}

// awaitReady reads the first message.
func (r *runner) awaitReady() error {
	var m message
	if err := r.answers.Decode(&m); err != nil {
		return fail(exitRunFailed, "the server ended before the overlay was usable (%v)", endOf(r.server))
	}
	if m.Error != "" {
		_ = r.server.Wait()
		return fail(exitRunFailed, "%s", m.Error)
	}
	return nil
}

// openNamespace opens what the command needs to get to the overlay, and what
// identifies its processes.
func (r *runner) openNamespace() (err error) {
	dir := fmt.Sprintf("/proc/%d/", r.server.Process.Pid)
	if r.namespace, err = os.Open(dir + "ns/mnt"); err != nil {
		return err
	}
	fd, err := unix.Open(dir+"root", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	r.root = os.NewFile(uintptr(fd), "root")
	return nil
}

func (r *runner) closeFiles() {
	for _, f := range []*os.File{r.finish, r.namespace, r.root} {
		_ = f.Close()
	}
}

// runCommand runs the command in the server's namespace and gives its exit
// code.
func (r *runner) runCommand() (int, error) {
	env, err := stageEnviron(stageRunEnter, r.enter)
	if err != nil {
		return 0, err
	}
	cmd := &exec.Cmd{
		Path: selfExe, Args: os.Args, Env: env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles:  []*os.File{r.namespace, r.root},
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if err := cmd.Start(); err != nil {
		return 0, fail(exitRunFailed, "starting the command: %w", err)
	}
	go forward(r.signals, cmd.Process)
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// catchSignals keeps this process from being ended by a signal before it has
// cleaned up. SIGPIPE is caught for the same reason, and not ignored: the
// command would inherit that.
func catchSignals() <-chan os.Signal {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	return c
}

// forward passes signals on to the command, except those that the terminal
// has sent to it already.
func forward(c <-chan os.Signal, to *os.Process) {
	for s := range c {
		switch {
		case s == syscall.SIGPIPE:
		case (s == syscall.SIGINT || s == syscall.SIGQUIT) && foregroundGroup():
		default:
			_ = to.Signal(s)
		}
	}
}

// outcome is what the server has told at its end.
type outcome struct {
	changes []change
	err     error
}

// listen reads the server's messages to the end. A server that dies ends the
// command: its tree is gone.
func (r *runner) listen() outcome {
	var o outcome
	for {
		var m message
		err := r.answers.Decode(&m)
		switch {
		case err != nil:
			if id := namespaceOf(r.namespace); id != ownNamespace() {
				killNamespace(id, os.Getpid())
			}
			return outcome{err: fail(exitRunFailed, "the server of the overlay died (%v), the changes are not known", endOf(r.server))}
		case m.Change != nil:
			o.changes = append(o.changes, *m.Change)
		case m.Error != "":
			_ = r.server.Wait()
			o.err = fail(exitRunFailed, "%s", m.Error)
			return o
		case m.Done:
			if err := r.server.Wait(); err != nil {
				logger.Warn("the server of the overlay ended badly", "err", err)
			}
			return o
		}
	}
}

// stopServer has the server end the overlay and gives what it told.
func (r *runner) stopServer(told <-chan outcome) outcome {
	const patience = 2 * time.Minute
	_, _ = r.finish.WriteString("finish\n") // a dead server is found by listen
	timer := time.AfterFunc(patience, func() { _ = r.server.Process.Kill() })
	defer timer.Stop()
	return <-told
}
