// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// rootID is the node id that the kernel gives to the root of a mount.
const rootID = 1

// A node is one inode of the merged tree, from its first lookup until the
// kernel forgets it.
type node struct {
	id  uint64 // immutable
	ino uint64 // st_ino; immutable
	typ uint32 // S_IFMT bits; immutable

	// lookups is the kernel's count of references; guarded by the table's
	// shard lock.
	lookups uint64
	// dead is set, under the shard lock, when lookups came to zero.
	dead atomic.Bool
	// pinned nodes are not given back to the kernel's count: the root.
	pinned bool
	// ttl is how long the kernel may keep the node's name, in ns, + 1; 0: as
	// long as any name. Set by the policy.
	ttl atomic.Int64

	// copying lets one copy-up of the node run at a time.
	copying sync.Mutex

	// mu guards all below. See the package comment for its place in the
	// lock order.
	mu sync.RWMutex

	// syncFailed: see syncfailed.go.
	syncFailed atomic.Bool

	// names are the places of the merged tree that are known to lead here.
	// A directory has one, or none once it is removed; the root has none.
	names []nameRef

	// up is set once the inode is in upper; it never goes back.
	up bool
	// orphan is a descriptor on an upper inode that lost its last known
	// name; -1 otherwise.
	orphan layers.FD
	// unlinked: no name is left in the merged tree.
	unlinked bool
	// overtaken: a copy-up is why there is a successor, so that the node's
	// handles show the lower file.
	overtaken bool
	// detached: a policy took the names away. It is not written through, and a
	// directory shows nothing: ESTALE.
	detached bool
	// held has a bit for each lower layer with a version of the path, shown is
	// the size last shown + 1; both for a policy (decision.go).
	held  atomic.Uint64
	shown atomic.Int64
	// lastPlace is the place of the last name of a file that has none left.
	lastPlace string

	// low is where the inode is, or was before its copy-up, in a lower
	// layer; d is nil if it has none. Of a non-directory it changes once at
	// most: when the lower file of a partial one is first passed through.
	low lowerFile
	// origin is the lower inode this one stands for: the copy's source, or
	// the lower file itself. Layer 0 means none.
	origin journal.Origin
	// part is set for a regular file in upper that was copied up in part, or
	// not synced since; see partial.go.
	part *partial
	// hard is set for a lower inode with several links, copied up or not;
	// see hardlink.go.
	hard bool

	dir *dirState // nil unless a directory
	io  *ioState  // regular files once opened; see iomode.go

	// succ is the node that took this one's place when a copy-up overtook
	// its open lower handles; see iomode.go.
	succ atomic.Pointer[node]
}

// nameRef is one name of the merged tree.
type nameRef struct {
	parent *node
	name   string
}

// lowerFile is a non-directory in a lower layer.
type lowerFile struct {
	d    *layers.Dir
	name string
	data *lowerFile // where a metacopy's data is; nil for other files
}

// ref reaches the file, or with data its data.
func (l *lowerFile) ref(data bool) ref {
	if data && l.data != nil {
		l = l.data
	}
	return ref{d: l.d, name: l.name, fd: -1}
}

func (n *node) isDir() bool { return n.typ == unix.S_IFDIR }

// inUpper tells whether the inode is in upper. Precondition: n.mu is held.
func (n *node) inUpper() bool { return n.up || n.dir != nil && n.dir.upper() != nil }

func (n *node) isReg() bool { return n.typ == unix.S_IFREG }

// A ref is how a node's backing inode is reached: by directory and name, or,
// when it has no name, by descriptor.
type ref struct {
	d    *layers.Dir
	name string
	fd   layers.FD
}

// refLocked says where the node's inode is now.
// Precondition: n.mu is held, and stays held while the ref is used.
func (fs *FS) refLocked(n *node) (ref, error) {
	switch {
	case n.orphan >= 0:
		return ref{fd: n.orphan}, nil
	case n.isDir():
		if up := n.dir.upper(); up != nil {
			return ref{d: up, fd: -1}, nil
		}
		return ref{d: n.dir.low.dirs[0], fd: -1}, nil
	case n.up && n.hard:
		return ref{d: fs.index, name: indexName(n.origin), fd: -1}, nil
	case n.up:
		for _, a := range n.names {
			if up := a.parent.dir.upper(); up != nil {
				return ref{d: up, name: a.name, fd: -1}, nil
			}
		}
		return ref{}, syscall.ESTALE
	case n.low.d != nil:
		return n.low.ref(false), nil
	}
	return ref{}, syscall.ESTALE
}

