// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Lock is held on a layer while it is part of a live mount. It ends with
// Close, or with the process.
type Lock struct{ fd int }

// LockUpper locks the upper or work directory root for one mount alone. It is
// an error that says so if another live mount uses it in any way.
func LockUpper(root *Dir) (*Lock, error) { return lockDir(root, unix.LOCK_EX) }

// LockLower locks a lower directory against use as the upper or work directory
// of another mount; any number of mounts may share it as a lower.
func LockLower(root *Dir) (*Lock, error) { return lockDir(root, unix.LOCK_SH) }

// A daemon holds its locks for a while after its mount is gone: it makes the
// journal durable, or it was killed and its threads end one after the other.
// So a lock is waited for, longer if its holder is known to be dying.
const (
	lockPause    = 5 * time.Millisecond
	lockPatience = time.Second
	endPatience  = 30 * time.Second
)

// lockDir takes a flock(2) on the directory itself, so that nothing is written
// and the lock holds whatever path or mount the directory is reached by.
func lockDir(d *Dir, how int) (*Lock, error) {
	fd, err := d.Open("", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", d.Path(), err)
	}
	for start := time.Now(); ; time.Sleep(lockPause) {
		err = retry(func() error { return unix.Flock(fd, how|unix.LOCK_NB) })
		waited := time.Since(start)
		if err != unix.EWOULDBLOCK || waited > endPatience || (waited > lockPatience && !holderEnds(fd)) {
			break
		}
	}
	if err == nil {
		return &Lock{fd: fd}, nil
	}
	unix.Close(fd)
	if err == unix.EWOULDBLOCK {
		return nil, fmt.Errorf("%s is in use by another live plyfs mount: %w", d.Path(), unix.EBUSY)
	}
	return nil, fmt.Errorf("locking %s: %w", d.Path(), err)
}

// Close gives the lock up. A second Close does nothing.
func (l *Lock) Close() error {
	if l.fd < 0 {
		return nil
	}
	fd := l.fd
	l.fd = -1
	return unix.Close(fd)
}
