// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

// images searches the JPEG images that a directory holds: a thumbnail, a
// preview, or the image itself if it is one strip.
func (t *tiff) images(d directory) error {
	if err := t.image(d, tagJPEGOffset, tagJPEGLength); err != nil {
		return err
	}
	if d.is(tagCompression, t, 6, 7) {
		if err := t.image(d, tagStripOffsets, tagStripCounts); err != nil {
			return err
		}
	}
	if e, ok := d.find(tagJpgFromRaw); ok && !e.inline {
		return t.jpegAt(e.value, e.size)
	}
	return nil
}

// find returns the first entry of a tag.
func (d directory) find(tag uint16) (entry, bool) {
	for _, e := range d.list {
		if e.tag == tag {
			return e, true
		}
	}
	return entry{}, false
}

// is reports whether the single number of an entry is one of some.
func (d directory) is(tag uint16, t *tiff, some ...int64) bool {
	n, ok := d.one(tag, t)
	for _, want := range some {
		if ok && n == want {
			return true
		}
	}
	return false
}

// one returns the number of an entry that has just one.
func (d directory) one(tag uint16, t *tiff) (int64, bool) {
	e, ok := d.find(tag)
	if !ok || e.count != 1 {
		return 0, false
	}
	all, err := t.numbers(e)
	if err != nil || len(all) != 1 {
		return 0, false
	}
	return all[0], true
}

// image searches the JPEG image whose place two entries give, if they do.
func (t *tiff) image(d directory, offset, length uint16) error {
	off, ok := d.one(offset, t)
	n, ok2 := d.one(length, t)
	if !ok || !ok2 {
		return nil
	}
	return t.jpegAt(off, n)
}

// jpegAt searches the JPEG image of n bytes at off, if there is one: the end
// of one that is cut off is not there to be read.
func (t *tiff) jpegAt(off, n int64) error {
	if off <= 0 || n < 4 || off >= t.s.size {
		return nil
	}
	s, err := t.s.slice(off, min(n, t.s.size-off))
	if err != nil || s.size < 4 {
		return err
	}
	b, err := s.read(0, 3)
	if err != nil || string(b) != soi {
		return err
	}
	return nested(s, jpegImage)
}

// nested searches an image within the present one.
func nested(s stream, image func(stream) error) error {
	if s.f.nest++; s.f.nest > maxNest {
		return s.f.limit("images %d deep", s.f.nest)
	}
	defer func() { s.f.nest-- }()
	return image(s)
}
