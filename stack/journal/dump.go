// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// Dump prints the journal as text, in a stable order, including what is still in the
// logs only. One record a line, fields separated by a space, names and paths quoted
// as Go strings, directory ids in hexadecimal:
//
//	format 1
//	upper "/u" ext4 UUID 73... root 2
//	lower 1 "/l" xfs UUID none root 128
//	foreign-upper
//	note 0x2a000001 opaque redirect "/a/b" path "/c"
//	cover 0x2a000001 "name"
//	links 0:4711 nlink 3 gone 1
//
// Lower layers are counted from 1, topmost first, for people; the layer of a links
// record is the index from 0.
func (j *Journal) Dump(w io.Writer) error {
	return j.read((*delta).clone, func(v *view) error { return dump(w, j.meta, v) })
}

func dump(out io.Writer, meta Meta, v *view) error {
	w := bufio.NewWriter(out)
	dumpMeta(w, meta)
	ids, err := v.dirIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := dumpDir(w, v, id); err != nil {
			return err
		}
	}
	links, err := v.links()
	if err != nil {
		return err
	}
	for _, o := range slices.SortedFunc(maps.Keys(links), compareOrigins) {
		fmt.Fprintf(w, "links %d:%d nlink %d gone %d\n", o.Layer, o.Ino, links[o].Nlink, links[o].Gone)
	}
	return w.Flush()
}

func dumpMeta(w io.Writer, meta Meta) {
	fmt.Fprintf(w, "format %d\n", formatVersion)
	fmt.Fprintf(w, "upper %s\n", dumpLayer(meta.Upper))
	for i, l := range meta.Lowers {
		fmt.Fprintf(w, "lower %d %s\n", i+1, dumpLayer(l))
	}
	if meta.ForeignUpper {
		fmt.Fprintln(w, "foreign-upper")
	}
}

func dumpLayer(l LayerID) string {
	uuid := l.UUID
	if uuid == "" {
		uuid = "none"
	}
	return fmt.Sprintf("%s %s UUID %s root %d", strconv.Quote(l.Path), l.FSType, uuid, l.RootIno)
}

// dumpDir prints the records of one directory.
func dumpDir(w io.Writer, v *view, id DirID) error {
	n, err := v.note(id)
	if err != nil {
		return err
	}
	if n != (DirNote{}) {
		fmt.Fprintf(w, "note %#x", uint64(id))
		if n.Opaque {
			fmt.Fprint(w, " opaque")
		}
		if n.Redirect != "" {
			fmt.Fprintf(w, " redirect %s", strconv.Quote(n.Redirect))
		}
		fmt.Fprintf(w, " path %s\n", strconv.Quote(n.Path))
	}
	names, err := v.names(id)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(w, "cover %#x %s\n", uint64(id), strconv.Quote(name))
	}
	return nil
}
