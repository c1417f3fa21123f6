// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// stepReplace is how editors save: write a new file, sync it, rename it over
// the old one.
func (w *cutWorker) stepReplace(o *cutObject) error {
	return w.replace(o, func(n *cutNode, p string, fd int) error { return w.fsync(o, n, p, fd) })
}

// stepReplaceUnsynced does not sync the new file.
func (w *cutWorker) stepReplaceUnsynced(o *cutObject) error {
	return w.replace(o, func(*cutNode, string, int) error { return nil })
}

func (w *cutWorker) replace(o *cutObject, synced func(n *cutNode, p string, fd int) error) error {
	p, tmp := o.key+".a", o.key+".tmp"
	if o.now()[tmp] != nil {
		if err := w.unlink(o, tmp); err != nil {
			return err
		}
	}
	err := w.create(o, tmp, w.bytes(1+w.IntN(60_000)), func(n *cutNode, fd int) error { return synced(n, tmp, fd) })
	if err != nil {
		return err
	}
	if err := w.rename(o, tmp, p, 0); err != nil || !w.wants() {
		return err
	}
	return w.syncDirs(o, p)
}

// stepRemove removes a file, or makes a new one where one was removed.
func (w *cutWorker) stepRemove(o *cutObject) error {
	p := o.key + ".a"
	if o.now()[p] == nil {
		return w.create(o, p, w.bytes(1+w.IntN(20_000)), w.maybeSync(o, p))
	}
	if w.chance(0.3) {
		if err := w.write(o, p, w.Int64N(100), w.bytes(100)); err != nil {
			return err
		}
	}
	if err := w.unlink(o, p); err != nil || !w.wants() {
		return err
	}
	return w.syncDirs(o, p)
}

// stepRemoveDir removes a directory with all that is in it, and makes a new
// one in its place, in which nothing old may show.
func (w *cutWorker) stepRemoveDir(o *cutObject) error {
	dir := o.key
	if o.now()[dir] != nil {
		if err := w.removeTree(o, dir); err != nil || !w.wants() {
			return err
		}
		return w.syncDirs(o, dir)
	}
	if err := w.mkdir(o, dir); err != nil {
		return err
	}
	if w.wants() {
		if err := w.syncDirs(o, dir); err != nil {
			return err
		}
	}
	if w.chance(0.5) {
		return nil
	}
	if err := w.mkdir(o, dir+"/s"); err != nil {
		return err
	}
	return w.create(o, dir+"/x", w.bytes(1+w.IntN(9000)), w.maybeSync(o, dir+"/x"))
}

