// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import "golang.org/x/sys/unix"

// Acquire pins d's O_PATH descriptor, opening it if need be, and returns it.
// Each success needs one [Dir.Release]; the descriptor must not be used after
// that. It is ENOENT if the directory is gone, ENOTDIR if it, or a directory
// above it, is no longer a directory (a symbolic link is never followed),
// ESTALE if another directory has taken its place in the upper layer, EBADF if
// the layer is closed.
func (d *Dir) Acquire() (fd int, err error) {
	if fd, ok := d.pin(); ok {
		return fd, nil
	}
	return d.open()
}

// Release ends one Acquire.
func (d *Dir) Release() {
	s := d.state.Add(^uint64(0))
	if s&pinMask == pinMask {
		panic("layers: Release without Acquire")
	}
	if s&pinMask == 0 && s&doomed != 0 {
		d.layer.cache.drop(d)
	}
}

// pin is Acquire for a directory that has its descriptor.
func (d *Dir) pin() (fd int, ok bool) {
	for {
		s := d.state.Load()
		if s>>fdShift == 0 {
			return -1, false
		}
		if d.state.CompareAndSwap(s, s+1) {
			if !d.used.Load() {
				d.used.Store(true)
			}
			return int(s>>fdShift) - 1, true
		}
	}
}

// open opens d's descriptor and those of all ancestors that lack one, from the
// nearest ancestor that has one downwards, and returns d's, pinned.
func (d *Dir) open() (int, error) {
	d.layer.topo.RLock()
	defer d.layer.topo.RUnlock()
	var room [16]*Dir
	missing := room[:0] // d first, then its parent, and so on
	at, fd := d, -1
	for {
		var ok bool
		if fd, ok = at.pin(); ok {
			break
		}
		if at.parent == nil {
			return -1, unix.EBADF
		}
		missing = append(missing, at)
		at = at.parent
	}
	for i := len(missing) - 1; i >= 0; i-- {
		next := missing[i]
		below, err := next.openIn(fd)
		at.Release()
		if err != nil {
			return -1, err
		}
		at, fd = next, below
	}
	return fd, nil
}

// openIn opens d in its parent's descriptor and pins it.
func (d *Dir) openIn(parent int) (int, error) {
	if err := checkComponent(d.name); err != nil {
		return -1, err
	}
	fd, err := openat(parent, d.name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	id, err := identify(fd)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return d.layer.cache.install(d, fd, id)
}

// Adopt gives d an already open O_PATH descriptor, which then belongs to d: it
// is closed at once if d has one, or if it cannot be examined.
func (d *Dir) Adopt(fd int) {
	id, err := identify(fd)
	if err != nil {
		unix.Close(fd)
		return
	}
	c := d.layer.cache
	c.mu.Lock()
	if d.state.Load()>>fdShift == 0 {
		d.id = identity{}
	}
	c.mu.Unlock()
	if _, err := c.install(d, fd, id); err == nil {
		d.Release()
	}
}

// Forget closes d's descriptor, at its last Release if it is pinned now, and
// forgets which directory it was. To be called when the node that holds d
// dies. A Dir that is used again after that opens its descriptor anew, so that
// what is still below it goes on working. The root of a layer is not forgotten.
func (d *Dir) Forget() {
	if d == d.layer.root {
		return
	}
	c := d.layer.cache
	c.mu.Lock()
	if d.state.Load()>>fdShift != 0 {
		d.state.Or(doomed)
	}
	fd, ok := c.dropLocked(d)
	d.id = identity{}
	c.mu.Unlock()
	if ok {
		unix.Close(fd)
	}
}
