// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "encoding/binary"

// The user types of boxes that hold Exif or XMP in other files of boxes.
const (
	uuidXMP  = "\xbe\x7a\xcf\xcb\x97\xa9\x42\xe8\x9c\x71\x99\x94\x91\xe3\xaf\xac"
	uuidExif = "JpgTiffExif->JP2"
	uuidCR3  = "\x85\xc0\xb6\x87\x82\x0f\x11\xe0\x81\x11\xf4\xce\x46\x2b\x6a\x48"
)

// maxBoxes is how many boxes one level may have.
const maxBoxes = 1 << 16

// box is a box of an ISO base media file: a length, a name and data.
type box struct {
	name string
	all  stream // from the length on, and what follows
	data stream
}

// boxImage searches an image or film made of boxes: HEIF, AVIF, JPEG 2000, JPEG
// XL, CR3, MP4, MOV.
func boxImage(s stream) error {
	return eachBox(s, false, func(b box) error {
		if b.name == "meta" {
			return metaBox(b.data, s)
		}
		return topBox(b)
	})
}

// eachBox calls f for the boxes of s, until zeros or the end. If one is cut off
// it must be one that is not searched, and strict false, and is the last.
func eachBox(s stream, strict bool, f func(box) error) error {
	at := int64(0)
	for n := 0; s.has(at, 8); n++ {
		if n >= maxBoxes {
			return damaged("more than %d boxes", maxBoxes)
		}
		b, size, err := boxAt(s, at)
		if err != nil || size == 0 && b.name == noName {
			return err
		}
		if size == 0 {
			if strict || searched[b.name] {
				return damaged("box %q at %d is cut off", b.name, at)
			}
			return nil
		}
		if err := f(b); err != nil {
			return err
		}
		at += size
	}
	return nil
}

// noName is the name of what is no box.
const noName = "\x00\x00\x00\x00"

// searched has the boxes that are searched at the top of a file and in user
// data.
var searched = map[string]bool{
	"meta": true, "moov": true, "uuid": true, "Exif": true, "xml ": true, "brob": true,
	boxPlace: true, boxPlace3GP: true, boxXMP: true,
}

// boxAt reads the box at off, and its size: 0 if it is not all there.
func boxAt(s stream, off int64) (b box, size int64, err error) {
	head, err := s.read(off, min(16, s.size-off))
	if err != nil {
		return b, 0, err
	}
	b.name = string(head[4:8])
	size, skip := int64(binary.BigEndian.Uint32(head)), int64(8)
	switch {
	case size == 0 && b.name != noName:
		size = s.size - off // the rest
	case size == 1 && len(head) == 16:
		size, skip = int64(binary.BigEndian.Uint64(head[8:])), 16
	}
	if size < skip || !s.has(off, size) {
		return b, 0, nil
	}
	b.all = s.from(off)
	b.data, err = s.slice(off+skip, size-skip)
	return b, size, err
}

// topBox searches a box at the top of a file, but for meta.
func topBox(b box) error {
	switch b.name {
	case "moov":
		return eachBox(b.data, true, movieBox)
	case "uuid":
		return uuidBox(b.data)
	case "Exif":
		return exifItem(b.data)
	case "xml ":
		return xmpPacket(b.data)
	case "brob":
		return zippedBox(b.data)
	}
	return nil
}

// zippedBox marks the box of JPEG XL that holds another, compressed in a way
// that is not read here: a name and that.
func zippedBox(s stream) error {
	b, err := s.read(0, min(s.size, 4))
	if err != nil {
		return err
	}
	if name := string(b); name == "Exif" || name == "xml " {
		return s.blank(4, s.size-4)
	}
	return nil
}

// uuidBox searches a box of a user type: 16 bytes of that, and data.
func uuidBox(s stream) error {
	b, err := s.read(0, min(s.size, 16))
	if err != nil {
		return err
	}
	data := s.from(16)
	switch string(b) {
	case uuidXMP:
		return xmpPacket(data)
	case uuidExif:
		return exifData(data)
	case uuidCR3:
		return eachBox(data, true, canonBox)
	}
	return nil
}

// canonBox searches a box of a CR3: its directories are TIFF structures of
// their own, the fourth that of GPS.
func canonBox(b box) error {
	switch b.name {
	case "CMT1", "CMT2":
		return tiffBlock(b.data)
	case "CMT4":
		return gpsBlock(b.data)
	}
	return nil
}

// exifItem searches the Exif data of an item: the offset of the TIFF header,
// from what follows, and that. Some writers leave the offset out.
func exifItem(s stream) error {
	b, err := s.read(0, min(s.size, 8))
	if err != nil || len(b) < 8 {
		return err
	}
	if _, _, ok := tiffKind(b); ok || exifHeader(b) >= 0 {
		return exifData(s)
	}
	return exifData(s.from(4 + int64(binary.BigEndian.Uint32(b))))
}
