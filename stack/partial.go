// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A regular file in upper over a lower origin is partial or whole. In a partial
// one
//
//	a hole of the upper file, below its limit, is read from the lower file;
//	from the limit on a hole is zeros, as everywhere.
//
// The limit is the smallest size that the file has had since its copy-up: what
// was cut off does not come back. There is no map of blocks: on the file systems
// that layers.Caps.Sparse names, SEEK_DATA and SEEK_HOLE tell exactly the blocks
// that were written. So a copy-up costs the blocks that are written to, and
// needs no sync: after a power cut a block that did not reach the disk is a
// hole, and the lower file shows through it. What makes a hole (a punch, a zero
// range) writes zeros instead; a block that is written in part is written in
// full, with the rest of it from the lower file.
//
// Blocks that are set aside but not written (unwritten extents) are holes too,
// but pages of them that somebody's read, or a read-ahead, has brought to the
// page cache make SEEK_DATA call them data. So below the limit there are none,
// but while they are being written: those that a power cut leaves are given
// back before the file is used (dropUnwritten), and a preallocation is preceded
// by what lower has there.
//
// Limit, and where the lower file is, stand on the inode (trusted.plyfs.origin,
// mark.go). The order of calls leaves no moment at which too much shows: a file
// is cut first and its limit lowered then, for the size bounds the limit too;
// and it grows only when its limit is on the inode. That it may be cut is on the
// inode before: a copy that never was is as long as its limit. Should it be
// shorter after a power cut, the file system has lost its size: when btrfs
// makes a directory durable, it names new files in it that have no size yet.
//
// Small files are copied whole before the first write. They carry the mark too,
// until upper has been synced (settle.go).

// partState is how much of a partial file is in upper.
type partState uint8

const (
	partUnknown partState = iota // found in upper, not looked at yet
	partEmpty                    // no data: the bytes are the lower file's
	partSome                     // some, or it is about to be written: the daemon serves it
	partAll                      // all of it, but perhaps not on the disk yet
	partGone                     // the mark was taken away: a whole file
)

// A partial is the state of a partial file. It is shared by a node and its
// successor. Its locks come after the node's: ranges, then times, then mu.
type partial struct {
	fs     *FS
	origin journal.Origin
	block  int64 // unit of writing, see layers.BlockSize

	// ranges keeps readers of a block from those who fill or write it.
	ranges rangeLock
	// times is held for writing while the completion puts the times back that
	// its writes have changed.
	times sync.RWMutex

	mu      sync.Mutex // guards all below
	state   partState
	limit   int64
	onDisk  int64  // limit as the inode has it; more than limit where that could not be written
	cut     bool   // the inode says that it may have been cut
	path    string // of the lower file, from the root of the merged lower layers
	pinned  bool   // the inode has the path too
	low     lowerFile
	lowBlks int64 // st_blocks of low; -1: not known
	fd      int   // of low, -1: not open
	exec    *planFile
	users   int // of fd
	told    bool
	queued  bool // for completion
	counted bool // in completer.marks
}

func (fs *FS) newPartial(o journal.Origin, limit int64, path string) *partial {
	return &partial{fs: fs, origin: o, block: fs.block, limit: limit, onDisk: limit, path: path, fd: -1, lowBlks: -1}
}

// loadPartial takes the mark of a file in upper up.
func (fs *FS) loadPartial(m originMark, p *node, name string) *partial {
	path := m.path
	if path == "" && p != nil && p.dir.low != nil {
		path = joinPlace(p.dir.low.path(), name)
	}
	q := fs.newPartial(m.Origin, m.limit, path)
	q.pinned, q.cut = m.path != "", m.cut
	return q
}

// partial is the state of a file that is partial still, else nil.
// Precondition: n.mu is held.
func (n *node) partial() *partial {
	if n.part == nil || n.part.is(partGone) {
		return nil
	}
	return n.part
}

func (q *partial) is(s partState) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state == s
}

func (q *partial) setState(s partState) {
	q.mu.Lock()
	q.state = s
	q.mu.Unlock()
}

// inPieces tells whether the bytes are not those of the upper file alone.
func (q *partial) inPieces() bool {
	if q == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state < partAll
}

// bytesLow tells whether the node's bytes are those of a lower file, from end
// to end. Precondition: n.mu is held.
func (n *node) bytesLow() bool {
	return !n.up || n.part != nil && n.part.is(partEmpty)
}

// lower finds the lower file. It is EIO, with words in the log, if it is not
// there: the layer is another than when the file was copied up.
func (q *partial) lower() (lowerFile, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lowerLocked()
}

func (q *partial) lowerLocked() (lowerFile, error) {
	if q.low.d != nil {
		return q.low, nil
	}
	low, err := q.find()
	if err == nil {
		q.low = low
		return low, nil
	}
	if !q.told {
		q.told = true
		q.fs.noteError("partial file", fmt.Errorf("the lower file %q (layer %d, inode %d) is needed and cannot be used: %w; its bytes read as EIO",
			q.path, q.origin.Layer, q.origin.Ino, err))
	}
	return low, syscall.EIO
}

