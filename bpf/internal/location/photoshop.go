// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "encoding/binary"

// The Photoshop resources that hold Exif and XMP.
const (
	resExif1 = 0x0422
	resExif3 = 0x0423
	resXMP   = 0x0424
)

// resourceMark holds the signatures that a resource may begin with.
var resourceMark = map[string]bool{"8BIM": true, "PHUT": true, "DCSR": true, "AgHg": true, "MeSa": true}

// photoshop searches the image resources of Photoshop: each is a signature, an
// id, a name, a length and data, the last two padded to even lengths. What does
// not look so ends them.
func photoshop(s stream) error {
	for at := int64(0); s.has(at, 12); {
		b, err := s.read(at, min(s.size-at, 12+256))
		if err != nil {
			return err
		}
		name := (int64(b[6]) + 2) &^ 1
		if !resourceMark[string(b[:4])] || int64(len(b)) < 10+name {
			return nil
		}
		size := int64(binary.BigEndian.Uint32(b[6+name:]))
		if err := resource(s, binary.BigEndian.Uint16(b[4:]), at+10+name, size); err != nil {
			return err
		}
		at += 10 + name + (size+1)&^1
	}
	return nil
}

// resource searches the resource of size bytes at off, if it may hold location.
func resource(s stream, id uint16, off, size int64) error {
	if size == 0 || id != resExif1 && id != resExif3 && id != resXMP {
		return nil
	}
	data, err := s.slice(off, size)
	if err != nil {
		return err
	}
	if id == resXMP {
		return xmpPacket(data)
	}
	return nested(data, tiffBlock)
}
