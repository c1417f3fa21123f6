// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A lower inode with several links is copied up once: the copy is kept in the
// work directory's index under the origin's number, and linked under each name
// through which it is changed. A lower name that was not touched yet leads to
// the copy by way of the index, as in kernel overlayfs with index=on. Kernel
// overlayfs keeps the union's link count as a difference in an xattr and must
// copy up before it can hide one of the names; here the journal counts the
// lower names that are gone.
//
// hardTab knows the indexed origins and the accounts, loaded at mount, and the
// live nodes by st_ino, so that all names of one inode are one node.
type hardTab struct {
	// counting is held from reading an account to writing it, for the names of
	// one inode are removed under different directories' locks.
	counting sync.Mutex

	mu    sync.Mutex // guards the maps
	index map[journal.Origin]struct{}
	links map[journal.Origin]journal.Links
	nodes map[uint64]*node

	marked atomic.Bool // the live mark says that links may be uncounted
}

func (h *hardTab) init() {
	h.index = make(map[journal.Origin]struct{})
	h.links = make(map[journal.Origin]journal.Links)
	h.nodes = make(map[uint64]*node)
}

func (h *hardTab) indexed(o journal.Origin) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.index[o]
	return ok
}

// share finds the node that the inode of n has already, and takes a reference
// to it, or else makes n the one.
func (h *hardTab) share(t *nodeTable, n *node) *node {
	h.mu.Lock()
	defer h.mu.Unlock()
	if first := h.nodes[n.ino]; first != nil {
		if first = first.current(); t.ref(first) {
			return first
		}
	}
	h.nodes[n.ino] = n
	return n
}

func (h *hardTab) setNode(n *node) {
	h.mu.Lock()
	h.nodes[n.ino] = n
	h.mu.Unlock()
}

// replace puts a retired node's successor in its place.
func (h *hardTab) replace(n, s *node) {
	h.mu.Lock()
	if h.nodes[n.ino] == n {
		h.nodes[n.ino] = s
	}
	h.mu.Unlock()
}

// hardForget takes a dead node out of the table.
func (fs *FS) hardForget(n *node) {
	fs.hard.mu.Lock()
	if fs.hard.nodes[n.ino] == n {
		delete(fs.hard.nodes, n.ino)
	}
	fs.hard.mu.Unlock()
}

// indexName is the name of an origin's copy in the index.
func indexName(o journal.Origin) string {
	var b [12]byte
	binary.BigEndian.PutUint32(b[:], o.Layer)
	binary.BigEndian.PutUint64(b[4:], o.Ino)
	return hex.EncodeToString(b[:])
}

func parseIndexName(s string) (journal.Origin, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 12 {
		return journal.Origin{}, false
	}
	return journal.Origin{Layer: binary.BigEndian.Uint32(b), Ino: binary.BigEndian.Uint64(b[4:])}, true
}

// loadHard reads the index and the accounts at mount.
func (fs *FS) loadHard() error {
	links, err := fs.j.LoadLinks()
	if err != nil {
		return err
	}
	for o, l := range links {
		fs.hard.links[o] = l
	}
	err = fs.index.List(func(name []byte, _ uint64, _ uint8) error {
		if o, ok := parseIndexName(string(name)); ok {
			fs.hard.index[o] = struct{}{}
		}
		return nil
	})
	if err == nil {
		fs.reapAtMount()
	}
	return err
}

// resolveHard turns a lower inode with several links into its copy, if there
// is one.
func (fs *FS) resolveHard(f *found) error {
	f.hard = true
	if !fs.hard.indexed(f.origin) {
		return nil
	}
	err := fs.index.Stat(indexName(f.origin), &f.st)
	if err != nil {
		return fmt.Errorf("copy of a hard-linked file in the index: %w", err)
	}
	f.up = true
	r := ref{d: fs.index, name: indexName(f.origin), fd: -1}
	m, ok, err := readOriginMark(r)
	if err != nil || !ok || !m.partial {
		return err
	}
	f.part = fs.loadPartial(m, nil, "")
	return restoreSize(r, m, &f.st)
}

// account is the account of a lower inode as it stands.
func (fs *FS) account(o journal.Origin) journal.Links {
	fs.hard.mu.Lock()
	defer fs.hard.mu.Unlock()
	return fs.hard.links[o]
}

// countHidden counts one lower name of a hard-linked inode as gone, because an
// upper entry or whiteout hides it from now on, unless that was counted. A
// cover goes with the count, in one transaction, and says that it was. Neither
// may become durable before what upper did, so upper is synced first: the one
// place where a name waits for a sync on an upper that can hold whiteouts, and
// few lower files have several links.
// What a crash leaves uncounted is counted by recount.
// Precondition: p.mu is held for writing.
func (fs *FS) countHidden(p *node, name string, o journal.Origin) error {
	nlink, err := fs.linksAt(p, name, o)
	if err != nil || nlink == 0 {
		return err
	}
	if !fs.cfg.Volatile {
		if err := fs.syncUpper(); err != nil {
			return err
		}
	}
	fs.at(cutHiddenSynced)
	fs.hard.counting.Lock()
	defer fs.hard.counting.Unlock()
	l := fs.account(o)
	if l.Nlink == 0 {
		l.Nlink = nlink
	}
	l.Gone++
	if err := fs.cover(p, name, journal.SetLinks(o, l)); err != nil {
		return err
	}
	fs.at(cutHiddenCounted)
	fs.hard.setAccount(o, l)
	return nil
}

