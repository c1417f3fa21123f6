// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
)

// FS is one mount, from Open to Close. It is a go-fuse RawFileSystem, served
// by a loop of its own (serve.go).
type FS struct {
	fuse.RawFileSystem // answers ENOSYS to what is not implemented

	cfg      Config
	log      *slog.Logger
	policy   atomic.Pointer[policyState]
	timeout  time.Duration
	coherent bool // io=coherent and there is an upper
	foreign  bool // the upper was another tool's: its dialects are honoured
	started  time.Time

	cache   *layers.Cache
	upper   *layers.Layer   // nil: read-only
	layers  []*layers.Layer // by Index; 0 is upper, nil if there is none
	locks   []*layers.Lock
	bottom  int // index of the lowest layer
	lowRoot *lowerStack
	own     []inoKey // upper and work, hidden in lower layers
	caps    layers.Caps
	attrs   *layers.AttrStore // of an upper without xattrs, else nil (attrs.go)

	workLayer   *layers.Layer
	work        *layers.Dir // WORK/plyfs
	tmp         *layers.Dir // WORK/plyfs/tmp: entries under way
	index       *layers.Dir // WORK/plyfs/index: see hardlink.go
	j           *journal.Journal
	canWhiteout bool
	syncs       syncCount
	rootMark    dirMark
	block       int64  // of upper's file system, see layers.BlockSize
	noPartial   string // why copies are always made whole; "" if they are not
	losesSizes  bool   // upper may forget the size of a new file in a power cut
	completer   completer
	// partialMark is there; it was there when the mount began.
	partialMarked atomic.Bool
	partialFound  bool
	made          []madeDir // by Open, to be removed if there is no mount of it
	mounted       bool
	live          bool // WORK/plyfs/live is ours
	syncFD        int  // see openSync
	volatileMade  bool // WORK/plyfs/volatile was made by this mount

	answersOpenDir bool         // see OpenDir; set at Open
	moving         sync.RWMutex // renames, against a walk through the known names
	requests       sync.RWMutex // held for reading by each request, for writing by Check
	setting        sync.Mutex   // one SetPolicy at a time; guards lastGen
	lastGen        uint64
	answers        atomic.Uint64 // counts when the policy's answers may have changed

	maxStackDepth int
	noPassthrough []string // by layer: why its files are not passed through

	nodes  nodeTable
	root   *node
	inos   inoMap
	hard   hardTab
	tmpSeq atomic.Uint64
	count  counters

	settling sync.Mutex // one settle at a time
	settleMu sync.Mutex
	debts    []debt
	unsynced map[*partial]*node // copied whole, the mark to be taken away
	dirty    atomic.Bool

	dev     *device
	server  *server
	notices chan notice

	pagesMu   sync.Mutex
	pages     []uint64 // nodes whose pages are to be dropped
	pagesWake chan struct{}
	stop      chan struct{}
	done      sync.WaitGroup
}

// String implements RawFileSystem.
func (fs *FS) String() string { return "plyfs" }

// top is the topmost layer.
func (fs *FS) top() *layers.Layer {
	if fs.upper != nil {
		return fs.upper
	}
	return fs.layers[1]
}

// flushMapped has the kernel write what was stored through mappings of files
// that the daemon serves, and waits for it: dropping pages does, where syncfs(2)
// on a FUSE mount does not wait. Precondition: no lock is held, and the caller
// serves no request.
func (fs *FS) flushMapped() {
	if fs.dev == nil {
		return
	}
	var mapped []uint64
	fs.nodes.each(func(n *node) {
		n.mu.RLock()
		if io := n.io; io != nil && io.write > 0 && io.mode == modeServer {
			mapped = append(mapped, n.id)
		}
		n.mu.RUnlock()
	})
	for _, id := range mapped {
		if err := fs.dev.invalPages(id); err != nil {
			fs.log.Debug("flushing pages", "node", id, "err", err)
		}
	}
}

// Sync makes everything durable that the mount has been told so far.
func (fs *FS) Sync() error {
	if fs.j == nil || fs.cfg.Volatile {
		return nil
	}
	fs.flushMapped()
	return fs.syncAll()
}

// syncAll is Sync for a request: the kernel has written its pages.
func (fs *FS) syncAll() error {
	if fs.j == nil || fs.cfg.Volatile {
		return nil
	}
	if err := fs.settle(); err != nil {
		return err
	}
	fs.at(cutSyncSettled)
	err := fs.syncUpper()
	fs.at(cutSynced)
	return err
}
