// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// item is an item of a HEIF image.
type item struct {
	kind    string // its type
	content string // of a mime item: the type of its content
	packed  bool   // of a mime item: its content is compressed
}

// meta is what a meta box says of items.
type meta struct {
	s     stream // that offsets count in
	items map[uint32]item
	iloc  []stream
	idat  stream
	keys  map[uint32]bool // of QuickTime: those of location
	ilst  []stream        // and the values
}

// metaBox searches the items that a meta box lists, and whose offsets count from
// the start of base. It begins with four bytes that QuickTime leaves out.
func metaBox(s, base stream) error {
	b, err := s.read(0, min(s.size, 8))
	if err != nil || len(b) < 8 {
		return err
	}
	if string(b[4:]) != "hdlr" {
		s = s.from(4)
	}
	m := meta{s: base, items: map[uint32]item{}}
	if err := eachBox(s, true, m.add); err != nil {
		return err
	}
	for _, l := range m.iloc {
		if err := m.locate(l); err != nil {
			return err
		}
	}
	for _, l := range m.ilst {
		if err := eachBox(l, true, m.value); err != nil {
			return err
		}
	}
	return nil
}

// add takes a box of a meta box.
func (m *meta) add(b box) error {
	switch b.name {
	case "iinf":
		return m.info(b.data)
	case "iloc":
		m.iloc = append(m.iloc, b.data)
	case "idat":
		m.idat = b.data
	case "keys":
		return m.readKeys(b.data)
	case "ilst":
		m.ilst = append(m.ilst, b.data)
	case "uuid":
		return uuidBox(b.data)
	case "xml ":
		return xmpPacket(b.data.from(4))
	}
	return nil
}

// info takes the item information box: a version and flags, a count, boxes.
func (m *meta) info(s stream) error {
	b, err := s.read(0, min(s.size, 4))
	if err != nil || len(b) < 4 {
		return err
	}
	skip := int64(6)
	if b[0] > 0 {
		skip = 8
	}
	return eachBox(s.from(skip), true, m.entry)
}

// entry takes an item information entry: a version and flags, an id, a
// protection, a type, a name, and for mime a content type and encoding. The
// first versions have no type and are all mime.
func (m *meta) entry(b box) error {
	if b.name != "infe" {
		return nil
	}
	d, err := b.data.read(0, min(b.data.size, 1024))
	if err != nil {
		return err
	}
	if len(d) < 12 {
		return damaged("an item without a type")
	}
	id, it, text := uint32(binary.BigEndian.Uint16(d[4:])), item{kind: "mime"}, d[8:]
	switch {
	case d[0] == 2:
		it.kind, text = string(d[8:12]), d[12:]
	case d[0] > 2 && len(d) < 14:
		return damaged("an item without a type")
	case d[0] > 2:
		id, it.kind, text = binary.BigEndian.Uint32(d[4:]), string(d[10:14]), d[14:]
	}
	if parts := bytes.SplitN(text, []byte{0}, 4); len(parts) > 1 && it.kind == "mime" {
		it.content = strings.ToLower(string(parts[1]))
		it.packed = len(parts) > 2 && len(parts[2]) > 0
	}
	if was, ok := m.items[id]; ok && was != it {
		return damaged("two items have the id %d", id)
	}
	m.items[id] = it
	return nil
}

// search returns the search for the data of an item, nil if it has no metadata.
func (it item) search() func(stream) error {
	switch {
	case it.kind == "Exif":
		return exifItem
	case it.kind == "jpeg":
		return func(s stream) error { return nested(s, jpegImage) }
	case it.kind != "mime" || !strings.Contains(it.content, "xml"):
		return nil
	case it.packed:
		return func(s stream) error { return s.blank(0, s.size) }
	}
	return xmpPacket
}
