// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links are followed on the way to a file.
const maxLinks = 40

// CheckTrusted checks that nobody but root and the effective user can change
// what path names: it is a regular file, and neither it nor a directory on the
// way to it, those of symbolic links included, belongs to anybody else or can
// be written by its group or by others. A directory with the sticky bit may be
// writable: what is in it is checked for its owner.
func CheckTrusted(path string) error {
	_, _, err := walkTrusted(path, uint32(os.Geteuid()))
	return err
}

// OpenTrusted opens a file for reading that CheckTrusted finds no fault with.
// What is opened is what was checked.
func OpenTrusted(path string) (*os.File, error) {
	real, checked, err := walkTrusted(path, uint32(os.Geteuid()))
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(real, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: real, Err: err}
	}
	f := os.NewFile(uintptr(fd), real)
	var opened unix.Stat_t
	if err := unix.Fstat(fd, &opened); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "stat", Path: real, Err: err}, f.Close())
	}
	if opened.Dev != checked.Dev || opened.Ino != checked.Ino || opened.Mode != checked.Mode || opened.Uid != checked.Uid {
		return nil, errors.Join(fmt.Errorf("%s was replaced while it was opened; try again", real), f.Close())
	}
	return f, nil
}

// walkTrusted is CheckTrusted for a user. It returns the path without symbolic
// links.
func walkTrusted(path string, uid uint32) (real string, st unix.Stat_t, err error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", st, fmt.Errorf("%s is no name of a file", quote(path))
	}
	rest := split(path)
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			return "", st, err
		}
		rest = append(split(wd), rest...)
	}
	w := &walk{uid: uid, at: "/", rest: rest}
	if err := w.stat("/"); err != nil {
		return "", st, err
	}
	for len(w.rest) > 0 {
		if err := w.step(); err != nil {
			return "", st, err
		}
	}
	return w.at, w.st, w.checkFile()
}

// A walk is on its way to a file, component by component.
type walk struct {
	uid   uint32
	at    string      // where it is; has no symbolic links
	st    unix.Stat_t // of at
	rest  []string    // where it has yet to go
	links int
}

// step takes the next component. The directory that it is in is checked first.
func (w *walk) step() error {
	name := w.rest[0]
	w.rest = w.rest[1:]
	if err := w.checkDir(); err != nil {
		return err
	}
	if name == ".." {
		return w.stat(filepath.Dir(w.at))
	}
	dir := w.at
	if err := w.stat(filepath.Join(dir, name)); err != nil {
		return err
	}
	if w.st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil
	}
	return w.follow(dir)
}

// follow goes on where the link in dir at which the walk is points to.
func (w *walk) follow(dir string) error {
	if err := w.checkOwner(); err != nil {
		return err
	}
	if w.links++; w.links > maxLinks {
		return &fs.PathError{Op: "follow", Path: w.at, Err: unix.ELOOP}
	}
	target, err := os.Readlink(w.at)
	if err != nil {
		return err
	}
	if strings.HasPrefix(target, "/") {
		dir = "/"
	}
	w.rest = append(split(target), w.rest...)
	return w.stat(dir)
}

// stat goes to path.
func (w *walk) stat(path string) error {
	if err := unix.Lstat(path, &w.st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	w.at = path
	return nil
}

// checkFile checks the end of the way.
func (w *walk) checkFile() error {
	if w.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file; name one", w.at)
	}
	if err := w.checkOwner(); err != nil {
		return err
	}
	return w.checkMode()
}

// checkDir checks a directory on the way.
func (w *walk) checkDir() error {
	if w.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &fs.PathError{Op: "stat", Path: w.at, Err: unix.ENOTDIR}
	}
	if err := w.checkOwner(); err != nil {
		return err
	}
	if w.st.Mode&unix.S_ISVTX != 0 {
		return nil
	}
	return w.checkMode()
}

// checkOwner checks whom it belongs to.
func (w *walk) checkOwner() error {
	if w.st.Uid == 0 || w.st.Uid == w.uid {
		return nil
	}
	chown := "chown root"
	if w.st.Mode&unix.S_IFMT == unix.S_IFLNK {
		chown = "chown -h root"
	}
	return fmt.Errorf("%s belongs to uid %d, who could change it; %s %s", w.at, w.st.Uid, chown, w.at)
}

// checkMode checks who may write. The mask of a POSIX ACL is in the place of
// the group's bits, so an entry that lets somebody write shows there.
func (w *walk) checkMode() error {
	switch {
	case w.st.Mode&0o002 != 0:
		return fmt.Errorf("%s can be written by anybody; chmod go-w %s", w.at, w.at)
	case w.st.Mode&0o020 != 0:
		return fmt.Errorf("%s can be written by its group, or by those an ACL of it names; chmod go-w %s", w.at, w.at)
	}
	return nil
}

// split has the components of a path; "." and empty ones are left out.
func split(path string) []string {
	var out []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			out = append(out, name)
		}
	}
	return out
}
