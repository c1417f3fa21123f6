// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// A frame is the unit of the log: all ops of one Apply. Little endian.
//
//	 0        4        8        12       16                24                32                40
//	+--------+--------+--------+--------+-----------------+-----------------+-----------------+---------
//	| magic  | crc32c | length | 0      | epoch           | sequence        | durable         | ops ...
//	+--------+--------+--------+--------+-----------------+-----------------+-----------------+---------
//
//	crc32c    of everything after it: bytes 8 to 40+length
//	length    of the ops, in bytes; 0 in a mark
//	epoch     of the opening that wrote it: counter << 32 | random
//	sequence  one more than that of the frame before, over both log files
//	durable   the frame of this number, and all before it, were durable when this
//	          one was written
//
// The random part of the epoch also keeps a user from putting something into a
// file name that would pass for a frame.
const (
	frameMagic  = 0x314a4c50 // "PLJ1"; the digit is the version of the frame
	frameHeader = 40
	// maxPayload bounds what one Apply writes and what a reader believes.
	maxPayload = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is the header of a frame and a view of its payload.
type frame struct {
	epoch   uint64
	seq     uint64
	durable uint64
	payload []byte
}

// size is the frame's length on disk.
func (f *frame) size() int { return frameHeader + len(f.payload) }

// sealFrame fills in the header of b, whose payload begins at frameHeader.
func sealFrame(b []byte, epoch, seq, durable uint64) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], frameMagic)
	le.PutUint32(b[8:], uint32(len(b)-frameHeader))
	le.PutUint32(b[12:], 0)
	le.PutUint64(b[16:], epoch)
	le.PutUint64(b[24:], seq)
	le.PutUint64(b[32:], durable)
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
}

// parseFrame reads the frame at the front of b; false if there is no whole and
// sound one.
func parseFrame(b []byte) (frame, bool) {
	le := binary.LittleEndian
	if len(b) < frameHeader || le.Uint32(b) != frameMagic || le.Uint32(b[12:]) != 0 {
		return frame{}, false
	}
	n := le.Uint32(b[8:])
	if n > maxPayload || uint64(n) > uint64(len(b)-frameHeader) {
		return frame{}, false
	}
	end := frameHeader + int(n)
	if crc32.Checksum(b[8:end], castagnoli) != le.Uint32(b[4:]) {
		return frame{}, false
	}
	return frame{
		epoch:   le.Uint64(b[16:]),
		seq:     le.Uint64(b[24:]),
		durable: le.Uint64(b[32:]),
		payload: b[frameHeader:end],
	}, true
}
