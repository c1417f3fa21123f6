// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"strings"
)

// span is a run of bytes of a packet, from the first to before the second.
type span struct{ from, to int }

// words are what the name of a property that holds location contains, in lower
// case; the last is a prefix.
var words = []string{"gps", "latitude", "longitude", "longtitude", "geo:"}

// xmpMarks are what readers know XMP by.
var xmpMarks = []string{"<exif:", "<?xpacket", "<rdf:", "<x:x"}

// xmpPacket marks the location in an XMP packet: each property (element or
// attribute) whose name tells so, whatever its namespace, and each element
// that holds nothing else. If the packet is not plain XML in UTF-8 but has such
// words, all of it.
func xmpPacket(s stream) error {
	if s.size == 0 {
		return nil
	}
	if s.size > maxPacket {
		return damaged("an XMP packet of %d bytes", s.size)
	}
	b, err := s.read(0, s.size)
	if err != nil || !hasWords(b) {
		return err
	}
	x := scan{b: b}
	if x.run(); x.odd {
		return s.blank(0, s.size)
	}
	for _, p := range x.gone {
		if err := s.blank(int64(p.from), int64(p.to-p.from)); err != nil {
			return err
		}
	}
	for _, p := range x.space {
		s.f.keep = append(s.f.keep, s.ranges(int64(p.from), int64(p.to-p.from))...)
	}
	return nil
}

// hasWords reports whether a text has a word of location, also in UTF-16 and
// UTF-32.
func hasWords(b []byte) bool {
	if bytes.IndexByte(b, 0) >= 0 {
		b = bytes.ReplaceAll(b, []byte{0}, nil)
	}
	b = bytes.ToLower(b)
	for _, w := range words {
		if bytes.Contains(b, []byte(w)) {
			return true
		}
	}
	return false
}

// looksLikeXMP reports whether readers may take b for XMP.
func looksLikeXMP(b []byte) bool {
	b = bytes.ReplaceAll(b, []byte{0}, nil)
	for _, mark := range xmpMarks {
		if bytes.Contains(b, []byte(mark)) {
			return true
		}
	}
	return false
}

// isLocation reports whether a property of this name, with its prefix, holds
// location.
func isLocation(name []byte) bool {
	full := strings.ToLower(string(name))
	_, local, ok := strings.Cut(full, ":")
	if !ok {
		local = full
	}
	if strings.HasPrefix(full, "xmlns:") || strings.HasPrefix(local, "isospeedlatitude") {
		return false // that latitude is one of exposure
	}
	for _, w := range words {
		if strings.Contains(local, w) {
			return true
		}
	}
	return strings.HasPrefix(full, "geo:")
}
