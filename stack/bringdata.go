// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// examineLocked finds out how much of a partial file is in upper, at the first
// open of it. Precondition: n.mu is held for writing.
func (fs *FS) examineLocked(n *node) error {
	q := n.partial()
	if q == nil || !n.up || !q.is(partUnknown) {
		return nil
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	f, err := fs.openSelfLocked(n, r, unix.O_RDONLY)
	if err != nil {
		return err
	}
	f.close()
	fs.noteCopied(n)
	return nil
}

// bringData makes a file that was copied up without data, and is about to be
// written, ready for it: small ones become whole. One that is about to be cut
// to nothing needs no data. Precondition: no lock is held.
func (fs *FS) bringData(n *node, how copyKind) error {
	n.mu.RLock()
	q := n.partial()
	n.mu.RUnlock()
	if q == nil || !q.is(partUnknown) && !q.is(partEmpty) {
		return nil
	}
	n.copying.Lock()
	defer n.copying.Unlock()
	n.mu.Lock()
	err := fs.examineLocked(n)
	if err == nil && !q.is(partEmpty) {
		n.mu.Unlock()
		return nil
	}
	var f selfFile
	if err == nil {
		var r ref
		if r, err = fs.refLocked(n); err == nil {
			f, err = fs.openSelfLocked(n, r, unix.O_RDWR)
		}
	}
	if err == nil {
		q.setState(partSome) // from now on nobody is given the lower file
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	defer f.close()
	if how == copyEmpty {
		return nil
	}
	if err := fs.bring(f); err != nil {
		fs.again(n)
		return err
	}
	n.mu.RLock()
	fs.noteCopied(n)
	n.mu.RUnlock()
	return nil
}

// bring brings as much data to upper as is to be there before the first write.
func (fs *FS) bring(f selfFile) error {
	q := f.part
	size := q.limitNow()
	low, _, err := q.openLower()
	if err != nil {
		return err
	}
	switch {
	case fs.copiesWhole(size):
		fs.takesLong()
		fill := filling{q: q, fd: f.fd}
		if err := fill.run(); err != nil {
			return err
		}
		fs.count.copied(layers.CopiedByHand, uint64(fill.moved))
	case fs.clones() && q.clone(f.fd, low, size) == nil:
		fs.count.how(layers.CopiedByReflink)
	default:
		fs.count.how(leftInLower)
		return nil
	}
	q.setState(partAll)
	return nil
}

// clone shares all blocks of the lower file, if the file has none of its own.
func (q *partial) clone(fd, low int, size int64) error {
	span := q.ranges.lockRange(0, wholeRange, true)
	defer span.unlock()
	q.times.Lock()
	defer q.times.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if data, err := seekData(fd, 0, size); err != nil || data < size || st.Size != size {
		return unix.EINVAL
	}
	capability, err := getCapability(fd)
	if err != nil {
		return err
	}
	if err := layers.Clone(fd, low, size); err != nil {
		return err
	}
	if err := restoreCapability(fd, capability); err != nil {
		return err
	}
	return layers.FD(fd).Utimens([2]unix.Timespec{st.Atim, st.Mtim})
}
