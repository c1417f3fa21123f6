// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
)

// checkOrigin looks at the origin of an upper entry or of a copy in the index;
// then d is nil.
func (c *checker) checkOrigin(d *checkDir, up *layers.Dir, name, path string) {
	b, err := readAttr(up, name, xattrOrigin)
	if err != nil {
		c.unreadable(path, err)
		return
	}
	o, err := decodeOrigin(b)
	if err != nil {
		if len(b) > 0 && b[0] != markVersion {
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
	c.checkOneCopy(o.Origin, path, &st)
	if o.partial {
		c.checkPartial(o, d, up, name, path, &st)
	}
}

// checkOneCopy proves that a lower inode has one copy, whose names all are names
// of one file. A mount that knows one of two copies takes the other for it.
func (c *checker) checkOneCopy(o journal.Origin, path string, st *unix.Stat_t) {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return
	}
	id := inodeID{st.Dev, st.Ino}
	first, ok := c.copyOf[o]
	if !ok {
		c.copyOf[o] = id
		return
	}
	if first != id {
		c.add(Finding{Severity: Violation, Kind: "origin-twice", Path: path,
			What:  fmt.Sprintf("%s says that it is a copy of inode %d of lower layer %d, and so does that of another file of upper, inode %d", xattrOrigin, o.Ino, o.Layer, first.ino),
			Loses: "one of the two: the mount takes them for one file",
			Mend:  "restore from a copy what is wrong; a file of which nothing is in the lower layers needs no " + xattrOrigin})
	}
}

// checkPartial proves that what was never written can be read from the lower
// file.
func (c *checker) checkPartial(o originMark, d *checkDir, up *layers.Dir, name, path string, st *unix.Stat_t) {
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
	limit := o.limit
	if o.cut {
		limit = min(limit, st.Size)
	}
	from := int64(0)
	switch {
	case why != "":
	case limit > low.Size:
		why, from = fmt.Sprintf("its limit is %d bytes, and the lower file has only %d", o.limit, low.Size), low.Size
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
func (c *checker) lowerFileOf(o originMark, d *checkDir, name string) (st unix.Stat_t, why string) {
	path := o.path
	if path == "" {
		if d == nil || d.low == nil {
			return st, "no lower path is given, and nothing of a lower layer merges here"
		}
		path = joinPlace(d.low.path(), name)
	}
	where := fmt.Sprintf("%s in lower layer %d (%s)", path, o.Layer, c.fs.layers[o.Layer].Path)
	low, err := (&partial{fs: c.fs, origin: o.Origin, path: path}).find()
	if err == nil {
		err = low.ref(true).stat(&st)
	}
	switch {
	case err == syscall.ENOENT || err == syscall.ESTALE:
		return st, fmt.Sprintf("%s is not there, or is not the regular file of inode %d any more", where, o.Ino)
	case err != nil:
		return st, fmt.Sprintf("%s: %v", where, err)
	}
	return st, ""
}

// holes lists the ranges of a file between two offsets that were never written.
func holes(d *layers.Dir, name string, from, to int64) (list []string, err error) {
	if from >= to {
		return nil, nil
	}
	fd, err := d.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	const shown = 8
	for at := from; at < to; {
		hole, err := unix.Seek(fd, at, unix.SEEK_HOLE)
		if err == unix.ENXIO { // the file ends before
			break
		}
		if err != nil {
			return nil, err
		}
		if hole >= to {
			break
		}
		data, err := unix.Seek(fd, hole, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data = to
		} else if err != nil {
			return nil, err
		}
		at = min(data, to)
		if len(list) == shown {
			return append(list, "and more"), nil
		}
		list = append(list, fmt.Sprintf("%d to %d", hole, at-1))
	}
	return list, nil
}
