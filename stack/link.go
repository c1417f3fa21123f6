// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// Link makes a further name of a non-directory. It is made as the mounter, not
// as the caller (dir.c:ovl_create_or_link); the kernel has checked the
// caller's right.
func (fs *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n := fs.node(in.Oldnodeid)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	n = n.current()
	if err := fs.copyUp(n, copyMeta); err != nil {
		return fs.status(err)
	}
	p, err := fs.beginCreate(in.NodeId)
	if err != nil {
		return fs.status(err)
	}
	defer p.mu.Unlock()
	if err := fs.linkAt(n, p, name); err != nil {
		return fs.status(err)
	}
	fs.nodes.ref(n)
	return fs.entry(n, out)
}

// linkAt makes name in p lead to n. Precondition: p.mu is held for writing.
func (fs *FS) linkAt(n, p *node, name string) error {
	shows, err := fs.lowerShows(p, name)
	if err != nil {
		return err
	}
	if shows {
		return syscall.EEXIST
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succ.Load() != nil {
		return errRetry
	}
	if err := fs.markImpure(p, n); err != nil {
		return err
	}
	if err := fs.stick(n, fs.ruledPlaceLocked(n)); err != nil {
		return err
	}
	if err := fs.pin(n); err != nil {
		return err
	}
	if err := fs.linkUpper(n, p, name); err != nil {
		return err
	}
	fs.at(cutLinked)
	fs.addName(n, p, name)
	if fs.namesRuled(p, name) {
		n.ttl.Store(1)
	}
	if n.orphan >= 0 {
		_ = unix.Close(int(n.orphan))
		n.orphan = -1
	}
	n.unlinked = false
	fs.hard.setNode(n)
	fs.adopt(p, name, n)
	if p.dir.list != nil {
		p.dir.list.add(name, n.ino, uint8(n.typ>>12))
	}
	return nil
}

// linkUpper links the node's inode under a name of upper, over a whiteout if
// there is one.
func (fs *FS) linkUpper(n, p *node, name string) error {
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	up := p.dir.upper()
	err = r.linkTo(up, name)
	if err != syscall.EEXIST {
		return err
	}
	var st unix.Stat_t
	if up.Stat(name, &st) != nil || !layers.IsWhiteoutStat(&st) {
		return syscall.EEXIST
	}
	tmp := fs.tmpName()
	if err := r.linkTo(fs.tmp, tmp); err != nil {
		return err
	}
	fs.at(cutLinkMadeInWork)
	if err := fs.tmp.Rename(tmp, up, name, 0); err != nil {
		_ = fs.tmp.Unlink(tmp)
		return err
	}
	return nil
}

// markImpure notes on a directory without lower parts that an entry with an
// origin comes to it, so that lookups there read origins.
// Precondition: p.mu and n.mu are held for writing.
func (fs *FS) markImpure(p, n *node) error {
	if n.isDir() || n.origin == (journal.Origin{}) || p.dir.low != nil || p.dir.mark.impure() {
		return nil
	}
	m := p.dir.mark
	m.flags |= markImpure
	return fs.setMark(p, m)
}
