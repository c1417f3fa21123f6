// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"time"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A whiteout in upper stands in for a record until that is durable; then it is
// in the way of rmdir and of nothing else, and is taken away. Nothing depends
// on its going: a whiteout that stays hides what the record hides.

// unsettled is one whiteout to take away.
type unsettled struct {
	p    *node
	name string
}

// settleInterval is how often records are made durable and whiteouts settled
// when nobody asks for a sync: as often as ext4 commits.
const settleInterval = 5 * time.Second

// settleLater queues a whiteout.
func (fs *FS) settleLater(p *node, name string) {
	fs.settleMu.Lock()
	fs.unsettled = append(fs.unsettled, unsettled{p, name})
	fs.settleMu.Unlock()
}

// noteDirty wakes the settler up for its next round.
func (fs *FS) noteDirty() { fs.dirty.Store(true) }

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
				fs.settle()
			}
		}
	}
}

// settle makes the journal durable and takes the whiteouts away whose records
// now are.
func (fs *FS) settle() {
	fs.settleMu.Lock()
	todo := fs.unsettled
	fs.unsettled = nil
	fs.settleMu.Unlock()
	if err := fs.j.Sync(); err != nil {
		fs.noteError("journal sync", err)
		fs.settleMu.Lock()
		fs.unsettled = append(todo, fs.unsettled...)
		fs.settleMu.Unlock()
		return
	}
	for _, u := range todo {
		fs.settleOne(u)
	}
}

// settleOne takes one whiteout away, if it is still there and still covered,
// and leaves the directory's times as they are.
func (fs *FS) settleOne(u unsettled) {
	u.p.mu.Lock()
	defer u.p.mu.Unlock()
	up := u.p.dir.upper()
	if u.p.unlinked || up == nil || !u.p.dir.covered(u.name) {
		return
	}
	var dir, st unix.Stat_t
	if up.Stat(u.name, &st) != nil || !layers.IsWhiteoutStat(&st) || up.Stat("", &dir) != nil {
		return
	}
	if err := up.Unlink(u.name); err != nil {
		fs.log.Warn("whiteout stays", "dir", up.Path(), "name", u.name, "err", err)
		return
	}
	_ = up.Utimens("", [2]unix.Timespec{dir.Atim, dir.Mtim})
}
