// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import "sync"

// inoMap makes one space of inode numbers out of those of all file systems
// under the layers, as kernel overlayfs does with xino=on:
//
//	 63        48 47                                   0
//	+------------+--------------------------------------+
//	| fs number  | inode number of the backing file     |
//	+------------+--------------------------------------+
//
// The fs number is given in the order in which a device is first met, upper's
// (or the top layer's) being 0, so that with one file system the numbers are
// the backing ones. A number that does not fit in 48 bits on any but the first
// file system, and one of the first that would look like another's, is
// replaced by bit 63 with a counter, stable for the life of the mount. One that
// is made of a file handle (originof.go) keeps bits 63 and 62; the rest is mixed
// with the fs number.
type inoMap struct {
	mu    sync.RWMutex
	devs  map[uint64]uint64
	extra map[inoKey]uint64
}

type inoKey struct{ dev, ino uint64 }

const (
	inoFSShift = 48
	inoExtra   = 1 << 63
	inoMix     = 0x9e3779b97f4a7c15 // odd, so that fs numbers stay apart
)

func (m *inoMap) init() {
	m.devs = make(map[uint64]uint64)
	m.extra = make(map[inoKey]uint64)
}

// get gives the st_ino to show for an inode of a backing device.
func (m *inoMap) get(dev, ino uint64) uint64 {
	m.mu.RLock()
	fsn, ok := m.devs[dev]
	m.mu.RUnlock()
	if !ok {
		fsn = m.addDev(dev)
	}
	if isHandleIno(ino) {
		return inoHandle | (ino+fsn*inoMix)&^inoHandle
	}
	if ino>>inoFSShift == 0 && fsn < 1<<15 {
		return fsn<<inoFSShift | ino
	}
	return m.overflow(inoKey{dev, ino})
}

func (m *inoMap) addDev(dev uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	fsn, ok := m.devs[dev]
	if !ok {
		fsn = uint64(len(m.devs))
		m.devs[dev] = fsn
	}
	return fsn
}

func (m *inoMap) overflow(k inoKey) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.extra[k]
	if !ok {
		n = inoExtra | uint64(len(m.extra)+1)
		m.extra[k] = n
	}
	return n
}
