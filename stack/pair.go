// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"crypto/rand"
	"errors"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// xattrPair is on the upper directory and on WORK/plyfs: the same 16 random
// bytes, which say that the journal in the one is about the other. With
// another work directory the removed names of upper would come back. Where
// there are no xattrs, see attrs.go.
const xattrPair = xattrPrefix + "pair"

const pairBytes = 16

// A pairState is what the two marks say before the journal is opened.
type pairState struct {
	fresh   bool // neither is marked: a first mount
	halfway bool // work alone is marked: a first mount that was cut off, if its journal is empty
}

// checkPair refuses an upper without its journal, and directories that do not
// belong together.
func (fs *FS) checkPair() (p pairState, err error) {
	up, err := fs.upperPair()
	if err != nil {
		return p, pairUnreadable(fs.cfg.Upper, err)
	}
	wk, err := readPair(fs.work)
	if err != nil {
		return p, pairUnreadable(fs.cfg.Work, err)
	}
	switch {
	case up == nil && wk == nil:
		p.fresh = true
	case up == nil:
		p.halfway = true
	case wk == nil:
		return p, &Error{Kind: KindJournal, Path: fs.cfg.Upper, Msg: "the upperdir was used with another workdir, whose journal knows what was removed",
			Mend: "mount with that workdir; or, if it is lost and what was removed may come back, run: " + fs.howToUnmark()}
	case !bytes.Equal(up, wk):
		return p, &Error{Kind: KindJournal, Path: fs.cfg.Work, Msg: "workdir and upperdir " + fs.cfg.Upper + " do not belong together",
			Mend: "mount each with the one it was used with"}
	default:
		return p, fs.journalThere()
	}
	return p, nil
}

// pairUnreadable says that half of a pair could not be read.
func pairUnreadable(path string, err error) error {
	if errors.Is(err, layers.ErrAttrRecord) {
		return &Error{Kind: KindJournal, Path: path, Msg: "what plyfs wrote about it is damaged", Err: err,
			Mend: "restore the work directory from a copy; without one, use a new upperdir and workdir"}
	}
	return &Error{Kind: KindIO, Path: path, Msg: "cannot be read", Err: err}
}

// journalThere refuses a pair whose journal has been taken away.
func (fs *FS) journalThere() error {
	var st unix.Stat_t
	if err := fs.work.Stat(journal.DBName, &st); err != nil {
		return &Error{Kind: KindJournal, Path: fs.work.Path() + "/" + journal.DBName, Msg: "the journal is missing", Err: err,
			Mend: "restore it from a copy; or, if what was removed may come back, use an empty workdir and run: " + fs.howToUnmark()}
	}
	return nil
}

// otherJournal refuses an upper that the journal is not about.
func (fs *FS) otherJournal() error {
	return &Error{Kind: KindJournal, Path: fs.cfg.Work, Msg: "the work directory holds the journal of another upperdir than " + fs.cfg.Upper,
		Mend: "mount with the upperdir it was made for, or give an empty workdir"}
}

// finishPair marks what a first mount must mark, once its journal is there:
// work first, so that an upper is never marked without one.
func (fs *FS) finishPair(p pairState) error {
	if !p.fresh && !p.halfway {
		return nil
	}
	if st := fs.j.Stats(); p.halfway && (st.Covers+st.Links+st.Notes > 0 || fs.strangeRecords()) {
		return fs.otherJournal()
	}
	id := make([]byte, pairBytes)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	if err := fs.work.Setxattr("", xattrPair, id, 0); err != nil {
		return &Error{Kind: KindIO, Path: fs.work.Path(), Msg: "cannot be marked", Err: err}
	}
	fs.at(cutPaired)
	if err := fs.markUpper(id); err != nil {
		return &Error{Kind: KindIO, Path: fs.cfg.Upper, Msg: "cannot be marked", Err: err}
	}
	fs.at(cutPaired)
	return nil
}

func readPair(d *layers.Dir) ([]byte, error) {
	buf := make([]byte, pairBytes+1)
	n, err := d.Getxattr("", xattrPair, buf)
	if err == syscall.ENODATA {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}
