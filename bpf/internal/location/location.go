// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package location finds the bytes of an image that tell where it was taken, so
// that they can be read as zeros in their place.
//
// # Model
//
// The only change is that bytes read as zeros: no length, no offset and no
// other byte changes. What is left is an image with the same pixels and the
// same other metadata. That rests on how readers take zeros:
//
//   - A GPS directory (Exif) is blanked with its count, entries and values. It
//     is then an empty directory, which readers pass over; the pointer to it
//     stays. This holds for every directory that is reached: the chain of a
//     TIFF, Exif, interoperability, sub-directories.
//   - A GPS property of XMP is blanked from its first to its last byte, tags and
//     all, or name and value if it is an attribute, and so is an element that
//     held nothing else. A property is one of GPS by its name alone, in any
//     namespace: it contains gps, latitude or longitude, or is of W3C's geo. A
//     packet with zeros is no XML for a strict parser (exiv2 has one), which
//     then sees none of it; exiftool sees the rest.
//   - A packet of XMP that has such words but is not plain XML in UTF-8, that
//     has them in a comment or CDATA, or that refers to nodes by name, is
//     blanked as a whole.
//   - Text of a PNG that is compressed or in hexadecimal digits and holds
//     location is blanked as a whole, keyword too. Some readers then complain
//     of that text.
//   - A place in a film, and a value of it, is blanked with the name of its box.
//
// A chunk of a PNG has a checksum, which some decoders (Go's among them) insist
// on. Which bytes are blanked is chosen so that it stays right (see fixCRC):
// numbers of GPS tags, denominators, white space in XMP may be zero or not.
// That needs some 32 such bytes. If there are fewer, as in a GPS directory of
// very few entries or XMP without white space, the checksum is wrong: libpng
// drops the chunk with a warning, Go's decoder refuses the image.
//
// # Formats
//
// JPEG (Exif, also in several segments; XMP, also extended; Photoshop's
// resources; thumbnails; secondary images and films that follow, as in
// multi-picture files and moving photos), TIFF and BigTIFF and raw images made
// like them, RAF, CR3, PNG, WebP, HEIF and AVIF, JPEG XL, JPEG 2000, and user
// data and metadata of MP4 and MOV. All else is no image here.
//
// # What is not found
//
// Maker notes, which may hold a place in private ways; application segments of
// other makers (FLIR, GoPro, DJI); GPS tracks in films; georeferencing of
// GeoTIFF; base64 in XMP; images in other images' pixels (JPEG tiles of a
// TIFF); data after the end of a PNG, a TIFF, a WebP; GIF, PSD, PDF, SVG and
// XMP sidecar files. Names of places (IPTC city, XMP location created) are no
// location here, nor are the time and the height but in GPS tags.
//
// # Damage
//
// Find fails with ErrDamaged, rather than miss something, where what it follows
// is not there or is absurd: offsets beyond the end, counts that overflow, GPS
// of an unknown type, GPS that overlaps a directory that leads elsewhere (other
// data that GPS overlaps are blanked), the limits below. A directory met twice,
// as in a cycle, is searched once. A file that just ends early is searched as
// far as it goes, if the last thing in it can hold no location. What follows a
// JPEG and looks like an image but is damaged is passed over.
package location

import (
	"errors"
	"io"
)

// Range is a run of bytes of a file.
type Range struct{ Off, Len int64 }

// ErrDamaged is for an image of a known format that is so damaged, so made, or
// so large that Find cannot be sure to have found all location. Its words are
// for a log.
var ErrDamaged = errors.New("location: damaged image")

// Find returns the byte ranges that hold location in the image of size bytes
// that r reads: sorted, disjoint, not touching, inside [0,size), none empty. If
// there is no location, or the file is no image of a known format, they are
// nil. The error wraps ErrDamaged, or is the one that r gave; there are no
// ranges then, and the file must not be shown as if it had none.
//
// What Find reads is bounded: maxMeta bytes of metadata, and for a JPEG maxScan
// bytes of pixels, as its end must be found: such a file is read as a whole. It
// may be called by several goroutines at once.
func Find(r io.ReaderAt, size int64) ([]Range, error) {
	if size < 12 {
		return nil, nil
	}
	f := newFile(r, size, maxMeta)
	s := f.whole()
	head, err := s.read(0, min(size, 16))
	if err != nil {
		return nil, err
	}
	search := format(head)
	if search == nil {
		return nil, nil
	}
	if err := search(s); err != nil {
		return nil, err
	}
	return f.found()
}

// format returns the search for an image that begins with head, nil if it is of
// no known format.
func format(head []byte) func(stream) error {
	text := string(head)
	switch _, _, isTIFF := tiffKind(head); {
	case text[:3] == soi:
		return jpegImage
	case isTIFF:
		return tiffBlock
	case text[:8] == pngSignature:
		return pngImage
	case text[:4] == "RIFF" && text[8:12] == "WEBP":
		return webpImage
	case text[4:8] == "ftyp" || text[4:8] == "JXL " || text[4:8] == "jP  ":
		return boxImage
	case len(text) >= 16 && text[:15] == "FUJIFILMCCD-RAW":
		return rafImage
	}
	return nil
}
