// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Open opens a regular file: EROFS and the like are the kernel's business, for
// it checks modes and the mount before it asks. ESTALE makes the kernel look
// the name up again, see iomode.go.
func (fs *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	trunc := in.Flags&unix.O_TRUNC != 0
	write := writes(in.Flags)
	if n.succ.Load() != nil {
		return fs.openRetired(n, in.Flags, callerOf(&in.InHeader), out)
	}
	if err := fs.stillShown(n, callerOf(&in.InHeader)); err != nil {
		return fs.status(err)
	}
	if err := fs.mayOpen(n, write, callerOf(&in.InHeader)); err != nil {
		return fs.status(err)
	}
	if write {
		if _, err := fs.forWrite(n, trunc); err != nil {
			return fs.status(err)
		}
	} else if in.Flags&unix.O_DIRECT != 0 {
		if err := fs.bytesForDirect(n); err != nil {
			return fs.status(err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succ.Load() != nil {
		return fuse.Status(errRetry)
	}
	if write {
		if err := fs.checkFlagsLocked(n, in.Flags); err != nil {
			return fs.status(err)
		}
	}
	if trunc {
		if err := fs.truncateLocked(n, in); err != nil {
			return fs.status(err)
		}
	}
	if err := fs.admitLocked(n, in.Flags, callerOf(&in.InHeader), out); err != nil {
		return fs.status(err)
	}
	n.noteOpenLocked(in.Flags)
	if in.Flags&unix.O_ACCMODE == unix.O_RDWR && n.mappable() {
		fs.notifyAttr(n.id) // what the kernel keeps from before
	}
	return fuse.OK
}

// writes tells whether an open with these flags may change the file.
func writes(flags uint32) bool {
	return flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
}

// mayOpen asks the policy about an open for writing before anything is copied
// up or cut for it.
func (fs *FS) mayOpen(n *node, write bool, who Caller) error {
	if !write || fs.pol() == nil {
		return nil
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	d, err := fs.decideLocked(n, askHow{write: true, who: who})
	d.closeUnused()
	return err
}

// checkFlagsLocked is what the kernel checks at an open by name, and cannot for
// it does not know the flags of our inodes, and does not at the re-open of a
// backing file: an immutable file is not written, an append-only one only at
// its end (fs/namei.c:may_open).
func (fs *FS) checkFlagsLocked(n *node, flags uint32) error {
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	stx, err := r.statx(unix.STATX_TYPE)
	if err != nil {
		return err
	}
	if attrs := stx.Attributes; attrs&unix.STATX_ATTR_IMMUTABLE != 0 ||
		attrs&unix.STATX_ATTR_APPEND != 0 && (flags&unix.O_APPEND == 0 || flags&unix.O_TRUNC != 0) {
		return syscall.EPERM
	}
	return nil
}

// truncateLocked is O_TRUNC, which the kernel leaves to us; it also tells when
// set-ID bits must go with the content.
func (fs *FS) truncateLocked(n *node, in *fuse.OpenIn) error {
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	if err := fs.resizeLocked(n, r, 0, true); err != nil {
		return err
	}
	n.syncFailed.Store(false)
	if in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
		return fs.killPriv(n, r, &in.InHeader)
	}
	return nil
}

// staleWindow is how soon after an ESTALE the same process must come back to
// a retired node to be taken for one that has no name to look up.
const staleWindow = time.Second

// openRetired answers an open of a node that has a successor. By a name the
// kernel, told ESTALE, looks up again and comes to the successor. Who comes
// back to the same node holds it by descriptor (/proc/self/fd) and gets, for
// reading, what that descriptor shows.
func (fs *FS) openRetired(n *node, flags uint32, who Caller, out *fuse.OpenOut) fuse.Status {
	ruled, err := fs.isRuled(n.current())
	if err != nil {
		return fs.status(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	io := n.ioLocked()
	if !writes(flags) && !ruled && n.overtaken && io.stalePid == who.PID && time.Since(io.staleTime) < staleWindow && n.lowerLive() {
		return fs.status(fs.admitLocked(n, flags, who, out))
	}
	io.stalePid, io.staleTime = who.PID, time.Now()
	fs.count.stale.Add(1)
	return fuse.Status(errRetry)
}

// isRuled tells whether the policy has a say about a file.
func (fs *FS) isRuled(n *node) (bool, error) {
	if fs.pol() == nil {
		return false, nil
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	sc, _, err := fs.governedLocked(n)
	return sc.Files, err
}

// stillShown asks the policy again about the name of a file that is opened:
// what it goes by may have changed without a word. ESTALE makes the kernel look
// the name up again.
func (fs *FS) stillShown(n *node, who Caller) error {
	if fs.pol() == nil {
		return nil
	}
	n.mu.RLock()
	names := n.names
	n.mu.RUnlock()
	for _, a := range names {
		// Where the caller matters the name was asked about just now.
		if sc := fs.scope(fs.placeOf(a.parent, a.name)); !sc.Names || sc.NamesByCaller {
			return nil
		}
	}
	for _, a := range names {
		if same, err := fs.stillLeads(a, n, who); same || err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	fs.count.stale.Add(1)
	return errRetry
}

// stillLeads tells whether a name leads to a node as it did; if not, it is
// taken from it.
func (fs *FS) stillLeads(a nameRef, n *node, who Caller) (bool, error) {
	a.parent.mu.Lock()
	defer a.parent.mu.Unlock()
	n.mu.RLock()
	named := n.hasName(a.parent, a.name)
	n.mu.RUnlock()
	if !named { // renamed or removed just now
		return true, nil
	}
	f, err := fs.resolve(a.parent, a.name, who)
	defer f.discard()
	if err == nil && n.is(f) {
		return true, nil
	}
	if err != nil && err != errHidden && err != syscall.ENOENT {
		return false, err
	}
	fs.detach(a.parent, a.name, n)
	return false, nil
}

// lookedUpAgain notes that a name of a retired node led to its successor.
func (n *node) lookedUpAgain() {
	n.mu.Lock()
	if n.io != nil {
		n.io.stalePid = 0
	}
	n.mu.Unlock()
}

// Release ends an open.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	n := fs.node(in.NodeId)
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.io == nil || n.io.opens == 0 {
		return
	}
	n.noteReleaseLocked(in.Flags)
	if n.io.opens--; n.io.opens > 0 {
		fs.writtenLocked(n, in.Flags)
		return
	}
	n.io.write, n.io.purging = 0, false
	fs.closeServerFilesLocked(n)
	if n.succ.Load() != nil || n.unlinked {
		fs.closeBackingLocked(n)
	}
}

// writtenLocked judges a file in upper that the daemon serves again when its
// last writer has closed it, for those who still have it open.
// Precondition: n.mu is held for writing.
func (fs *FS) writtenLocked(n *node, flags uint32) {
	io := n.io
	if fs.pol() == nil || !n.up || io.mode != modeServer || io.write > 0 || flags&unix.O_ACCMODE == unix.O_RDONLY {
		return
	}
	fs.redecideLocked(n)
	fs.notifyPages(n.id)
}

// OpenDir is answered ENOSYS without a policy: the kernel then opens
// directories by itself and keeps their listings (FUSE_NO_OPENDIR_SUPPORT). A
// mount that began with a policy answers, so that a listing about which the
// policy has a say is not kept: it may depend on who asks, or on a map.
func (fs *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !fs.answersOpenDir {
		return fuse.ENOSYS
	}
	n := fs.node(in.NodeId)
	if n == nil || n.dir == nil || n.isDetached() {
		return fuse.Status(syscall.ESTALE)
	}
	if sc := fs.scope(fs.placeOfDir(n)); !sc.Names && !sc.Below {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}
