// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// The database. Keys are big endian so that the order of keys is that of numbers;
// each value begins with a CRC32C (big endian) over the bucket's name, the key and
// the rest of the value.
//
//	bucket  key                       value after the CRC
//	meta    "state"                   format(4) epoch(8) sequence(8) reserved(8)
//	                                  { records(8) sum(8) } of cover, links, note
//	meta    "layers"                  Meta as JSON
//	cover   dir(8) name               nothing
//	links   layer(4) ino(8)           nlink(4) gone(4)
//	note    dir(8)                    as in a frame, see appendNote
//
//	format    version of all of this; higher than ours is [ErrNewer]
//	epoch     of the last opening, see frame.go
//	sequence  all frames up to this one are in the database
//	reserved  highest directory id that may have been handed out
//	records   how many there are in the bucket
//	sum       of their CRCs, modulo 2^64: tells of records that vanished
const formatVersion = 1

// bucketKind indexes the record buckets.
type bucketKind int

const (
	bucketCover bucketKind = iota
	bucketLinks
	bucketNote
	bucketKinds
)

var bucketNames = [bucketKinds]string{"cover", "links", "note"}

const (
	metaBucket = "meta"
	stateKey   = "state"
	layersKey  = "layers"
	crcSize    = 4
)

// tally is the account of a record bucket.
type tally struct{ records, sum uint64 }

func (t *tally) add(value []byte) { t.records++; t.sum += uint64(valueCRC(value)) }
func (t *tally) sub(value []byte) { t.records--; t.sum -= uint64(valueCRC(value)) }

func valueCRC(value []byte) uint32 { return binary.BigEndian.Uint32(value) }

// state is the value of meta "state".
type state struct {
	epoch    uint64
	seq      uint64
	reserved DirID
	tallies  [bucketKinds]tally
}

const stateSize = 4 + 3*8 + int(bucketKinds)*16

func (s *state) encode() []byte {
	be := binary.BigEndian
	b := be.AppendUint32(make([]byte, 0, stateSize), formatVersion)
	b = be.AppendUint64(b, s.epoch)
	b = be.AppendUint64(b, s.seq)
	b = be.AppendUint64(b, uint64(s.reserved))
	for _, t := range s.tallies {
		b = be.AppendUint64(b, t.records)
		b = be.AppendUint64(b, t.sum)
	}
	return b
}

// decodeState reads the payload of meta "state" of the database at path.
func decodeState(path string, b []byte) (state, error) {
	be := binary.BigEndian
	if len(b) < 4 {
		return state{}, damaged(path, "its state has %d bytes", len(b))
	}
	if v := be.Uint32(b); v > formatVersion {
		return state{}, &Error{Kind: ErrNewer, File: path,
			What: fmt.Sprintf("the journal has format %d, this plyfs knows formats up to %d", v, formatVersion),
			Mend: "mount with the plyfs that made it, or a later one"}
	}
	if len(b) != stateSize {
		return state{}, damaged(path, "its state has %d bytes instead of %d", len(b), stateSize)
	}
	s := state{epoch: be.Uint64(b[4:]), seq: be.Uint64(b[12:]), reserved: DirID(be.Uint64(b[20:]))}
	for i := range s.tallies {
		t := b[28+16*i:]
		s.tallies[i] = tally{records: be.Uint64(t), sum: be.Uint64(t[8:])}
	}
	return s, nil
}

// seal puts the CRC in front of payload.
func seal(bucket string, key, payload []byte) []byte {
	out := binary.BigEndian.AppendUint32(make([]byte, 0, crcSize+len(payload)), recordCRC(bucket, key, payload))
	return append(out, payload...)
}

// unseal checks the CRC of a value and gives the rest.
func unseal(bucket string, key, value []byte) ([]byte, bool) {
	if len(value) < crcSize || valueCRC(value) != recordCRC(bucket, key, value[crcSize:]) {
		return nil, false
	}
	return value[crcSize:], true
}

func recordCRC(bucket string, key, payload []byte) uint32 {
	crc := bucketCRC(bucket)
	crc = crc32.Update(crc, castagnoli, key)
	return crc32.Update(crc, castagnoli, payload)
}

// bucketCRC is the CRC of a bucket's name, without an allocation for the known ones.
func bucketCRC(bucket string) uint32 {
	if crc, ok := bucketCRCs[bucket]; ok {
		return crc
	}
	return crc32.Checksum([]byte(bucket), castagnoli)
}

var bucketCRCs = func() map[string]uint32 {
	m := map[string]uint32{metaBucket: crc32.Checksum([]byte(metaBucket), castagnoli)}
	for _, name := range bucketNames {
		m[name] = crc32.Checksum([]byte(name), castagnoli)
	}
	return m
}()

func dirKey(d DirID) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, 8), uint64(d))
}

func coverKey(d DirID, name string) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(name)), uint64(d)), name...)
}

func linksKey(o Origin) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 12), o.Layer)
	return binary.BigEndian.AppendUint64(b, o.Ino)
}

func linksPayload(l Links) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 8), l.Nlink)
	return binary.BigEndian.AppendUint32(b, l.Gone)
}

// decodeRecord gives a stored record as the op that would make it; false if it is
// none.
func decodeRecord(kind bucketKind, key, value []byte) (Op, bool) {
	payload, ok := unseal(bucketNames[kind], key, value)
	if !ok {
		return Op{}, false
	}
	be := binary.BigEndian
	var o Op
	switch {
	case kind == bucketCover && len(key) > 8 && len(payload) == 0:
		o = Cover(DirID(be.Uint64(key)), string(key[8:]))
	case kind == bucketLinks && len(key) == 12 && len(payload) == 8:
		o = SetLinks(Origin{Layer: be.Uint32(key), Ino: be.Uint64(key[4:])},
			Links{Nlink: be.Uint32(payload), Gone: be.Uint32(payload[4:])})
	case kind == bucketNote && len(key) == 8:
		d := decoder{b: payload}
		o = NoteDir(DirID(be.Uint64(key)), d.note())
		if d.err != nil || len(d.b) != 0 {
			return Op{}, false
		}
	default:
		return Op{}, false
	}
	return o, o.validate() == nil
}

// decodeLayers reads the payload of meta "layers".
func decodeLayers(path string, b []byte) (Meta, error) {
	var m Meta
	if err := json.Unmarshal(b, &m); err != nil {
		return Meta{}, damaged(path, "its list of layers cannot be read (%v)", err)
	}
	return m, nil
}
