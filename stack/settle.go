// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"time"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A record that follows from a change of upper (a whiteout under a name, the
// removal of a directory) may become durable only after that change: else a power cut leaves the
// record without the entry that it stands beside, and a file is gone under
// both its old and its new name. So such records are not written with the
// change. They are queued, and a settler writes them: sync upper, apply the
// records, sync the journal, and then take the whiteouts away that records now
// stand in for. Until then a whiteout does its work by itself, and nothing
// depends on its going.

// A debt is one such record that is not written yet.
type debt struct {
	p       *node // and name: a whiteout stands here, to be taken away
	name    string
	origin  journal.Origin // of what was there, to be counted if it is hard-linked
	dropDir journal.DirID  // instead: a directory is gone
	reap    *node          // instead: nothing is to be written; the copy in the index can go then
}

// settleInterval is how often records are made durable and whiteouts settled
// when nobody asks for a sync: as often as ext4 commits.
const settleInterval = 5 * time.Second

// owe queues a record. The node is kept until it is written.
func (fs *FS) owe(d debt) {
	for _, n := range []*node{d.p, d.reap} {
		if n != nil {
			fs.nodes.ref(n)
		}
	}
	fs.settleMu.Lock()
	fs.debts = append(fs.debts, d)
	fs.settleMu.Unlock()
	fs.dirty.Store(true)
}

// settler runs until the mount ends.
func (fs *FS) settler(stop <-chan struct{}) {
	t := time.NewTicker(settleInterval)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			if fs.dirty.Swap(false) {
				if err := fs.settle(); err != nil {
					fs.noteError("settling the journal", err)
					fs.dirty.Store(true)
				}
			}
		}
	}
}

// settle writes what is owed and makes everything durable that the mount has
// been told so far.
func (fs *FS) settle() error {
	fs.settling.Lock()
	defer fs.settling.Unlock()
	fs.settleMu.Lock()
	debts, copies := fs.debts, fs.unsynced
	fs.debts, fs.unsynced = nil, nil
	fs.settleMu.Unlock()
	states, err := fs.payAll(debts, len(copies) > 0)
	fs.at(cutSettleDurable)
	fs.synced(copies, err == nil)
	for i, d := range debts {
		switch {
		case err != nil || states[i] == unpaid:
			fs.settleMu.Lock()
			fs.debts = append(fs.debts, d)
			fs.settleMu.Unlock()
		case d.p != nil:
			fs.paid(d, states[i] == covers)
		case d.reap != nil:
			fs.reap(d.reap)
		}
	}
	return err
}

// payment is what became of a debt.
type payment uint8

const (
	unpaid payment = iota // it stays; the whiteout does the work meanwhile
	moot                  // there is nothing to cover any more
	covers                // the record is written
)

// payAll brings upper to disk, then the records about it. A record that cannot
// be written (the directory is immutable, say) does not keep the others back.
func (fs *FS) payAll(debts []debt, copies bool) ([]payment, error) {
	states := make([]payment, len(debts))
	if !fs.cfg.Volatile && (len(debts) > 0 || copies) {
		if err := fs.syncUpper(); err != nil {
			return states, err
		}
		fs.at(cutSettleSynced)
	}
	for i, d := range debts {
		var err error
		if states[i], err = fs.pay(d); err != nil {
			fs.noteError("settling a whiteout", err)
			fs.dirty.Store(true)
		}
		fs.at(cutSettlePaid)
	}
	return states, fs.j.Sync()
}

// pay applies one record.
func (fs *FS) pay(d debt) (payment, error) {
	if d.reap != nil {
		return moot, nil
	}
	if d.p == nil {
		if err := fs.j.Apply(journal.DropDir(d.dropDir)); err != nil {
			return unpaid, err
		}
		return covers, nil
	}
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	if d.p.unlinked {
		return moot, nil
	}
	has, err := fs.whiteoutAt(d.p, d.name)
	if err == nil && has {
		if err = fs.countHidden(d.p, d.name, d.origin); err == nil {
			err = fs.cover(d.p, d.name)
		}
	}
	switch {
	case err != nil:
		return unpaid, err
	case !has:
		return moot, nil
	}
	return covers, nil
}

// paid forgets a debt, and takes its whiteout away if a durable record stands
// in for it, leaving the directory's times as they are.
func (fs *FS) paid(d debt, covered bool) {
	defer fs.unrefLater(d.p)
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	up := d.p.dir.upper()
	if !covered || d.p.unlinked {
		return
	}
	var dir, st unix.Stat_t
	if up.Stat(d.name, &st) != nil || !layers.IsWhiteoutStat(&st) || up.Stat("", &dir) != nil {
		return
	}
	if err := up.Unlink(d.name); err != nil {
		fs.log.Warn("whiteout stays", "dir", up.Path(), "name", d.name, "err", err)
		return
	}
	fs.at(cutSettleRemoved)
	_ = up.Utimens("", [2]unix.Timespec{dir.Atim, dir.Mtim})
	fs.at(cutSettleTimes)
}

// noteDirty has the settler make the journal durable at its next round.
func (fs *FS) noteDirty() { fs.dirty.Store(true) }

// awaitSync has the mark of a file that was copied whole taken away once upper
// was synced. Precondition: n.mu is held.
func (fs *FS) awaitSync(n *node) {
	if fs.nodes.ref(n) && !fs.noteUnsynced(n) {
		fs.unrefLater(n)
	}
}

// noteUnsynced keeps a copy for the next sync, with the caller's reference;
// false if it is kept already.
func (fs *FS) noteUnsynced(n *node) bool {
	fs.settleMu.Lock()
	defer fs.settleMu.Unlock()
	if fs.unsynced[n.part] != nil {
		return false
	}
	if fs.unsynced == nil {
		fs.unsynced = make(map[*partial]*node)
	}
	fs.unsynced[n.part] = n
	fs.dirty.Store(true)
	return true
}

// synced takes the marks of copies away, or, if the sync failed, leaves them for
// the next one.
func (fs *FS) synced(copies map[*partial]*node, ok bool) {
	for q, n := range copies {
		cur := n.lockCurrent()
		if !ok && !cur.unlinked {
			q.doubt()
			fs.awaitSync(cur)
		} else if r, err := fs.refLocked(cur); err == nil && !cur.syncFailed.Load() {
			if err := q.whole(r); err != nil { // it stays a partial file for the next mount
				fs.log.Debug("mark stays", "lower", q.path, "err", err)
			}
		}
		cur.mu.RUnlock()
		fs.unrefLater(n)
	}
}

// forgetCopy drops what is still to be done for a copy whose last name has gone.
// Precondition: n.mu is held for writing.
func (fs *FS) forgetCopy(n *node) {
	q := n.part
	if q == nil {
		return
	}
	fs.settleMu.Lock()
	held := fs.unsynced[q]
	delete(fs.unsynced, q)
	fs.settleMu.Unlock()
	if held != nil {
		fs.unrefLater(held)
	}
	if held = fs.completer.take(q); held != nil {
		fs.unrefLater(held)
	}
}
