// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

// serve mounts, calls ready when the mount is usable, and serves until it is
// unmounted. When ready fails the mount is taken away again. If there shall be
// a log, it is open by then.
func serve(m *mountOptions, log bool, ready func(l *liveMount) error) (err error) {
	live, err := openLayers(m, log)
	if err != nil {
		return err
	}
	// From before the mount is seen: a signal that finds the default action
	// then would kill the server and leave a dead mount point.
	signals := catchUnmountSignals()
	defer signals.stop()
	if err := live.mount(); err != nil {
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
	if err := ready(live); err != nil {
		return errors.Join(err, live.abandon())
	}
	usable = true
	for _, n := range m.notes {
		logger.Info(n)
	}
	logger.Info("mounted", "lowers", len(m.Lowers), "upper", m.Upper)
	go live.unmountOn(signals)
	return live.finish()
}

// liveMount is a mount that this process serves.
type liveMount struct {
	fs         *stack.FS
	mountpoint string
	resolved   string // the mount point in the mount table
	policy     *policyKeeper
	log        daemonLog
	sockets    *socketDir // nil: it cannot be had
	control    *control   // nil: nobody listens
}

// openLayers loads the policy and opens the layers, the log if there shall be
// one and the directory of the control sockets: what mount needs. Log and
// sockets in the mount itself would keep it busy for ever, therefore they are
// opened before.
func openLayers(m *mountOptions, log bool) (*liveMount, error) {
	unix.Umask(0) // what callers ask for is what layers get
	m.Logger = logger
	l := &liveMount{mountpoint: m.Mountpoint}
	m.OnMount = l.listen
	var err error
	if l.policy, err = newPolicyKeeper(m); err != nil {
		return nil, err
	}
	if l.fs, err = stack.Open(m.Config); err != nil {
		if m.Policy != nil {
			m.Policy.Close()
		}
		return nil, err
	}
	if log {
		if l.log, err = openDaemonLog(m.logFile); err != nil {
			return nil, errors.Join(err, l.release())
		}
	}
	p, err := locate(m.Mountpoint, false)
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	l.resolved = p.path
	if l.sockets, err = openSocketDir(runDir); err != nil {
		noControl(err)
	}
	return l, nil
}

// mount mounts and answers on the control socket; when it fails, the layers
// are closed.
func (l *liveMount) mount() error {
	if err := l.fs.Mount(); err != nil {
		return errors.Join(err, l.release())
	}
	l.policy.serve(l.fs, l.mountpoint)
	if l.control != nil {
		l.control.answer(l.fs, l.policy)
	}
	return nil
}

// listen listens on the control socket before the mount answers: who sees that
// it does may ask about it at once. The mount is the last on its mount point in
// the mount table; it must not be looked for by its path (see stack.Config).
func (l *liveMount) listen() {
	if l.sockets == nil {
		return
	}
	list, err := plyfsMounts()
	for _, m := range slices.Backward(list) {
		if m.Mountpoint == l.resolved {
			if l.control, err = l.sockets.listen(m.device()); err != nil {
				noControl(err)
			}
			return
		}
	}
	noControl(errors.Join(errors.New("the mount is not in the mount table"), err))
}

func noControl(err error) {
	logger.Warn("no control socket: plyfs status and explain will not work", "err", err)
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
	err := l.release()
	if err == nil {
		logger.Info("unmounted")
	}
	return err
}

// release closes the layers and the control socket.
func (l *liveMount) release() error {
	err := l.fs.Close()
	if l.control != nil {
		_ = l.control.Close()
	}
	if l.sockets != nil {
		_ = l.sockets.Close()
	}
	return err
}

// unmountSignals are the signals that ask for the end of the mount.
type unmountSignals chan os.Signal

// catchUnmountSignals keeps the signals that ask for the end of the mount,
// until unmountOn takes them.
func catchUnmountSignals() unmountSignals {
	c := make(unmountSignals, 2)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP)
	return c
}

// stop gives the signals their default action again and ends unmountOn.
func (c unmountSignals) stop() {
	signal.Stop(c)
	close(c)
}

// unmountOn unmounts on the first signal, if nobody uses the mount, and
// detaches it on the second.
func (l *liveMount) unmountOn(c unmountSignals) {
	flags := 0
	for s := range c {
		err := unix.Unmount(topOf(l.mountpoint), flags)
		if err == nil {
			continue
		}
		logger.Warn(l.mountpoint+": not unmounted on "+s.String()+"; a second signal detaches it", "err", err)
		flags = unix.MNT_DETACH
	}
}
