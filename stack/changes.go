// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The kinds of change that Changes reports.
const (
	Added    = 'A'
	Modified = 'M'
	Deleted  = 'D'
)

// Changes calls fn for each path, relative to the mount's root, that differs
// from the lower layers, in the order of the tree. A deleted directory is one
// change, an added one is reported with all that it holds. Subtrees that upper
// has no part in are not looked at.
func (fs *FS) Changes(fn func(kind byte, path string) error) error {
	return fs.changes(fs.root, fs.lowRoot, "", fn)
}

// changes compares a directory with the lower directory of the same path, nil
// if there is none.
func (fs *FS) changes(n *node, low *lowerStack, at string, fn func(byte, string) error) error {
	names, err := fs.unionNames(n, low)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := fs.changedName(n, low, name, path.Join(at, name), fn); err != nil {
			return err
		}
	}
	return nil
}

// unionNames is the sorted list of what the merged or the lower directory
// shows.
func (fs *FS) unionNames(n *node, low *lowerStack) ([]string, error) {
	err := fs.makeList(n)
	var names []string
	if err == nil {
		n.mu.RLock()
		for _, e := range n.dir.list.ents {
			if !e.dead {
				names = append(names, e.name)
			}
		}
		n.mu.RUnlock()
	}
	if err == nil && low != nil {
		err = low.list(fs, func(name string, _ uint64, _ uint8) { names = append(names, name) })
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

func (fs *FS) changedName(p *node, low *lowerStack, name, at string, fn func(byte, string) error) error {
	var h *lowerHit
	var err error
	if low != nil {
		if h, err = low.lookup(fs, name); err != nil {
			return err
		}
	}
	n, err := fs.child(p, name, mounter)
	if err == syscall.ENOENT {
		if h == nil {
			return nil
		}
		return fn(Deleted, at)
	}
	if err != nil {
		return err
	}
	defer fs.Forget(n.id, 1)
	if h == nil {
		return fs.addedTree(n, at, fn)
	}
	return fs.compare(n, h, at, fn)
}

// addedTree reports an entry that lower does not have, with all below it.
func (fs *FS) addedTree(n *node, at string, fn func(byte, string) error) error {
	if err := fn(Added, at); err != nil || n.dir == nil {
		return err
	}
	return fs.changes(n, nil, at, fn)
}

// compare reports how an entry differs from the lower one of the same path.
func (fs *FS) compare(n *node, h *lowerHit, at string, fn func(byte, string) error) error {
	n = n.lockCurrent()
	var st unix.Stat_t
	up := n.up
	r, err := fs.refLocked(n)
	if err == nil {
		err = r.stat(&st)
	}
	n.mu.RUnlock()
	if err != nil {
		return err
	}
	if n.dir == nil {
		if !up && st.Dev == h.st.Dev && st.Ino == h.st.Ino {
			return nil
		}
		same, err := fs.sameFile(n, h, &st)
		if err != nil || same {
			return err
		}
		return fn(Modified, at)
	}
	if h.dirs == nil {
		if err := fn(Modified, at); err != nil {
			return err
		}
		return fs.changes(n, nil, at, fn)
	}
	samePlace := n.dir.low != nil && n.dir.low.path() == h.dirs.path()
	if n.dir.upper() == nil && samePlace {
		return nil
	}
	same := sameMeta(&st, &h.st)
	if same {
		if same, err = fs.sameXattrs(n, h); err != nil {
			return err
		}
	}
	if !same {
		if err := fn(Modified, at); err != nil {
			return err
		}
	}
	return fs.changes(n, h.dirs, at, fn)
}

func sameMeta(a, b *unix.Stat_t) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid
}

// sameFile tells whether a copy still is what it was copied from. Equal
// metadata and times are not trusted alone: the content is compared.
func (fs *FS) sameFile(n *node, h *lowerHit, st *unix.Stat_t) (bool, error) {
	if !sameMeta(st, &h.st) || st.Rdev != h.st.Rdev {
		return false, nil
	}
	if n.isReg() && (st.Size != h.st.Size || st.Mtim != h.st.Mtim) {
		return false, nil
	}
	if same, err := fs.sameXattrs(n, h); err != nil || !same {
		return false, err
	}
	name := path.Base(h.name)
	switch n.typ {
	case unix.S_IFLNK:
		n = n.lockCurrent()
		r, err := fs.refLocked(n)
		var now string
		if err == nil {
			now, err = r.readlink()
		}
		n.mu.RUnlock()
		if err != nil {
			return false, err
		}
		was, err := h.d.Readlink(name)
		return now == was, err
	case unix.S_IFREG:
		return fs.sameContent(n, h)
	}
	return true, nil
}

// sameXattrs compares the xattrs that the mount shows with those of lower.
func (fs *FS) sameXattrs(n *node, h *lowerHit) (bool, error) {
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	r, err := fs.refLocked(n)
	if err != nil {
		return false, err
	}
	now, err := fs.xattrs(r, false)
	if err != nil {
		return false, err
	}
	was, err := fs.xattrs(ref{d: h.d, name: h.name, fd: -1}, true)
	return maps.Equal(now, was), err
}

// xattrs reads all xattrs of an inode but the private ones.
func (fs *FS) xattrs(r ref, lower bool) (map[string]string, error) {
	list := make([]byte, maxXattrList)
	n, err := r.listxattr(list)
	if err == syscall.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	val := make([]byte, maxXattrList)
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" || fs.privateAttr(name, lower) {
			continue
		}
		k, err := r.getxattr(name, val)
		if err != nil {
			return nil, err
		}
		out[name] = string(val[:k])
	}
	return out, nil
}

func (fs *FS) sameContent(n *node, h *lowerHit) (same bool, err error) {
	low, err := h.d.Open(h.name, unix.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(low)
	err = fs.withData(n.current(), unix.O_RDONLY, func(f selfFile) error {
		same, err = sameBytes(f.reader(), selfFile{fd: low}.reader())
		return err
	})
	return same, err
}

func sameBytes(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, err := io.ReadFull(a, x)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		m, err2 := io.ReadFull(b, y)
		if err2 != nil && err2 != io.EOF && err2 != io.ErrUnexpectedEOF {
			return false, err2
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if err != nil || err2 != nil {
			return true, nil
		}
	}
}
