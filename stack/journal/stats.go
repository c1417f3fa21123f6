// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

// Stats says how the journal is doing.
type Stats struct {
	Covers uint64 // records by kind, with those in the log only
	Links  uint64
	Notes  uint64

	LogBytes int64  // of both logs
	DBBytes  int64  // of the database file
	Folds    uint64 // since Open
	Syncs    uint64 // fdatasync rounds of the logs since Open
	Dirty    bool   // Sync has something to do
	LastErr  error  // the last failure to write, nil if there was none
	Failed   bool   // a sync failed: no change is accepted until the next mount
}

// Stats gives the counters. It looks each record that is only in the log up in the
// database, so it is not for a hot path.
func (j *Journal) Stats() Stats {
	j.mu.RLock()
	s := Stats{LogBytes: j.active.size + j.spare.size, Folds: j.folds, Syncs: j.syncs,
		Dirty: !j.opts.NoSync && j.durable < j.opSeq, LastErr: j.lastErr, Failed: j.failed != nil}
	j.mu.RUnlock()
	err := j.read((*delta).clone, func(v *view) error {
		n, err := v.counts()
		s.Covers, s.Links, s.Notes = n[bucketCover], n[bucketLinks], n[bucketNote]
		s.DBBytes = v.tx.Size()
		return err
	})
	if err != nil && s.LastErr == nil {
		s.LastErr = err
	}
	return s
}

// counts gives the number of records by kind: the database's own account, corrected by
// what the logs change.
func (v *view) counts() (n [bucketKinds]uint64, err error) {
	payload, ok := unseal(metaBucket, []byte(stateKey), v.tx.Bucket([]byte(metaBucket)).Get([]byte(stateKey)))
	if !ok {
		return n, damaged(v.path, "its state is bad")
	}
	st, err := decodeState(v.path, payload)
	if err != nil {
		return n, err
	}
	for kind, t := range st.tallies {
		n[kind] = t.records
	}
	for id, dd := range mergeDirs(v.deltas) {
		if err := v.countDir(&n, id, dd); err != nil {
			return n, err
		}
	}
	links := make(map[Origin]bool)
	for _, d := range v.deltas {
		for o, l := range d.links {
			links[o] = !l.gone
		}
	}
	for o, now := range links {
		adjust(&n[bucketLinks], v.bucket(bucketLinks).Get(linksKey(o)) != nil, now)
	}
	return n, nil
}

// countDir corrects n by the change of one directory.
func (v *view) countDir(n *[bucketKinds]uint64, id DirID, dd *dirDelta) error {
	if dd.dropped {
		if err := v.each(bucketCover, dirKey(id), func(*Op) { n[bucketCover]-- }); err != nil {
			return err
		}
	}
	for name, now := range dd.names {
		before := !dd.dropped && v.bucket(bucketCover).Get(coverKey(id, name)) != nil
		adjust(&n[bucketCover], before, now)
	}
	before := v.bucket(bucketNote).Get(dirKey(id)) != nil
	now := before && !dd.dropped
	if dd.note != nil {
		now = *dd.note != DirNote{}
	}
	adjust(&n[bucketNote], before, now)
	return nil
}

// adjust counts a record that was there before and is or is not there now.
func adjust(n *uint64, before, now bool) {
	switch {
	case now && !before:
		*n++
	case before && !now:
		*n--
	}
}

// mergeDirs gives the changes of all directories over several deltas, oldest first.
func mergeDirs(deltas []*delta) map[DirID]*dirDelta {
	out := make(map[DirID]*dirDelta)
	for _, d := range deltas {
		for id, dd := range d.dirs {
			if old := out[id]; old != nil {
				out[id] = old.clone()
				out[id].merge(dd)
			} else {
				out[id] = dd
			}
		}
	}
	return out
}
