// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// Facts about an inode live on the inode, so that a rename carries them along
// in one step. Two private xattrs, never shown through the mount:
//
//	trusted.plyfs.dir, on upper directories
//	+---------+-------+----------------+------------------------+
//	| version | flags | directory id   | redirect               |
//	| 1 byte  | 1     | 8, big endian  | rest; path from the    |
//	| = 1     |       | 0 = none       | lower root, or empty   |
//	+---------+-------+----------------+------------------------+
//	flags: 1 opaque (nothing below shows through)
//	       2 impure (may hold entries with an origin)
//
//	trusted.plyfs.origin, on copied-up inodes that are no directories
//	+---------+---------------+-------------------+
//	| version | layer         | inode number      |
//	| 1 byte  | 4, big endian | 8, big endian     |
//	| = 1     | 1 = topmost   |                   |
//	+---------+---------------+-------------------+
const (
	xattrPrefix = "trusted.plyfs."
	xattrDir    = xattrPrefix + "dir"
	xattrOrigin = xattrPrefix + "origin"

	markVersion = 1
	markOpaque  = 1
	markImpure  = 2

	markHeader  = 10
	originBytes = 13

	// maxRedirect is the longest redirect that fits any file system's
	// xattrs next to what users keep there. Kernel overlayfs takes 256.
	maxRedirect = 2048
)

// dirMark is the content of trusted.plyfs.dir.
type dirMark struct {
	flags    byte
	id       journal.DirID
	redirect string
}

func (m dirMark) opaque() bool { return m.flags&markOpaque != 0 }
func (m dirMark) impure() bool { return m.flags&markImpure != 0 }

func (m dirMark) encode() []byte {
	b := make([]byte, markHeader, markHeader+len(m.redirect))
	b[0], b[1] = markVersion, m.flags
	binary.BigEndian.PutUint64(b[2:], uint64(m.id))
	return append(b, m.redirect...)
}

// errMark is a private xattr that cannot be read: a newer plyfs wrote it, or
// it is damaged. Requests that meet it fail with EIO.
var errMark = errors.New("private xattr is damaged or of a newer plyfs")

func decodeMark(b []byte) (dirMark, error) {
	if len(b) < markHeader || b[0] != markVersion {
		return dirMark{}, errMark
	}
	m := dirMark{
		flags:    b[1],
		id:       journal.DirID(binary.BigEndian.Uint64(b[2:])),
		redirect: string(b[markHeader:]),
	}
	if m.redirect != "" && (m.redirect[0] != '/' || strings.Contains(m.redirect+"/", "/../")) {
		return dirMark{}, errMark
	}
	return m, nil
}

// readMark reads the mark of an upper directory; none is the zero mark.
func readMark(d *layers.Dir) (dirMark, error) {
	var buf [markHeader + maxRedirect]byte
	n, err := d.Getxattr("", xattrDir, buf[:])
	if err == syscall.ENODATA {
		return dirMark{}, nil
	}
	if err != nil {
		return dirMark{}, err
	}
	m, err := decodeMark(buf[:n])
	if err != nil {
		return m, fmt.Errorf("%s: %s: %w", d.Path(), xattrDir, err)
	}
	return m, nil
}

func encodeOrigin(o journal.Origin) []byte {
	b := make([]byte, originBytes)
	b[0] = markVersion
	binary.BigEndian.PutUint32(b[1:], o.Layer)
	binary.BigEndian.PutUint64(b[5:], o.Ino)
	return b
}

func decodeOrigin(b []byte) (journal.Origin, error) {
	if len(b) != originBytes || b[0] != markVersion {
		return journal.Origin{}, errMark
	}
	return journal.Origin{
		Layer: binary.BigEndian.Uint32(b[1:]),
		Ino:   binary.BigEndian.Uint64(b[5:]),
	}, nil
}

// readOrigin gives an upper non-directory the number of the lower inode that
// it was copied from.
func (fs *FS) readOrigin(up *layers.Dir, name string, f *found) error {
	var buf [originBytes + 1]byte
	n, err := up.Getxattr(name, xattrOrigin, buf[:])
	if err == syscall.ENODATA || err == syscall.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	o, err := decodeOrigin(buf[:n])
	if err != nil || o.Layer == 0 || int(o.Layer) >= len(fs.layers) {
		return fmt.Errorf("%s/%s: %s: %w", up.Path(), name, xattrOrigin, errMark)
	}
	f.origin = o
	f.ino = fs.inos.get(fs.layers[o.Layer].Dev, o.Ino)
	f.hard = f.typ != unix.S_IFDIR && fs.hard.indexed(o)
	return nil
}

// privateAttr tells whether an xattr is plyfs' own, or, on an inode of a layer
// where overlayfs' marks are honoured, overlayfs'.
func (fs *FS) privateAttr(name string, lower bool) bool {
	if strings.HasPrefix(name, xattrPrefix) {
		return true
	}
	return (lower || fs.foreign) &&
		(strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay."))
}
