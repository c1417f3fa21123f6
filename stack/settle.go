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
	dropDir journal.DirID // instead: a directory is gone
}

// settleInterval is how often records are made durable and whiteouts settled
// when nobody asks for a sync: as often as ext4 commits.
const settleInterval = 5 * time.Second

// owe queues a record. The node is kept until it is written.
func (fs *FS) owe(d debt) {
	if d.p != nil {
		fs.nodes.ref(d.p)
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
	debts := fs.debts
	fs.debts = nil
	fs.settleMu.Unlock()
	if err := fs.payAll(debts); err != nil {
		fs.settleMu.Lock()
		fs.debts = append(debts, fs.debts...)
		fs.settleMu.Unlock()
		return err
	}
	for _, d := range debts {
		fs.paid(d)
	}
	return nil
}

// payAll brings upper to disk, then the records about it. It may be done again
// after a failure.
func (fs *FS) payAll(debts []debt) error {
	if !fs.cfg.Volatile && len(debts) > 0 {
		if err := fs.syncUpper(); err != nil {
			return err
		}
	}
	for _, d := range debts {
		if err := fs.pay(d); err != nil {
			return err
		}
	}
	return fs.j.Sync()
}

// pay applies one record.
func (fs *FS) pay(d debt) error {
	if d.p == nil {
		return fs.j.Apply(journal.DropDir(d.dropDir))
	}
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	if d.p.unlinked {
		return nil
	}
	has, err := fs.whiteoutAt(d.p, d.name)
	if err != nil || !has {
		return err
	}
	return fs.cover(d.p, d.name)
}

// paid forgets a debt, and takes its whiteout away if it still is one, leaving
// the directory's times as they are.
func (fs *FS) paid(d debt) {
	if d.p == nil {
		return
	}
	defer fs.unrefLater(d.p)
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	up := d.p.dir.upper()
	if d.p.unlinked || !d.p.dir.covered(d.name) {
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
	_ = up.Utimens("", [2]unix.Timespec{dir.Atim, dir.Mtim})
}

// noteDirty has the settler make the journal durable at its next round.
func (fs *FS) noteDirty() { fs.dirty.Store(true) }
