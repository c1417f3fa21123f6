// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The rule of FUSE passthrough, which this file alone looks after: while any
// open of an inode lives, all opens of it use one mode and one backing id;
// everything else is EIO to the application.
//
// And its trap: the kernel re-opens the registered file with the user's own
// open flags, so an id of a lower file handed to a writer would let it write
// the lower layer. Three things stand against it: lower layers are reached
// through private read-only mount clones; a writer's open copies up first and
// never gets a lower id; and when lower handles are still open then, the node
// is retired: the open is answered ESTALE, the kernel looks the name up again
// and finds a successor node of the same st_ino.

type ioMode uint8

const (
	modeNone ioMode = iota
	modePassthrough
	modeServer
)

// ioState is what a regular file has while, and after, it is open. Guarded by
// the node's mu.
type ioState struct {
	opens int
	write int // of them for writing, see killpriv.go
	// mayMap: it was opened O_RDWR under passthrough, so that it may be mapped
	// shared and written.
	mayMap bool
	mode   ioMode

	id       int32   // backing id, 0 = none
	idLow    bool    // id is of the lower file
	from     Backing // which file id is of: a plan may choose another than the node's own
	fromTag  uint64  // decision.tag of that plan
	fromSize int64   // and how long the file is

	plan     *planFile // what the server mode shows; nil: the file as it is
	gen      uint64    // of the policy that chose mode and plan
	callers  []Caller  // for whom, since the first of the opens that live
	rule     string    // who decided
	data     *dataAsk  // reads and writes that the policy is asked about
	cacheTag uint64    // of what the kernel's pages may hold, see decision.tag; 0: they are empty

	// purging: an open that lives was answered without FOPEN_KEEP_CACHE. The
	// kernel drops the pages only after it has the answer, and another open
	// must not find the old ones by then.
	purging bool

	refused string // why the file is not passed through

	rd, wr int      // descriptors of the server mode, -1 = none
	part   *partial // of the file that they are of, acquired; nil if it is no partial one

	stalePid  uint32 // who got the last ESTALE of a retired node, and when
	staleTime time.Time
}

// ioLocked is the node's ioState. Precondition: n.mu is held for writing.
func (n *node) ioLocked() *ioState {
	if n.io == nil {
		n.io = &ioState{rd: -1, wr: -1}
	}
	return n.io
}

// lowerLive tells whether open handles are passed through to the lower file.
// Precondition: n.mu is held.
func (n *node) lowerLive() bool {
	return n.io != nil && n.io.opens > 0 && n.io.mode == modePassthrough && n.io.idLow
}

// current is the node that stands for this inode now.
func (n *node) current() *node {
	for {
		s := n.succ.Load()
		if s == nil {
			return n
		}
		n = s
	}
}

// errRetry is the answer that makes the kernel look a name up again.
const errRetry = syscall.ESTALE

// forWrite brings the data of a regular file to upper, and makes sure that no
// handle in the way of a write is open: else the node is retired and errRetry
// returned. With trunc no data need be copied.
func (fs *FS) forWrite(n *node, trunc bool) (*node, error) {
	if n.succ.Load() != nil {
		fs.count.stale.Add(1)
		return nil, errRetry
	}
	how := copyData
	n.mu.RLock()
	if trunc && !n.lowerLive() { // else the kernel asks again, or, told ESTALE, gives up
		how = copyEmpty
	}
	n.mu.RUnlock()
	if err := fs.copyUp(n, how); err != nil {
		return nil, err
	}
	if err := fs.bringData(n, how); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succ.Load() != nil || n.lowerLive() {
		if n.succ.Load() == nil {
			fs.retireLocked(n)
			n.overtaken = true
			fs.count.retired.Add(1)
			fs.count.overtaken.Add(uint64(n.io.opens))
		}
		fs.count.stale.Add(1)
		return nil, errRetry
	}
	return n, nil
}

// retireLocked puts a successor in the place of a node whose live handles are
// not served as a new one must be: a copy-up overtook them, or the policy
// decides differently now. Precondition: n.mu is held for writing.
func (fs *FS) retireLocked(n *node) {
	if n.succ.Load() != nil {
		return
	}
	s := &node{
		ino: n.ino, typ: n.typ, up: n.up, orphan: n.orphan, unlinked: n.unlinked, detached: n.detached,
		origin: n.origin, hard: n.hard, low: n.low,
		names: n.names, lastPlace: n.lastPlace, part: n.part,
	}
	s.ttl.Store(n.ttl.Load())
	n.names, n.orphan = nil, -1
	fs.nodes.add(s)
	// The one reference that it begins with is the retired node's own.
	fs.hard.replace(n, s)
	n.succ.Store(s)
	fs.notifyAttr(n.id)
}

