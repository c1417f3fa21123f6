// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Snapshot is a journal opened for reading, without a mount. It keeps a shared lock
// until it is closed.
type Snapshot struct {
	dir   string
	meta  Meta
	state state
	db    *store
	logs  [2]*logFile
	add   *delta // what the logs hold beyond the database
}

// OpenReadOnly opens the journal in dir (WORK/plyfs) for reading and changes nothing,
// not even to finish what a crash left. It gives [ErrLocked] for the journal of a live
// mount, fs.ErrNotExist if there is none, and refuses like [Open] otherwise.
func OpenReadOnly(dir string) (*Snapshot, error) {
	logs, err := openLogsOnly(dir, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{dir: dir, logs: logs}
	if err := s.load(); err != nil {
		s.Close() //nolint:errcheck // nothing was written
		return nil, err
	}
	return s, nil
}

// openLogsOnly opens both logs for reading and takes the journal's lock.
func openLogsOnly(dir string, how int) (logs [2]*logFile, err error) {
	if _, err := os.Lstat(dbPath(dir)); errors.Is(err, fs.ErrNotExist) {
		return logs, &Error{File: dbPath(dir), What: "there is no journal", Err: err,
			Mend: "name the workdir of a mount that had an upperdir"}
	}
	for i, name := range []string{logName, altName} {
		if logs[i], err = openLog(filepath.Join(dir, name), os.O_RDONLY); err == nil && i == 0 {
			err = lockFile(logs[0].f, how)
		}
		if err != nil {
			closeLogs(logs)
			return logs, err
		}
	}
	return logs, nil
}

// load verifies the database, opens it, and reads the logs.
func (s *Snapshot) load() error {
	found, err := verifyDB(dbPath(s.dir), nil)
	if err != nil {
		return err
	}
	s.meta, s.state = found.layers, found.state
	if _, s.add, err = replay(found.state, s.logs); err != nil {
		return err
	}
	s.db, err = openBolt(dbPath(s.dir), true, false)
	return err
}

// read runs fn on a view of the snapshot.
func (s *Snapshot) read(fn func(*view) error) error {
	v := view{path: dbPath(s.dir), deltas: []*delta{s.add}}
	err := guard(v.path, func() (err error) {
		v.tx, err = s.db.Begin(false)
		return err
	})
	if err != nil {
		return err
	}
	return v.run(fn)
}

// Meta gives the layers as they were when the journal was made.
func (s *Snapshot) Meta() Meta { return s.meta }

// LoadDir is [Journal.LoadDir].
func (s *Snapshot) LoadDir(id DirID) (names map[string]struct{}, err error) {
	err = s.read(func(v *view) error {
		names, err = v.names(id)
		return err
	})
	return names, err
}

// LoadLinks is [Journal.LoadLinks].
func (s *Snapshot) LoadLinks() (links map[Origin]Links, err error) {
	err = s.read(func(v *view) error {
		links, err = v.links()
		return err
	})
	return links, err
}

// Dump is [Journal.Dump].
func (s *Snapshot) Dump(w io.Writer) error {
	return s.read(func(v *view) error { return dump(w, s.meta, v) })
}

// Close gives the lock back.
func (s *Snapshot) Close() error {
	var err error
	if s.db != nil {
		err = s.db.close()
	}
	closeLogs(s.logs)
	return err
}
