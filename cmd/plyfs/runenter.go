// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// enterSpec is what the process that becomes the command is told.
type enterSpec struct {
	Base    string   `json:"base"`
	Cwd     string   `json:"cwd"`
	Command []string `json:"command"`
}

// Descriptors of the process that becomes the command.
const (
	namespaceFD = firstExtraFD
	rootFD      = firstExtraFD + 1
)

// runEnter enters the overlay and executes the command. It returns only when
// that fails, with the exit code.
func runEnter(spec []byte) int {
	runtime.LockOSThread()
	var s enterSpec
	if err := json.Unmarshal(spec, &s); err != nil {
		fmt.Fprintln(os.Stderr, oneLine(err))
		return exitRunFailed
	}
	if err := enterOverlay(s.Base, s.Cwd); err != nil {
		fmt.Fprintln(os.Stderr, oneLine(fmt.Errorf("entering the overlay: %w", err)))
		return exitRunFailed
	}
	err := execute(s.Command)
	fmt.Fprintln(os.Stderr, oneLine(fmt.Errorf("%s: %w", s.Command[0], errors.Unwrap(err))))
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitRunNotFound
	}
	return exitRunNotExec
}

// enterOverlay moves the calling thread into the mount namespace, to its root
// directory and the working directory there. The thread must be locked.
func enterOverlay(base, cwd string) error {
	unix.CloseOnExec(namespaceFD)
	unix.CloseOnExec(rootFD)
	// A thread that shares its root and working directory cannot change the
	// mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(namespaceFD, unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns", err)
	}
	if err := unix.Fchdir(rootFD); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	if base == "/" {
		if err := unix.Chroot(topOf(base)); err != nil {
			return os.NewSyscallError("chroot", err)
		}
	}
	if err := unix.Chdir(cwd); err != nil {
		return &os.PathError{Op: "chdir", Path: cwd, Err: err}
	}
	return nil
}

// execute replaces this process by a command that is looked up as a shell
// does.
func execute(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return err
	}
	return &exec.Error{Name: path, Err: syscall.Exec(path, command, os.Environ())}
}
