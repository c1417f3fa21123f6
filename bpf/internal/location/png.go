// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "encoding/binary"

const pngSignature = "\x89PNG\r\n\x1a\n"

// pngImage searches a PNG image: chunks of a length, a name, data, a checksum.
func pngImage(s stream) error {
	for at := int64(len(pngSignature)); s.has(at, 8); {
		b, err := s.read(at, 8)
		if err != nil {
			return err
		}
		name, size := string(b[4:]), int64(binary.BigEndian.Uint32(b))
		if !s.has(at, size+12) {
			return cut(name, at)
		}
		if err := pngChunk(s, name, at, size); err != nil {
			return err
		}
		if name == "IEND" {
			return nil
		}
		at += size + 12
	}
	return nil
}

// cut is what a PNG that is cut off in the chunk at off is: damaged, if location
// may be there.
func cut(name string, off int64) error {
	if pngSearch(name) == nil {
		return nil
	}
	return damaged("PNG chunk at %d is cut off", off)
}

// pngChunk searches the chunk at off, which has size bytes of data.
func pngChunk(s stream, name string, off, size int64) error {
	search := pngSearch(name)
	if search == nil || size == 0 {
		return nil
	}
	data, err := s.slice(off+8, size)
	if err != nil {
		return err
	}
	f := s.f
	out, hide, keep := f.out, f.hide, f.keep
	f.out, f.hide, f.keep = nil, nil, nil
	if err := search(data); err != nil {
		return err
	}
	if len(f.out) > 0 {
		if err := fixCRC(s, off+4, size+4); err != nil {
			return err
		}
	}
	f.out, f.hide, f.keep = append(out, f.out...), append(hide, f.hide...), append(keep, f.keep...)
	return nil
}

// pngSearch returns the search for the data of a chunk, nil if it holds no
// location.
func pngSearch(name string) func(stream) error {
	switch name {
	case "eXIf":
		return exifData
	case "zxIf":
		return zippedExif
	case "tEXt":
		return func(s stream) error { return pngText(s, plainText) }
	case "zTXt":
		return func(s stream) error { return pngText(s, zippedText) }
	case "iTXt":
		return func(s stream) error { return pngText(s, worldText) }
	}
	return nil
}
