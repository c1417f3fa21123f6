// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// foldLoop is the background folder.
func (j *Journal) foldLoop() {
	defer close(j.done)
	var tick <-chan time.Time
	if j.opts.FoldInterval > 0 {
		t := time.NewTicker(j.opts.FoldInterval)
		defer t.Stop()
		tick = t.C
	}
	for warned := false; ; {
		select {
		case <-j.quit:
			return
		case <-tick:
		case <-j.kick:
		}
		err := j.fold()
		if err != nil && !warned {
			j.log.Warn("journal not folded, its log goes on growing", "error", err)
		}
		warned = err != nil
	}
}

// fold moves the records of the active log into the database; see the package
// comment for the steps and what a crash between them leaves. It does nothing if
// there are none. If it fails for want of space the log stays frozen and the next
// fold takes it up again.
func (j *Journal) fold() error {
	j.foldMu.Lock()
	defer j.foldMu.Unlock()
	next, d, err := j.freeze()
	if err != nil || d == nil {
		return err
	}
	j.opts.at(cutFrozen)
	if err := j.commit(d, &next); err != nil {
		return j.foldFailed(err)
	}
	j.opts.at(cutFolded)
	j.state = next
	truncated := j.truncateSpare()
	j.opts.at(cutFrozenEmpty)
	j.thaw(truncated)
	return nil
}

// freeze makes the active log the frozen one, unless one is frozen already, and gives
// its delta and the state to commit with it. The delta is nil if there is nothing to
// do.
func (j *Journal) freeze() (state, *delta, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return state{}, nil, err
	}
	if j.frozen == nil {
		if j.cur.ops == 0 {
			return state{}, nil, nil
		}
		j.active, j.spare = j.spare, j.active
		j.frozen, j.cur = j.cur, newDelta()
		j.frozenSeq = j.seq
	}
	next := j.state
	next.seq = j.frozenSeq
	next.reserved = max(next.reserved, j.frozen.reserved, j.reserved, j.nextID+idBlock)
	return next, j.frozen, nil
}

// truncateSpare empties the frozen log's file, which takes too long for mu. Only a
// fold changes which log that is.
func (j *Journal) truncateSpare() error {
	j.mu.RLock()
	f := j.spare.f
	j.mu.RUnlock()
	return f.Truncate(0)
}

// thaw ends a fold whose records are in the database. If its log could not be
// truncated, its frames are ignored by their number, and it is tried again before the
// next frame is written there.
func (j *Journal) thaw(truncated error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spare.size, j.spare.torn = 0, truncated != nil
	j.frozen = nil
	j.folds++
	j.tallies = j.state.tallies
	j.reserved = max(j.reserved, j.state.reserved)
	if !j.opts.NoSync {
		j.durable = max(j.durable, j.frozenSeq)
	}
	j.mark()
}

// mark writes a frame without records, whose header says what is durable. It is only
// a witness against a database that lost its newest commit: if it cannot be written
// nothing else suffers.
func (j *Journal) mark() { _ = j.writeFrame(nil) }

// foldFailed tells a want of space before anything was synced, which may pass, from a
// failure after which the database cannot be trusted.
func (j *Journal) foldFailed(err error) error {
	var pe *fs.PathError
	if (errors.As(err, &pe) && isSpace(err)) || strings.HasPrefix(err.Error(), "file resize error") {
		err = ioError(j.dbPath(), "the journal cannot be written", err)
		j.mu.Lock()
		j.lastErr = err
		j.mu.Unlock()
		return err
	}
	return j.fail(j.dbPath(), err)
}

// commit writes d and next in one transaction, and the tallies into next.
func (j *Journal) commit(d *delta, next *state) error {
	return j.db.update(func(tx *bbolt.Tx) error {
		w := writer{tallies: &next.tallies}
		for kind, name := range bucketNames {
			w.buckets[kind] = tx.Bucket([]byte(name))
		}
		if err := w.delta(d); err != nil {
			return err
		}
		return putMeta(tx, stateKey, next.encode())
	})
}

// writer puts records into their buckets and keeps the account.
type writer struct {
	buckets [bucketKinds]*bbolt.Bucket
	tallies *[bucketKinds]tally
}

// delta writes d, in the order of the keys.
func (w *writer) delta(d *delta) error {
	for _, id := range slices.Sorted(maps.Keys(d.dirs)) {
		if err := w.dir(id, d.dirs[id]); err != nil {
			return err
		}
	}
	for _, o := range slices.SortedFunc(maps.Keys(d.links), compareOrigins) {
		l, key := d.links[o], linksKey(o)
		if l.gone {
			if err := w.remove(bucketLinks, key); err != nil {
				return err
			}
		} else if err := w.put(bucketLinks, key, linksPayload(l.Links)); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) dir(id DirID, dd *dirDelta) error {
	if dd.dropped {
		if err := w.dropDir(id); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dd.names)) {
		change := w.remove
		if dd.names[name] {
			change = func(kind bucketKind, key []byte) error { return w.put(kind, key, nil) }
		}
		if err := change(bucketCover, coverKey(id, name)); err != nil {
			return err
		}
	}
	switch {
	case dd.note == nil:
		return nil
	case *dd.note == DirNote{}:
		return w.remove(bucketNote, dirKey(id))
	default:
		return w.put(bucketNote, dirKey(id), appendNote(nil, *dd.note))
	}
}

// dropDir removes all records of a directory. The keys are collected first: a cursor
// is not to be moved over what is deleted.
func (w *writer) dropDir(id DirID) error {
	prefix := dirKey(id)
	var keys [][]byte
	c := w.buckets[bucketCover].Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, key := range keys {
		if err := w.remove(bucketCover, key); err != nil {
			return err
		}
	}
	return w.remove(bucketNote, prefix)
}

func (w *writer) put(kind bucketKind, key, payload []byte) error {
	value := seal(bucketNames[kind], key, payload)
	if old := w.buckets[kind].Get(key); old != nil {
		if bytes.Equal(old, value) {
			return nil
		}
		w.tallies[kind].sub(old)
	}
	w.tallies[kind].add(value)
	return w.buckets[kind].Put(key, value)
}

func (w *writer) remove(kind bucketKind, key []byte) error {
	old := w.buckets[kind].Get(key)
	if old == nil {
		return nil
	}
	w.tallies[kind].sub(old)
	return w.buckets[kind].Delete(key)
}

func compareOrigins(a, b Origin) int {
	return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Ino, b.Ino))
}
