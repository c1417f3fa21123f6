// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// clearDead detaches mounts whose daemon has died from the mount point, and
// says so on standard error and in the log. It touches nothing but mounts of
// ours that answer as dead ones do; processes that still hold files on them
// keep what they hold. What else is wrong, the caller finds.
func clearDead(mountpoint, logFile string) error {
	path, found := "", 0
	for {
		p, err := locate(mountpoint, false)
		if err != nil || p.FSType != fsType || !p.isRoot() {
			break
		}
		answer, how := probe(p.path), unix.MNT_DETACH
		if answer == errHung && p.daemonKilled() {
			answer, how = unix.ENOTCONN, how|unix.MNT_FORCE
		}
		if answer == errHung {
			return fail(exitBusy, "%s: a plyfs mount is here whose daemon does not answer; end the daemon or wait for it (plyfs umount --lazy detaches the mount)", p.path)
		}
		if !isDead(answer) {
			break
		}
		keepWorkingDir()
		if err := unix.Unmount(topOf(p.path), how); err != nil {
			return fail(exitBusy, "%s: a dead plyfs mount is here that cannot be detached: %w", p.path, err)
		}
		path, found = p.path, found+1
	}
	if found > 0 {
		sayCleared(path, logFile, found)
	}
	return nil
}

// sayCleared says what was cleaned up.
func sayCleared(path, logFile string, found int) {
	text := path + ": found a dead plyfs mount, whose daemon had ended without unmounting; cleaned it up"
	if found > 1 {
		text = fmt.Sprintf("%s: found %d dead plyfs mounts, whose daemons had ended without unmounting; cleaned them up", path, found)
	}
	logger.Warn(text)
	h, f, err := openLog(logFile)
	if err != nil {
		return // the daemon will say what is wrong with the log
	}
	slog.New(h).Warn(text, "mountpoint", path)
	if f != nil {
		_ = f.Close()
	}
}

// workingDir is the working directory in words, if it may lie on a mount that
// was detached; else empty. The daemon, which reads the command line again,
// inherits the directory but could not tell its path.
var workingDir string

const workingDirEnv = "PLYFS_STAGE_DIR"

// keepWorkingDir notes the working directory before a mount is detached.
func keepWorkingDir() {
	if workingDir == "" {
		workingDir, _ = os.Getwd()
	}
}

// absolute makes a path independent of the working directory.
func absolute(path string) (string, error) {
	if workingDir == "" || filepath.IsAbs(path) {
		return filepath.Abs(path)
	}
	return filepath.Join(workingDir, path), nil
}