// dataRefLocked says where the bytes of a regular file are now.
// Precondition: as refLocked.
func (fs *FS) dataRefLocked(n *node) (ref, error) {
	if !n.up && n.low.data != nil {
		return n.low.ref(true), nil
	}
	return fs.refLocked(n)
}

func (r ref) stat(st *unix.Stat_t) error {
	if r.fd >= 0 {
		return r.fd.Stat(st)
	}
	return r.d.Stat(r.name, st)
}

// statx is statx(2) of the inode.
func (r ref) statx(mask int) (stx unix.Statx_t, err error) {
	if r.fd >= 0 {
		err = unix.Statx(int(r.fd), "", unix.AT_EMPTY_PATH, mask, &stx)
		return stx, err
	}
	fd, err := r.d.Acquire()
	if err != nil {
		return stx, err
	}
	defer r.d.Release()
	err = unix.Statx(fd, r.name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, mask, &stx)
	return stx, err
}

func (r ref) getxattr(attr string, buf []byte) (int, error) {
	if r.fd >= 0 {
		return r.fd.Getxattr(attr, buf)
	}
	return r.d.Getxattr(r.name, attr, buf)
}

func (r ref) setxattr(attr string, val []byte, flags int) error {
	if r.fd >= 0 {
		return r.fd.Setxattr(attr, val, flags)
	}
	return r.d.Setxattr(r.name, attr, val, flags)
}

func (r ref) removexattr(attr string) error {
	if r.fd >= 0 {
		return r.fd.Removexattr(attr)
	}
	return r.d.Removexattr(r.name, attr)
}

func (r ref) listxattr(buf []byte) (int, error) {
	if r.fd >= 0 {
		return r.fd.Listxattr(buf)
	}
	return r.d.Listxattr(r.name, buf)
}

func (r ref) chmod(mode uint32) error {
	if r.fd >= 0 {
		return r.fd.Chmod(mode)
	}
	return r.d.Chmod(r.name, mode)
}

func (r ref) chown(uid, gid int) error {
	if r.fd >= 0 {
		return r.fd.Chown(uid, gid)
	}
	return r.d.Chown(r.name, uid, gid)
}

func (r ref) utimens(ts [2]unix.Timespec) error {
	if r.fd >= 0 {
		return r.fd.Utimens(ts)
	}
	return r.d.Utimens(r.name, ts)
}

func (r ref) readlink() (string, error) {
	if r.fd >= 0 {
		return r.fd.Readlink()
	}
	return r.d.Readlink(r.name)
}

// open opens the inode afresh with flags; the caller closes it.
func (r ref) open(flags int) (int, error) {
	if r.fd >= 0 {
		return r.fd.Reopen(flags)
	}
	return r.d.Open(r.name, flags, 0)
}

// linkTo makes nname in nd a further name of the inode.
func (r ref) linkTo(nd *layers.Dir, nname string) error {
	if r.fd >= 0 {
		return r.fd.LinkTo(nd, nname)
	}
	return r.d.Link(r.name, nd, nname)
}

// lockCurrent locks, for reading, the node that stands for this inode now.
func (n *node) lockCurrent() *node {
	for {
		n = n.current()
		n.mu.RLock()
		if n.succ.Load() == nil {
			return n
		}
		n.mu.RUnlock()
	}
}

// hasName tells whether a name is among the node's. Precondition: n.mu held.
func (n *node) hasName(parent *node, name string) bool {
	for _, a := range n.names {
		if a.parent == parent && a.name == name {
			return true
		}
	}
	return false
}

// parent is the directory of one of the node's names, nil if it has none.
func (n *node) parent() *node {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if len(n.names) == 0 {
		return nil
	}
	return n.names[0].parent
}

// addName notes a further name. A name keeps the node of its directory, even
// if the kernel forgets that, so that a directory never has two nodes of which
// one would miss what happens to it.
// Precondition: n.mu is held for writing; the request holds parent.
func (fs *FS) addName(n, parent *node, name string) {
	if !n.hasName(parent, name) {
		fs.nodes.ref(parent)
		n.names = append(n.names, nameRef{parent, name})
	}
}

