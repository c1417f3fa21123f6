// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
//	+---------+---------------+---------------+---------------+---------------+----------------+
//	| version | layer         | inode number  | limit         | CRC-32C of    | lower path     |
//	| 1 byte  | 4, big endian | 8, big endian | 8, big endian | all the rest  | rest; from the |
//	| = 1 - 3 | 1 = topmost   |               |               | 4, big endian | lower root     |
//	+---------+---------------+---------------+---------------+---------------+----------------+
//	inode number: or the hash that stands for it, see originof.go
//	version 1: a whole file, or no regular one; limit, sum and path are not there
//	version 2: a partial file (partial.go) that was never cut: if it is shorter
//	           than its limit, the file system has lost its size in a power cut.
//	           Without a path, the lower file is the one of the same name in the
//	           directory that this one is in
//	version 3: the same that may have been cut: its limit is its size, if that is
//	           less
const (
	xattrPrefix = "trusted.plyfs."
	xattrDir    = xattrPrefix + "dir"
	xattrOrigin = xattrPrefix + "origin"

	markVersion = 1
	markOpaque  = 1
	markImpure  = 2

	markPartial = 2 // versions of an origin
	markCut     = 3

	markHeader   = 10
	originBytes  = 13
	partialBytes = originBytes + 8 + 4

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

// An originMark is the content of trusted.plyfs.origin.
type originMark struct {
	journal.Origin
	partial bool
	cut     bool   // a partial file may have been made shorter since its copy-up
	limit   int64  // of a partial file
	path    string // of its lower file, "" for the one of the same name
}

func (m originMark) encode() []byte {
	b := make([]byte, originBytes, partialBytes+len(m.path))
	b[0] = markVersion
	binary.BigEndian.PutUint32(b[1:], m.Layer)
	binary.BigEndian.PutUint64(b[5:], m.Ino)
	if m.partial {
		b[0] = markPartial
		if m.cut {
			b[0] = markCut
		}
		b = binary.BigEndian.AppendUint64(b, uint64(m.limit))
		b = binary.BigEndian.AppendUint32(b, originSum(b, m.path))
		b = append(b, m.path...)
	}
	return b
}

// originSum is the sum of a partial file's origin: of what comes before it and
// of the path behind it.
func originSum(head []byte, path string) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, []byte(path))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func decodeOrigin(b []byte) (originMark, error) {
	if len(b) < originBytes {
		return originMark{}, errMark
	}
	m := originMark{Origin: journal.Origin{
		Layer: binary.BigEndian.Uint32(b[1:]),
		Ino:   binary.BigEndian.Uint64(b[5:]),
	}}
	switch {
	case b[0] == markVersion && len(b) == originBytes:
		return m, nil
	case b[0] != markPartial && b[0] != markCut || len(b) < partialBytes:
		return originMark{}, errMark
	}
	m.partial, m.cut = true, b[0] == markCut
	m.limit = int64(binary.BigEndian.Uint64(b[originBytes:]))
	m.path = string(b[partialBytes:])
	sum := binary.BigEndian.Uint32(b[partialBytes-4:])
	if sum != originSum(b[:partialBytes-4], m.path) || m.limit < 0 || m.path != "" && !isLowerPath(m.path) {
		return originMark{}, errMark
	}
	return m, nil
}

// isLowerPath tells whether a path leads straight down from the lower root.
func isLowerPath(s string) bool {
	if s[0] != '/' || strings.IndexByte(s, 0) >= 0 {
		return false
	}
	for part := range strings.SplitSeq(s[1:], "/") {
		if part == "" || part == "." || part == ".." || len(part) > unix.NAME_MAX {
			return false
		}
	}
	return true
}

// readOriginMark reads the origin of an upper non-directory; ok is false if it
// has none.
func readOriginMark(r ref) (m originMark, ok bool, err error) {
	var small [partialBytes + 128]byte
	buf := small[:]
	n, err := r.getxattr(xattrOrigin, buf)
	if err == syscall.ERANGE {
		buf = make([]byte, partialBytes+maxPlace+1)
		n, err = r.getxattr(xattrOrigin, buf)
	}
	switch err {
	case nil:
		m, err = decodeOrigin(buf[:n])
		return m, err == nil, err
	case syscall.ENODATA, syscall.EOPNOTSUPP:
		return m, false, nil
	}
	return m, false, err
}

// readOrigin gives an upper non-directory the number of the lower inode that
// it was copied from, and what is left of it in lower.
func (fs *FS) readOrigin(p *node, name string, f *found) error {
	up := p.dir.upper()
	m, ok, err := readOriginMark(ref{d: up, name: name, fd: -1})
	if err == nil && !ok {
		return nil
	}
	bad := err == errMark || err == nil && (m.Layer == 0 || int(m.Layer) >= len(fs.layers) || m.partial && f.typ != unix.S_IFREG)
	if bad {
		return fmt.Errorf("%s/%s: %s: %w", up.Path(), name, xattrOrigin, errMark)
	}
	if err != nil {
		return err
	}
	f.origin = m.Origin
	f.ino = fs.inos.get(fs.layers[m.Layer].Dev, m.Ino)
	f.hard = f.typ != unix.S_IFDIR && fs.hard.indexed(m.Origin)
	if m.partial {
		f.part = fs.loadPartial(m, p, name)
	}
	return restoreSize(ref{d: up, name: name, fd: -1}, m, &f.st)
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
