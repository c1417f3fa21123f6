// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import "path/filepath"

// Contents is all that a journal holds, with what is in the logs only.
type Contents struct {
	Covers map[DirID]map[string]struct{}
	Notes  map[DirID]DirNote
	Links  map[Origin]Links
	// Reserved is the highest directory id that may have been handed out.
	Reserved DirID
}

// Known tells whether there is any record of a directory.
func (c *Contents) Known(id DirID) bool {
	_, noted := c.Notes[id]
	return noted || len(c.Covers[id]) > 0
}

// Contents loads everything, of one moment.
func (j *Journal) Contents() (*Contents, error) {
	var c *Contents
	err := j.read((*delta).clone, func(v *view) (err error) {
		c, err = v.contents()
		return err
	})
	if err != nil {
		return nil, err
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	c.Reserved = j.reserved
	return c, nil
}

// Contents is [Journal.Contents].
func (s *Snapshot) Contents() (*Contents, error) {
	var c *Contents
	err := s.read(func(v *view) (err error) {
		c, err = v.contents()
		return err
	})
	if err != nil {
		return nil, err
	}
	c.Reserved = max(s.state.reserved, s.add.reserved)
	return c, nil
}

// contents loads all records.
func (v *view) contents() (*Contents, error) {
	c := &Contents{Covers: make(map[DirID]map[string]struct{}), Notes: make(map[DirID]DirNote)}
	err := v.each(bucketCover, nil, func(o *Op) {
		names := c.Covers[o.dir]
		if names == nil {
			names = make(map[string]struct{})
			c.Covers[o.dir] = names
		}
		names[o.name] = struct{}{}
	})
	if err == nil {
		err = v.each(bucketNote, nil, func(o *Op) { c.Notes[o.dir] = o.note })
	}
	if err == nil {
		c.Links, err = v.links()
	}
	if err != nil {
		return nil, err
	}
	for id, dd := range mergeDirs(v.deltas) {
		c.apply(id, dd)
	}
	return c, nil
}

// apply brings the records of one directory up to date.
func (c *Contents) apply(id DirID, dd *dirDelta) {
	if c.Covers[id] = dd.applyTo(c.Covers[id]); len(c.Covers[id]) == 0 {
		delete(c.Covers, id)
	}
	if dd.dropped {
		delete(c.Notes, id)
	}
	if dd.note != nil {
		c.Notes[id] = *dd.note
	}
	if c.Notes[id] == (DirNote{}) {
		delete(c.Notes, id)
	}
}

// CompareLayers says what differs between the layers that the journal in dir was made
// for and those given, as an [ErrLayerSet], or gives nil.
func CompareLayers(dir string, stored, given Meta) error {
	return compareLayers(filepath.Join(dir, DBName), stored, given)
}
