// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"strings"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A lowerStack is one directory of the merged view of the lower layers alone.
// Lower layers do not change, so neither does it.
type lowerStack struct {
	parent *lowerStack
	name   string
	dirs   []*layers.Dir // topmost first, at least one

	// marks are what the directories say of themselves; read when they were
	// found, but for those where nothing below made it matter: see load.
	marks []layers.DirMarks

	once sync.Once
	idx  map[string]lowerEnt // by name; only with several dirs
	err  error
}

// add puts one more directory below the others.
func (s *lowerStack) add(d *layers.Dir, m layers.DirMarks) {
	s.dirs = append(s.dirs, d)
	s.marks = append(s.marks, m)
}

// lowerEnt is what the directories of a lowerStack hold under one name, once
// whiteouts have been applied.
type lowerEnt struct {
	first uint16   // index in dirs of the topmost that has it
	typ   uint8    // DT_*; dtWhiteout while the index is built
	stop  bool     // nothing below first (and rest) merges
	rest  []uint16 // further dirs that hold a directory of this name
	ino   uint64   // d_ino in the topmost
}

// dtWhiteout marks a name that a whiteout hides, while an index is built.
const dtWhiteout = unix.DT_WHT

// path is the directory's path from the root of the lower layers' merged
// view: what a redirect stores.
func (s *lowerStack) path() string {
	if s.parent == nil {
		return "/"
	}
	var parts []string
	for ; s.parent != nil; s = s.parent {
		parts = append(parts, s.name)
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	return b.String()
}

// forget lets go of the descriptors of the directories.
func (s *lowerStack) forget() {
	for _, d := range s.dirs {
		d.Forget()
	}
}

// load builds the merged index of several directories, one listing each, so
// that a lookup costs the same through 20 layers as through one.
func (s *lowerStack) load(fs *FS) error {
	s.once.Do(func() {
		if s.err = s.readMarks(); s.err != nil || len(s.dirs) == 1 {
			return
		}
		s.idx = make(map[string]lowerEnt)
		for i := range s.dirs {
			if s.err = s.indexDir(fs, i); s.err != nil {
				return
			}
		}
		for name, e := range s.idx {
			if e.typ == dtWhiteout {
				delete(s.idx, name)
			}
		}
	})
	return s.err
}

// indexDir adds the listing of one directory to the index.
func (s *lowerStack) indexDir(fs *FS, i int) error {
	d := s.dirs[i]
	var hidden []string
	err := d.List(func(name []byte, ino uint64, typ uint8) error {
		if t, ok := ociHidden(string(name)); ok {
			if t != "" {
				hidden = append(hidden, t)
			}
			return nil
		}
		e, known := s.idx[string(name)]
		if known && e.stop {
			return nil
		}
		typ, err := entryType(fs, d, string(name), typ, ino, s.marks[i].XWhiteouts)
		if err != nil || typ == dtUnseen {
			return err
		}
		s.idx[string(name)] = mergeEntry(e, known, uint16(i), typ, ino)
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range hidden {
		e, known := s.idx[name]
		if !known {
			e = lowerEnt{first: uint16(i), typ: dtWhiteout}
		}
		e.stop = true
		s.idx[name] = e
	}
	return nil
}

// readMarks reads the marks of the last directory, which mergeDirs leaves out.
func (s *lowerStack) readMarks() (err error) {
	if len(s.marks) < len(s.dirs) {
		var m layers.DirMarks
		m, err = lowerMarks(s.dirs[len(s.dirs)-1])
		s.marks = append(s.marks, m)
	}
	return err
}

// mergeEntry adds what directory i holds under a name to what those above it
// hold.
func mergeEntry(e lowerEnt, known bool, i uint16, typ uint8, ino uint64) lowerEnt {
	switch {
	case !known:
		return lowerEnt{first: i, typ: typ, ino: ino, stop: typ != unix.DT_DIR}
	case typ == unix.DT_DIR:
		e.rest = append(e.rest, i)
	default: // a file or whiteout below a directory ends the merge
		e.stop = true
	}
	return e
}

// dtUnseen stands for an entry that the merged tree must not show at all:
// plyfs' own upper or work directory inside a lower layer.
const dtUnseen = 0xff

// entryType refines the d_type of a listing: unknown types, whiteouts, and the
// mount's own directories.
func entryType(fs *FS, d *layers.Dir, name string, typ uint8, ino uint64, xw bool) (uint8, error) {
	switch {
	case typ == unix.DT_UNKNOWN, typ == unix.DT_CHR:
		var st unix.Stat_t
		if err := d.Stat(name, &st); err != nil {
			return 0, err
		}
		if layers.IsWhiteoutStat(&st) {
			return dtWhiteout, nil
		}
		typ = uint8(st.Mode >> 12 & 15)
	}
	if typ == unix.DT_REG && xw {
		w, err := d.IsXWhiteout(name)
		if err != nil {
			return 0, err
		}
		if w {
			return dtWhiteout, nil
		}
	}
	if typ == unix.DT_DIR && fs.isOwnDir(d, ino, name) {
		return dtUnseen, nil
	}
	return typ, nil
}

// lowerHit is the answer of a lower lookup.
type lowerHit struct {
	name string
	st   unix.Stat_t
	d    *layers.Dir // the directory that holds it
	imp  bool        // which overlayfs marked as holding copies
	dirs *lowerStack // set for directories
}

// lookup finds a name. A nil hit means that no lower layer shows it.
func (s *lowerStack) lookup(fs *FS, name string) (*lowerHit, error) {
	if _, hidden := ociHidden(name); hidden {
		return nil, nil
	}
	if err := s.load(fs); err != nil {
		return nil, err
	}
	if len(s.dirs) == 1 {
		return s.lookupOne(fs, name)
	}
	e, ok := s.idx[name]
	if !ok {
		return nil, nil
	}
	h := &lowerHit{name: name, d: s.dirs[e.first], imp: s.marks[e.first].Impure}
	if err := h.d.Stat(name, &h.st); err != nil {
		return nil, err
	}
	if h.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return h, nil
	}
	cand := []*layers.Dir{s.dirs[e.first]}
	for _, i := range e.rest {
		cand = append(cand, s.dirs[i])
	}
	return h, s.mergeDirs(fs, h, name, cand)
}

// lookupOne is lookup in a single directory.
func (s *lowerStack) lookupOne(fs *FS, name string) (*lowerHit, error) {
	h := &lowerHit{name: name, d: s.dirs[0], imp: s.marks[0].Impure}
	err := h.d.Stat(name, &h.st)
	if err == syscall.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	typ, err := entryType(fs, h.d, name, uint8(h.st.Mode>>12&15), h.st.Ino, s.marks[0].XWhiteouts)
	if err != nil {
		return nil, err
	}
	if typ == dtWhiteout || typ == dtUnseen || layers.IsWhiteoutStat(&h.st) {
		return nil, nil
	}
	if typ == unix.DT_DIR {
		return h, s.mergeDirs(fs, h, name, []*layers.Dir{h.d})
	}
	return h, nil
}

// mergeDirs finds the directories that name in the candidates is made of: from
// the top down to the first opaque one, following the redirects that kernel
// overlayfs left in lower layers (namei.c:ovl_lookup_layer).
func (s *lowerStack) mergeDirs(fs *FS, h *lowerHit, name string, cand []*layers.Dir) error {
	h.dirs = &lowerStack{parent: s, name: name}
	for _, d := range cand {
		sub := d.Child(name)
		if d.Layer().Index == fs.bottom { // nothing below: its marks can wait
			h.dirs.dirs = append(h.dirs.dirs, sub)
			return nil
		}
		marks, err := lowerMarks(sub)
		if err != nil {
			return err
		}
		h.dirs.add(sub, marks)
		if marks.Opaque {
			return nil
		}
		if marks.Redirect != "" {
			return s.follow(h, redirectTrail(s, name, marks.Redirect), d.Layer().Index)
		}
	}
	return nil
}

// walk finds the directory that a redirect of upper names.
func (s *lowerStack) walk(fs *FS, path string) (*lowerStack, error) {
	cur := fs.lowRoot
	for _, p := range strings.Split(strings.Trim(path, "/"), "/") {
		if p == "" {
			continue
		}
		h, err := cur.lookup(fs, p)
		if err != nil {
			return nil, err
		}
		if h == nil || h.dirs == nil {
			return nil, syscall.ESTALE
		}
		cur = h.dirs
	}
	return cur, nil
}

// list calls fn for every name that the merged lower directories show.
func (s *lowerStack) list(fs *FS, fn func(name string, ino uint64, typ uint8)) error {
	if err := s.load(fs); err != nil {
		return err
	}
	if len(s.dirs) > 1 {
		for name, e := range s.idx {
			fn(name, e.ino, e.typ)
		}
		return nil
	}
	d := s.dirs[0]
	return d.List(func(name []byte, ino uint64, typ uint8) error {
		if _, hidden := ociHidden(string(name)); hidden {
			return nil
		}
		typ, err := entryType(fs, d, string(name), typ, ino, s.marks[0].XWhiteouts)
		if err != nil || typ == dtWhiteout || typ == dtUnseen {
			return err
		}
		fn(string(name), ino, typ)
		return nil
	})
}

// has tells whether the lower directories show a name.
func (s *lowerStack) has(fs *FS, name string) (bool, error) {
	if s == nil {
		return false, nil
	}
	h, err := s.lookup(fs, name)
	return h != nil, err
}

// lowerDialects are all that are honoured in lower layers.
const lowerDialects = layers.Overlay | layers.UserOverlay | layers.OCI

// isOwnDir tells whether an entry of a lower layer is the mount's own upper
// or work directory: `plyfs mount -o lowerdir=/,upperdir=/var/tmp/u` must not
// show the scratch directory inside itself.
func (fs *FS) isOwnDir(d *layers.Dir, ino uint64, name string) bool {
	for _, own := range fs.own {
		if own.ino != ino {
			continue
		}
		var st unix.Stat_t
		if d.Stat(name, &st) == nil && st.Dev == own.dev && st.Ino == own.ino {
			return true
		}
	}
	return false
}

// ociHidden tells whether a name is a mark of the OCI dialect, which no
// directory shows, and which name it hides, if any.
func ociHidden(name string) (target string, hidden bool) {
	if t, ok := layers.OCIWhiteout(name); ok {
		return t, true
	}
	return "", strings.HasPrefix(name, layers.WhiteoutMetaPrefix)
}
