// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"encoding/binary"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A log that was cut off between two frames looks like one that never had more.
// So what is durable is also said in another place: in an xattr of the journal's
// directory, written after each sync.
//
//	 0         8         16
//	+---------+---------+
//	| epoch   | durable |   little endian
//	+---------+---------+
//
// It never says more than is true: it is written after the sync, without one of its
// own. A journal whose database and logs, all together, were replaced by older ones
// is found out by it, too. Where it cannot be written or read, nothing depends on it.
const witnessAttr = "trusted.plyfs.durable"

const witnessBytes = 16

// testify writes the witness, under mu.
func (j *Journal) testify() {
	if j.opts.NoSync {
		return
	}
	b := binary.LittleEndian.AppendUint64(nil, j.epoch)
	b = binary.LittleEndian.AppendUint64(b, j.durable)
	_ = unix.Setxattr(j.dir, witnessAttr, b, 0)
}

// checkWitness refuses a journal that has lost what was durable. epoch is that of the
// database, seq the number of the last frame found.
func checkWitness(dir string, epoch, seq uint64) error {
	b := make([]byte, witnessBytes)
	if n, err := unix.Getxattr(dir, witnessAttr, b); err != nil || n != witnessBytes {
		return nil
	}
	said, durable := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	switch {
	case said>>32 > epoch>>32:
		return damaged(filepath.Join(dir, DBName), "it is older than the last mount (opening %d against %d)", epoch>>32, said>>32)
	case said == epoch && durable > seq:
		return damaged(filepath.Join(dir, logName), "records up to %d had been written durably, and its logs end at %d", durable, seq)
	}
	return nil
}