// find looks the lower file up by its path, among all that the lower layers
// hold there.
func (q *partial) find() (low lowerFile, err error) {
	if q.path == "" {
		return low, syscall.ENOENT
	}
	dir, name := splitPlace(q.path)
	stack, err := q.fs.lowRoot.walk(q.fs, dir)
	if err != nil {
		return low, err
	}
	all, err := stack.versions(q.fs, name)
	if err != nil {
		return low, err
	}
	for _, v := range all {
		if v.layer != int(q.origin.Layer) || v.typ != unix.S_IFREG {
			continue
		}
		o, err := q.fs.originOf(v.file.d, v.file.name, &v.st)
		if err != nil {
			return low, err
		}
		if o != q.origin {
			continue
		}
		low = v.file
		if q.fs.maybeMetacopy(low.d, &v.st, v.imp) {
			low.data, err = stack.metacopyData(low.d, name)
		}
		return low, err
	}
	return low, syscall.ENOENT
}

// acquire keeps the lower file open, once it is needed, until release.
func (q *partial) acquire() {
	q.mu.Lock()
	q.users++
	q.mu.Unlock()
}

func (q *partial) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.users--; q.users == 0 && q.fd >= 0 {
		_ = unix.Close(q.fd)
		q.fd, q.exec = -1, nil
	}
}

// openLower opens the lower file for those who have acquired it.
func (q *partial) openLower() (int, *planFile, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fd >= 0 {
		return q.fd, q.exec, nil
	}
	low, err := q.lowerLocked()
	if err != nil {
		return -1, nil, err
	}
	if q.fd, err = low.ref(true).open(unix.O_RDONLY | unix.O_NONBLOCK); err != nil {
		q.fd = -1
		return -1, nil, err
	}
	b := q.backing()
	q.exec = &planFile{fs: q.fs, plan: &Plan{}, place: q.path, inPlace: true,
		files: map[Backing]backingFile{b: {fd: q.fd, name: q.path}}}
	return q.fd, q.exec, nil
}

// backing names the lower file in extents.
func (q *partial) backing() Backing { return LayerBacking(int(q.origin.Layer)) }

// encode is the mark as it should stand on the inode.
// Precondition: q.mu is held.
func (q *partial) encode() []byte {
	m := originMark{Origin: q.origin, partial: q.limit > 0 && q.state != partGone, cut: q.cut, limit: q.limit}
	if q.pinned {
		m.path = q.path
	}
	return m.encode()
}

// xattrSetter is an open file, or a ref.
type xattrSetter interface {
	setxattr(attr string, val []byte, flags int) error
}

type fdXattr int

func (f fdXattr) setxattr(attr string, val []byte, flags int) error {
	return layers.FD(f).Setxattr(attr, val, flags)
}

// persist brings a lowered limit to the inode; a file without one is whole.
func (q *partial) persist(to xattrSetter) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.persistLocked(to)
}

func (q *partial) persistLocked(to xattrSetter) error {
	if q.limit == q.onDisk || q.state == partGone {
		return nil
	}
	if err := to.setxattr(xattrOrigin, q.encode(), 0); err != nil {
		return err
	}
	q.fs.at(cutLimitLowered)
	q.onDisk = q.limit
	if q.limit == 0 {
		q.goneLocked()
	}
	return nil
}

// lowerLimit notes that the file has been cut, or is cut already, to size.
func (q *partial) lowerLimit(size int64) {
	q.mu.Lock()
	q.limit = min(q.limit, size)
	q.mu.Unlock()
}

// setLimit lowers the limit, on the inode too, or not at all.
func (q *partial) setLimit(fd int, limit int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	old := q.limit
	q.limit = min(q.limit, limit)
	err := q.persistLocked(fdXattr(fd))
	if err != nil {
		q.limit = old
	}
	return err
}

func (q *partial) limitNow() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limit
}

// mayBeCut says on the inode of a copy that it is about to be cut for the first
// time. Where the size of the copy might be lost to a power cut, it is made
// durable before. Precondition: fd is the upper file, open for writing.
func (q *partial) mayBeCut(fd int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.cut || q.state == partGone {
		return nil
	}
	if q.fs.losesSizes && !q.fs.cfg.Volatile {
		if err := unix.Fdatasync(fd); err != nil {
			return err
		}
	}
	q.cut = true
	if err := layers.FD(fd).Setxattr(xattrOrigin, q.encode(), 0); err != nil {
		q.cut = false
		return err
	}
	q.fs.at(cutMayBeCut)
	q.onDisk = q.limit
	return nil
}

