// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Lookup answers for one name. A name that no layer shows is answered with
// node 0, which the kernel keeps as a negative entry.
func (fs *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	p := fs.node(h.NodeId)
	if p == nil || p.dir == nil {
		return fuse.Status(syscall.ESTALE)
	}
	n, err := fs.child(p, name)
	if err == syscall.ENOENT {
		out.SetEntryTimeout(fs.timeout)
		return fuse.OK
	}
	if err != nil {
		return fs.status(err)
	}
	return fs.entry(n, out)
}

// entry fills the answer about a node that was just referenced; on failure the
// reference is given back.
func (fs *FS) entry(n *node, out *fuse.EntryOut) fuse.Status {
	n.mu.RLock()
	err := fs.fillAttrLocked(n, &out.Attr)
	timeout := fs.attrTimeoutLocked(n)
	n.mu.RUnlock()
	if err != nil {
		fs.unrefLater(n) // the caller may hold a directory's lock
		return fs.status(err)
	}
	fs.entryHead(n, out)
	out.SetAttrTimeout(timeout)
	return fuse.OK
}

func (fs *FS) entryHead(n *node, out *fuse.EntryOut) {
	out.NodeId = n.id
	out.Generation = 1
	out.SetEntryTimeout(fs.timeout)
	out.SetAttrTimeout(fs.timeout)
}

// child finds the node of a name and takes a reference to it for the kernel.
func (fs *FS) child(p *node, name string) (*node, error) {
	p.mu.RLock()
	if c := p.dir.children[name]; c != nil && c.succ.Load() == nil && fs.nodes.ref(c) {
		p.mu.RUnlock()
		return c, nil
	}
	p.mu.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return fs.childLocked(p, name)
}

// childLocked is child with p.mu held for writing.
func (fs *FS) childLocked(p *node, name string) (*node, error) {
	if c := p.dir.children[name]; c != nil {
		if s := c.current(); s != c {
			c.lookedUpAgain()
			c = s
			fs.adopt(p, name, c)
		}
		if fs.nodes.ref(c) {
			return c, nil
		}
	}
	if p.unlinked {
		return nil, syscall.ENOENT
	}
	if p.dir.list != nil && p.dir.list.absent(name) {
		if len(name) > unix.NAME_MAX {
			return nil, syscall.ENAMETOOLONG
		}
		return nil, syscall.ENOENT
	}
	f, err := fs.resolve(p, name)
	if err != nil {
		return nil, err
	}
	return fs.install(p, name, f), nil
}

// install makes what resolve found a node, or adds the name to the node that
// its inode has already, and takes a reference.
// Precondition: p.mu is held for writing.
func (fs *FS) install(p *node, name string, f *found) *node {
	n := &node{
		ino: f.ino, typ: f.typ, orphan: -1, up: f.up,
		low: f.file, origin: f.origin, hard: f.hard,
	}
	if f.typ == unix.S_IFDIR {
		n.dir = &dirState{low: f.low, mark: f.mark}
		if f.upDir != nil {
			n.dir.upDir.Store(f.upDir)
		}
	}
	fs.nodes.add(n)
	if f.typ != unix.S_IFDIR && (f.hard || f.up && f.st.Nlink > 1) {
		n = fs.shareNode(n)
	}
	fs.nameNode(n, p, name)
	fs.adopt(p, name, n)
	return n
}

// shareNode gives all names of an inode one node.
func (fs *FS) shareNode(n *node) *node {
	first := fs.hard.share(&fs.nodes, n)
	if first != n {
		fs.nodes.unref(n.id, 1) // nobody knows it, and it holds nothing
	}
	return first
}

// nameNode adds a name to a node that was found under it.
func (fs *FS) nameNode(n, p *node, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succ.Load() == nil { // else the name leads to the successor: see child
		fs.addName(n, p, name)
		n.unlinked = false
	}
}

// adopt notes a child that the kernel holds.
func (fs *FS) adopt(p *node, name string, n *node) {
	if p.dir.children == nil {
		p.dir.children = make(map[string]*node)
	}
	p.dir.children[name] = n
}
