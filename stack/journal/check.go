// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"fmt"
	"path/filepath"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Problem is something that [Check] found wrong.
type Problem struct {
	File string // the file it is in
	What string // one sentence
}

// String gives one line.
func (p Problem) String() string { return p.File + ": " + p.What }

// Check examines the journal in dir (WORK/plyfs) in full: the structure of the
// database, by our own walk and by bbolt's, every record, the account of records and
// both logs. It changes nothing. The error is for what kept it from looking, with
// [ErrLocked] for a live mount; what it found is in the list. Frames that were never
// synced and are torn are no problem: a crash leaves them.
func Check(dir string) ([]Problem, error) {
	logs, err := openLogsOnly(dir, unix.LOCK_SH)
	if isDamage(err) {
		return []Problem{problem(filepath.Join(dir, logName), err)}, nil
	}
	if err != nil {
		return nil, err
	}
	defer closeLogs(logs)
	path := dbPath(dir)
	var found []Problem
	content, err := verifyDB(path, func(what string) { found = append(found, Problem{path, what}) })
	if isDamage(err) {
		// Nothing can be said of the logs without the database's state, and bbolt is
		// not to be let loose on this.
		return append(found, problem(path, err)), nil
	}
	if err != nil {
		return nil, err
	}
	more, err := checkBolt(path)
	if err != nil {
		return found, err
	}
	found = append(found, more...)
	if _, _, err := replay(content.state, logs); isDamage(err) {
		found = append(found, problem(filepath.Join(dir, logName), err))
	} else if err != nil {
		return found, err
	}
	return found, nil
}

// problem makes a damage error a problem.
func problem(file string, err error) Problem {
	if e, ok := err.(*Error); ok {
		return Problem{e.File, e.What}
	}
	return Problem{file, err.Error()}
}

// checkBolt is bbolt's own check. Page errors come over a channel, which has to be
// read to its end.
func checkBolt(path string) (found []Problem, err error) {
	db, err := openBolt(path, true, false)
	if isDamage(err) {
		return []Problem{problem(path, err)}, nil
	}
	if err != nil {
		return nil, err
	}
	defer db.close() //nolint:errcheck // nothing was written
	err = guard(path, func() error {
		return db.View(func(tx *bbolt.Tx) error {
			for e := range tx.Check() {
				found = append(found, Problem{path, fmt.Sprintf("the database's own check says: %v", e)})
			}
			return nil
		})
	})
	return found, err
}