// joinsLocked tells whether an open that is decided about like that can join
// those that live. Where not, the node is to be retired.
// Precondition: n.mu is held, an open lives.
func (n *node) joinsLocked(d *decision) bool {
	io := n.io
	if io.mode == modeServer {
		return len(io.callers) == 1 && io.callers[0] == d.caller || d.tag != 0 && d.tag == io.cacheTag
	}
	if d.why == "" && io.isOf(d) {
		return true
	}
	// What is being written to upper through the mount shows its writers no
	// more than they know. It is judged again when they have closed it.
	return n.up && io.gen == d.gen && io.write > 0
}

// isOf tells whether the backing id is of the file that is to be passed
// through.
func (io *ioState) isOf(d *decision) bool {
	return io.from == d.from && (d.from == Self || d.tag == io.fromTag)
}

// chooseLocked decides how the first open of a file is served.
// Precondition: n.mu is held for writing; no open lives.
func (fs *FS) chooseLocked(n *node, d *decision) ioMode {
	io := n.ioLocked()
	if io.id != 0 && (io.idLow != n.bytesLow() || !io.isOf(d)) {
		fs.closeBackingLocked(n)
	}
	io.gen, io.callers = d.gen, nil
	io.refused = d.why
	if io.refused == "" {
		io.refused = fs.keepFromPassthrough(n)
	}
	if io.refused != "" {
		return modeServer
	}
	if io.id != 0 {
		return modePassthrough
	}
	if err := fs.openBackingLocked(n, d); err != nil {
		io.refused = refusal(err)
		return modeServer
	}
	return modePassthrough
}

// keepFromPassthrough gives the reason, apart from the policy's, for which a
// file is not even offered to the kernel; "" if there is none.
func (fs *FS) keepFromPassthrough(n *node) string {
	layer, low := 0, n.bytesLow()
	switch {
	case low && n.up:
		f, err := n.part.lower()
		if err != nil {
			return partLost
		}
		layer = f.ref(true).d.Layer().Index
	case low:
		layer = n.low.d.Layer().Index
	case n.part.inPieces():
		return partPieces
	}
	if why := fs.noPassthrough[layer]; why != "" {
		return why
	}
	if fs.coherent && low {
		return "io=coherent: a lower file of a writable mount"
	}
	return ""
}

// Words for why a partial file is not passed through.
const (
	partPieces = "partial: some of it is in a lower layer still"
	partLost   = "partial: its lower file is not there"
)

// refusal says in words why the kernel would not take a backing file.
func refusal(err error) string {
	switch {
	case errors.Is(err, syscall.ELOOP):
		return "ELOOP: the backing file system is itself stacked too deep"
	case errors.Is(err, syscall.EPERM):
		return "EPERM: the kernel lets only CAP_SYS_ADMIN of the initial user namespace register backing files"
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOTTY):
		return err.Error() + ": the kernel has no FUSE passthrough (it came with Linux 6.9)"
	}
	return err.Error()
}

