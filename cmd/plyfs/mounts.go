// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// fsType is the type in the mount table.
const fsType = "fuse.plyfs"

// mount is one line of the mount table that is a plyfs mount.
type mount struct{ *mountinfo.Info }

// device names the mount's super block, as the control socket does.
func (m mount) device() string { return fmt.Sprintf("%d:%d", m.Major, m.Minor) }

// plyfsMounts lists the plyfs mounts of a process' mount namespace.
func plyfsMounts() ([]mount, error) {
	var list []mount
	_, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		if i.FSType == fsType {
			list = append(list, mount{i})
		}
		return true, false
	})
	return list, err
}

// mountByID finds a line of the mount table.
func mountByID(id int) (mount, error) {
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.ID != id, i.ID == id })
	if err != nil {
		return mount{}, err
	}
	if len(found) == 0 {
		return mount{}, errors.New("not in the mount table")
	}
	return mount{found[0]}, nil
}

// place is where a path lies.
type place struct {
	mount
	path string // the path with symbolic links resolved
	rel  string // relative to the root of the mount's file system, "" for the root itself

	missing bool // the end of the path does not exist
}

// isRoot says whether the place is the mount point.
func (p place) isRoot() bool { return p.path == p.Mountpoint }

// locate finds the mount that a path lies on, without asking its file system
// more than the names of the path. The path may end in names that do not
// exist. With nofollow, a symbolic link at its end is itself meant.
func locate(name string, nofollow bool) (place, error) {
	abs, err := absolute(name)
	if err != nil {
		return place{}, err
	}
	missing := ""
	for {
		p, err := locateExisting(abs, nofollow)
		if err == nil {
			p.path = path.Join(p.path, missing)
			p.rel = path.Join(p.rel, missing)
			p.missing = missing != ""
			return p, nil
		}
		if abs == "/" || !errors.Is(err, unix.ENOENT) {
			return place{}, &os.PathError{Op: "open", Path: name, Err: err}
		}
		missing = path.Join(filepath.Base(abs), missing)
		abs, nofollow = filepath.Dir(abs), false
	}
}

// locateExisting is locate for a path that exists.
func locateExisting(abs string, nofollow bool) (place, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if nofollow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(topOf(abs), flags, 0)
	if err != nil {
		return place{}, err
	}
	defer unix.Close(fd)
	id, err := mountIDOf(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return place{}, err
	}
	m, err := mountByID(id)
	if err != nil {
		return place{}, err
	}
	resolved, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return place{}, err
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(resolved, m.Mountpoint), "/")
	return place{mount: m, path: resolved, rel: strings.TrimPrefix(path.Join(m.Root, rel), "/")}, nil
}

// topOf is a path that reaches what is mounted over the root directory, too:
// "/" itself is where the process began, not what was mounted over it later.
func topOf(abs string) string {
	if abs == "/" {
		return "/.."
	}
	return abs
}

// mountIDOf reads the mount id of an open file from its fdinfo.
func mountIDOf(fdinfo string) (int, error) {
	f, err := os.Open(fdinfo)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, errors.New(fdinfo + " tells no mount id")
}

// errHung says that a daemon does not answer.
var errHung = errors.New("the daemon does not answer")

// probe asks a mount for a sign of life: nil, an error of isDead, or errHung.
// It is statfs(2) because the kernel keeps no answer of it.
func probe(mountpoint string) error {
	const patience = 5 * time.Second
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		err := unix.Statfs(topOf(mountpoint), &st)
		for err == unix.EINTR {
			err = unix.Statfs(topOf(mountpoint), &st)
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-time.After(patience):
		return errHung
	}
}

// isDead says whether an error means that no daemon serves the mount.
func isDead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}
