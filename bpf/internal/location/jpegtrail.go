// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import "errors"

// The marks by which images and films in a trailer are known, equally long: the
// start of a JPEG with its first common segments, the name of the first box.
var trailMarks = []string{
	"\xff\xd8\xff\xe0", "\xff\xd8\xff\xe1", "\xff\xd8\xff\xe2", "\xff\xd8\xff\xdb", "ftyp",
}

// trailer searches the JPEG images and the films in what follows a JPEG:
// secondary images, films of moving photos, and what hides between other data.
// What looks like one but is damaged is taken for other data, unless a
// directory of images points to it (see searchMPF).
func trailer(s stream) error {
	w := window{s: s}
	for at := int64(0); at < s.size; {
		found, mark, err := w.find(at, trailMarks...)
		if err != nil || mark == "" {
			return err
		}
		end := int64(2)
		if mark == "ftyp" {
			err = attempt(s.from(max(0, found-4)), boxImage)
		} else {
			end, err = attemptJPEG(s.from(found))
		}
		if err != nil {
			return err
		}
		at = found + end
	}
	return nil
}

// attemptJPEG searches what may be a JPEG at the start of s, and returns where it
// ends, or where to go on if it is none.
func attemptJPEG(s stream) (int64, error) {
	end := int64(2)
	err := attempt(s, func(s stream) error {
		n, err := oneJPEG(s)
		end = max(end, n)
		return err
	})
	return end, err
}

// attempt searches what may be an image at the start of s. If it is damaged, it
// is none, and nothing was found, unless a limit is reached.
func attempt(s stream, image func(stream) error) error {
	f := s.f
	out, hide, keep := len(f.out), len(f.hide), len(f.keep)
	err := nested(s, image)
	if errors.Is(err, ErrDamaged) && !f.spent {
		f.out, f.hide, f.keep = f.out[:out], f.hide[:hide], f.keep[:keep]
		return nil
	}
	return err
}
