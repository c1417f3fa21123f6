// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// socketPath is the control socket of the mount with a device number.
func socketPath(dir, device string) string { return filepath.Join(dir, device+".sock") }

// socketDir is the directory of control sockets, opened before the mount, which
// may lie over it: a socket in the mount itself would keep the mount busy.
type socketDir struct{ f *os.File }

// openSocketDir makes the directory if need be and opens it.
func openSocketDir(dir string) (*socketDir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o700); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &socketDir{f}, nil
}

// Close closes the directory.
func (d *socketDir) Close() error { return d.f.Close() }

// path reaches the directory whatever is mounted over it.
func (d *socketDir) path() string { return fmt.Sprintf("/proc/self/fd/%d", d.f.Fd()) }

// listen listens for questions about the mount with a device number; they wait
// for control.answer. A socket that a dead daemon left is replaced.
func (d *socketDir) listen(device string) (*control, error) {
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	removeStale(d.path())
	path := socketPath(d.path(), device)
	c := &control{dir: d, name: filepath.Base(path)}
	if c.listener, err = listenAt(path); err != nil {
		return nil, err
	}
	if c.socket, err = d.inode(c.name); err != nil {
		return nil, errors.Join(err, c.listener.Close())
	}
	return c, nil
}

// lock keeps other daemons from cleaning up or listening meanwhile. It fails
// with EWOULDBLOCK when one of them, stopped perhaps, has kept the lock for long:
// the mount, which others see already, must not wait for that.
func (d *socketDir) lock() (unlock func(), err error) {
	const patience, pause = 3 * time.Second, 5 * time.Millisecond
	fd, err := unix.Openat(int(d.f.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("openat", err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR && err != unix.EWOULDBLOCK || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { _ = unix.Close(fd) }, nil
}

// inode names the inode of an entry.
func (d *socketDir) inode(name string) (socketInode, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return socketInode{}, os.NewSyscallError("fstatat", err)
	}
	return socketInode{st.Dev, st.Ino}, nil
}

type socketInode struct{ dev, ino uint64 }

// listenAt listens on a socket that shows up under its name only when it takes
// connections, in place of one that nobody listens on.
func listenAt(path string) (*net.UnixListener, error) {
	early := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(early)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: early, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Rename(early, path); err != nil {
		_ = os.Remove(early)
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes the sockets that nobody listens on.
func removeStale(dir string) {
	socks, _ := filepath.Glob(filepath.Join(dir, "*.sock*"))
	for _, s := range socks {
		conn, err := net.DialTimeout("unix", s, time.Second)
		if err == nil {
			_ = conn.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(s)
		}
	}
}
