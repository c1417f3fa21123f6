// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"golang.org/x/sys/unix"
)

// Sync makes all that was applied before the call durable. It costs nothing when
// nothing was applied since the last one, and callers that come while one fdatasync
// runs share the next. It does nothing for a volatile journal. After a failed sync
// every call fails with EIO.
func (j *Journal) Sync() error {
	j.mu.RLock()
	want, err := j.opSeq, j.usable()
	clean := j.durable >= want
	j.mu.RUnlock()
	if err != nil || clean || j.opts.NoSync {
		return err
	}
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	return j.syncLogs(want)
}

// syncLogs syncs the logs under syncMu, unless someone did meanwhile.
func (j *Journal) syncLogs(want uint64) error {
	j.mu.RLock()
	err, seq := j.usable(), j.opSeq
	clean := j.durable >= want
	files := []*logFile{j.active}
	if j.frozen != nil && j.frozenSeq > j.durable {
		files = []*logFile{j.spare, j.active}
	}
	j.mu.RUnlock()
	if err != nil || clean {
		return err
	}
	for _, l := range files {
		if err := fdatasync(l); err != nil {
			return j.fail(l.path(), err)
		}
		j.opts.at(cutLogSynced)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.syncs++
	j.durable = max(j.durable, seq)
	return nil
}

// fdatasync is a variable for tests that make it fail.
var fdatasync = func(l *logFile) error {
	for {
		if err := unix.Fdatasync(int(l.f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

// Dirty reports whether Sync has something to do.
func (j *Journal) Dirty() bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return !j.opts.NoSync && j.durable < j.opSeq
}
