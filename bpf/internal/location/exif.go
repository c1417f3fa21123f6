// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "bytes"

// exifData searches Exif data, which may have the header of a JPEG segment. Data
// that are all zeros, as some programs leave them, are none.
func exifData(s stream) error {
	b, err := s.read(0, min(s.size, 16))
	if err != nil {
		return err
	}
	if skip := exifHeader(b); skip >= 0 {
		s, b = s.from(int64(skip)), b[skip:]
	}
	if s.size < 8 {
		return nil
	}
	if _, _, ok := tiffKind(b); !ok {
		return allZero(s)
	}
	return tiffBlock(s)
}

// allZero is ErrDamaged unless s is all zeros.
func allZero(s stream) error {
	if s.size > maxPacket {
		return damaged("no TIFF header")
	}
	b, err := s.read(0, s.size)
	if err == nil && len(bytes.Trim(b, "\x00")) > 0 {
		err = damaged("no TIFF header")
	}
	return err
}

// exifHeader returns where the data begin after the header of Exif data in a JPEG
// segment, -1 if there is none. Some writers put up to four bytes before it, or
// err in it.
func exifHeader(head []byte) int {
	i := bytes.Index(bytes.ToLower(head[:min(len(head), 9)]), []byte("exif\x00"))
	if i < 0 || len(head) < i+len(idExif) {
		return -1
	}
	return i + len(idExif)
}