// removeTree removes what is at p, what is deepest first.
func (w *cutWorker) removeTree(o *cutObject, p string) error {
	var names []string
	for q := range o.now() {
		if _, ok := below(q, p); ok {
			names = append(names, q)
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	for _, q := range names {
		s := o.now()
		if s[q].kind != "dir" {
			if err := w.unlink(o, q); err != nil {
				return err
			}
			continue
		}
		if err := w.names(o, s.with(q, nil), "rmdir "+o.cutName(q), func() error { return unix.Rmdir(w.path(q)) }); err != nil {
			return err
		}
	}
	return nil
}

// stepRenameFile renames a file within its directory and to another one.
func (w *cutWorker) stepRenameFile(o *cutObject) error {
	from, n := o.only()
	to := o.key + []string{"/a/f", "/a/g", "/b/f", "/b/g"}[w.IntN(4)]
	if from == to {
		return nil
	}
	if err := w.rename(o, from, to, 0); err != nil || !w.wants() {
		return err
	}
	if w.chance(0.5) {
		return w.syncDirs(o, from, to)
	}
	return withFD(w.path(to), unix.O_RDONLY, func(fd int) error { return w.fsync(o, n, to, fd) })
}

// stepRenameOver renames files over each other, and makes new ones when few are
// left.
func (w *cutWorker) stepRenameOver(o *cutObject) error {
	files := o.now().files()
	from, to := files[w.IntN(len(files))], o.key+"/"+[]string{"a", "b", "c"}[w.IntN(3)]
	if o.now()[to] == nil {
		return w.create(o, to, w.bytes(1+w.IntN(20_000)), func(*cutNode, int) error { return nil })
	}
	if from == to {
		return nil
	}
	if w.chance(0.3) {
		if err := w.write(o, from, w.Int64N(max(1, o.now()[from].data.size)), w.bytes(1+w.IntN(5000))); err != nil {
			return err
		}
	}
	if err := w.rename(o, from, to, 0); err != nil || !w.wants() {
		return err
	}
	return w.syncDirs(o, to)
}

// stepRenameDirOver renames a directory over an empty one and makes an empty
// one in its old place.
func (w *cutWorker) stepRenameDirOver(o *cutObject) error {
	from, to := o.key+"/d", o.key+"/e"
	if o.now()[from+"/x"] == nil {
		from, to = to, from
	}
	if err := w.rename(o, from, to, 0); err != nil {
		return err
	}
	if w.wants() {
		if err := w.syncDirs(o, to); err != nil {
			return err
		}
	}
	if err := w.mkdir(o, from); err != nil || !w.wants() {
		return err
	}
	return w.syncDirs(o, from)
}

// stepRenameDir renames a directory with files in it, and writes to them.
func (w *cutWorker) stepRenameDir(o *cutObject) error {
	s := o.now()
	from := ""
	for _, d := range []string{"/d", "/e", "/f"} {
		if s[o.key+d] != nil {
			from = o.key + d
		}
	}
	if w.chance(0.3) {
		if err := w.write(o, from+"/x", w.Int64N(100), w.bytes(100)); err != nil {
			return err
		}
	}
	to := o.key + []string{"/d", "/e", "/f"}[w.IntN(3)]
	if from == to {
		return nil
	}
	if err := w.rename(o, from, to, 0); err != nil || !w.wants() {
		return err
	}
	return w.syncDirs(o, from)
}

// stepWriteMove writes to a file and at once renames or links it.
func (w *cutWorker) stepWriteMove(o *cutObject) error {
	s := o.now()
	files := s.files()
	from := files[w.IntN(len(files))]
	n := s[from]
	if err := w.write(o, from, w.Int64N(max(1, n.data.size)), w.bytes(1+w.IntN(5000))); err != nil {
		return err
	}
	to := o.key + "." + []string{"a", "b", "c"}[w.IntN(3)]
	switch {
	case len(files) > 1 && w.chance(0.5):
		return w.unlink(o, files[0])
	case s[to] != nil:
		return nil
	case w.chance(0.5):
		if err := w.rename(o, from, to, 0); err != nil {
			return err
		}
	default:
		if err := w.link(o, from, to); err != nil {
			return err
		}
	}
	if !w.wants() {
		return nil
	}
	return withFD(w.path(to), unix.O_RDONLY, func(fd int) error { return w.fsync(o, n, to, fd) })
}

func (w *cutWorker) link(o *cutObject, from, to string) error {
	s := o.now()
	return w.names(o, s.with(to, s[from]), "link "+o.cutName(from)+" "+o.cutName(to), func() error { return unix.Link(w.path(from), w.path(to)) })
}

// stepLink makes and removes names of one file, which has several in the lower
// layer.
func (w *cutWorker) stepLink(o *cutObject) error {
	s := o.now()
	files := s.files()
	p := files[w.IntN(len(files))]
	to := o.key + "." + []string{"a", "b", "c", "d"}[w.IntN(4)]
	var err error
	switch {
	case w.chance(0.3):
		return w.write(o, p, w.Int64N(max(1, s[p].data.size)), w.bytes(1+w.IntN(2000)))
	case s[to] == nil && w.chance(0.3):
		err = w.rename(o, p, to, 0)
	case s[to] == nil:
		err = w.link(o, p, to)
	case len(files) > 1:
		err = w.unlink(o, to)
	}
	if err != nil || !w.wants() {
		return err
	}
	return w.syncDirs(o, to)
}

// stepExchange exchanges files and directories.
func (w *cutWorker) stepExchange(o *cutObject) error {
	a, b := o.key+"/a", o.key+"/b"
	if err := w.rename(o, a, b, unix.RENAME_EXCHANGE); err != nil || !w.wants() {
		return err
	}
	return w.syncDirs(o, a)
}

// stepCreate makes new things, and clears up when there are many.
func (w *cutWorker) stepCreate(o *cutObject) error {
	s := o.now()
	if len(s) > 8 {
		for p := range s {
			if strings.HasPrefix(p, o.key+"/new") && strings.Count(p, "/") == 2 {
				if err := w.removeTree(o, p); err != nil {
					return err
				}
			}
		}
		return nil
	}
	p := fmt.Sprintf("%s/new%d", o.key, w.IntN(1000))
	if s[p] != nil {
		return nil
	}
	var err error
	switch w.IntN(4) {
	case 0:
		err = w.create(o, p, w.bytes(1+w.IntN(20_000)), func(*cutNode, int) error { return nil })
	case 1:
		if err = w.mkdir(o, p); err == nil {
			err = w.create(o, p+"/f", w.bytes(1+w.IntN(9000)), w.maybeSync(o, p+"/f"))
		}
	case 2:
		n := newCutNode("symlink", 0o777)
		n.target = fmt.Sprint("leads/to/", w.Uint64())
		err = w.names(o, s.with(p, n), "symlink "+o.cutName(p), func() error { return os.Symlink(n.target, w.path(p)) })
	case 3:
		err = w.createUnnamed(o, p, w.bytes(1+w.IntN(20_000)))
	}
	if err != nil || !w.wants() {
		return err
	}
	if o.now()[p+"/f"] != nil {
		return w.syncDirs(o, p, p+"/f")
	}
	return w.syncDirs(o, p)
}

// createUnnamed makes a file without a name, writes and syncs it, and then gives
// it one: it is there as a whole or not at all.
func (w *cutWorker) createUnnamed(o *cutObject, p string, b []byte) error {
	n := newCutNode("file", 0o644)
	n.data.found(b)
	return withFD(w.path(o.key), unix.O_TMPFILE|unix.O_WRONLY, func(fd int) error {
		err := writeAll(fd, b, 0)
		if err == nil {
			err = unix.Fsync(fd)
		}
		if err != nil {
			w.fail(o, "writing a file without a name", err)
			return err
		}
		return w.names(o, o.now().with(p, n), "link a file without a name to "+o.cutName(p), func() error {
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, w.path(p), unix.AT_SYMLINK_FOLLOW)
		})
	})
}
