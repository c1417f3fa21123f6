// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "encoding/binary"

// webpImage searches a WebP image: after a header of 12 bytes, chunks of a name, a
// length, and data padded to an even length. Readers stop at the first that is
// cut off, unless it is metadata.
func webpImage(s stream) error {
	for at := int64(12); s.has(at, 8); {
		b, err := s.read(at, 8)
		if err != nil {
			return err
		}
		size := int64(binary.LittleEndian.Uint32(b[4:]))
		if err := riffChunk(s, string(b[:4]), at+8, size); err != nil {
			return err
		}
		at += 8 + (size+1)&^1
	}
	return nil
}

// riffChunk searches the chunk whose data are the size bytes at off.
func riffChunk(s stream, name string, off, size int64) error {
	if size == 0 || name != "EXIF" && name != "XMP " && name != "XMP\x00" {
		return nil
	}
	data, err := s.slice(off, size)
	if err != nil {
		return err
	}
	if name != "EXIF" {
		return xmpPacket(data)
	}
	return exifData(data)
}
