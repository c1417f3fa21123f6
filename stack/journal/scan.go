// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// logScan is what one log file holds of the epoch asked for.
type logScan struct {
	path  string
	first uint64  // epoch of the frame at the front of the file, whichever; 0 if none
	run   []frame // sound frames from the front, numbered without gaps
	end   int     // offset where the run ends
	later []frame // sound frames after that with higher numbers
	hole  bool    // what lies between run and later looks like blocks never written
}

// scanLog reads a whole log file. Nothing is an error here: whether a bad place
// matters is for [recoverLogs] to say.
func scanLog(path string, data []byte, epoch uint64) logScan {
	s := logScan{path: path}
	if f, ok := parseFrame(data); ok {
		s.first = f.epoch
	}
	for {
		f, ok := parseFrame(data[s.end:])
		if !ok || f.epoch != epoch || (len(s.run) > 0 && f.seq != s.run[len(s.run)-1].seq+1) {
			break
		}
		s.run = append(s.run, f)
		s.end += f.size()
	}
	s.findLater(data, epoch)
	return s
}

// findLater looks for sound frames behind the end of the run. Frames with lower
// numbers are leftovers of an earlier use of the file.
func (s *logScan) findLater(data []byte, epoch uint64) {
	var last uint64
	if n := len(s.run); n > 0 {
		last = s.run[n-1].seq
	}
	magic := binary.LittleEndian.AppendUint32(nil, frameMagic)
	for off := s.end; ; {
		i := bytes.Index(data[off:], magic)
		if i < 0 {
			return
		}
		off += i
		f, ok := parseFrame(data[off:])
		if !ok || f.epoch != epoch || f.seq <= last {
			off++
			continue
		}
		if len(s.later) == 0 {
			s.hole = looksUnwritten(data, s.end, off)
		}
		s.later = append(s.later, f)
		off += f.size()
	}
}

// looksUnwritten reports whether data[from:to] is explained by a block that never
// reached the disk: zeros up to a block boundary. After a power cut the file may
// have its later blocks and its size but not an earlier one. A flipped bit or an
// overwritten place does not look like that.
func looksUnwritten(data []byte, from, to int) bool {
	const block, enough = 512, 16
	for b := (from/block + 1) * block; b <= to; b += block {
		start := max(from, b-enough)
		if len(bytes.TrimLeft(data[start:b], "\x00")) == 0 {
			return true
		}
	}
	return false
}

// recovered is what the logs add to the database.
type recovered struct {
	frames []frame // in order, without gaps, after the database's sequence
	seq    uint64  // number of the last of them, or the database's
	lost   int     // frames that were never synced and are not complete: not done
}

// recoverLogs decides what of both logs counts, for a database that holds all
// frames up to seq. It refuses logs that miss something that was durable.
func recoverLogs(seq, epoch uint64, scans []logScan) (recovered, error) {
	for i := range scans {
		if err := checkEpoch(&scans[i], epoch); err != nil {
			return recovered{}, err
		}
	}
	slices.SortStableFunc(scans, func(a, b logScan) int { return cmp.Compare(a.order(), b.order()) })
	r := recovered{seq: seq}
	for i := range scans {
		for _, f := range scans[i].run {
			if f.seq == r.seq+1 {
				r.frames = append(r.frames, f)
				r.seq++
			}
		}
	}
	for i := range scans {
		if err := r.judge(&scans[i]); err != nil {
			return recovered{}, err
		}
	}
	return r, nil
}

// order puts the log with the lower numbers first, an empty one last.
func (s *logScan) order() uint64 {
	if len(s.run) == 0 {
		return ^uint64(0)
	}
	return s.run[0].seq
}

// judge looks at the frames of s that come after a missing one.
func (r *recovered) judge(s *logScan) error {
	missing := r.seq + 1
	bad := func(f *frame) error {
		if f.durable >= missing {
			return damaged(s.path, "record %d is missing although it had been written durably (record %d says so)", missing, f.seq)
		}
		if f.seq > missing {
			r.lost++
		}
		return nil
	}
	for i := range s.run {
		if err := bad(&s.run[i]); err != nil {
			return err
		}
	}
	for i := range s.later {
		f := &s.later[i]
		if err := bad(f); err != nil {
			return err
		}
		if f.seq >= missing && !s.hole {
			return damaged(s.path, "the bytes at offset %d are not what was written, and sound records follow them", s.end)
		}
	}
	return nil
}

// checkEpoch refuses a log that is newer than the database.
func checkEpoch(s *logScan, epoch uint64) error {
	if s.first == 0 || s.first == epoch || s.first>>32 < epoch>>32 {
		return nil
	}
	return damaged(s.path, "it was written for a newer %s than the one beside it (opening %d against %d)",
		DBName, s.first>>32, epoch>>32)
}
