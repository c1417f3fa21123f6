// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"encoding/binary"
)

// The boxes of user data that hold a place, or XMP.
const (
	boxPlace    = "\xa9xyz"
	boxPlace3GP = "loci"
	boxXMP      = "XMP_"
)

// movieBox searches a box of a film, or of a track of it.
func movieBox(b box) error {
	switch b.name {
	case "uuid":
		return uuidBox(b.data)
	case "meta":
		return metaBox(b.data, b.data.f.whole())
	case "trak":
		return nested(b.data, func(s stream) error { return eachBox(s, true, movieBox) })
	case "udta":
		return nested(b.data, func(s stream) error { return eachBox(s, false, userBox) })
	}
	return nil
}

// userBox searches a box of user data.
func userBox(b box) error {
	switch b.name {
	case boxPlace, boxPlace3GP:
		return b.blank()
	case boxXMP:
		return xmpPacket(b.data)
	}
	return movieBox(b)
}

// blank marks a box, but for its length: it is then one of an unknown kind, which
// readers pass over.
func (b box) blank() error {
	if err := b.all.blank(4, 4); err != nil {
		return err
	}
	return b.data.blank(0, b.data.size)
}

// readKeys takes the names of values: a version and flags, a count, boxes. Their
// numbers count from one.
func (m *meta) readKeys(s stream) error {
	n := uint32(0)
	if m.keys == nil {
		m.keys = map[uint32]bool{}
	}
	return eachBox(s.from(8), true, func(b box) error {
		name, err := b.data.read(0, min(b.data.size, 256))
		n++
		if low := bytes.ToLower(name); hasWords(low) || bytes.Contains(low, []byte("location")) {
			m.keys[n] = true
		}
		return err
	})
}

// value marks a value whose key is one of location. The name of its box is the
// number of the key.
func (m *meta) value(b box) error {
	if b.name == boxPlace || m.keys[binary.BigEndian.Uint32([]byte(b.name))] {
		return b.blank()
	}
	return nil
}
