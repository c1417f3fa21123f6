// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Completion makes partial files whole: by what is left of the lower file, in
// the background at a bounded rate (completer.go), or at once where somebody
// asks for it (CompletePath), or an operation needs it. It changes nothing that
// the mount shows but st_ctime and st_blocks.

// complete makes a file whole, durably, and takes its mark away; pace is called
// after each chunk, and ends it by an error. A file that is whole is none.
// Precondition: no lock is held.
func (fs *FS) complete(n *node, pace func(moved int64) error) error {
	n = n.lockCurrent()
	q := n.partial()
	if q == nil || !n.up {
		n.mu.RUnlock()
		return nil
	}
	r, err := fs.refLocked(n)
	if err != nil {
		n.mu.RUnlock()
		return err
	}
	f, err := fs.openSelfLocked(n, r, unix.O_RDWR)
	n.mu.RUnlock()
	if err != nil {
		return err
	}
	defer f.close()
	if q.is(partEmpty) {
		n.mu.Lock()
		q.leaveEmpty()
		n.mu.Unlock()
	}
	if q.is(partUnknown) || n.syncFailed.Load() {
		return fmt.Errorf("an earlier sync of this file failed: it must be closed by all first: %w", syscall.EIO)
	}
	if err := q.completeIn(f.fd, pace); err != nil {
		fs.again(n)
		return err
	}
	if !fs.cfg.Volatile {
		if err := unix.Fdatasync(f.fd); err != nil {
			q.doubt()
			return err
		}
		fs.at(cutCompleteSynced)
	}
	if err := q.whole(fdXattr(f.fd)); err != nil {
		return err
	}
	fs.count.completed.Add(1)
	return nil
}

// again queues a file whose completion has ended early.
func (fs *FS) again(n *node) {
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	if len(n.names) > 0 {
		fs.queueCompletion(n)
	}
}

// leaveEmpty ends the time in which the lower file is handed out.
func (q *partial) leaveEmpty() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == partEmpty {
		q.state = partSome
	}
}

// completeIn fills what is missing.
func (q *partial) completeIn(fd int, pace func(int64) error) error {
	if !q.is(partSome) {
		return nil
	}
	fill := filling{q: q, fd: fd}
	if pace != nil {
		if err := pace(0); err != nil {
			return err
		}
	}
	for {
		n, done, err := fill.step()
		if err != nil {
			return err
		}
		if done {
			break
		}
		q.fs.count.completedBytes.Add(uint64(n))
		if pace != nil {
			if err := pace(n); err != nil {
				return err
			}
		}
	}
	q.mu.Lock()
	if q.state == partSome {
		q.state = partAll
	}
	q.mu.Unlock()
	return nil
}

// left is about how many bytes are still to be brought to upper.
// Precondition: n.mu is held.
func (fs *FS) leftLocked(n *node) int64 {
	q := n.partial()
	if q == nil || !q.inPieces() {
		return 0
	}
	r, err := fs.refLocked(n)
	var st unix.Stat_t
	if err == nil {
		err = r.stat(&st)
	}
	if err != nil {
		return 0
	}
	shown := 512 * q.blocks(0)
	return max(0, min(q.limitNow(), shown)-512*st.Blocks)
}

// CompletionProgress tells how far a completion has come.
type CompletionProgress struct {
	Files     int   `json:"files"`     // partial files that were found
	FilesDone int   `json:"filesDone"` // of them made whole
	Bytes     int64 `json:"bytes"`     // to be copied, about
	BytesDone int64 `json:"bytesDone"`
}

// CompletePath makes the partial files at and below a path of the mount whole,
// also those of which not even a byte was written, and does not return before
// they are durable. report is called now and then, and ends it by an error.
// Errors: EROFS without upper, ENOENT, ENOSPC where upper is full (what was
// copied stays), EIO where a lower file is missing.
func (fs *FS) CompletePath(rel string, report func(CompletionProgress) error) error {
	if fs.upper == nil {
		return fmt.Errorf("nothing is copied up on a read-only mount: %w", syscall.EROFS)
	}
	n, err := fs.walk(rel)
	if err != nil {
		return err
	}
	defer fs.unrefLater(n)
	select {
	case <-fs.stop:
		return errStopped
	default:
	}
	fs.done.Add(1) // Close waits
	defer fs.done.Done()
	var found []*node
	defer func() {
		for _, n := range found {
			fs.unrefLater(n)
		}
	}()
	err = fs.eachPartial(n, func(n *node) error {
		fs.nodes.ref(n)
		found = append(found, n)
		return nil
	})
	if err != nil {
		return err
	}
	return fs.completeAll(found, report)
}

