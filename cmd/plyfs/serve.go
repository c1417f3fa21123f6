// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

// serve mounts, calls ready when the mount is usable, and serves until it is
// unmounted. When ready fails the mount is taken away again.
func serve(m *mountOptions, ready func() error) (err error) {
	live, err := openMount(m)
	if err != nil {
		return err
	}
	usable := false
	defer func() {
		if v := recover(); v != nil && !usable {
			logger.Error("panic while mounting", "panic", v, "stack", string(debug.Stack()))
			err = errors.Join(fail(exitFailure, "internal error while mounting: %v", v), live.abandon())
		} else if v != nil {
			panic(v)
		}
	}()
	if err := ready(); err != nil {
		return errors.Join(err, live.abandon())
	}
	usable = true
	for _, n := range m.notes {
		logger.Info(n)
	}
	logger.Info("mounted", "lowers", len(m.Lowers), "upper", m.Upper)
	stop := live.unmountOnSignal()
	defer stop()
	return live.finish()
}

// liveMount is a mount that this process serves.
type liveMount struct {
	fs         *stack.FS
	mountpoint string
	control    *control
	policy     *policyKeeper
}

// openMount loads the policy, opens the layers, mounts and listens on the
// control socket.
func openMount(m *mountOptions) (*liveMount, error) {
	unix.Umask(0) // what callers ask for is what layers get
	m.Logger = logger
	policy, err := newPolicyKeeper(m)
	if err != nil {
		return nil, err
	}
	fs, err := stack.Open(m.Config)
	if err != nil {
		if m.Policy != nil {
			m.Policy.Close()
		}
		return nil, err
	}
	if err := fs.Mount(); err != nil {
		return nil, errors.Join(err, fs.Close())
	}
	policy.serve(fs, m.Mountpoint)
	l := &liveMount{fs: fs, mountpoint: m.Mountpoint, policy: policy}
	if err := l.listen(); err != nil {
		logger.Warn("no control socket: plyfs status and explain will not work", "err", err)
	}
	return l, nil
}

// listen opens the control socket.
func (l *liveMount) listen() error {
	p, err := locate(l.mountpoint, false)
	if err != nil {
		return err
	}
	l.control, err = startControl(runDir, p.device(), l.fs, l.policy)
	return err
}

// abandon takes the mount away before anybody has used it.
func (l *liveMount) abandon() error {
	err := unix.Unmount(topOf(l.mountpoint), unix.MNT_DETACH)
	return errors.Join(os.NewSyscallError("umount", err), l.finish())
}

// finish waits for the end of the mount and closes everything.
func (l *liveMount) finish() error {
	err := l.fs.Wait()
	return errors.Join(err, l.close())
}

// close closes everything after the end of the mount.
func (l *liveMount) close() error {
	err := l.fs.Close()
	if l.control != nil {
		_ = l.control.Close()
	}
	if err == nil {
		logger.Info("unmounted")
	}
	return err
}

// unmountOnSignal unmounts on the first SIGINT or SIGTERM, if nobody uses the
// mount, and detaches it on the second.
func (l *liveMount) unmountOnSignal() (stop func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP)
	go func() {
		flags := 0
		for s := range c {
			err := unix.Unmount(topOf(l.mountpoint), flags)
			if err == nil {
				continue
			}
			logger.Warn(l.mountpoint+": not unmounted on "+s.String()+"; a second signal detaches it", "err", err)
			flags = unix.MNT_DETACH
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}
