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
	n, err := fs.child(p, name, callerOf(h))
	switch err {
	case nil:
		return fs.entry(n, out)
	case syscall.ENOENT:
		out.SetEntryTimeout(fs.timeout)
		return fuse.OK
	case errHidden: // from this caller, for now: the kernel must not keep it
		return fuse.OK
	}
	return fs.status(err)
}

// callerOf is who made a request.
func callerOf(h *fuse.InHeader) Caller { return Caller{UID: h.Uid, GID: h.Gid, PID: h.Pid} }

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
	out.SetEntryTimeout(fs.entryTTL(n))
	out.SetAttrTimeout(fs.timeout)
}

// child finds the node of a name and takes a reference to it for the kernel.
// The error is errHidden, not ENOENT, for a name that the policy hides.
func (fs *FS) child(p *node, name string, who Caller) (*node, error) {
	if fs.pol() == nil {
		p.mu.RLock()
		if c := p.dir.children[name]; !p.detached && c != nil && c.succ.Load() == nil && fs.nodes.ref(c) {
			p.mu.RUnlock()
			return c, nil
		}
		p.mu.RUnlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return fs.childLocked(p, name, who)
}

// childLocked is child with p.mu held for writing.
func (fs *FS) childLocked(p *node, name string, who Caller) (*node, error) {
	if p.detached {
		return nil, syscall.ESTALE
	}
	if fs.pol() != nil {
		if sc := fs.scope(fs.placeOf(p, name)); sc.NamesByCaller || sc.FilesByCaller {
			return fs.childFor(p, name, who)
		}
	}
	if c := fs.knownChild(p, name); c != nil {
		if fs.entryTTL(c) >= fs.timeout {
			return c, nil
		}
		fs.unrefLater(c)
		return fs.childFor(p, name, who)
	}
	if err := fs.absent(p, name); err != nil {
		return nil, err
	}
	f, err := fs.resolve(p, name, who)
	if err != nil {
		return nil, err
	}
	return fs.install(p, name, f), nil
}

// knownChild takes a reference to the node that is known under a key of the
// directory's children. Precondition: p.mu is held for writing.
func (fs *FS) knownChild(p *node, key string) *node {
	c := p.dir.children[key]
	if c == nil {
		return nil
	}
	if s := c.current(); s != c {
		c.lookedUpAgain()
		c = s
		fs.adopt(p, key, c)
	}
	if !fs.nodes.ref(c) {
		return nil
	}
	return c
}

// absent tells, without looking into a layer, that there is no such name.
func (fs *FS) absent(p *node, name string) error {
	switch {
	case p.unlinked:
		return syscall.ENOENT
	case p.dir.list == nil || !p.dir.list.absent(name):
		return nil
	case len(name) > unix.NAME_MAX:
		return syscall.ENAMETOOLONG
	}
	return syscall.ENOENT
}

// childFor is childLocked where the answer is not kept: the policy is asked
// each time, and the node that its answer leads to is found again.
func (fs *FS) childFor(p *node, name string, who Caller) (*node, error) {
	if err := fs.absent(p, name); err != nil {
		return nil, err
	}
	f, err := fs.resolve(p, name, who)
	if err != nil {
		return nil, err
	}
	key := name
	if f.variant != "" && !f.up {
		key = f.variant
	}
	if c := fs.knownChild(p, key); c != nil {
		if c.is(f) {
			if f.ruled {
				c.ttl.Store(int64(f.ttl) + 1)
			}
			f.discard()
			return c, nil
		}
		fs.detach(p, name, c)
		fs.unrefLater(c)
	}
	return fs.install(p, name, f), nil
}

// install makes what resolve found a node, or adds the name to the node that
// its inode has already, and takes a reference.
// Precondition: p.mu is held for writing.
func (fs *FS) install(p *node, name string, f *found) *node {
	n := &node{
		ino: f.ino, typ: f.typ, orphan: -1, up: f.up,
		low: f.file, origin: f.origin, part: f.part, hard: f.hard,
	}
	if f.ruled {
		n.ttl.Store(int64(f.ttl) + 1)
	}
	if f.typ == unix.S_IFDIR {
		n.dir = &dirState{low: f.low, mark: f.mark}
		n.dir.at.Store(&dirAt{parent: p, name: name})
		if f.upDir != nil {
			n.dir.upDir.Store(f.upDir)
		}
	}
	fs.nodes.add(n)
	if f.typ != unix.S_IFDIR && (f.hard || f.up && f.st.Nlink > 1) {
		n = fs.shareNode(n)
	}
	fs.nameNode(n, p, name)
	key := name
	if f.variant != "" && !n.up {
		key, p.dir.variants = f.variant, true
	}
	fs.adopt(p, key, n)
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
		n.unlinked, n.detached = false, false
		if n.orphan >= 0 && !n.isDir() {
			_ = unix.Close(int(n.orphan))
			n.orphan = -1
		}
	}
}

// adopt notes a child that the kernel holds.
func (fs *FS) adopt(p *node, name string, n *node) {
	if p.dir.children == nil {
		p.dir.children = make(map[string]*node)
	}
	p.dir.children[name] = n
}
