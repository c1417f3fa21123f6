// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds the wait for a daemon to take a connection.
const dialTimeout = 5 * time.Second

// dial connects to the daemon of a mount.
func dial(m mount) (*net.UnixConn, error) {
	connect := func() (net.Conn, error) {
		return net.DialTimeout("unix", socketPath(runDir, m.device()), dialTimeout)
	}
	conn, err := connect()
	var answer error
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		answer = probe(m.Mountpoint)
	}
	if noListener(err) && answer == nil {
		// A mount that began a moment ago has its socket when it answers.
		conn, err = connect()
	}
	switch {
	case err == nil:
		return conn.(*net.UnixConn), nil
	case errors.Is(err, fs.ErrPermission):
		return nil, fail(exitEnvironment, "%s: only root may ask the daemon; run plyfs as root", m.Mountpoint)
	case isDead(answer):
		return nil, saysDead(m)
	case noListener(err) && covers(m, runDir):
		return nil, fail(exitFailure, "%s: the daemon cannot be asked: its mount lies over its control socket in %s", m.Mountpoint, runDir)
	case noListener(err):
		return nil, fail(exitFailure, "%s: the daemon has no control socket in %s; was it started in another container?", m.Mountpoint, runDir)
	}
	return nil, fail(exitFailure, "%s: the daemon does not answer: %w", m.Mountpoint, err)
}

func saysDead(m mount) error {
	return fail(exitFailure, "%s: the daemon is dead; mount again by the same command, or plyfs umount %s", m.Mountpoint, m.Mountpoint)
}

// brokenOff is the error about a conversation that failed: a daemon that is
// killed takes connections until the last of its threads has ended.
func brokenOff(m mount, what string, err error) error {
	if isDead(probe(m.Mountpoint)) {
		return saysDead(m)
	}
	return fail(exitFailure, "%s: %s: %w", m.Mountpoint, what, err)
}

// noListener says whether an error means that nobody listens on a socket.
func noListener(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// covers says whether a path lies on a mount.
func covers(m mount, path string) bool {
	p, err := locate(path, false)
	return err == nil && p.ID == m.ID
}

// ask puts one question to the daemon of a mount.
func ask(m mount, r request, into any) error {
	conn, err := dial(m)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	if r.Verb == verbSync || r.Verb == verbCheck || strings.HasPrefix(r.Verb, "policy-") || strings.HasPrefix(r.Verb, "map-") {
		_ = conn.SetDeadline(time.Time{}) // programs may take long to load, disks to write, and a large upper to walk
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return brokenOff(m, "asking the daemon", err)
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return brokenOff(m, "the daemon's answer cannot be read", err)
	}
	if a.Error != "" {
		hint := when(strings.HasSuffix(a.Error, unix.EIO.Error()), "; plyfs status "+m.Mountpoint+" says what went wrong")
		return &exitError{code: exitFailure, msg: m.Mountpoint + ": " + a.Error + hint, lines: strings.Contains(a.Error, "\n")}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(a.Data, into)
}

// daemonOf gives a descriptor of the daemon's process. The kernel says who
// listens on the socket, so that a process number cannot have been reused.
func daemonOf(m mount) (pidfd, pid int, err error) {
	conn, err := dial(m)
	if err != nil {
		return -1, 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return -1, 0, e
	}
	if err != nil {
		return -1, 0, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	return pidfd, int(cred.Pid), os.NewSyscallError("pidfd_open", err)
}

// onMount finds the plyfs mount that a path lies on.
func onMount(name string, nofollow bool) (place, error) {
	p, err := locate(name, nofollow)
	if err != nil {
		err = fail(exitUsage, "%s: cannot be looked up: %w", name, errors.Unwrap(err))
		if errors.Is(err, unix.EIO) { // the policy may have refused it
			err = &exitError{code: exitFailure, msg: err.Error() + "; plyfs status MOUNTPOINT says what went wrong", err: err}
		}
		return place{}, err
	}
	if p.FSType != fsType && p.missing {
		return place{}, usagef("%s: does not exist; plyfs status lists the mounts", name)
	}
	if p.FSType != fsType {
		return place{}, usagef("%s: not on a plyfs mount, it is on %s (%s); plyfs status lists the mounts", name, p.Mountpoint, p.FSType)
	}
	return p, nil
}

// atMount is onMount for a path that must be a mount point.
func atMount(name string) (place, error) {
	p, err := onMount(name, false)
	if err == nil && !p.isRoot() {
		return place{}, usagef("%s: not a mount point; it lies in the plyfs mount %s", name, p.Mountpoint)
	}
	return p, err
}
