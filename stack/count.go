// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// counters count since the mount.
type counters struct {
	ops    [opCount]atomic.Uint64
	panics atomic.Uint64

	passthrough, server, retired, overtaken, stale atomic.Uint64

	policyRetired, wrong atomic.Uint64

	copyFiles, copyDirs, copyOthers, copyBytes, copyFailed atomic.Uint64

	completed, completedBytes atomic.Uint64 // partial files

	mu       sync.Mutex
	refusals map[string]uint64
	hows     map[string]uint64
	errnos   map[syscall.Errno]uint64
	last     []string // the last failures that a plain directory would not give
}

const lastErrors = 16

func (c *counters) init() {
	c.refusals = make(map[string]uint64)
	c.hows = make(map[string]uint64)
	c.errnos = make(map[syscall.Errno]uint64)
}

func (c *counters) refuse(why string) {
	c.mu.Lock()
	c.refusals[why]++
	c.mu.Unlock()
}

func (c *counters) copied(how string, bytes uint64) {
	c.copyBytes.Add(bytes)
	c.how(how)
}

// how counts by which way a file was copied up.
func (c *counters) how(how string) {
	c.mu.Lock()
	c.hows[how]++
	c.mu.Unlock()
}

// toErrno decides, for all requests, which errno an error is: the errno that
// it wraps, else EIO.
func toErrno(err error) syscall.Errno {
	var e syscall.Errno
	// ENOSYS would make the kernel stop asking us such a thing for any file.
	if errors.As(err, &e) && e > 0 && e <= maxErrno && e != syscall.ENOSYS {
		return e
	}
	return syscall.EIO
}

// status is the reply for an error. Each is counted by errno; an EIO, and a
// full disk, are kept with their words.
func (fs *FS) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	e := toErrno(err)
	fs.count.mu.Lock()
	fs.count.errnos[e]++
	fs.count.mu.Unlock()
	var wrong *wrongError // has been noted with its words
	if (e == syscall.EIO || e == syscall.ENOSPC || e == syscall.EUCLEAN) && !errors.As(err, &wrong) {
		fs.noteError("request", err)
	}
	return fuse.Status(e)
}

// noteError keeps and logs a failure.
func (fs *FS) noteError(what string, err error) {
	fs.log.Error(what+" failed", "err", err)
	s := fmt.Sprintf("%s %s: %v", time.Now().UTC().Format(time.RFC3339), what, err)
	fs.count.mu.Lock()
	defer fs.count.mu.Unlock()
	fs.count.last = append(fs.count.last, s)
	if n := len(fs.count.last); n > lastErrors {
		fs.count.last = fs.count.last[n-lastErrors:]
	}
}

// errorsByName is the reply counts by errno name.
func (c *counters) errorsByName() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]uint64, len(c.errnos))
	for e, n := range c.errnos {
		name := unix.ErrnoName(e)
		if name == "" {
			name = fmt.Sprintf("errno %d", int(e))
		}
		out[name] = n
	}
	return out
}
