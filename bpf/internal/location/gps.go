// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

// blankGPS marks the GPS directory at off. Its count must read as zero, so that it
// is an empty directory, which readers pass over without a word; a pointer to
// it that is zero, or a directory whose entries stay but have no values, is
// complained about. The offset of a next directory stays: it is not read where
// it is any more, and some writers leave it out and put other data there.
func (t *tiff) blankGPS(off int64) error {
	if gps, ok := t.seen[off]; ok {
		return conflict(gps, true, off)
	}
	d, err := t.directory(off, true)
	if err != nil {
		return err
	}
	if len(d.list) == 0 {
		return nil
	}
	// The count, and what then stands where the next offset would.
	head := t.pick(2+4, 8+8)
	t.gps = append(t.gps, Range{off, head})
	if err := t.s.blank(off, head); err != nil {
		return err
	}
	for _, e := range d.list {
		if err := t.blankEntry(e); err != nil {
			return err
		}
	}
	return nil
}

// blankEntry marks an entry of a GPS directory and its value.
func (t *tiff) blankEntry(e entry) error {
	head, field := t.pick(8, 12), t.pick(4, 8)
	t.gps = append(t.gps, Range{e.at, head + field})
	t.s.f.hide = append(t.s.f.hide, t.s.ranges(e.at, head)...)
	if e.inline {
		if e.size < 0 && (e.typ != 0 || e.count != 0) {
			return damaged("GPS entry %#x has type %d, count %d", e.tag, e.typ, e.count)
		}
		return t.s.blank(e.at+head, field)
	}
	t.s.f.hide = append(t.s.f.hide, t.s.ranges(e.at+head, field)...)
	t.gps = append(t.gps, Range{e.value, e.size})
	if e.typ == 5 || e.typ == 10 {
		return t.blankRationals(e)
	}
	return t.s.blank(e.value, e.size)
}

// blankRationals marks fractions. Their denominators alone tell no place.
func (t *tiff) blankRationals(e entry) error {
	if !t.s.has(e.value, e.size) {
		return damaged("GPS entry %#x is at %d of %d", e.tag, e.value, t.s.size)
	}
	if e.count > 16 {
		return t.s.blank(e.value, e.size)
	}
	for off := e.value; off < e.value+e.size; off += 8 {
		if err := t.s.blank(off, 4); err != nil {
			return err
		}
		t.s.f.hide = append(t.s.f.hide, t.s.ranges(off+4, 4)...)
	}
	return nil
}

// apart is ErrDamaged if what is blanked would change the header or a
// directory that leads to other things.
func (t *tiff) apart() error {
	gps, table := merge(t.gps), merge(t.table)
	for len(gps) > 0 && len(table) > 0 {
		g, d := gps[0], table[0]
		switch {
		case g.Off+g.Len <= d.Off:
			gps = gps[1:]
		case d.Off+d.Len <= g.Off:
			table = table[1:]
		default:
			return damaged("GPS at %d overlaps the directory at %d", g.Off, d.Off)
		}
	}
	return nil
}

// gpsBlock searches a TIFF structure whose first directory is that of GPS.
func gpsBlock(s stream) error {
	t, first, err := openTIFF(s)
	if err != nil || first == 0 {
		return err
	}
	if err := t.blankGPS(first); err != nil {
		return err
	}
	return t.apart()
}
