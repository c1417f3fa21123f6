// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"log/slog"
	"path/filepath"
	"sync"
)

// Journal is the open journal of a live mount. All methods may be called from many
// goroutines.
type Journal struct {
	dir  string
	opts Options
	log  *slog.Logger
	meta Meta
	db   *store

	foldMu sync.Mutex // one fold at a time; guards state
	state  state      // what the database holds

	idMu   sync.Mutex // one reservation of ids at a time; taken before syncMu
	syncMu sync.Mutex // one fdatasync of the logs at a time

	mu        sync.RWMutex
	active    *logFile
	spare     *logFile // frozen, or empty
	cur       *delta   // of the active log
	frozen    *delta   // of the spare log while it is frozen, else nil
	frozenSeq uint64   // number of the frozen log's last frame
	epoch     uint64
	seq       uint64 // number of the last frame
	opSeq     uint64 // number of the last frame with records
	durable   uint64 // all frames up to this one are durable
	nextID    DirID
	reserved  DirID // highest id that may be handed out
	tallies   [bucketKinds]tally
	buf       []byte // for encoding
	failed    error  // a sync that failed: nothing is accepted any more
	lastErr   error
	folds     uint64
	syncs     uint64
	closing   bool
	closed    bool

	kick chan struct{} // wakes the folder
	quit chan struct{} // ends it
	done chan struct{} // it has ended
}

// Meta gives the layers as they were when the journal was made.
func (j *Journal) Meta() Meta {
	m := j.meta
	m.Lowers = append([]LayerID(nil), m.Lowers...)
	return m
}

func (j *Journal) dbPath() string { return filepath.Join(j.dir, DBName) }

// usable says why the journal takes no change, under mu.
func (j *Journal) usable() error {
	if j.closed {
		return ErrClosed
	}
	return j.failed
}

// fail makes the journal refuse all further changes: after a failed fsync the kernel
// may have dropped the dirty pages, and a later fsync would report success for data
// that is not on the disk.
func (j *Journal) fail(file string, err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed == nil {
		j.failed = &Error{File: file, Err: errIO(err),
			What: "the journal stopped because what it wrote may not be on the disk",
			Mend: "look for disk errors in the kernel log, then unmount and mount again"}
		j.lastErr = j.failed
		j.log.Error("journal stopped", "file", file, "error", err)
	}
	return j.failed
}
