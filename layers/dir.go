// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Dir is a directory of one layer, known by its parent and its name. Making
// one costs no system call; its descriptor is opened when it is needed. All
// methods may be called from many goroutines.
type Dir struct {
	layer  *Layer
	parent *Dir   // guarded by layer.topo; nil for the root
	name   string // guarded by layer.topo

	// state is the descriptor + 1 (upper half, 0: none), the doomed bit, and
	// the number of pins. It becomes and leaves 0 only under the cache's lock.
	state atomic.Uint64
	used  atomic.Bool // since the clock hand last passed
	slot  int32       // place in the cache's ring + 1; guarded by the cache
	id    identity    // what the descriptor was when last opened; ditto
}

const (
	pinMask = 1<<31 - 1
	doomed  = 1 << 31 // close at the last Release
	fdShift = 32
)

// identity tells a directory from another one that took its place.
type identity struct{ dev, ino uint64 }

func (i identity) known() bool { return i != identity{} }

func identify(fd int) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, err
	}
	return identity{dev: uint64(st.Dev), ino: st.Ino}, nil
}

// Layer is the layer that d belongs to.
func (d *Dir) Layer() *Layer { return d.layer }

// Child is the directory of that name in d. Nothing is looked up: whether it
// exists, and is a directory, shows when it is used. Each call makes a new Dir.
func (d *Dir) Child(name string) *Dir {
	return &Dir{layer: d.layer, parent: d, name: name}
}

// Move records that d now is called name in parent, after a rename. Its
// descriptor, if open, stays. Both must belong to the same layer; anything
// else is a mistake of the caller and panics.
//
// Between a rename on disk and Move, others that have to open d or something
// below it find it missing, or find what took its place: where that can
// happen use [Dir.RenameTo], which does both in one step.
func (d *Dir) Move(parent *Dir, name string) {
	if parent.layer != d.layer {
		panic("layers: Move to another layer")
	}
	d.layer.topo.Lock()
	d.parent, d.name = parent, name
	d.layer.topo.Unlock()
}

// Path is where d is, for messages only: it is never used to reach anything.
func (d *Dir) Path() string {
	d.layer.topo.RLock()
	defer d.layer.topo.RUnlock()
	var names []string
	for at := d; at.parent != nil; at = at.parent {
		names = append(names, at.name)
	}
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(d.layer.Path, "/"))
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(names[i])
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}
