// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import "maps"

// delta is what a log adds to the database, in memory: the end state of its ops,
// not their list. The delta of the active log changes under Journal.mu; that of the
// frozen log never does.
type delta struct {
	dirs     map[DirID]*dirDelta
	links    map[Origin]linkDelta
	reserved DirID // highest id reserved by these ops, or 0
	ops      int   // how many ops went in
}

// dirDelta is the change of one directory's records.
type dirDelta struct {
	dropped bool            // everything older is gone
	names   map[string]bool // true: covered, false: not
	note    *DirNote        // nil: unchanged, zero: none
}

// linkDelta is the new account of an origin, or that there is none any more.
type linkDelta struct {
	Links
	gone bool
}

func newDelta() *delta {
	return &delta{dirs: make(map[DirID]*dirDelta), links: make(map[Origin]linkDelta)}
}

// add applies ops in order.
func (d *delta) add(ops []Op) {
	for i := range ops {
		d.addOne(&ops[i])
	}
	d.ops += len(ops)
}

func (d *delta) addOne(o *Op) {
	switch o.kind {
	case opCover:
		d.dir(o.dir).set(o.name, true)
	case opUncover:
		d.dir(o.dir).set(o.name, false)
	case opDropDir:
		d.dirs[o.dir] = &dirDelta{dropped: true}
	case opNoteDir:
		note := o.note
		d.dir(o.dir).note = &note
	case opSetLinks:
		d.links[o.origin] = linkDelta{Links: o.links}
	case opDropLinks:
		d.links[o.origin] = linkDelta{gone: true}
	case opReserve:
		d.reserved = max(d.reserved, o.dir)
	}
}

func (d *delta) dir(id DirID) *dirDelta {
	dd := d.dirs[id]
	if dd == nil {
		dd = new(dirDelta)
		d.dirs[id] = dd
	}
	return dd
}

func (dd *dirDelta) set(name string, covered bool) {
	if dd.names == nil {
		dd.names = make(map[string]bool)
	}
	dd.names[name] = covered
}

// clone copies dd for use without the lock.
func (dd *dirDelta) clone() *dirDelta {
	if dd == nil {
		return nil
	}
	return &dirDelta{dropped: dd.dropped, names: maps.Clone(dd.names), note: dd.note}
}

// applyTo brings the covered names of a directory up to date.
func (dd *dirDelta) applyTo(names map[string]struct{}) map[string]struct{} {
	if dd == nil {
		return names
	}
	if dd.dropped {
		names = nil
	}
	for name, covered := range dd.names {
		if !covered {
			delete(names, name)
			continue
		}
		if names == nil {
			names = make(map[string]struct{}, len(dd.names))
		}
		names[name] = struct{}{}
	}
	return names
}

// cloneDir copies what d says of one directory, for use without the lock.
func (d *delta) cloneDir(id DirID) *delta {
	out := &delta{}
	if dd := d.dirs[id]; dd != nil {
		out.dirs = map[DirID]*dirDelta{id: dd.clone()}
	}
	return out
}

// cloneLinks copies what d says of links.
func (d *delta) cloneLinks() *delta { return &delta{links: maps.Clone(d.links)} }

// clone copies all of d.
func (d *delta) clone() *delta {
	out := &delta{links: maps.Clone(d.links), reserved: d.reserved, ops: d.ops}
	out.dirs = make(map[DirID]*dirDelta, len(d.dirs))
	for id, dd := range d.dirs {
		out.dirs[id] = dd.clone()
	}
	return out
}

// merge adds a later change of the same directory.
func (dd *dirDelta) merge(later *dirDelta) {
	if later.dropped {
		*dd = dirDelta{dropped: true}
	}
	for name, covered := range later.names {
		dd.set(name, covered)
	}
	if later.note != nil {
		dd.note = later.note
	}
}
