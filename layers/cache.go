// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Cache bounds the descriptors held for directories of all layers of one
// mount. Over the bound, the descriptors not used since the clock hand last
// passed are closed; a descriptor that is pinned by [Dir.Acquire] never is, so
// the bound can be exceeded by the number of directories in use at one time.
// The roots of layers are not counted.
type Cache struct {
	mu     sync.Mutex
	max    int
	ring   []*Dir // directories with a descriptor, in no special order
	hand   int    // where the clock stands in ring
	closed bool
	open   atomic.Int64
}

// NewCache makes a cache that keeps at most max descriptors open (at least 1).
func NewCache(max int) *Cache {
	if max < 1 {
		max = 1
	}
	return &Cache{max: max}
}

// Len is the number of directory descriptors now open, roots of layers not
// counted.
func (c *Cache) Len() int { return int(c.open.Load()) }

// Max is the bound that the cache was made with.
func (c *Cache) Max() int { return c.max }

// Close closes every descriptor that is not pinned, and makes each other one
// close at its last Release. Directories can still be used afterwards; nothing
// is kept.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.doom(func(*Dir) bool { return true })
}

// doom closes the descriptors of the chosen directories, at once or at their
// last Release.
func (c *Cache) doom(chosen func(*Dir) bool) {
	c.mu.Lock()
	var fds []int
	for i := len(c.ring) - 1; i >= 0; i-- {
		d := c.ring[i]
		if !chosen(d) {
			continue
		}
		d.state.Or(doomed)
		if fd, ok := c.dropLocked(d); ok {
			fds = append(fds, fd)
		}
	}
	c.mu.Unlock()
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// install gives d the descriptor fd and returns d's descriptor, pinned. If d
// got one meanwhile from somebody else, that one stays and fd is closed. It is
// ESTALE, and fd is closed, if fd is not the directory that d was before.
func (c *Cache) install(d *Dir, fd int, id identity) (int, error) {
	c.mu.Lock()
	if have, ok := d.pin(); ok {
		c.mu.Unlock()
		unix.Close(fd)
		return have, nil
	}
	if d.id.known() && d.id != id && d.layer.stableIno {
		c.mu.Unlock()
		unix.Close(fd)
		return -1, unix.ESTALE
	}
	d.id = id
	state := uint64(fd+1)<<fdShift | 1
	if c.closed {
		state |= doomed
	}
	d.state.Store(state)
	c.ring = append(c.ring, d)
	d.slot = int32(len(c.ring))
	c.open.Add(1)
	victims := c.evictLocked()
	c.mu.Unlock()
	for _, v := range victims {
		unix.Close(v)
	}
	return fd, nil
}

// evictLocked takes directories out until the bound holds or all are pinned,
// and returns the descriptors to close. Two rounds of the clock: the first may
// only clear the marks of use.
func (c *Cache) evictLocked() (fds []int) {
	for tries := 2 * len(c.ring); len(c.ring) > c.max && tries > 0; tries-- {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		d := c.ring[c.hand]
		if d.used.Load() {
			d.used.Store(false)
			c.hand++
			continue
		}
		if fd, ok := c.dropLocked(d); ok {
			fds = append(fds, fd)
			continue // another directory moved into this slot
		}
		c.hand++
	}
	return fds
}

// drop closes d's descriptor if nobody has it pinned.
func (c *Cache) drop(d *Dir) {
	c.mu.Lock()
	fd, ok := c.dropLocked(d)
	c.mu.Unlock()
	if ok {
		unix.Close(fd)
	}
}

// dropLocked takes d's descriptor away if nobody has it pinned. The caller
// closes it. Only here does a descriptor leave a Dir.
func (c *Cache) dropLocked(d *Dir) (fd int, ok bool) {
	for {
		s := d.state.Load()
		if s>>fdShift == 0 || s&pinMask != 0 {
			return -1, false
		}
		if d.state.CompareAndSwap(s, 0) {
			c.unlinkLocked(d)
			return int(s>>fdShift) - 1, true
		}
	}
}

func (c *Cache) unlinkLocked(d *Dir) {
	if d.slot == 0 {
		return // the root of a layer
	}
	last := len(c.ring) - 1
	moved := c.ring[last]
	c.ring[d.slot-1] = moved
	moved.slot = d.slot
	c.ring[last] = nil
	c.ring = c.ring[:last]
	d.slot = 0
	c.open.Add(-1)
}
