// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The completer makes partial files that were written to whole, one after the
// other, in the background. Files of which only the inode was copied up stay as
// they are: the kernel reads them from lower.
type completer struct {
	mu      sync.Mutex
	queue   []completion
	waiting string // why it does not go on; "" if it does
	until   time.Time
	wake    chan struct{}

	marks   atomic.Int64 // files of this mount that carry a mark
	current atomic.Pointer[node]
}

// A completion is a file to be made whole, not before a time.
type completion struct {
	n     *node // referenced
	q     *partial
	after time.Time
}

const (
	// completeDelay is how long a file is left alone after its copy-up: many
	// are removed again soon.
	completeDelay = 2 * time.Second
	// completeAgain is how long the completer waits after a failure.
	completeAgain = 30 * time.Second
	// spareShare is the part of upper's file system (one in so many) that the
	// background completion leaves free.
	spareShare = 10
)

var errSpare = errors.New("less than a tenth of upper's file system is free")

// queueCompletion queues a file, also where nothing is completed in the
// background: what is queued is known to status. Precondition: n.mu is held.
func (fs *FS) queueCompletion(n *node) {
	q := n.partial()
	if q == nil {
		return
	}
	q.mu.Lock()
	queued := q.queued
	q.queued = true
	q.mu.Unlock()
	if queued || !fs.nodes.ref(n) {
		return
	}
	fs.completer.put(completion{n, q, time.Now().Add(completeDelay)})
}

func (c *completer) put(x completion) {
	c.mu.Lock()
	c.queue = append(c.queue, x)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take removes a file from the queue, and gives its node back if it was there.
func (c *completer) take(q *partial) *node {
	q.mu.Lock()
	queued := q.queued
	q.mu.Unlock()
	if !queued {
		return nil
	}
	n := c.remove(q)
	if n != nil {
		q.mu.Lock()
		q.queued = false
		q.mu.Unlock()
	}
	return n
}

// remove is take for the queue alone; nil for a file whose completion is under
// way, which paceBackground ends.
func (c *completer) remove(q *partial) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, x := range c.queue {
		if x.q == q {
			c.queue = append(c.queue[:i:i], c.queue[i+1:]...)
			return x.n
		}
	}
	return nil
}

// next takes the first completion that is due, or tells how long to wait.
func (c *completer) next() (x completion, wait time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait = time.Hour
	if d := time.Until(c.until); d > 0 {
		return x, d, false
	}
	for i, x := range c.queue {
		if d := time.Until(x.after); d > 0 {
			wait = min(wait, d)
			continue
		}
		c.queue = append(c.queue[:i:i], c.queue[i+1:]...)
		return x, 0, true
	}
	return x, wait, false
}

// rest lets nothing be completed until a time.
func (c *completer) rest(until time.Time) {
	c.mu.Lock()
	c.until = until
	c.mu.Unlock()
}

func (c *completer) setWaiting(why string) {
	c.mu.Lock()
	c.waiting = why
	c.mu.Unlock()
}

// runCompleter runs until the mount ends.
func (fs *FS) runCompleter() {
	if fs.cfg.CompleteRate < 0 {
		return
	}
	for {
		x, wait, ok := fs.completer.next()
		if !ok {
			t := time.NewTimer(wait)
			select {
			case <-fs.stop:
				t.Stop()
				return
			case <-t.C:
			case <-fs.completer.wake:
			}
			t.Stop()
			continue
		}
		if !fs.completeOne(x) {
			return
		}
	}
}

// completeOne completes a file, or queues it again; false if the mount ends.
func (fs *FS) completeOne(x completion) bool {
	fs.completer.current.Store(x.n)
	err := fs.complete(x.n, fs.paceBackground(x.n))
	fs.completer.current.Store(nil)
	if errors.Is(err, errStopped) {
		return false
	}
	if err == nil || fs.isRemoved(x.n) {
		fs.completer.setWaiting("")
		fs.dequeued(x)
		return true
	}
	fs.completer.setWaiting(err.Error())
	full := errors.Is(err, errSpare) || isFull(err)
	if !full {
		fs.noteError("completing a partial file", err)
	}
	x.after = time.Now().Add(completeAgain)
	fs.completer.put(x)
	if full { // for the others too
		fs.completer.rest(x.after)
	}
	return true
}

// dequeued lets a file go.
func (fs *FS) dequeued(x completion) {
	x.q.mu.Lock()
	x.q.queued = false
	x.q.mu.Unlock()
	fs.unrefLater(x.n)
}

func (fs *FS) isRemoved(n *node) bool {
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	return n.unlinked
}

// paceBackground sleeps so that the rate is kept, and ends the completion when
// the mount ends, upper gets full, or the file is removed.
func (fs *FS) paceBackground(n *node) func(int64) error {
	begin, total := time.Now(), int64(0)
	return func(moved int64) error {
		if fs.isRemoved(n) {
			return syscall.ENOENT
		}
		if err := fs.spareUpper(); err != nil {
			return err
		}
		total += moved
		due := begin.Add(time.Duration(float64(total) / float64(fs.cfg.CompleteRate) * float64(time.Second)))
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		select {
		case <-fs.stop:
			return errStopped
		case <-t.C:
			return nil
		}
	}
}

// spareUpper is an error if upper gets full: what a user writes comes first.
func (fs *FS) spareUpper() error {
	var st unix.Statfs_t
	if err := fs.upper.Root().Statfs(&st); err != nil {
		return err
	}
	if st.Bavail < st.Blocks/spareShare {
		return errSpare
	}
	return nil
}

// partialMark is a file in WORK/plyfs while upper may hold partial files. A mount
// that finds it looks for them.
const partialMark = "partial"

// markPartial makes the mark before the first partial file is.
func (fs *FS) markPartial(q *partial) error {
	if !fs.partialMarked.Load() {
		err := fs.work.Mknod(partialMark, unix.S_IFREG|0o600, 0)
		if err != nil && err != syscall.EEXIST {
			return err
		}
		fs.partialMarked.Store(true)
	}
	q.count()
	return nil
}

// count counts a partial file, once.
func (q *partial) count() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.counted && q.state != partGone {
		q.counted = true
		q.fs.completer.marks.Add(1)
	}
}

// unmarkPartial takes the mark away at the end of a mount that leaves none.
func (fs *FS) unmarkPartial() error {
	if fs.completer.marks.Load() > 0 || !fs.partialMarked.Load() {
		return nil
	}
	err := fs.work.Unlink(partialMark)
	if err == syscall.ENOENT {
		return nil
	}
	return err
}

// tellAgain has the first request that needs a lower file that is not there say
// so once more: what is said while the mount comes about goes to the standard
// error of plyfs mount, not to the log.
func (q *partial) tellAgain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told = false
}

// findPartial looks for the partial files that earlier mounts left.
func (fs *FS) findPartial() {
	if !fs.partialFound {
		return
	}
	err := fs.eachPartial(fs.root, func(n *node) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.part.count()
		err := fs.examineLocked(n)
		if err != nil {
			fs.noteError("examining a partial file", err)
		}
		n.part.tellAgain()
		return nil
	})
	if err == nil {
		fs.completer.marks.Add(-1) // what stood for those not found yet
	} else if err != errStopped {
		fs.noteError("looking for partial files", err)
	}
}
