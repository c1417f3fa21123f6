// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Open opens the journal in dir (WORK/plyfs), or makes a new one there for the layers
// of meta, and locks it. It refuses with [ErrLocked], [ErrLayerSet], [ErrNewer],
// [ErrDamaged] or [ErrReadOnlyFS], all of them an [*Error], and changes nothing then.
func Open(dir string, meta Meta, o Options) (*Journal, error) {
	o.setDefaults()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, ioError(dir, "the journal's directory cannot be made", err)
	}
	logs, fresh, err := openLogs(dir, &o)
	if err != nil {
		return nil, err
	}
	j := &Journal{dir: dir, opts: o, log: o.Logger, active: logs[0], spare: logs[1],
		cur: newDelta(), kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	if err := j.start(meta, fresh); err != nil {
		return nil, errors.Join(err, j.release())
	}
	go j.foldLoop()
	return j, nil
}

// openLogs opens both logs, and locks the first for all of the journal. fresh: there
// is no database yet.
func openLogs(dir string, o *Options) (logs [2]*logFile, fresh bool, err error) {
	_, err = os.Lstat(dbPath(dir))
	fresh = errors.Is(err, fs.ErrNotExist)
	flags := os.O_RDWR
	if fresh {
		flags |= os.O_CREATE
	} else if err != nil {
		return logs, false, ioError(dbPath(dir), "the journal cannot be opened", err)
	}
	for i, name := range []string{logName, altName} {
		if logs[i], err = openLog(filepath.Join(dir, name), flags); err == nil && i == 0 {
			err = lockFile(logs[0].f, unix.LOCK_EX)
		}
		if err != nil {
			closeLogs(logs)
			return logs, false, err
		}
		o.at(cutLogMade)
	}
	// Another process may have made the database before it gave the lock back.
	_, err = os.Lstat(dbPath(dir))
	return logs, errors.Is(err, fs.ErrNotExist), nil
}

func openLog(path string, flags int) (*logFile, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged(path, "its log is missing")
	}
	if err != nil {
		return nil, ioError(path, "the journal cannot be opened", err)
	}
	return &logFile{f: f}, nil
}

func closeLogs(logs [2]*logFile) {
	for _, l := range logs {
		if l != nil {
			l.f.Close()
		}
	}
}

// start reads what is there, or makes it, and begins an epoch.
func (j *Journal) start(meta Meta, fresh bool) error {
	logs := [2]*logFile{j.active, j.spare}
	if fresh {
		if err := j.create(logs, meta); err != nil {
			return err
		}
	}
	found, err := verifyDB(j.dbPath(), nil)
	if err != nil {
		return err
	}
	if err := compareLayers(j.dbPath(), found.layers, meta); err != nil {
		return err
	}
	j.meta, j.state = found.layers, found.state
	r, d, err := replay(found.state, logs)
	if err != nil {
		return err
	}
	if j.db, err = openBolt(j.dbPath(), false, j.opts.NoSync); err != nil {
		return err
	}
	return j.begin(logs, r, d)
}

// create makes the database. Its name appears last, so a log without a database is
// either empty or has lost it.
func (j *Journal) create(logs [2]*logFile, meta Meta) error {
	for _, l := range logs {
		fi, err := l.f.Stat()
		if err != nil {
			return ioError(l.path(), "the journal cannot be read", err)
		}
		if fi.Size() > 0 {
			return damaged(j.dbPath(), "it is missing although its log %s is there", l.path())
		}
	}
	if err := syncDir(j.dir); err != nil {
		return err
	}
	j.opts.at(cutLogsNamed)
	return createDB(j.dir, meta, &j.opts)
}

// replay reads both logs and gives what they add to a database in state s.
func replay(s state, logs [2]*logFile) (recovered, *delta, error) {
	scans := make([]logScan, 0, len(logs))
	for _, l := range logs {
		data, err := l.readAll()
		if err != nil {
			return recovered{}, nil, ioError(l.path(), "the journal cannot be read", err)
		}
		scans = append(scans, scanLog(l.path(), data, s.epoch))
	}
	r, err := recoverLogs(s.seq, s.epoch, scans)
	if err != nil {
		return r, nil, err
	}
	d := newDelta()
	for _, f := range r.frames {
		ops, err := decodeOps(f.payload)
		if err != nil {
			return r, nil, damaged(logs[0].path(), "record %d cannot be understood (%v)", f.seq, err)
		}
		d.add(ops)
	}
	return r, d, nil
}

// begin folds what the logs held, starts a new epoch and empties the logs. Up to the
// commit nothing has changed; after it the frames of the old epoch mean nothing.
func (j *Journal) begin(logs [2]*logFile, r recovered, d *delta) error {
	next := j.state
	next.epoch = (next.epoch>>32+1)<<32 | uint64(rand.Uint32())
	next.seq = r.seq
	reserved := max(next.reserved, d.reserved)
	next.reserved = reserved + idBlock
	if err := j.commit(d, &next); err != nil {
		return ioError(j.dbPath(), "the journal cannot be written", err)
	}
	j.opts.at(cutEpochBegun)
	j.state, j.tallies, j.epoch, j.seq, j.opSeq = next, next.tallies, next.epoch, next.seq, next.seq
	j.nextID, j.reserved = reserved+1, next.reserved
	if !j.opts.NoSync {
		j.durable = next.seq
	}
	for _, l := range logs {
		l.torn = true // what it holds goes now, or before the first frame
		_ = l.cutBack()
		j.opts.at(cutLogEmptied)
	}
	j.mark()
	if len(r.frames) > 0 || r.lost > 0 {
		j.log.Info("journal replayed", slog.Int("frames", len(r.frames)), slog.Int("records", d.ops), slog.Int("unsynced frames lost", r.lost))
	}
	return nil
}

// Close makes everything durable, folds the log, and gives the lock back. A log that
// cannot be folded for want of space is no error: it is durable and folded at the
// next Open. Further calls give [ErrClosed].
func (j *Journal) Close() error {
	j.mu.Lock()
	closing := j.closing
	j.closing = true
	j.mu.Unlock()
	if closing {
		return ErrClosed
	}
	close(j.quit)
	<-j.done
	err := j.Sync()
	for range 2 { // a log that an earlier fold left frozen, then the active one
		if ferr := j.fold(); ferr != nil {
			j.log.Warn("journal not folded", "error", ferr)
			break
		}
	}
	j.foldMu.Lock()
	defer j.foldMu.Unlock()
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil && j.failed != nil {
		err = j.failed
	}
	j.closed = true
	if rerr := j.release(); err == nil {
		err = rerr
	}
	return err
}

// release closes all files, which gives the locks back.
func (j *Journal) release() error {
	var err error
	if j.db != nil {
		err = j.db.close()
	}
	closeLogs([2]*logFile{j.spare, j.active})
	return err
}
