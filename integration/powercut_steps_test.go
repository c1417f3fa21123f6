// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// cutSteps are the workers: each does one thing, over and over.
var cutSteps = []struct {
	name string
	step func(*cutWorker, *cutObject) error
}{
	{"append", (*cutWorker).stepAppend},
	{"tail", (*cutWorker).stepTail},
	{"overwrite", (*cutWorker).stepOverwrite},
	{"middle", (*cutWorker).stepMiddle},
	{"syncwrite", (*cutWorker).stepSyncWrite},
	{"mmap", (*cutWorker).stepMmap},
	{"truncate", (*cutWorker).stepTruncate},
	{"punch", (*cutWorker).stepPunch},
	{"rewrite", (*cutWorker).stepRewrite},
	{"attributes", (*cutWorker).stepAttributes},
	{"replace", (*cutWorker).stepReplace},
	{"replaceunsynced", (*cutWorker).stepReplaceUnsynced},
	{"remove", (*cutWorker).stepRemove},
	{"removedir", (*cutWorker).stepRemoveDir},
	{"renamefile", (*cutWorker).stepRenameFile},
	{"renameover", (*cutWorker).stepRenameOver},
	{"renamedir", (*cutWorker).stepRenameDir},
	{"renamedirover", (*cutWorker).stepRenameDirOver},
	{"writemove", (*cutWorker).stepWriteMove},
	{"link", (*cutWorker).stepLink},
	{"exchange", (*cutWorker).stepExchange},
	{"create", (*cutWorker).stepCreate},
}

// chance is true with probability p.
func (w *cutWorker) chance(p float64) bool { return w.Float64() < p }

// wants says whether to sync this time.
func (w *cutWorker) wants() bool { return w.chance(w.syncs) }

// bytes is new contents.
func (w *cutWorker) bytes(n int) []byte { return cutSlice(w.Uint64(), n) }

// only is the name of an object of one file, and the file.
func (o *cutObject) only() (string, *cutNode) {
	s := o.now()
	p := s.files()[0]
	return p, s[p]
}

// pick is any name of the object, and what is there.
func (w *cutWorker) pick(o *cutObject) (string, *cutNode) {
	s := o.now()
	names := slices.Sorted(maps.Keys(s))
	p := names[w.IntN(len(names))]
	return p, s[p]
}

// withFD opens a file for a call.
func withFD(path string, flags int, call func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return call(fd)
}

// writeAll writes all of b at off, or at the end of the file if off is -1.
func writeAll(fd int, b []byte, off int64) error {
	n, err := 0, error(nil)
	if off < 0 {
		n, err = unix.Write(fd, b)
	} else {
		n, err = unix.Pwrite(fd, b, off)
	}
	if err == nil && n < len(b) {
		return fmt.Errorf("wrote %d of %d bytes", n, len(b))
	}
	return err
}

// write writes through a descriptor of its own, and syncs it or not.
func (w *cutWorker) write(o *cutObject, p string, off int64, b []byte) error {
	n := o.now()[p]
	return withFD(w.path(p), unix.O_WRONLY, func(fd int) error {
		what := fmt.Sprintf("write %s: %d bytes at %d", o.cutName(p), len(b), off)
		err := w.data(o, n, n.data.write(off, b), what, func() error { return writeAll(fd, b, off) })
		if err != nil || !w.wants() {
			return err
		}
		return w.syncData(o, n, p, fd)
	})
}

// syncData syncs an open file by one way or another.
func (w *cutWorker) syncData(o *cutObject, n *cutNode, p string, fd int) error {
	if w.chance(0.4) {
		return w.sync(o, "fdatasync "+o.cutName(p), func() error { return unix.Fdatasync(fd) }, func(m cutMark) { m.contents(n) })
	}
	return w.fsync(o, n, p, fd)
}

// fsync makes the file durable with its attributes and names.
func (w *cutWorker) fsync(o *cutObject, n *cutNode, p string, fd int) error {
	alone := len(o.now().files()) == len(o.now().names(n))
	return w.sync(o, "fsync "+o.cutName(p), func() error { return unix.Fsync(fd) }, func(m cutMark) {
		m.contents(n)
		m.attributes(n)
		if alone { // a sync of the file promises nothing about other files' names
			m.names()
		}
	})
}

// syncDirs syncs the directories of names: then the names are durable.
func (w *cutWorker) syncDirs(o *cutObject, names ...string) error {
	var dirs []string
	for _, p := range names {
		dirs = append(dirs, path.Dir(p))
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	return w.sync(o, fmt.Sprintf("fsync of directories %q", dirs), func() error {
		for _, d := range dirs {
			if err := withFD(w.path(d), unix.O_RDONLY|unix.O_DIRECTORY, unix.Fsync); err != nil {
				return err
			}
		}
		return nil
	}, cutMark.names)
}

// rename renames or exchanges.
func (w *cutWorker) rename(o *cutObject, from, to string, flags uint) error {
	s, what := o.now().moved(from, to), "rename"
	if flags == unix.RENAME_EXCHANGE {
		s, what = o.now().exchanged(from, to), "exchange"
	}
	what += " " + o.cutName(from) + " " + o.cutName(to)
	return w.names(o, s, what, func() error {
		return unix.Renameat2(unix.AT_FDCWD, w.path(from), unix.AT_FDCWD, w.path(to), flags)
	})
}

func (w *cutWorker) unlink(o *cutObject, p string) error {
	return w.names(o, o.now().with(p, nil), "unlink "+o.cutName(p), func() error { return unix.Unlink(w.path(p)) })
}

func (w *cutWorker) mkdir(o *cutObject, p string) error {
	s := o.now().with(p, newCutNode("dir", 0o755))
	return w.names(o, s, "mkdir "+o.cutName(p), func() error { return unix.Mkdir(w.path(p), 0o755) })
}

// create makes a new file with contents, and calls more with it open.
func (w *cutWorker) create(o *cutObject, p string, b []byte, more func(n *cutNode, fd int) error) error {
	n := newCutNode("file", 0o644)
	fd := -1
	err := w.names(o, o.now().with(p, n), "create "+o.cutName(p), func() (err error) {
		fd, err = unix.Open(w.path(p), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	what := fmt.Sprintf("write %s: %d bytes", o.cutName(p), len(b))
	if err := w.data(o, n, n.data.write(0, b), what, func() error { return writeAll(fd, b, 0) }); err != nil {
		return err
	}
	return more(n, fd)
}

// maybeSync is for create: it syncs the file, or not.
func (w *cutWorker) maybeSync(o *cutObject, p string) func(*cutNode, int) error {
	return func(n *cutNode, fd int) error {
		if !w.wants() {
			return nil
		}
		return w.syncData(o, n, p, fd)
	}
}