// openBackingLocked registers the node's file, or the one that a plan shows in
// its place, with the kernel.
// Precondition: n.mu is held for writing.
func (fs *FS) openBackingLocked(n *node, d *decision) error {
	if d.from != Self {
		d.plan.mu.Lock()
		defer d.plan.mu.Unlock()
		b, err := d.plan.backing(d.from)
		if err != nil {
			return err
		}
		if err := fs.registerLocked(n, b.fd, d.from); err != nil {
			return err
		}
		n.io.fromTag, n.io.fromSize = d.tag, d.plan.size
		return nil
	}
	r, err := fs.backingRefLocked(n)
	if err != nil {
		return err
	}
	fd, err := r.open(unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fs.registerLocked(n, fd, Self)
}

// backingRefLocked is the node's own file that is passed through.
// Precondition: n.mu is held for writing.
func (fs *FS) backingRefLocked(n *node) (ref, error) {
	if !n.up || !n.bytesLow() {
		return fs.dataRefLocked(n)
	}
	low, err := n.part.lower()
	if err != nil {
		return ref{}, err
	}
	n.low = low
	return low.ref(true), nil
}

// registerLocked registers an open descriptor.
func (fs *FS) registerLocked(n *node, fd int, from Backing) error {
	id, err := fs.dev.backingOpen(fd)
	if err != nil {
		return err
	}
	io := n.ioLocked()
	io.id, io.idLow, io.from = id, n.bytesLow(), from
	return nil
}

func (fs *FS) closeBackingLocked(n *node) {
	if n.io == nil || n.io.id == 0 {
		return
	}
	fs.dev.backingClose(n.io.id)
	n.io.id = 0
}

// mappable tells whether the file may change without a word to us: under
// passthrough the backing file itself is mapped, and a store to it updates
// that one's times alone. A mapping outlives its descriptor, so from the first
// such open on the node's attributes must not be kept.
// Precondition: n.mu is held.
func (n *node) mappable() bool {
	return n.io != nil && n.io.mayMap
}

// attrTimeoutLocked is how long the kernel may keep the node's attributes.
// Precondition: n.mu is held.
func (fs *FS) attrTimeoutLocked(n *node) time.Duration {
	if n.mappable() {
		return 0
	}
	return fs.timeout
}

// noteOpenLocked counts an open for writing by its flags, noteReleaseLocked
// takes it back.
func (n *node) noteOpenLocked(flags uint32) {
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return
	}
	n.io.write++
	if flags&unix.O_ACCMODE == unix.O_RDWR && n.io.mode == modePassthrough {
		n.io.mayMap = true
	}
}

func (n *node) noteReleaseLocked(flags uint32) {
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		n.io.write = max(0, n.io.write-1)
	}
}

// admitLocked lets one more open in and fills the answer: errRetry if it must
// not join those that live, and the node was retired. Of the flags it looks at
// whether they are for writing, and at O_DIRECT.
// Precondition: n.mu is held for writing.
func (fs *FS) admitLocked(n *node, flags uint32, who Caller, out *fuse.OpenOut) error {
	io, write := n.ioLocked(), writes(flags)
	if err := fs.examineLocked(n); err != nil {
		return err
	}
	d, err := fs.decideLocked(n, askHow{write: write, who: who})
	if err != nil {
		return err
	}
	defer d.closeUnused()
	if io.opens > 0 && !n.joinsLocked(&d) {
		fs.retireLocked(n)
		fs.count.policyRetired.Add(1)
		return errRetry
	}
	if io.opens == 0 {
		io.mode = fs.chooseLocked(n, &d)
	}
	if err := fs.checkShownLocked(n, &d); err != nil {
		return err
	}
	if io.mode == modePassthrough {
		if flags&unix.O_DIRECT != 0 {
			if err := fs.mayDirectLocked(n, &d); err != nil {
				return err
			}
		}
		io.rule = d.rule
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH
		out.BackingID = io.id
		io.opens++
		fs.count.passthrough.Add(1)
		return nil
	}
	if err := fs.openServerLocked(n, write); err != nil {
		return err
	}
	out.OpenFlags = fuse.FOPEN_NOFLUSH
	if io.serveLocked(&d) && !n.up && !io.purging {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	} else {
		io.purging = true // until no open lives
	}
	io.noteCaller(d.caller)
	io.opens++
	fs.count.server.Add(1)
	fs.count.refuse(io.refused)
	return nil
}

// serveLocked makes the decision that of all handles served by the daemon, and
// tells whether the kernel's pages, if it has any, hold what it shows.
func (io *ioState) serveLocked(d *decision) (keep bool) {
	keep = d.tag != 0 && (io.cacheTag == 0 || io.cacheTag == d.tag)
	io.plan.close()
	io.plan, d.plan = d.plan, nil
	io.data, io.rule, io.gen = d.data, d.rule, d.gen
	if io.cacheTag = d.tag; d.tag == 0 {
		io.cacheTag = unknownTag
	}
	return keep
}

// unknownTag is of pages about which nothing is known: equal to no decision's;
// unknownGen is no policy's generation.
const (
	unknownTag = ^uint64(0)
	unknownGen = ^uint64(0)
)

// maxCallers bounds the callers that are told apart while a file is open.
const maxCallers = 64

// noteCaller keeps for whom a file that the daemon serves is open.
// Processes of one user are not told apart.
func (io *ioState) noteCaller(who Caller) {
	same := func(c Caller) bool { return c.UID == who.UID && c.GID == who.GID }
	if !slices.ContainsFunc(io.callers, same) && len(io.callers) <= maxCallers {
		io.callers = append(io.callers, who)
	}
}

