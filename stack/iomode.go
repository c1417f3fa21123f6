// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
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

	id    int32 // backing id, 0 = none
	idLow bool  // id is of the lower file

	refused string // why the file is not passed through

	rd, wr int // descriptors of the server mode, -1 = none

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
	how := copyWhole
	n.mu.RLock()
	if trunc && !n.lowerLive() { // else the kernel asks again, or, told ESTALE, gives up
		how = copyEmpty
	}
	n.mu.RUnlock()
	if err := fs.copyUp(n, how); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succ.Load() != nil || n.lowerLive() {
		fs.retireLocked(n)
		fs.count.stale.Add(1)
		return nil, errRetry
	}
	return n, nil
}

// retireLocked puts a successor in the place of a node whose lower handles a
// copy-up overtook. Precondition: n.mu is held for writing, n.up is set.
func (fs *FS) retireLocked(n *node) {
	if n.succ.Load() != nil {
		return
	}
	s := &node{
		ino: n.ino, typ: n.typ, up: true, orphan: n.orphan, unlinked: n.unlinked,
		origin: n.origin, hard: n.hard, low: n.low,
		names: n.names,
	}
	n.names, n.orphan = nil, -1
	fs.nodes.add(s)
	// The one reference that it begins with is the retired node's own.
	fs.hard.replace(n, s)
	fs.count.retired.Add(1)
	fs.count.overtaken.Add(uint64(n.io.opens))
	n.succ.Store(s)
	fs.notifyAttr(n.id)
}

// chooseLocked decides how the first open of a file is served.
// Precondition: n.mu is held for writing; no open lives.
func (fs *FS) chooseLocked(n *node, write bool) (ioMode, error) {
	io := n.ioLocked()
	if io.id != 0 && io.idLow == n.up {
		fs.closeBackingLocked(n)
	}
	if why, err := fs.keepFromPassthrough(n, write); err != nil || why != "" {
		io.refused = why
		return modeServer, err
	}
	if io.id != 0 {
		return modePassthrough, nil
	}
	if err := fs.openBackingLocked(n); err != nil {
		io.refused = refusal(err)
		return modeServer, nil
	}
	io.refused = ""
	return modePassthrough, nil
}

// keepFromPassthrough gives the reason for which a file is not even offered to
// the kernel; "" if there is none.
func (fs *FS) keepFromPassthrough(n *node, write bool) (string, error) {
	layer := 0
	if !n.up {
		layer = n.low.d.Layer().Index
	}
	if why, err := fs.decideFile(FileQuery{Ino: n.ino, Layer: layer, Write: write}); why != "" || err != nil {
		return why, err
	}
	if why := fs.noPassthrough[layer]; why != "" {
		return why, nil
	}
	if fs.coherent && !n.up {
		return "io=coherent: a lower file of a writable mount", nil
	}
	return "", nil
}

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

// openBackingLocked registers the node's file with the kernel.
// Precondition: n.mu is held for writing.
func (fs *FS) openBackingLocked(n *node) error {
	r, err := fs.dataRefLocked(n)
	if err != nil {
		return err
	}
	fd, err := r.open(unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fs.registerLocked(n, fd)
}

// registerLocked registers an open descriptor of the node's file.
func (fs *FS) registerLocked(n *node, fd int) error {
	id, err := fs.dev.backingOpen(fd)
	if err != nil {
		return err
	}
	io := n.ioLocked()
	io.id, io.idLow = id, !n.up
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

// admitLocked lets one more open in and fills the answer.
// Precondition: n.mu is held for writing.
func (fs *FS) admitLocked(n *node, write bool, out *fuse.OpenOut) error {
	io := n.ioLocked()
	if io.opens == 0 {
		mode, err := fs.chooseLocked(n, write)
		if err != nil {
			return err
		}
		io.mode = mode
	}
	if io.mode == modePassthrough {
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH
		out.BackingID = io.id
		io.opens++
		fs.count.passthrough.Add(1)
		return nil
	}
	if err := fs.openServerLocked(n, write); err != nil {
		return err
	}
	io.opens++
	fs.count.server.Add(1)
	fs.count.refuse(io.refused)
	out.OpenFlags = fuse.FOPEN_NOFLUSH
	if !n.up {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
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
	return nil
}

func (fs *FS) closeServerFilesLocked(n *node) {
	if n.io == nil {
		return
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
	if n.io == nil || n.io.rd < 0 {
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
	return nil
}
