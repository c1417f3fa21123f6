// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

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

// stepAppend appends, by itself or by O_APPEND.
func (w *cutWorker) stepAppend(o *cutObject) error {
	p, n := o.only()
	if n.data.size > 2*cutLarge {
		return w.truncate(o, p, w.Int64N(cutLarge))
	}
	b := w.bytes(1 + w.IntN([]int{50, 5000, 40_000}[w.IntN(3)]))
	if w.chance(0.5) {
		return w.write(o, p, n.data.size, b)
	}
	return withFD(w.path(p), unix.O_WRONLY|unix.O_APPEND, func(fd int) error {
		what := fmt.Sprintf("append to %s: %d bytes", o.cutName(p), len(b))
		err := w.data(o, n, n.data.write(n.data.size, b), what, func() error { return writeAll(fd, b, -1) })
		if err != nil || !w.wants() {
			return err
		}
		return w.syncData(o, n, p, fd)
	})
}

// stepTail writes around the end of the file: in its last block and over it.
func (w *cutWorker) stepTail(o *cutObject) error {
	p, n := o.only()
	size := n.data.size
	off := max(0, size-w.Int64N(6000))
	if w.chance(0.2) {
		off = size + w.Int64N(9000) // leaves a hole
	}
	return w.write(o, p, off, w.bytes(1+w.IntN(7000)))
}

// stepOverwrite writes anywhere in the file.
func (w *cutWorker) stepOverwrite(o *cutObject) error {
	p, n := o.only()
	off := w.Int64N(max(1, n.data.size))
	return w.write(o, p, off, w.bytes(1+w.IntN(int(max(1, min(n.data.size-off, 200_000))))))
}

// stepMiddle writes a little in the middle of a large file.
func (w *cutWorker) stepMiddle(o *cutObject) error {
	p, n := o.only()
	off := w.Int64N(max(1, n.data.size-20_000))
	return w.write(o, p, off, w.bytes(1+w.IntN([]int{10, 4096, 20_000}[w.IntN(3)])))
}

