// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	"go.etcd.io/bbolt"
)

// view is one consistent state: a read transaction of the database and what the logs
// add to it, oldest first. A delta that is in the database already does no harm: it
// holds end states.
type view struct {
	path   string
	tx     *bbolt.Tx
	deltas []*delta
}

// read runs fn on a view. clone copies what fn needs of the active log's delta; it
// runs under mu.
func (j *Journal) read(clone func(*delta) *delta, fn func(*view) error) error {
	v := view{path: j.dbPath()}
	if err := guard(v.path, func() error { return j.beginView(&v, clone) }); err != nil {
		return err
	}
	return v.run(fn)
}

// beginView begins the transaction under mu, so that no fold can end between it and
// the look at the logs.
func (j *Journal) beginView(v *view, clone func(*delta) *delta) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return ErrClosed
	}
	tx, err := j.db.Begin(false)
	if err != nil {
		return ioError(v.path, "the journal cannot be read", err)
	}
	v.tx = tx
	if j.frozen != nil {
		v.deltas = append(v.deltas, j.frozen)
	}
	v.deltas = append(v.deltas, clone(j.cur))
	return nil
}

// run calls fn and ends the transaction.
func (v *view) run(fn func(*view) error) error {
	defer guard(v.path, v.tx.Rollback) //nolint:errcheck // nothing was written
	return guard(v.path, func() error { return fn(v) })
}

// LoadDir gives the covered names of a directory, nil if there are none. The map is
// the caller's.
func (j *Journal) LoadDir(id DirID) (names map[string]struct{}, err error) {
	err = j.read(func(d *delta) *delta { return d.cloneDir(id) }, func(v *view) error {
		names, err = v.names(id)
		return err
	})
	return names, err
}

// LoadLinks gives the accounts of all lower inodes that have one.
func (j *Journal) LoadLinks() (links map[Origin]Links, err error) {
	err = j.read((*delta).cloneLinks, func(v *view) error {
		links, err = v.links()
		return err
	})
	return links, err
}

// bucket gives a record bucket; verifyDB has seen that it exists.
func (v *view) bucket(kind bucketKind) *bbolt.Bucket {
	return v.tx.Bucket([]byte(bucketNames[kind]))
}

// each calls fn for the records of a bucket whose key begins with prefix.
func (v *view) each(kind bucketKind, prefix []byte, fn func(o *Op)) error {
	c := v.bucket(kind).Cursor()
	for key, value := c.Seek(prefix); key != nil && bytes.HasPrefix(key, prefix); key, value = c.Next() {
		o, ok := decodeRecord(kind, key, value)
		if !ok {
			return damaged(v.path, "a record of bucket %s is bad (key %x)", bucketNames[kind], key)
		}
		fn(&o)
	}
	return nil
}

// names gives the covered names of a directory.
func (v *view) names(id DirID) (map[string]struct{}, error) {
	var names map[string]struct{}
	err := v.each(bucketCover, dirKey(id), func(o *Op) {
		if names == nil {
			names = make(map[string]struct{})
		}
		names[o.name] = struct{}{}
	})
	if err != nil {
		return nil, err
	}
	for _, d := range v.deltas {
		names = d.dirs[id].applyTo(names)
	}
	if len(names) == 0 {
		return nil, nil
	}
	return names, nil
}

// links gives all accounts.
func (v *view) links() (map[Origin]Links, error) {
	links := make(map[Origin]Links)
	if err := v.each(bucketLinks, nil, func(o *Op) { links[o.origin] = o.links }); err != nil {
		return nil, err
	}
	for _, d := range v.deltas {
		for o, l := range d.links {
			if l.gone {
				delete(links, o)
			} else {
				links[o] = l.Links
			}
		}
	}
	return links, nil
}

// note gives the note about a directory, the zero one if there is none.
func (v *view) note(id DirID) (DirNote, error) {
	var n DirNote
	if err := v.each(bucketNote, dirKey(id), func(o *Op) { n = o.note }); err != nil {
		return DirNote{}, err
	}
	for _, d := range v.deltas {
		dd := d.dirs[id]
		if dd == nil {
			continue
		}
		if dd.dropped {
			n = DirNote{}
		}
		if dd.note != nil {
			n = *dd.note
		}
	}
	return n, nil
}

// dirIDs gives all directories that may have a record, in order.
func (v *view) dirIDs() ([]DirID, error) {
	ids := make(map[DirID]struct{})
	for _, d := range v.deltas {
		for id := range d.dirs {
			ids[id] = struct{}{}
		}
	}
	for _, kind := range []bucketKind{bucketCover, bucketNote} {
		c := v.bucket(kind).Cursor()
		for key, _ := c.First(); key != nil; {
			if len(key) < 8 {
				return nil, damaged(v.path, "a key of bucket %s is cut short (%x)", bucketNames[kind], key)
			}
			id := DirID(binary.BigEndian.Uint64(key))
			ids[id] = struct{}{}
			if id == ^DirID(0) {
				break
			}
			key, _ = c.Seek(dirKey(id + 1))
		}
	}
	return slices.Sorted(maps.Keys(ids)), nil
}
