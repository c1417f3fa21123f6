// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// counting is a reader that counts what is read, and fails the test if that is
// outside the file.
type counting struct {
	t    testing.TB
	b    []byte
	read int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(c.b)) || int64(len(p)) > int64(len(c.b))-off {
		c.t.Fatalf("read %d at %d of %d", len(p), off, len(c.b))
	}
	c.read += int64(len(p))
	return copy(p, c.b[off:]), nil
}

// FuzzFind checks that Find keeps its promises for any file.
func FuzzFind(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &counting{t: t, b: b}
		ranges, err := Find(c, int64(len(b)))
		if c.read > maxMeta+maxScan {
			t.Fatalf("%d bytes read", c.read)
		}
		if err != nil {
			if !errors.Is(err, ErrDamaged) || ranges != nil {
				t.Fatalf("got %v, %v", ranges, err)
			}
			return
		}
		checkRanges(t, ranges, int64(len(b)))
	})
}

// seeds are images of all kinds.
func seeds() [][]byte {
	le, be := exifFile(binary.LittleEndian), exifFile(binary.BigEndian)
	inner := jpegWith(segment(0xe1, idExif, string(be)))
	return [][]byte{
		le, be, jpegBase(), pngBase(), inner, film(), heif(0, 0), mpf(inner, 0),
		jpegWith(segment(0xe1, idExif, string(le)), segment(0xe1, idXMP, xmpText)),
		jpegWith(segment(0xed, idPhotoshop, irb(resExif1, string(le)), irb(resXMP, xmpText))),
		jpegWith(extended(xmpText, 300)...),
		append(jpegBase(), inner...),
		pngWith(pngPart("eXIf", string(be)), pngPart("iTXt", "XML:com.adobe.xmp\x00\x00\x00\x00\x00"+xmpText)),
		pngWith(pngPart("zTXt", "Raw profile type exif\x00\x00"+deflate(profile("exif", string(le))))),
		pngWith(pngPart("tEXt", "Raw profile type exif\x00"+profile("exif", string(le)))),
		[]byte("RIFF\x00\x00\x00\x00WEBPEXIF" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(le)))) + string(le)),
		bytes.Join([][]byte{[]byte("\x00\x00\x00\x0cJXL \r\n\x87\n"), []byte(bmff("Exif", be32(0), string(le)))}, nil),
	}
}
