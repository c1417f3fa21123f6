// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Op is one change, made by the functions below and given to [Journal.Apply].
type Op struct {
	kind   opKind
	dir    DirID
	name   string
	origin Origin
	links  Links
	note   DirNote
}

// opKind is the first byte of an encoded op: part of the format.
type opKind uint8

const (
	opCover     opKind = 1
	opUncover   opKind = 2
	opDropDir   opKind = 3
	opSetLinks  opKind = 4
	opDropLinks opKind = 5
	opNoteDir   opKind = 6
	opReserve   opKind = 7 // dir: ids up to and including it may have been handed out
)

// maxName bounds a name and maxPath a path in a note, in bytes. A name is at most
// 255 characters of whatever encoding the upper file system has.
const (
	maxName = 4096
	maxPath = 64 << 10
)

// Cover hides the lower entries of name in directory d.
func Cover(d DirID, name string) Op { return Op{kind: opCover, dir: d, name: name} }

// Uncover takes a [Cover] back. It is no error if there is none.
func Uncover(d DirID, name string) Op { return Op{kind: opUncover, dir: d, name: name} }

// DropDir forgets all records of a directory that is gone.
func DropDir(d DirID) Op { return Op{kind: opDropDir, dir: d} }

// SetLinks keeps the account of a lower inode.
func SetLinks(o Origin, l Links) Op { return Op{kind: opSetLinks, origin: o, links: l} }

// DropLinks forgets the account of a lower inode.
func DropLinks(o Origin) Op { return Op{kind: opDropLinks, origin: o} }

// NoteDir keeps a note about a directory for readers; the zero note removes it.
func NoteDir(d DirID, n DirNote) Op { return Op{kind: opNoteDir, dir: d, note: n} }

// validate refuses what must never be on disk: EINVAL, wrapped.
func (o *Op) validate() error {
	bad := func(what string) error {
		return fmt.Errorf("journal: %s: %w", what, syscall.EINVAL)
	}
	switch o.kind {
	case opCover, opUncover:
		if !validName(o.name) {
			return bad(fmt.Sprintf("%q is no name", o.name))
		}
	case opNoteDir:
		if len(o.note.Path) > maxPath || len(o.note.Redirect) > maxPath {
			return bad("path too long")
		}
	case opDropDir, opReserve:
	case opSetLinks, opDropLinks:
		return nil
	default:
		return bad(fmt.Sprintf("unknown record kind %d", o.kind))
	}
	if o.dir == 0 {
		return bad("directory id 0")
	}
	return nil
}

// validName reports whether name can be that of a directory entry.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxName &&
		!strings.ContainsAny(name, "/\x00")
}

// An op in a frame, all numbers unsigned varints, strings a length and bytes:
//
//	cover, uncover   kind(1)  dir  name
//	dropDir          kind(1)  dir
//	setLinks         kind(1)  layer  ino  nlink  gone
//	dropLinks        kind(1)  layer  ino
//	noteDir          kind(1)  dir  flags(1)  redirect  path
//	reserve          kind(1)  dir

// append encodes o.
func (o *Op) append(b []byte) []byte {
	b = append(b, byte(o.kind))
	switch o.kind {
	case opSetLinks, opDropLinks:
		b = binary.AppendUvarint(b, uint64(o.origin.Layer))
		b = binary.AppendUvarint(b, o.origin.Ino)
		if o.kind == opSetLinks {
			b = binary.AppendUvarint(b, uint64(o.links.Nlink))
			b = binary.AppendUvarint(b, uint64(o.links.Gone))
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(o.dir))
	switch o.kind {
	case opCover, opUncover:
		b = appendString(b, o.name)
	case opNoteDir:
		b = appendNote(b, o.note)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

const noteOpaque = 1 // flag of a note

// appendNote encodes a note; also the value of a note in the database.
func appendNote(b []byte, n DirNote) []byte {
	var flags byte
	if n.Opaque {
		flags |= noteOpaque
	}
	b = append(b, flags)
	b = appendString(b, n.Redirect)
	return appendString(b, n.Path)
}

var errShort = errors.New("record cut short")

// decoder takes values off the front of b; the first failure sticks.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.err != nil || n <= 0 || v > limit {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if d.err != nil || len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) string(limit uint64) string {
	n := d.uvarint(limit)
	if d.err != nil || n > uint64(len(d.b)) {
		d.fail()
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) note() DirNote {
	flags := d.byte()
	if flags&^noteOpaque != 0 {
		d.fail()
	}
	return DirNote{Opaque: flags&noteOpaque != 0, Redirect: d.string(maxPath), Path: d.string(maxPath)}
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errShort
	}
}

// op decodes one op.
func (d *decoder) op() Op {
	const max32, max64 = 1<<32 - 1, 1<<64 - 1
	o := Op{kind: opKind(d.byte())}
	switch o.kind {
	case opSetLinks, opDropLinks:
		o.origin = Origin{Layer: uint32(d.uvarint(max32)), Ino: d.uvarint(max64)}
		if o.kind == opSetLinks {
			o.links = Links{Nlink: uint32(d.uvarint(max32)), Gone: uint32(d.uvarint(max32))}
		}
	default:
		o.dir = DirID(d.uvarint(max64))
	}
	switch o.kind {
	case opCover, opUncover:
		o.name = d.string(maxName)
	case opNoteDir:
		o.note = d.note()
	}
	if d.err == nil {
		d.err = o.validate()
	}
	return o
}

// decodeOps decodes the payload of a frame.
func decodeOps(b []byte) ([]Op, error) {
	d := decoder{b: b}
	var ops []Op
	for len(d.b) > 0 {
		o := d.op()
		if d.err != nil {
			return nil, d.err
		}
		ops = append(ops, o)
	}
	return ops, nil
}
