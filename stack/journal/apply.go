// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"fmt"
	"syscall"
)

// maxKeptBuffer is the largest encoding buffer that is kept for the next call.
const maxKeptBuffer = 256 << 10

// Apply makes the changes, all or none. When it returns nil they are visible to the
// Load functions and survive the death of the process; after [Journal.Sync] they
// survive a power cut. The upper entry that a record leaves standing must be durable
// before, since records may become durable at any time after Apply.
//
// An error leaves the journal as it was. ENOSPC, EDQUOT and EIO of the write pass, and
// later calls work once there is space; EIO after a failed sync stays. EINVAL is for
// a name that is none or a directory id of 0, E2BIG for more than 16 MiB at once.
func (j *Journal) Apply(ops ...Op) error {
	if len(ops) == 0 {
		return nil
	}
	for i := range ops {
		if err := ops[i].validate(); err != nil {
			return err
		}
	}
	full, err := j.applyLocked(ops)
	if full {
		select {
		case j.kick <- struct{}{}:
		default:
		}
	}
	return err
}

// applyLocked writes ops under mu and reports whether the log should be folded.
func (j *Journal) applyLocked(ops []Op) (full bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return false, err
	}
	if err := j.writeFrame(ops); err != nil {
		return false, err
	}
	j.opSeq = j.seq
	j.cur.add(ops)
	return j.frozen == nil && j.active.size >= j.opts.FoldBytes, nil
}

// writeFrame appends a frame to the active log, under mu.
func (j *Journal) writeFrame(ops []Op) error {
	b := append(j.buf[:0], make([]byte, frameHeader)...)
	for i := range ops {
		b = ops[i].append(b)
	}
	if j.buf = b; cap(b) > maxKeptBuffer {
		j.buf = nil
	}
	if len(b)-frameHeader > maxPayload {
		return fmt.Errorf("journal: %d records at once: %w", len(ops), syscall.E2BIG)
	}
	sealFrame(b, j.epoch, j.seq+1, j.durable)
	if err := j.active.append(b); err != nil {
		j.lastErr = ioError(j.active.path(), "the journal cannot be written", err)
		return j.lastErr
	}
	j.opts.at(cutFrame)
	j.seq++
	return nil
}
