// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// The identifiers of segments.
const (
	idExif      = "Exif\x00\x00"
	idXMP       = "http://ns.adobe.com/xap/1.0/\x00"
	idExtended  = "http://ns.adobe.com/xmp/extension/\x00"
	idPhotoshop = "Photoshop 3.0\x00"
	idMPF       = "MPF\x00"
)

// blocks are the metadata of one JPEG image, as collected from its segments.
type blocks struct {
	parts     int
	exif      [][]stream // each in one or more segments
	inExif    bool       // the last APP1 was Exif
	xmp       []stream
	extended  map[string][]chunk // by GUID
	photoshop []stream
	mpf       []int64 // where the offsets of an MPF directory count from
	mpfData   []stream
}

// chunk is a piece of an extended XMP packet.
type chunk struct {
	at   uint32
	data stream
}

// add collects the segment data, which is at off.
func (k *blocks) add(mark int, data stream, off int64) error {
	if !isMetadata(mark) {
		return nil
	}
	if k.parts++; k.parts > maxParts {
		return damaged("more than %d segments", maxParts)
	}
	head, err := data.read(0, min(data.size, 80))
	if err != nil {
		return err
	}
	switch mark {
	case markAPP1:
		return k.app1(head, data)
	case markAPP2:
		if bytes.HasPrefix(head, []byte(idMPF)) {
			k.mpf = append(k.mpf, off+int64(len(idMPF)))
			k.mpfData = append(k.mpfData, data.from(int64(len(idMPF))))
		}
	default:
		if bytes.HasPrefix(head, []byte(idPhotoshop)) {
			k.photoshop = append(k.photoshop, data.from(int64(len(idPhotoshop))))
		}
	}
	return nil
}

// app1 collects an APP1 segment.
func (k *blocks) app1(head []byte, data stream) error {
	was := k.inExif
	skip := exifHeader(head)
	k.inExif = skip >= 0
	switch {
	case skip >= 0:
		k.addExif(head[skip:], data.from(int64(skip)), was)
	case bytes.HasPrefix(head, []byte(idExtended)):
		return k.addExtended(head, data)
	case bytes.HasPrefix(head, []byte(idXMP)):
		k.xmp = append(k.xmp, data.from(int64(len(idXMP))))
	default:
		return k.maybeXMP(data)
	}
	return nil
}

// addExif collects Exif data. It belongs to the segment before, if that was
// Exif and it has no header of its own.
func (k *blocks) addExif(head []byte, data stream, was bool) {
	if _, _, ok := tiffKind(head); !ok && was {
		last := len(k.exif) - 1
		k.exif[last] = append(k.exif[last], data)
		return
	}
	k.exif = append(k.exif, []stream{data})
}

// addExtended collects a piece of extended XMP: after the identifier a GUID of
// 32 bytes, the length of the whole, the offset of the piece.
func (k *blocks) addExtended(head []byte, data stream) error {
	guid := len(idExtended)
	if len(head) < guid+40 {
		return nil // no data
	}
	if k.extended == nil {
		k.extended = map[string][]chunk{}
	}
	id := string(head[guid : guid+32])
	at := binary.BigEndian.Uint32(head[guid+36:])
	k.extended[id] = append(k.extended[id], chunk{at, data.from(int64(guid + 40))})
	return nil
}

// maybeXMP collects a segment of another kind, if readers take it for XMP.
func (k *blocks) maybeXMP(data stream) error {
	b, err := data.read(0, data.size)
	if err != nil {
		return err
	}
	if looksLikeXMP(b) {
		k.xmp = append(k.xmp, data)
	}
	return nil
}

// search searches what was collected from the image s.
func (k *blocks) search(s stream) error {
	for _, parts := range k.exif {
		if err := exifParts(parts); err != nil {
			return err
		}
	}
	for _, p := range k.xmp {
		if err := xmpPacket(p); err != nil {
			return err
		}
	}
	if err := k.searchExtended(); err != nil {
		return err
	}
	if err := k.searchPhotoshop(); err != nil {
		return err
	}
	return k.searchMPF(s)
}

// exifParts searches Exif data that is in one or more segments.
func exifParts(parts []stream) error {
	s, err := join(parts)
	if err != nil {
		return err
	}
	return exifData(s)
}

// searchExtended searches extended XMP.
func (k *blocks) searchExtended() error {
	for _, all := range k.extended {
		slices.SortStableFunc(all, func(a, b chunk) int { return cmp.Compare(a.at, b.at) })
		parts := make([]stream, len(all))
		for i, c := range all {
			parts[i] = c.data
		}
		s, err := join(parts)
		if err != nil {
			return err
		}
		if err := xmpPacket(s); err != nil {
			return err
		}
	}
	return nil
}

// searchPhotoshop searches Photoshop resources, which may go on in the next
// segment.
func (k *blocks) searchPhotoshop() error {
	s, err := join(k.photoshop)
	if err != nil || s.size == 0 {
		return err
	}
	return photoshop(s)
}
