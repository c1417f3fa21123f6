// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// An upper regular file may be partial: its holes below a limit are read from
// the lower file. Its origin says so (trusted.plyfs.origin, version 2):
//
//	+---------+---------------+---------------+---------------+-----------------+
//	| version | layer         | inode number  | limit         | lower path      |
//	| 1 byte  | 4, big endian | 8, big endian | 8, big endian | rest, from the  |
//	| = 2     | 1 = topmost   |               | in bytes      | layer's root    |
//	+---------+---------------+---------------+---------------+-----------------+
//
// An empty path stands for the entry of the same name in the merged directory.
const (
	partialVersion = 2
	partialBytes   = originBytes + 8
)

// checkedOrigin is an origin of either version.
type checkedOrigin struct {
	journal.Origin
	partial bool
	limit   uint64
	path    string
}

// decodeAnyOrigin reads an origin of either version.
func decodeAnyOrigin(b []byte) (checkedOrigin, error) {
	if len(b) < partialBytes || b[0] != partialVersion {
		o, err := decodeOrigin(b)
		return checkedOrigin{Origin: o}, err
	}
	o := checkedOrigin{partial: true, limit: binary.BigEndian.Uint64(b[originBytes:]), path: string(b[partialBytes:])}
	o.Layer, o.Ino = binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint64(b[5:])
	if o.limit > 1<<63-1 || o.path != "" && !plainPath(o.path) {
		return checkedOrigin{}, errMark
	}
	return o, nil
}

// plainPath tells whether a path is absolute and goes straight to its end.
func plainPath(p string) bool {
	if p[0] != '/' || strings.IndexByte(p, 0) >= 0 {
		return false
	}
	for _, part := range strings.Split(p[1:], "/") {
		if part == "" || part == "." || part == ".." || len(part) > unix.NAME_MAX {
			return false
		}
	}
	return true
}

// checkOrigin looks at the origin of an upper entry or of a copy in the index;
// then d is nil.
func (c *checker) checkOrigin(d *checkDir, up *layers.Dir, name, path string) {
	b, err := readAttr(up, name, xattrOrigin)
	if err != nil {
		c.unreadable(path, err)
		return
	}
	o, err := decodeAnyOrigin(b)
	if err != nil {
		if len(b) > 0 && b[0] == partialVersion {
			c.out.Counts.Partial++
		}
		c.add(Finding{Severity: Violation, Kind: "origin-unreadable", Path: path, What: xattrOrigin + " is damaged, or of a newer plyfs",
			Loses: "the file: looking it up is EIO", Mend: "restore it from a copy"})
		return
	}
	if o.Layer == 0 || int(o.Layer) >= len(c.fs.layers) {
		c.add(Finding{Severity: Violation, Kind: "origin-layer", Path: path, What: fmt.Sprintf("%s names lower layer %d, and there are %d", xattrOrigin, o.Layer, len(c.fs.layers)-1),
			Loses: "the file: looking it up is EIO", Mend: "restore it from a copy"})
		return
	}
	var st unix.Stat_t
	if err := up.Stat(name, &st); err != nil {
		c.unreadable(path, err)
		return
	}
	c.links.sawCopy(o.Origin, up, name, path, &st)
	if o.partial {
		c.checkPartial(o, d, up, name, path, &st)
	}
}

// checkPartial proves that what was never written can be read from the lower
// file.
func (c *checker) checkPartial(o checkedOrigin, d *checkDir, up *layers.Dir, name, path string, st *unix.Stat_t) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		c.add(Finding{Severity: Violation, Kind: "partial-type", Path: path, What: "it is marked partial and is no regular file",
			Loses: "nothing that can be told from here", Mend: "restore it from a copy"})
		return
	}
	c.out.Counts.Partial++
	if d != nil && d.unsure && o.path == "" {
		return // the directory's own finding says that it is not known where to look
	}
	low, why := c.lowerFileOf(o, d, name)
	limit := min(o.limit, uint64(st.Size))
	from := uint64(0)
	switch {
	case why != "":
	case o.limit > uint64(low.Size):
		why, from = fmt.Sprintf("its limit is %d bytes, and the lower file has only %d", o.limit, low.Size), uint64(low.Size)
	default:
		return
	}
	lost, err := holes(up, name, from, limit)
	if err != nil {
		c.unreadable(path, err)
		return
	}
	f := Finding{Severity: Violation, Kind: "partial-lower", Path: path, What: "its parts that were never written are in a lower file: " + why,
		Mend: "put the lower layer back as it was"}
	if len(lost) > 0 {
		f.Loses = "the bytes " + strings.Join(lost, ", ") + " that were never written: reading them is EIO"
	}
	c.add(f)
}

// lowerFileOf finds the lower file of a partial one, or says why it is not
// there.
func (c *checker) lowerFileOf(o checkedOrigin, d *checkDir, name string) (st unix.Stat_t, why string) {
	layer := c.fs.layers[o.Layer]
	var in *layers.Dir
	where := ""
	switch {
	case o.path != "":
		parts := strings.Split(o.path[1:], "/")
		in, name = layer.Root(), parts[len(parts)-1]
		for _, p := range parts[:len(parts)-1] {
			in = in.Child(p)
			defer in.Forget()
		}
		where = strings.TrimSuffix(layer.Path, "/") + o.path
	case d == nil || d.low == nil:
		return st, "no lower path is given, and nothing of a lower layer merges here"
	default:
		for _, l := range d.low.dirs {
			if l.Layer() == layer {
				in, where = l, l.Path()+"/"+name
			}
		}
		if in == nil {
			return st, fmt.Sprintf("no directory of lower layer %d (%s) merges here", o.Layer, layer.Path)
		}
	}
	err := in.Stat(name, &st)
	switch {
	case err != nil:
		return st, fmt.Sprintf("%s: %v", where, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return st, where + " is no regular file"
	case st.Ino != o.Ino:
		return st, fmt.Sprintf("%s is another file (inode %d, not %d)", where, st.Ino, o.Ino)
	}
	return st, ""
}

// holes lists the ranges of a file between two offsets that were never written.
func holes(d *layers.Dir, name string, from, to uint64) (list []string, err error) {
	if from >= to {
		return nil, nil
	}
	fd, err := d.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	const shown = 8
	for at := int64(from); at < int64(to); {
		hole, err := unix.Seek(fd, at, unix.SEEK_HOLE)
		if err == unix.ENXIO { // the file ends before
			break
		}
		if err != nil {
			return nil, err
		}
		if hole >= int64(to) {
			break
		}
		data, err := unix.Seek(fd, hole, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data = int64(to)
		} else if err != nil {
			return nil, err
		}
		at = min(data, int64(to))
		if len(list) == shown {
			return append(list, "and more"), nil
		}
		list = append(list, fmt.Sprintf("%d to %d", hole, at-1))
	}
	return list, nil
}
