// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// publishFile gives a finished copy its place: under the node's name, in the
// index too if the lower file has several links, or under no name at all if
// the node has none left.
// errReplaced if the policy's answers may have changed since it was asked.
func (fs *FS) publishFile(n *node, c *copying, asked uint64) error {
	fs.at(cutCopyComplete)
	at, ok, err := fs.lockName(n)
	if err != nil {
		return err
	}
	if ok {
		defer at.parent.mu.Unlock()
		defer func() {
			if n.up { // it does not go back
				fs.detachOthers(at.parent, at.name, n.current())
			}
		}()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if fs.answers.Load() != asked {
		return errReplaced
	}
	if n.detached { // meanwhile
		return errRetry
	}
	switch {
	case n.hard && (ok || fs.mayHaveNames(n)):
		if err := fs.publishIndexed(n, c.tmp); err != nil {
			return err
		}
		if ok {
			err = fs.linkUp(n, at)
		}
	case !ok:
		if err := fs.publishOrphan(n, c.tmp); err != nil {
			return err
		}
	default:
		if err := fs.publish(c.tmp, at); err != nil {
			return err
		}
	}
	fs.at(cutFileParentTimes)
	n.up, n.part = true, c.part
	fs.noteCopied(n)
	return errors.Join(err, fs.followCopyUpLocked(n))
}

// noteCopied has what a fresh copy lacks done later. Precondition: n.mu is held.
func (fs *FS) noteCopied(n *node) {
	switch q := n.partial(); {
	case q == nil, len(n.names) == 0: // or it is removed, and only held open
	case q.is(partAll):
		fs.awaitSync(n)
	case q.is(partSome):
		fs.queueCompletion(n)
	}
}

// mayHaveNames tells whether other lower names may lead to a hard-linked inode.
func (fs *FS) mayHaveNames(n *node) bool {
	_, err := fs.lowerLinks(n)
	return err != nil || fs.unionLinks(n, 0) > 0
}

// lockName locks the directory of one of the node's names, which is in upper
// then. ok is false if the node has no name.
func (fs *FS) lockName(n *node) (at nameRef, ok bool, err error) {
	for {
		n.mu.RLock()
		if len(n.names) == 0 {
			n.mu.RUnlock()
			return nameRef{}, false, nil
		}
		at := n.names[0]
		n.mu.RUnlock()
		if err := fs.copyUpDir(at.parent); err != nil {
			return at, false, err
		}
		at.parent.mu.Lock()
		n.mu.RLock()
		still := n.hasName(at.parent, at.name)
		n.mu.RUnlock()
		detached := at.parent.detached
		if still && !detached && at.parent.dir.upper() != nil {
			return at, true, nil
		}
		at.parent.mu.Unlock()
		if still && detached { // by a policy, and it does not come back
			return at, false, errRetry
		}
	}
}

// publishOrphan keeps a copy that has no name by a descriptor.
// Precondition: n.mu is held for writing.
func (fs *FS) publishOrphan(n *node, tmp string) error {
	fd, err := fs.tmp.Open(tmp, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	fs.at(cutOrphanOpen)
	if err := fs.tmp.Unlink(tmp); err != nil {
		_ = unix.Close(fd)
		return err
	}
	n.orphan = layers.FD(fd)
	return nil
}

// publishIndexed puts the copy of a hard-linked lower file into the index. Its
// account is written before, so that there is one wherever there is an index
// entry. Precondition: n.mu is held for writing.
func (fs *FS) publishIndexed(n *node, tmp string) error {
	fs.hard.counting.Lock()
	defer fs.hard.counting.Unlock()
	l, err := fs.lowerLinks(n)
	if err != nil {
		return err
	}
	if err := fs.j.Apply(journal.SetLinks(n.origin, l)); err != nil {
		return err
	}
	fs.at(cutAccountWritten)
	if err := fs.tmp.Rename(tmp, fs.index, indexName(n.origin), unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	fs.at(cutIndexPublished)
	fs.hard.mu.Lock()
	fs.hard.links[n.origin] = l
	fs.hard.index[n.origin] = struct{}{}
	fs.hard.mu.Unlock()
	return nil
}

// linkUp makes a lower name of an indexed file an upper one, which hides the
// lower one from then on.
// Precondition: at.parent.mu and n.mu are held for writing; at.parent is in
// upper.
func (fs *FS) linkUp(n *node, at nameRef) error {
	up := at.parent.dir.upper()
	var st unix.Stat_t
	if err := up.Stat(at.name, &st); err != syscall.ENOENT {
		return err // it is there already, or upper fails
	}
	tmp := fs.tmpName()
	if err := fs.index.Link(indexName(n.origin), fs.tmp, tmp); err != nil {
		return err
	}
	fs.at(cutIndexLinked)
	if err := fs.publish(tmp, at); err != nil {
		_ = fs.tmp.Unlink(tmp)
		return err
	}
	fs.at(cutNameLinked)
	return fs.countHidden(at.parent, at.name, n.origin)
}

// keepOpenLocked opens the inode for as long as the kernel knows the node: its
// last known name is about to go. Precondition: n.mu is held for writing.
func (fs *FS) keepOpenLocked(n *node) error {
	if n.orphan >= 0 {
		return nil
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	fd, err := r.open(unix.O_PATH)
	if err != nil {
		return err
	}
	n.orphan = layers.FD(fd)
	return nil
}
