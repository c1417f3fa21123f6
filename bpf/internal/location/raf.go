// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "encoding/binary"

// rafImage searches a raw image of Fujifilm: its metadata are in a JPEG image,
// whose offset and length the header has.
func rafImage(s stream) error {
	b, err := s.read(84, 8)
	if err != nil {
		return err
	}
	off, size := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if size == 0 {
		return nil
	}
	image, err := s.slice(off, size)
	if err != nil {
		return err
	}
	head, err := image.read(0, min(size, 3))
	if err != nil {
		return err
	}
	if string(head) != soi {
		return damaged("no JPEG in a raw image")
	}
	return nested(image, jpegImage)
}