// pin writes the path of the lower file on the inode, before it gets a name
// from which the path does not follow. Precondition: n.mu is held for writing;
// n is in upper.
func (fs *FS) pin(n *node) error {
	q := n.partial()
	if q == nil {
		return nil
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pinned || q.state == partGone {
		return nil
	}
	q.pinned = true
	if err := r.setxattr(xattrOrigin, q.encode(), 0); err != nil {
		q.pinned = false
		return err
	}
	fs.at(cutPinned)
	q.onDisk = q.limit
	return nil
}

// whole takes the mark away from a file all of which is in upper, on the disk.
func (q *partial) whole(to xattrSetter) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state != partAll {
		return nil
	}
	if err := to.setxattr(xattrOrigin, originMark{Origin: q.origin}.encode(), 0); err != nil {
		return err
	}
	q.fs.at(cutWhole)
	q.goneLocked()
	return nil
}

// doubt is for a file of which not all may have reached upper after all: a sync
// failed. It is looked at anew when it is opened next.
func (q *partial) doubt() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == partAll || q.state == partSome {
		q.state = partUnknown
	}
}

// goneLocked notes that the mark was taken away.
func (q *partial) goneLocked() {
	q.state = partGone
	if q.counted {
		q.fs.completer.marks.Add(-1)
	}
	if !q.queued {
		return
	}
	if n := q.fs.completer.remove(q); n != nil {
		q.queued = false
		q.fs.unrefLater(n)
	}
}

// examine finds out how much of a file that was found in upper is there.
// Precondition: fd is the upper file, open; nobody has it open for writing.
func (q *partial) examine(fd int) error {
	if !q.is(partUnknown) {
		return nil
	}
	q.acquire()
	defer q.release()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	q.lowerLimit(st.Size)
	if err := q.dropUnwritten(fd); err != nil {
		return err
	}
	state, err := q.look(fd, st.Size)
	if err == nil && state == partAll { // the kernel may let it grow
		err = q.persist(fdXattr(fd))
	}
	if err != nil {
		return err
	}
	q.mu.Lock()
	if q.state == partUnknown {
		q.state = state
	}
	q.mu.Unlock()
	return nil
}

// restoreSize gives a copy the size that a power cut has taken.
func restoreSize(r ref, m originMark, st *unix.Stat_t) error {
	if !m.partial || m.cut || st.Size >= m.limit {
		return nil
	}
	fd, err := r.open(unix.O_RDWR | unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := layers.FD(fd).Ftruncate(m.limit); err != nil {
		return err
	}
	if err := layers.FD(fd).Utimens([2]unix.Timespec{st.Atim, st.Mtim}); err != nil {
		return err
	}
	return unix.Fstat(fd, st)
}

// dropUnwritten gives back the blocks below the limit that were set aside and
// never written. Those that a daemon that was killed has written are brought to
// the disk before, and are none then.
func (q *partial) dropUnwritten(fd int) error {
	list, err := layers.FD(fd).Unwritten(q.limitNow())
	if err != nil || len(list) == 0 {
		return err
	}
	if fd, err = layers.FD(fd).Reopen(unix.O_RDWR | unix.O_NONBLOCK); err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fdatasync(fd); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if list, err = layers.FD(fd).Unwritten(q.limitNow()); err != nil || len(list) == 0 {
		return err
	}
	capability, err := getCapability(fd)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Off, e.Len); err != nil {
			return err
		}
	}
	if err := restoreCapability(fd, capability); err != nil {
		return err
	}
	return layers.FD(fd).Utimens([2]unix.Timespec{st.Atim, st.Mtim})
}

// look is examine without its consequence. If the lower file is not there, its
// bytes are EIO when they are read.
func (q *partial) look(fd int, size int64) (partState, error) {
	limit := q.limitNow()
	data, err := seekData(fd, 0, limit)
	if err != nil {
		return partUnknown, err
	}
	hole, err := seekHole(fd, 0, limit)
	if err != nil || hole >= limit {
		return partAll, err
	}
	low, _, err := q.openLower()
	if err != nil {
		return partSome, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(low, &st); err != nil {
		return partUnknown, err
	}
	if data >= limit && limit == size && st.Size == size {
		return partEmpty, nil
	}
	from, _, err := q.missing(fd, 0)
	if err != nil || from >= 0 {
		return partSome, err
	}
	return partAll, nil
}

// blocks is the st_blocks to show: what the file takes in upper and, where it
// shows through, in lower.
func (q *partial) blocks(upper int64) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state >= partAll {
		return upper
	}
	if q.lowBlks < 0 {
		low, err := q.lowerLocked()
		var st unix.Stat_t
		if err == nil {
			err = low.ref(true).stat(&st)
		}
		if err != nil {
			return upper
		}
		q.lowBlks = st.Blocks
	}
	return max(upper, min(q.lowBlks, (q.limit+511)/512))
}
