// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// DumpJSON prints the journal as one JSON document, in a stable order: see
// [Journal.Dump] for what it says. Names and paths may hold any bytes, so they are
// escaped as in the text of a Go string: \xff, \n, \\, \".
func (j *Journal) DumpJSON(w io.Writer) error {
	c, err := j.Contents()
	if err != nil {
		return err
	}
	return dumpJSON(w, j.meta, c)
}

// DumpJSON is [Journal.DumpJSON].
func (s *Snapshot) DumpJSON(w io.Writer) error {
	c, err := s.Contents()
	if err != nil {
		return err
	}
	return dumpJSON(w, s.meta, c)
}

type jsonDump struct {
	Format int `json:"format"`
	Meta
	Directories []jsonDir   `json:"directories"`
	Links       []jsonLinks `json:"links"`
}

type jsonDir struct {
	ID       string   `json:"id"` // hexadecimal: more than a JSON number can hold
	Opaque   bool     `json:"opaque,omitempty"`
	Redirect string   `json:"redirect,omitempty"`
	Path     string   `json:"path,omitempty"`
	Covers   []string `json:"covers,omitempty"`
}

type jsonLinks struct {
	Layer uint32 `json:"layer"`
	Ino   uint64 `json:"ino"`
	Nlink uint32 `json:"nlink"`
	Gone  uint32 `json:"gone"`
}

func dumpJSON(w io.Writer, meta Meta, c *Contents) error {
	d := jsonDump{Format: formatVersion, Meta: meta, Directories: []jsonDir{}, Links: []jsonLinks{}}
	ids := slices.AppendSeq(slices.Collect(maps.Keys(c.Covers)), maps.Keys(c.Notes))
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		n := c.Notes[id]
		dir := jsonDir{ID: fmt.Sprintf("%#x", uint64(id)), Opaque: n.Opaque, Redirect: escape(n.Redirect), Path: escape(n.Path)}
		for _, name := range slices.Sorted(maps.Keys(c.Covers[id])) {
			dir.Covers = append(dir.Covers, escape(name))
		}
		d.Directories = append(d.Directories, dir)
	}
	for _, o := range slices.SortedFunc(maps.Keys(c.Links), compareOrigins) {
		l := c.Links[o]
		d.Links = append(d.Links, jsonLinks{Layer: o.Layer, Ino: o.Ino, Nlink: l.Nlink, Gone: l.Gone})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(d)
}

// escape is strconv.Quote without the quotes around it.
func escape(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}
