// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/creds"
)

// report is what the daemon tells the process that started it: one JSON
// object. No report at all means that it died.
type report struct {
	Exit  int    `json:"exit"`
	Error string `json:"error,omitempty"`
	Lines bool   `json:"lines,omitempty"` // of Error each is one of its own
}

// startDaemon runs this program again as the daemon and returns when the mount
// is usable. The daemon has the same arguments and working directory; it
// inherits standard error until then, for warnings.
func startDaemon() error {
	if err := creds.DropBoundingResource(); err != nil {
		return fail(exitEnvironment, "%w; run plyfs with the capability CAP_SETPCAP, too", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	env, err := stageEnviron(stageDaemon, nil)
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{
		Path: selfExe, Args: os.Args, Env: env,
		Stderr: os.Stderr, ExtraFiles: []*os.File{w},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return fail(exitEnvironment, "starting the daemon: %w; is /proc mounted?", err)
	}
	return awaitDaemon(cmd, r)
}

// awaitDaemon reads the daemon's report.
func awaitDaemon(cmd *exec.Cmd, r io.Reader) error {
	var rep report
	if err := json.NewDecoder(r).Decode(&rep); err != nil {
		return fail(exitFailure, "the daemon ended before the mount was usable (%v)", endOf(cmd))
	}
	if rep.Exit != exitOK {
		_ = cmd.Wait()
		return &exitError{code: rep.Exit, msg: rep.Error, lines: rep.Lines}
	}
	return cmd.Process.Release()
}

// endOf says how a process ended.
func endOf(cmd *exec.Cmd) any {
	if err := cmd.Wait(); err != nil {
		return err
	}
	return cmd.ProcessState
}

// report sends the daemon's report, once.
func (s *stage) report(r report) error {
	if s.ready == nil {
		return nil
	}
	err := json.NewEncoder(s.ready).Encode(r)
	err = errors.Join(err, s.ready.Close())
	s.ready = nil
	return err
}

// reported takes over the printing of an error in a daemon: it goes to the
// process that waits for the mount, or to the log once nobody waits.
func (s *stage) reported(err error) bool {
	switch {
	case s.name != stageDaemon:
		return false
	case s.ready == nil:
		logger.Error(err.Error())
	default:
		var e *exitError
		_ = s.report(report{exitCode(err), err.Error(), errors.As(err, &e) && e.lines})
	}
	return true
}

// serveDaemon is the daemon's life.
func serveDaemon(m *mountOptions, s *stage) error {
	return serve(m, true, func(l *liveMount) error {
		if err := detach(l.log, m.Mountpoint); err != nil {
			return err
		}
		return s.report(report{})
	})
}

// serveForeground is the life of plyfs mount -f.
func serveForeground(m *mountOptions) error {
	return serve(m, m.logFile != "", func(l *liveMount) error {
		if m.logFile == "" {
			logSink.redirect(foregroundHandler())
		} else {
			logSink.redirect(l.log.handler, slog.String("mountpoint", m.Mountpoint))
		}
		return nil
	})
}

// daemonLog is where a daemon's messages go.
type daemonLog struct {
	handler slog.Handler
	crash   *os.File // for what the Go runtime prints when it dies; may be nil
}

// openDaemonLog opens a log.
func openDaemonLog(file string) (daemonLog, error) {
	h, crash, err := openLog(file)
	if err != nil {
		return daemonLog{}, logRefused(file, err)
	}
	return daemonLog{h, crash}, nil
}

// detach lets go of the terminal and of the working directory. From here on
// messages go to the log.
func detach(log daemonLog, mountpoint string) error {
	logSink.redirect(log.handler, slog.String("mountpoint", mountpoint))
	if log.crash != nil {
		_ = debug.SetCrashOutput(log.crash, debug.CrashOptions{})
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range firstExtraFD {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return os.Chdir("/")
}

// logRefused explains a log that cannot be opened.
func logRefused(file string, err error) error {
	if file == "" {
		file = logPath
	}
	return fail(exitEnvironment, "%s: the log cannot be opened: %w; choose another with --log-file", file, errors.Unwrap(err))
}
