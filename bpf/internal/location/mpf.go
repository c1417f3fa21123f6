// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

// tagMPEntries is the list of images of a multi-picture file, mpEntry bytes each.
const (
	tagMPEntries = 0xb002
	mpEntry      = 16
)

// searchMPF searches the images that the multi-picture directories of s list.
func (k *blocks) searchMPF(s stream) error {
	for i, data := range k.mpfData {
		if err := searchMPF(s, data, k.mpf[i]); err != nil {
			return err
		}
	}
	return nil
}

// searchMPF searches the images that one directory lists. Their offsets count
// from base in s. What it says of images that are not there is stale: the file
// was edited since.
func searchMPF(s, data stream, base int64) error {
	b, err := data.read(0, min(data.size, 8))
	if err != nil {
		return err
	}
	bo, big, ok := tiffKind(b)
	if !ok || big || len(b) < 8 {
		return nil
	}
	t := tiff{s: data, bo: bo, seen: map[int64]bool{}}
	d, err := t.directory(int64(bo.Uint32(b[4:])), false)
	if err != nil {
		return err
	}
	e, ok := d.find(tagMPEntries)
	if !ok || e.size < mpEntry {
		return nil
	}
	if b, err = data.read(e.value, e.size); err != nil {
		return err
	}
	whole := tiff{s: s, bo: bo}
	for ; len(b) >= mpEntry; b = b[mpEntry:] {
		size, off := int64(bo.Uint32(b[4:])), int64(bo.Uint32(b[8:]))
		if off == 0 {
			continue // the image itself
		}
		if err := whole.jpegAt(base+off, size); err != nil {
			return err
		}
	}
	return nil
}