// linksAt is the number of links of a lower inode, if the lower layers have a
// name that leads to it, that is not covered, and that is not the only one; else
// it is 0.
// Precondition: p.mu is held for writing.
func (fs *FS) linksAt(p *node, name string, o journal.Origin) (uint32, error) {
	if o == (journal.Origin{}) || p.dir.low == nil || p.dir.covered(name) {
		return 0, nil
	}
	h, err := p.dir.low.lookup(fs, name)
	if err != nil || h == nil || h.dirs != nil || h.st.Nlink < 2 {
		return 0, err
	}
	if hidden, err := h.originOf(fs); err != nil || hidden != o {
		return 0, err
	}
	return uint32(h.st.Nlink), nil
}

// setAccount keeps an account that the journal has taken.
func (h *hardTab) setAccount(o journal.Origin, l journal.Links) {
	h.mu.Lock()
	h.links[o] = l
	h.mu.Unlock()
}

// coverHard hides a name that lower alone holds and counts it as gone, in one
// transaction. The directory's id must be durable before: the cover of a
// directory that a power cut took means nothing, but the count would stand, and
// the copy in the index would be thought to have no name left.
// Precondition: p.mu and n.mu are held for writing.
func (fs *FS) coverHard(p *node, name string, n *node) error {
	if err := fs.markDurably(p); err != nil {
		return err
	}
	fs.at(cutHardMarked)
	fs.hard.counting.Lock()
	defer fs.hard.counting.Unlock()
	l, err := fs.lowerLinks(n)
	if err != nil {
		return err
	}
	l.Gone++
	if err := fs.cover(p, name, journal.SetLinks(n.origin, l)); err != nil {
		return err
	}
	fs.hard.setAccount(n.origin, l)
	return nil
}

// errNoAccount: the journal has no account of an indexed inode, which a crash
// between two syncs can leave; nothing may be concluded from it.
var errNoAccount = errors.New("no account of a hard-linked lower inode")

// lowerLinks is the account of a hard-linked lower inode.
func (fs *FS) lowerLinks(n *node) (journal.Links, error) {
	fs.hard.mu.Lock()
	l, ok := fs.hard.links[n.origin]
	fs.hard.mu.Unlock()
	if ok {
		return l, nil
	}
	if n.low.d == nil {
		return journal.Links{}, errNoAccount
	}
	var st unix.Stat_t
	if err := n.low.d.Stat(n.low.name, &st); err != nil {
		return journal.Links{}, err
	}
	return journal.Links{Nlink: uint32(st.Nlink)}, nil
}

// unionLinks is the st_nlink of a hard-linked lower inode: the lower names
// that are left, and the upper ones without the index's.
// Precondition: n.mu is held.
func (fs *FS) unionLinks(n *node, nlink uint64) uint64 {
	l, err := fs.lowerLinks(n)
	if err != nil {
		return nlink
	}
	left := uint64(0)
	if l.Nlink > l.Gone {
		left = uint64(l.Nlink - l.Gone)
	}
	if n.up {
		left += nlink
		if left > 0 && fs.hard.indexed(n.origin) {
			left--
		}
	}
	return left
}

// reapIndex has a copy removed from the index when no name leads to it any
// more. The record that says so must be durable before: without it a lower name
// would show again, and lead to the lower file instead of the copy.
// The node keeps the copy open while the kernel knows it.
// Precondition: n.mu is held for writing.
func (fs *FS) reapIndex(n *node) {
	if !fs.reapable(n) || fs.keepOpenLocked(n) != nil {
		return
	}
	n.unlinked = true
	fs.forgetCopy(n)
	fs.owe(debt{reap: n})
}

// reapable tells whether an inode has a copy in the index and no name.
// Precondition: n.mu is held.
func (fs *FS) reapable(n *node) bool {
	if !n.hard || !n.up || !fs.hard.indexed(n.origin) {
		return false
	}
	if _, err := fs.lowerLinks(n); err != nil {
		return false
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return false
	}
	var st unix.Stat_t
	return r.stat(&st) == nil && fs.unionLinks(n, uint64(st.Nlink)) == 0
}

// reap removes a copy from the index, unless it has got a name again.
func (fs *FS) reap(n *node) {
	defer fs.unrefLater(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	if !fs.reapable(n) {
		return
	}
	if err := fs.index.Unlink(indexName(n.origin)); err != nil {
		fs.log.Warn("index entry stays", "origin", n.origin, "err", err)
		return
	}
	fs.at(cutIndexReaped)
	fs.hard.mu.Lock()
	delete(fs.hard.index, n.origin)
	fs.hard.mu.Unlock()
}

// reapAtMount removes copies from the index to which no name leads: a crash
// can leave them.
func (fs *FS) reapAtMount() {
	for o := range fs.hard.index {
		l, ok := fs.hard.links[o]
		var st unix.Stat_t
		if !ok || l.Gone < l.Nlink || fs.index.Stat(indexName(o), &st) != nil || st.Nlink > 1 {
			continue
		}
		if err := fs.index.Unlink(indexName(o)); err == nil {
			delete(fs.hard.index, o)
		}
		fs.at(cutIndexReapedAt)
	}
}
