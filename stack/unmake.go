// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
)

// madeDir is a directory that Open made in work.
type madeDir struct {
	d    *layers.Dir
	name string
}

// unmake removes what a mount that did not come about made in the work
// directory: all of it, or, if an earlier mount had made the directory, the
// empty directories that were missing. Precondition: the journal is closed.
func (fs *FS) unmake() {
	if len(fs.made) > 0 && fs.made[0].name == "plyfs" {
		fs.unmakeFiles()
	}
	for i := len(fs.made) - 1; i >= 0; i-- {
		_ = fs.made[i].d.Rmdir(fs.made[i].name)
		fs.at(cutUnmadeDir)
	}
	fs.made = nil
}

// unmakeFiles removes all but directories.
func (fs *FS) unmakeFiles() {
	if fs.tmp != nil {
		_ = fs.tmp.Unlink(sharedWhiteout)
		fs.at(cutUnmadeWhiteout)
	}
	fs.unpair()
	if fs.work != nil {
		_ = journal.Remove(fs.work.Path(), journal.Options{CutPoint: fs.journalAt()})
		_ = fs.work.Unlink(liveMark)
		_ = fs.work.Unlink(partialMark)
		fs.at(cutUnmadeLive)
		_ = fs.clearAttrStore()
	}
}

// unpair takes upper's pair mark back. It goes before the journal, for a marked
// upper is refused without one.
func (fs *FS) unpair() {
	up, err := fs.upperPair()
	if err != nil || up == nil || fs.work == nil {
		return
	}
	if wk, err := readPair(fs.work); err == nil && bytes.Equal(up, wk) {
		_ = fs.unmarkUpper()
		fs.at(cutUnmadePair)
	}
}
