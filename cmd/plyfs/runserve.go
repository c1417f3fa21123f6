// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runStage is the life of a process that plyfs run has started.
func runStage(s stage) int {
	if s.name == stageRunEnter {
		return runEnter(s.spec)
	}
	return runServe(s.spec)
}

// runServer is the process that serves the overlay of plyfs run.
type runServer struct {
	spec   runSpec
	to     *json.Encoder // to the parent
	finish *os.File      // from the parent: a line, or the end when it dies
	live   *liveMount
}

// runServe serves an overlay in this process' own mount namespace until the
// parent says finish or dies.
func runServe(spec []byte) int {
	r := &runServer{
		to:     json.NewEncoder(os.NewFile(firstExtraFD, "answers")),
		finish: os.NewFile(firstExtraFD+1, "finish"),
	}
	unix.CloseOnExec(firstExtraFD)
	unix.CloseOnExec(firstExtraFD + 1)
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	signal.Ignore(syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGPIPE)
	if err := json.Unmarshal(spec, &r.spec); err != nil {
		return r.fail(err)
	}
	if err := r.mount(); err != nil {
		return r.fail(err)
	}
	if err := r.to.Encode(message{Ready: true}); err != nil {
		return r.orphaned()
	}
	if !r.awaitFinish(terminated) {
		return r.orphaned()
	}
	return r.end()
}

// fail reports that there is no overlay.
func (r *runServer) fail(err error) int {
	_ = r.to.Encode(message{Error: err.Error(), Exit: exitCode(err)})
	return exitFailure
}

// mount mounts the overlay and puts back what was mounted below the base.
func (r *runServer) mount() error {
	if err := checkOwnNamespace(r.spec.Namespace); err != nil {
		return err
	}
	m, err := r.options()
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fail(exitEnvironment, "the mount namespace cannot be made private: %w; in a chroot, mount --bind its root directory onto itself first", err)
	}
	submounts, err := cloneSubmounts(r.spec.Base, r.spec.Scratch)
	if err != nil {
		return err
	}
	defer submounts.close()
	live, err := openLayers(m, true)
	if err != nil {
		return err
	}
	if err := live.mount(); err != nil {
		return err
	}
	r.live = live
	if err := submounts.attach(r.spec.Base); err != nil {
		return errors.Join(err, r.unmount(), r.live.close())
	}
	if err := detach(live.log, r.spec.Base); err != nil {
		return errors.Join(err, r.unmount(), r.live.close())
	}
	return nil
}

// options makes the options of the overlay.
func (r *runServer) options() (*mountOptions, error) {
	m, err := parseOptions(r.spec.Options, false)
	if err != nil {
		return nil, err
	}
	root := &rootCommand{}
	if r.spec.LogLevel != "" {
		m.logLevel = r.spec.LogLevel
	}
	if err := root.setLogLevel(m.logLevel); err != nil {
		return nil, err
	}
	m.Lowers = []string{r.spec.Base}
	m.Upper, m.Work = r.spec.Scratch+"/upper", r.spec.Scratch+"/work"
	m.Mountpoint, m.Source = r.spec.Base, "plyfs-run"
	m.logFile = r.spec.LogFile
	m.Volatile = m.Volatile || !r.spec.Keep
	if !r.spec.Keep && m.CompleteRate == 0 {
		m.CompleteRate = -1 // nobody will have the scratch layer
	}
	flags, err := inheritedFlags(r.spec.Base)
	m.MountFlags |= flags
	return m, err
}

// inheritedFlags are those restrictions of the base's mount that the overlay
// must not lift. (The bits of statfs(2) are those of mount(2) here.)
func inheritedFlags(base string) (uintptr, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(base, &st); err != nil {
		return 0, fail(exitFailure, "%s: statfs: %w", base, err)
	}
	return uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC), nil
}

// awaitFinish waits for the parent: true when it says finish, false when it is
// gone.
func (r *runServer) awaitFinish(terminated <-chan os.Signal) bool {
	said := make(chan bool, 1)
	go func() {
		var b [1]byte
		n, _ := r.finish.Read(b[:])
		said <- n == 1
	}()
	select {
	case ok := <-said:
		return ok
	case <-terminated:
		return false
	}
}

// end ends the command's processes and the overlay, and tells the changes.
func (r *runServer) end() (code int) {
	defer func() {
		if v := recover(); v != nil {
			logger.Error("panic at the end of plyfs run", "panic", v, "stack", string(debug.Stack()))
			code = r.fail(fmt.Errorf("internal error: %v", v))
		}
	}()
	killNamespace(ownNamespace(), os.Getpid())
	err := r.unmount()
	if err == nil {
		err = r.live.fs.Changes(func(kind byte, path string) error {
			return r.to.Encode(message{Change: &change{kind, []byte(path)}})
		})
	}
	if err = errors.Join(err, r.live.close()); err != nil {
		return r.fail(err)
	}
	if err := r.to.Encode(message{Done: true}); err != nil {
		return exitFailure
	}
	return exitOK
}

// orphaned cleans up after a parent that was killed.
func (r *runServer) orphaned() int {
	killNamespace(ownNamespace(), os.Getpid())
	err := errors.Join(r.unmount(), r.live.close())
	if !r.spec.Keep {
		err = errors.Join(err, os.RemoveAll(r.spec.Scratch))
	}
	if err != nil {
		logger.Error("cleaning up after plyfs run", "err", err)
		return exitFailure
	}
	return exitOK
}

// unmount ends the overlay, with all that is mounted in it.
func (r *runServer) unmount() error {
	const patience = 20 * time.Second
	if err := unix.Unmount(topOf(r.spec.Base), unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.live.fs.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		return fmt.Errorf("%s: the overlay is still in use by a process outside", r.spec.Base)
	}
}