func (fs *FS) completeAll(list []*node, report func(CompletionProgress) error) error {
	tell := report
	report = func(p CompletionProgress) error {
		select {
		case <-fs.stop:
			return errStopped
		default:
		}
		if err := tell(p); err != nil {
			return fmt.Errorf("%w: %w", errStopped, err)
		}
		return nil
	}
	p := CompletionProgress{Files: len(list)}
	left := make([]int64, len(list))
	for i, n := range list {
		n := n.lockCurrent()
		left[i] = fs.leftLocked(n)
		n.mu.RUnlock()
		p.Bytes += left[i]
	}
	if err := report(p); err != nil {
		return err
	}
	var errs []error
	base := int64(0)
	for i, n := range list {
		last := time.Now()
		err := fs.complete(n, func(moved int64) error {
			p.BytesDone = min(p.BytesDone+moved, p.Bytes)
			if moved == 0 || time.Since(last) < reportEvery {
				return nil
			}
			last = time.Now()
			return report(p)
		})
		if errors.Is(err, errStopped) {
			return err
		}
		if isFull(err) {
			return fmt.Errorf("%s: %w; make space on the file system of upperdir, and complete again: what was copied stays", fs.pathOf(n), err)
		}
		base += left[i]
		p.BytesDone = base
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", fs.pathOf(n), err))
			continue
		}
		p.FilesDone++
		if err := report(p); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// reportEvery is how often progress is reported.
const reportEvery = 100 * time.Millisecond

// errStopped is the answer of a pace to end a completion.
var errStopped = errors.New("stopped by an unmount; what was copied stays")

// pathOf is a path of a node in the mount, for messages.
func (fs *FS) pathOf(n *node) string {
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	if len(n.names) == 0 {
		return "a removed file"
	}
	at := n.names[0]
	path := "/" + at.name
	for d := at.parent; d != nil && d != fs.root; {
		up := d.dir.at.Load()
		if up == nil {
			break
		}
		path = "/" + up.name + path
		d = up.parent
	}
	return path
}

// eachPartial calls fn for each partial file at or below a node. It looks into
// upper alone, for there they are.
func (fs *FS) eachPartial(n *node, fn func(*node) error) error {
	if !n.isDir() {
		n = n.current()
		n.mu.RLock()
		is := n.up && n.partial() != nil
		n.mu.RUnlock()
		if !is {
			return nil
		}
		return fn(n)
	}
	up := n.dir.upper()
	if up == nil {
		return nil
	}
	var names []string
	err := up.List(func(name []byte, _ uint64, typ uint8) error {
		if typ == unix.DT_DIR || typ == unix.DT_REG || typ == unix.DT_UNKNOWN {
			names = append(names, string(name))
		}
		if typ == unix.DT_REG {
			m, ok, err := readOriginMark(ref{d: up, name: string(name), fd: -1})
			if err != nil && err != errMark && err != syscall.ENOENT {
				return err
			}
			if !ok || !m.partial {
				names = names[:len(names)-1]
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := fs.eachPartialAt(n, name, fn); err != nil {
			return err
		}
	}
	return nil
}

// eachPartialAt is eachPartial below a name, which may have gone meanwhile.
func (fs *FS) eachPartialAt(p *node, name string, fn func(*node) error) error {
	select {
	case <-fs.stop:
		return errStopped
	default:
	}
	c, err := fs.child(p, name, mounter)
	if err != nil {
		return nil // gone, or nothing that the mount shows
	}
	defer fs.unrefLater(c)
	return fs.eachPartial(c, fn)
}