// stepSyncWrite writes through a descriptor that syncs each write.
func (w *cutWorker) stepSyncWrite(o *cutObject) error {
	p, n := o.only()
	flags := []int{unix.O_SYNC, unix.O_DSYNC}[w.IntN(2)]
	return withFD(w.path(p), unix.O_WRONLY|flags, func(fd int) error {
		for range 1 + w.IntN(3) {
			off := w.Int64N(n.data.size + 1)
			b := w.bytes(1 + w.IntN(30_000))
			op := n.data.write(off, b)
			err := w.data(o, n, op, fmt.Sprintf("synchronous write: %d bytes at %d", len(b), off), func() error { return writeAll(fd, b, off) })
			if err != nil {
				return err
			}
			if err := w.sync(o, "it was synchronous", func() error { return nil }, func(m cutMark) { m.contents(n) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// stepMmap stores through a mapping.
func (w *cutWorker) stepMmap(o *cutObject) error {
	p, n := o.only()
	if n.data.size == 0 {
		return w.write(o, p, 0, w.bytes(cutSmall))
	}
	return withFD(w.path(p), unix.O_RDWR, func(fd int) error {
		m, err := unix.Mmap(fd, 0, int(n.data.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			w.fail(o, "mmap", err)
			return err
		}
		defer unix.Munmap(m)
		for range 1 + w.IntN(3) {
			off := w.Int64N(max(1, n.data.size))
			b := w.bytes(1 + w.IntN(int(min(n.data.size-off, 9000))))
			op := n.data.write(off, b)
			op.loose = true
			what := fmt.Sprintf("store through a mapping: %d bytes at %d", len(b), off)
			if err := w.data(o, n, op, what, func() error { copy(m[off:], b); return nil }); err != nil {
				return err
			}
		}
		if !w.wants() {
			return nil
		}
		return w.sync(o, "msync", func() error { return unix.Msync(m, unix.MS_SYNC) }, func(m cutMark) { m.contents(n) })
	})
}

// truncate sets the size by path or by descriptor.
func (w *cutWorker) truncate(o *cutObject, p string, size int64) error {
	n := o.now()[p]
	op := cutWrite{size: size}
	what := fmt.Sprintf("truncate %s to %d", o.cutName(p), size)
	if w.chance(0.5) {
		return w.data(o, n, op, what, func() error { return unix.Truncate(w.path(p), size) })
	}
	return withFD(w.path(p), unix.O_WRONLY, func(fd int) error {
		err := w.data(o, n, op, what, func() error { return unix.Ftruncate(fd, size) })
		if err != nil || !w.wants() {
			return err
		}
		return w.syncData(o, n, p, fd)
	})
}

// stepTruncate cuts the file off and lets it grow again.
func (w *cutWorker) stepTruncate(o *cutObject) error {
	p, n := o.only()
	if err := w.truncate(o, p, w.Int64N(n.data.size+1)); err != nil {
		return err
	}
	if w.chance(0.3) {
		return nil
	}
	if err := w.truncate(o, p, n.data.size+w.Int64N(100_000)); err != nil || w.chance(0.5) {
		return err
	}
	return w.write(o, p, w.Int64N(n.data.size+1), w.bytes(1+w.IntN(9000)))
}

// stepPunch makes holes and writes into them.
func (w *cutWorker) stepPunch(o *cutObject) error {
	p, n := o.only()
	if n.data.size == 0 || w.chance(0.3) {
		return w.write(o, p, w.Int64N(n.data.size+1), w.bytes(1+w.IntN(9000)))
	}
	off := w.Int64N(max(1, n.data.size))
	zeros := make([]byte, 1+w.Int64N(min(n.data.size-off, 100_000)))
	mode := []uint32{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE}[w.IntN(2)]
	return withFD(w.path(p), unix.O_RDWR, func(fd int) error {
		what := fmt.Sprintf("punch (%#x) %d bytes at %d", mode, len(zeros), off)
		op := n.data.write(off, zeros)
		op.punch = true
		err := w.data(o, n, op, what, func() error { return unix.Fallocate(fd, mode, off, int64(len(zeros))) })
		if err != nil || !w.wants() {
			return err
		}
		return w.syncData(o, n, p, fd)
	})
}

// stepRewrite empties the file by opening it, and writes it anew.
func (w *cutWorker) stepRewrite(o *cutObject) error {
	p, n := o.only()
	fd := -1
	err := w.data(o, n, cutWrite{}, "open "+o.cutName(p)+" with O_TRUNC", func() (err error) {
		fd, err = unix.Open(w.path(p), unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range 1 + w.IntN(3) {
		b := w.bytes(1 + w.IntN(30_000))
		what := fmt.Sprintf("append to %s: %d bytes", o.cutName(p), len(b))
		op := n.data.write(n.data.size, b)
		if err := w.data(o, n, op, what, func() error { return writeAll(fd, b, op.off) }); err != nil {
			return err
		}
	}
	if !w.wants() {
		return nil
	}
	return w.syncData(o, n, p, fd)
}

// stepAttributes changes attributes of files and directories and nothing else.
func (w *cutWorker) stepAttributes(o *cutObject) error {
	p, n := w.pick(o)
	a := n.attrs.now
	var what string
	var call func() error
	switch w.IntN(3) {
	case 0:
		a.mode = []uint32{0o600, 0o644, 0o755, 0o640}[w.IntN(4)]
		what, call = fmt.Sprintf("chmod %o", a.mode), func() error { return unix.Chmod(w.path(p), a.mode) }
	case 1:
		a.uid = uint32(w.IntN(2000))
		what, call = fmt.Sprintf("chown %d", a.uid), func() error { return unix.Lchown(w.path(p), int(a.uid), -1) }
	case 2:
		a.xattr = fmt.Sprint(w.IntN(1_000_000))
		what, call = "setxattr "+a.xattr, func() error { return unix.Lsetxattr(w.path(p), "user.cut", []byte(a.xattr), 0) }
	}
	if err := w.attrs(o, n, a, what, call); err != nil || !w.wants() {
		return err
	}
	return withFD(w.path(p), unix.O_RDONLY, func(fd int) error { return w.fsync(o, n, p, fd) })
}

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