// dropName forgets a name. Precondition: n.mu is held for writing.
func (fs *FS) dropName(n, parent *node, name string) {
	for i, a := range n.names {
		if a.parent == parent && a.name == name {
			n.names = append(append([]nameRef(nil), n.names[:i]...), n.names[i+1:]...)
			fs.unrefLater(parent)
			return
		}
	}
}

const tableShards = 64

// nodeTable finds nodes by the id that the kernel knows them by.
type nodeTable struct {
	next   atomic.Uint64
	shards [tableShards]nodeShard
}

type nodeShard struct {
	mu sync.Mutex
	m  map[uint64]*node
}

func (t *nodeTable) init() {
	t.next.Store(rootID)
	for i := range t.shards {
		t.shards[i].m = make(map[uint64]*node)
	}
}

func (t *nodeTable) shard(id uint64) *nodeShard { return &t.shards[id%tableShards] }

// add gives a new node an id and one reference.
func (t *nodeTable) add(n *node) {
	n.id = t.next.Add(1)
	n.lookups = 1
	t.put(n)
}

func (t *nodeTable) put(n *node) {
	s := t.shard(n.id)
	s.mu.Lock()
	s.m[n.id] = n
	s.mu.Unlock()
}

// get finds a node that the kernel holds a reference to.
func (t *nodeTable) get(id uint64) *node {
	s := t.shard(id)
	s.mu.Lock()
	n := s.m[id]
	s.mu.Unlock()
	return n
}

// ref takes one reference more, and fails if the node is dead.
func (t *nodeTable) ref(n *node) bool {
	if n.pinned {
		return true
	}
	s := t.shard(n.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.dead.Load() {
		return false
	}
	n.lookups++
	return true
}

// unref gives count references back and returns the node if it died of it.
func (t *nodeTable) unref(id, count uint64) *node {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.m[id]
	if n == nil || n.pinned {
		return nil
	}
	if n.lookups > count {
		n.lookups -= count
		return nil
	}
	n.lookups = 0
	n.dead.Store(true)
	delete(s.m, id)
	return n
}

func (t *nodeTable) len() int {
	total := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		total += len(s.m)
		s.mu.Unlock()
	}
	return total
}

// each calls fn for every node of the table.
func (t *nodeTable) each(fn func(*node)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		all := make([]*node, 0, len(s.m))
		for _, n := range s.m {
			all = append(all, n)
		}
		s.mu.Unlock()
		for _, n := range all {
			fn(n)
		}
	}
}

// node finds the live node for a request, or nil.
func (fs *FS) node(id uint64) *node { return fs.nodes.get(id) }

// Forget gives references back; a node without any is dropped with all it
// holds.
func (fs *FS) Forget(id, count uint64) {
	if n := fs.nodes.unref(id, count); n != nil {
		fs.drop(n)
	}
}

// drop releases what a dead node holds and takes it out of its parents; what
// dies of that is dropped too. Precondition: no lock is held.
func (fs *FS) drop(n *node) {
	for dead := []*node{n}; len(dead) > 0; {
		n := dead[len(dead)-1]
		dead = dead[:len(dead)-1]
		for _, held := range fs.release(n) {
			if d := fs.nodes.unref(held.id, 1); d != nil {
				dead = append(dead, d)
			}
		}
	}
}

// release lets go of what a dead node holds and returns the nodes to which it
// held references.
func (fs *FS) release(n *node) (held []*node) {
	n.mu.Lock()
	names := n.names
	n.names = nil
	if n.orphan >= 0 {
		_ = unix.Close(int(n.orphan))
		n.orphan = -1
		n.unlinked = true
	}
	fs.closeBackingLocked(n)
	fs.closeServerFilesLocked(n)
	if n.dir != nil {
		n.dir.forget()
	}
	n.mu.Unlock()
	fs.hardForget(n)
	for _, a := range names {
		a.parent.mu.Lock()
		a.parent.dir.forgetChild(a.name, n)
		a.parent.mu.Unlock()
		held = append(held, a.parent)
	}
	if s := n.succ.Load(); s != nil {
		held = append(held, s)
	}
	return held
}

// forgetChild takes a dead node out of the children of a name.
// Precondition: the directory's mu is held for writing.
func (d *dirState) forgetChild(name string, n *node) {
	if c := d.children[name]; c != nil && c.current() == n {
		delete(d.children, name)
	}
	if !d.variants {
		return
	}
	for key, c := range d.children {
		if base, _, _ := strings.Cut(key, "/"); base == name && c.current() == n {
			delete(d.children, key)
		}
	}
}
