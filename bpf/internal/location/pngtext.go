// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"io"
	"strings"
)

const (
	maxKeyword = 79
	keyProfile = "raw profile type " // in lower case
)

// text is the text of a PNG chunk. If it was compressed, only b has it.
type text struct {
	zipped bool
	off    int64 // in the data of the chunk
	b      []byte
	bad    bool // compressed, but not well
}

// pngText searches a text chunk whose text is found by open, which gets what
// follows the keyword's zero, at off. Such a chunk is blanked in all, keyword and
// text, unless it is plain XMP: a zero is no digit, and does not fit in what is
// compressed.
func pngText(s stream, open func(s stream, b []byte, off int64) (text, error)) error {
	head, err := s.read(0, min(s.size, maxKeyword+1))
	if err != nil {
		return err
	}
	key, _, ok := bytes.Cut(head, []byte{0})
	if !ok {
		return nil // no keyword: readers drop it
	}
	if !worthReading(string(key)) {
		return nil
	}
	if s.size > maxPacket {
		return damaged("a PNG text of %d bytes", s.size)
	}
	b, err := s.read(0, s.size)
	if err != nil {
		return err
	}
	off := int64(len(key)) + 1
	t, err := open(s, b[off:], off)
	if err != nil {
		return err
	}
	if !t.zipped && !t.bad && strings.HasSuffix(string(key), ".xmp") {
		return xmpPacket(s.from(t.off))
	}
	switch {
	case hasWords(key):
		return s.blank(0, s.size)
	case t.bad || textHasLocation(s.f, t.b):
		return blankChunk(s, off)
	}
	return nil
}

// worthReading reports whether readers look into a text with this keyword for
// metadata, or show it as location.
func worthReading(key string) bool {
	low := strings.ToLower(key)
	return strings.Contains(low, "xmp") || strings.HasPrefix(low, keyProfile) || hasWords([]byte(key))
}

// plainText is the text of a tEXt chunk.
func plainText(s stream, b []byte, off int64) (text, error) {
	return text{off: off, b: b}, nil
}

// zippedText is the text of a zTXt chunk: a method and what is compressed.
func zippedText(s stream, b []byte, off int64) (text, error) {
	if len(b) < 1 {
		return text{}, nil
	}
	return unzipped(s.f, b[1:], off+1)
}

// worldText is the text of an iTXt chunk: whether it is compressed, a method, a
// language, a keyword in that, the text.
func worldText(s stream, b []byte, off int64) (text, error) {
	if len(b) < 2 {
		return text{}, nil
	}
	zipped := b[0] != 0
	parts := bytes.SplitN(b[2:], []byte{0}, 3)
	if len(parts) < 3 {
		return text{off: off, b: b, bad: hasWords(b)}, nil
	}
	rest := parts[2]
	off += int64(len(b) - len(rest))
	if zipped {
		return unzipped(s.f, rest, off)
	}
	return text{off: off, b: rest}, nil
}

// unzipped is a text that is compressed. If it is so badly, the text is what a
// lenient reader can make of it, and bad.
func unzipped(f *file, b []byte, off int64) (text, error) {
	t := text{zipped: true, off: off}
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		t.bad = true
		return t, nil
	}
	t.b, err = io.ReadAll(io.LimitReader(z, maxPacket+1))
	t.bad = err != nil
	if f.meta -= int64(len(t.b)); f.meta < 0 || len(t.b) > maxPacket {
		return t, f.limit("a PNG text of more than %d bytes", maxPacket)
	}
	return t, nil
}

// zippedExif searches Exif data that is compressed: a zero, a length, and that.
func zippedExif(s stream) error {
	if s.size > maxPacket {
		return damaged("compressed Exif of %d bytes", s.size)
	}
	b, err := s.read(0, s.size)
	if err != nil || len(b) < 5 {
		return err
	}
	t, err := unzipped(s.f, b[5:], 5)
	if err != nil {
		return err
	}
	if t.bad || bytesHaveLocation(s.f, t.b) {
		return s.blank(0, s.size)
	}
	return nil
}

// textHasLocation reports whether a text has location, as XMP or as a raw
// profile: a name, a length, and hexadecimal digits, on lines.
func textHasLocation(f *file, b []byte) bool {
	if hasWords(b) {
		return true
	}
	_, digits, _ := bytes.Cut(bytes.TrimLeft(b, "\n"), []byte("\n"))
	_, digits, _ = bytes.Cut(digits, []byte("\n"))
	digits = bytes.Map(hexDigit, digits)
	raw := make([]byte, len(digits)/2)
	if _, err := hex.Decode(raw, digits[:2*len(raw)]); err != nil {
		return true // cannot be: only digits are left
	}
	return bytesHaveLocation(f, raw)
}

// hexDigit keeps only hexadecimal digits.
func hexDigit(r rune) rune {
	if strings.ContainsRune("0123456789abcdefABCDEF", r) {
		return r
	}
	return -1
}

// bytesHaveLocation reports whether Exif data, Photoshop resources or XMP,
// which are not in the file as they are, have location or are damaged.
func bytesHaveLocation(f *file, b []byte) bool {
	if len(b) == 0 {
		return false
	}
	if looksLikeXMP(b) && hasWords(b) {
		return true
	}
	for _, search := range []func(stream) error{memoryExif, memoryPhotoshop} {
		m := newFile(bytes.NewReader(b), int64(len(b)), f.meta)
		m.nest = f.nest
		err := nested(m.whole(), search)
		f.meta = m.meta
		if err != nil || len(m.out) > 0 {
			return true
		}
	}
	return false
}

// memoryExif searches Exif data, if s begins with it.
func memoryExif(s stream) error {
	b, err := s.read(0, min(s.size, 16))
	if err != nil {
		return err
	}
	if _, _, ok := tiffKind(b[max(0, exifHeader(b)):]); !ok {
		return nil
	}
	return exifData(s)
}

// memoryPhotoshop searches Photoshop resources, if s begins with them.
func memoryPhotoshop(s stream) error {
	b, err := s.read(0, min(s.size, int64(len(idPhotoshop))))
	if err != nil {
		return err
	}
	if string(b) == idPhotoshop {
		s = s.from(int64(len(b)))
	}
	return photoshop(s)
}

// blankChunk marks the data of a text chunk whose text is at off. Its keyword,
// and the first few bytes of text, which precede all metadata, hold no
// location.
func blankChunk(s stream, off int64) error {
	head := min(s.size, off+16)
	s.f.hide = append(s.f.hide, s.ranges(0, head)...)
	if head == s.size {
		return s.blank(0, head)
	}
	return s.blank(head, s.size-head)
}