// closeUnused closes the plan of a decision that nobody took over.
func (d *decision) closeUnused() {
	d.plan.close()
	d.plan = nil
}

// checkShownLocked has the kernel forget the attributes of a file whose size
// is another now than it was told.
func (fs *FS) checkShownLocked(n *node, d *decision) error {
	if fs.pol() == nil || d.gen == 0 || n.up {
		return nil
	}
	size := int64(0)
	if d.plan != nil {
		size = d.plan.size
	} else {
		var st unix.Stat_t
		r, err := fs.refLocked(n)
		if err == nil {
			err = r.stat(&st)
		}
		if err != nil {
			return err
		}
		size = st.Size
	}
	if old := n.shown.Swap(size + 1); old == 0 || old == size+1 || fs.dev == nil {
		return nil
	}
	if err := fs.dev.invalAttr(n.id); err != nil {
		fs.log.Debug("notify", "node", n.id, "err", err)
	}
	return nil
}

// openServerLocked opens the descriptors through which the daemon serves.
// Precondition: n.mu is held for writing.
func (fs *FS) openServerLocked(n *node, write bool) error {
	io := n.ioLocked()
	if io.wr >= 0 || !write && io.rd >= 0 {
		return nil
	}
	r, err := fs.dataRefLocked(n)
	if err != nil {
		return err
	}
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	fd, err := r.open(flags)
	if err != nil {
		return err
	}
	if write {
		io.wr = fd
	} else {
		io.rd = fd
	}
	n.servePartialLocked()
	return nil
}

// servePartialLocked acquires a partial file for as long as the daemon serves
// it. Precondition: n.mu is held for writing.
func (n *node) servePartialLocked() {
	if q := n.partial(); q != nil && n.up && n.io.part == nil {
		q.acquire()
		n.io.part = q
	}
}

func (fs *FS) closeServerFilesLocked(n *node) {
	if n.io == nil {
		return
	}
	n.io.plan.close()
	n.io.plan, n.io.data = nil, nil
	if n.io.part != nil {
		n.io.part.release()
		n.io.part = nil
	}
	for _, fd := range []*int{&n.io.rd, &n.io.wr} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// followCopyUpLocked makes served handles see the copy from now on.
// Precondition: n.mu is held for writing, n.up was just set.
func (fs *FS) followCopyUpLocked(n *node) error {
	if n.io == nil || n.io.mode != modeServer || n.io.opens == 0 {
		return nil
	}
	fs.redecideLocked(n)
	if n.io.rd < 0 {
		return nil
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	fd, err := r.open(unix.O_RDONLY)
	if err != nil {
		return err
	}
	_ = unix.Close(n.io.rd)
	n.io.rd = fd
	n.servePartialLocked()
	return nil
}

// redecideLocked asks the policy anew about a file that the daemon serves, for
// those that have it open. If it gives no answer, they get EIO; if it gives
// different ones to those who share the node, who are not told apart, ESTALE.
// Precondition: n.mu is held for writing.
func (fs *FS) redecideLocked(n *node) {
	if fs.pol() == nil && n.io.plan == nil && n.io.data == nil {
		return
	}
	d, err := fs.decideForAllLocked(n)
	if err != nil {
		d = decision{gen: d.gen, plan: fs.failingPlan(err)}
	}
	n.io.serveLocked(&d)
}

// decideForAllLocked is the decision for all callers that have a file open:
// ESTALE if there is no such.
func (fs *FS) decideForAllLocked(n *node) (d decision, err error) {
	how := askHow{write: n.io.write > 0, who: Nobody}
	if len(n.io.callers) > 0 {
		how.who = n.io.callers[0]
	}
	if d, err = fs.decideLocked(n, how); err != nil || d.caller == Nobody {
		return d, err
	}
	for i := 1; i < len(n.io.callers) && err == nil; i++ {
		how.who = n.io.callers[i]
		var e decision
		e, err = fs.decideLocked(n, how)
		e.closeUnused()
		if err == nil && (e.tag != d.tag || e.tag == 0 || i >= maxCallers) {
			err = errRetry
		}
	}
	if err != nil {
		d.closeUnused()
	}
	return d, err
}

// failingPlan shows nothing but an error.
func (fs *FS) failingPlan(err error) *planFile {
	return &planFile{fs: fs, size: 1<<63 - 1, files: map[Backing]backingFile{},
		plan: &Plan{Window: func(int64) (Window, error) { return Window{}, err }}}
}
