// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

var typeNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "symlink", unix.S_IFIFO: "fifo",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "character device", unix.S_IFBLK: "block device",
}

// Explain says where the entry at a path, relative to the mount's root, comes
// from and how it is served.
func (fs *FS) Explain(rel string) (Explanation, error) {
	rel = path.Clean("/" + rel)
	e := Explanation{Path: rel}
	if rel == "/" {
		fs.describe(&e, fs.root, nil, "")
		return e, nil
	}
	p, err := fs.walk(path.Dir(rel))
	if err != nil {
		return e, fmt.Errorf("%s: %w", path.Dir(rel), err)
	}
	defer fs.Forget(p.id, 1)
	if p.dir == nil {
		return e, fmt.Errorf("%s: %w", path.Dir(rel), syscall.ENOTDIR)
	}
	name := path.Base(rel)
	n, err := fs.child(p, name)
	if err != nil && err != syscall.ENOENT {
		return e, err
	}
	if err == nil {
		defer fs.Forget(n.id, 1)
	}
	fs.describe(&e, n, p, name)
	return e, nil
}

// walk finds the node at a path and takes a reference.
func (fs *FS) walk(rel string) (*node, error) {
	n := fs.root
	for _, name := range strings.Split(strings.Trim(rel, "/"), "/") {
		if name == "" {
			continue
		}
		if n.dir == nil {
			fs.Forget(n.id, 1)
			return nil, syscall.ENOTDIR
		}
		c, err := fs.child(n, name)
		fs.Forget(n.id, 1)
		if err != nil {
			return nil, err
		}
		n = c
	}
	return n, nil
}

// describe fills an explanation about node n, nil if nothing is shown, under
// name in p.
func (fs *FS) describe(e *Explanation, n, p *node, name string) {
	if p != nil {
		p.mu.Lock()
		fs.describeName(e, p, name)
		p.mu.Unlock()
	}
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e.Exists, e.Type, e.Ino = true, typeNames[n.typ], n.ino
	if r, err := fs.refLocked(n); err == nil && r.fd < 0 {
		e.Layer = fmt.Sprintf("lower %d", r.d.Layer().Index)
		if r.d.Layer().Index == 0 {
			e.Layer = "upper"
		}
		e.ServedBy = path.Join(r.d.Path(), r.name)
	}
	switch {
	case n.isDir():
		fs.describeDir(e, n)
	case n.isReg():
		e.IOMode, e.IOWhy = fs.ioMode(n)
	}
	if n.origin != (journal.Origin{}) && n.up {
		e.Records = append(e.Records, fmt.Sprintf("origin: layer %d inode %d", n.origin.Layer, n.origin.Ino))
	}
	if n.hard {
		l := fs.account(n.origin)
		e.Records = append(e.Records, fmt.Sprintf("hard-linked lower inode: indexed %v, lower names gone %d", fs.hard.indexed(n.origin), l.Gone))
	}
}

// describeName says what hides a name, or is hidden by it.
// Precondition: p.mu is held for writing.
func (fs *FS) describeName(e *Explanation, p *node, name string) {
	if fs.loadCovers(p) != nil {
		return
	}
	inUpper := false
	if up := p.dir.upper(); up != nil {
		var st unix.Stat_t
		switch err := up.Stat(name, &st); {
		case err != nil:
		case layers.IsWhiteoutStat(&st):
			e.HiddenBy = "whiteout " + path.Join(up.Path(), name)
		default:
			inUpper = true
		}
	}
	if p.dir.covered(name) {
		rec := fmt.Sprintf("cover: directory %d, name %q", p.dir.mark.id, name)
		e.Records = append(e.Records, rec)
		if !inUpper {
			e.HiddenBy = "journal record " + rec
		}
	}
	if p.dir.low == nil {
		return
	}
	shown := inUpper || e.HiddenBy != ""
	for _, d := range p.dir.low.dirs {
		var st unix.Stat_t
		if d.Stat(name, &st) != nil {
			continue
		}
		if shown {
			e.Hidden = append(e.Hidden, path.Join(d.Path(), name))
		}
		shown = true
	}
}

// describeDir lists the directories that a merged one is made of.
// Precondition: n.mu is held.
func (fs *FS) describeDir(e *Explanation, n *node) {
	merged := map[string]bool{}
	add := func(d *layers.Dir) {
		e.Merged = append(e.Merged, d.Path())
		merged[d.Path()] = true
	}
	if up := n.dir.upper(); up != nil {
		add(up)
	}
	if n.dir.low != nil {
		for _, d := range n.dir.low.dirs {
			add(d)
		}
	}
	var hidden []string
	for _, h := range e.Hidden {
		if !merged[h] {
			hidden = append(hidden, h)
		}
	}
	e.Hidden = hidden
	m := n.dir.mark
	if m.id != 0 {
		e.Records = append(e.Records, fmt.Sprintf("directory id %d, %d names covered", m.id, len(n.dir.covers)))
	}
	if m.opaque() {
		e.Records = append(e.Records, "opaque")
	}
	if m.redirect != "" {
		e.Records = append(e.Records, "redirect: "+m.redirect)
	}
}

// ioMode says how a regular file is, or would be, served.
// Precondition: n.mu is held for writing.
func (fs *FS) ioMode(n *node) (mode, why string) {
	if n.io != nil && n.io.opens > 0 {
		if n.io.mode == modePassthrough {
			return "passthrough", fmt.Sprintf("%d open, backing id %d", n.io.opens, n.io.id)
		}
		return "server", n.io.refused
	}
	why, err := fs.keepFromPassthrough(n, false)
	switch {
	case err != nil:
		return "error", err.Error()
	case why != "":
		return "server", why
	case n.io != nil && n.io.refused != "":
		return "server", n.io.refused
	}
	return "passthrough", "one layer serves the whole file"
}
