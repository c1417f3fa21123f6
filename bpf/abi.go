// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

// The program ABI as include/plyfs.h defines it. TestLayout compares each
// offset with the BTF of a compiled object.

// abiVersion is PLY_ABI.
const abiVersion = 1

// Actions, with fuse-bpf's numbers: what a program returns. A negative number
// is an errno.
const (
	actContinue       = 0 // PLY_CONTINUE
	actUser           = 1 // PLY_USER
	actUserPrefilter  = 2 // PLY_USER_PREFILTER
	actPostfilter     = 3 // PLY_POSTFILTER
	actUserPostfilter = 4 // PLY_USER_POSTFILTER
)

// An op is what is about to be done: PLY_LOOKUP and its kin.
type op uint32

const (
	opLookup op = iota + 1
	opGetattr
	opReaddir
	opOpen
	opRead
	opWrite
)

// A phase is PLY_PRE or PLY_POST.
type phase uint32

const (
	pre phase = iota + 1
	post
)

// Flags of the input.
const (
	inHandled = 1
	inAttr    = 2
	inWrite   = 4
	inCopyUp  = 8
	inCopied  = 16
)

// Flags of the output.
const (
	outHide    = 1
	outChoose  = 2
	outSize    = 4
	outMtime   = 8
	outMode    = 16
	outNoCache = 32
)

// Kinds of extents.
const (
	extBacking = 0
	extZero    = 1
	extInline  = 2
	extServer  = 3
)

const (
	nobody      = ^uint32(0) // PLY_NOBODY
	nameMax     = 256        // PLY_NAME_MAX
	maxExtents  = 16         // PLY_EXTENTS
	maxHints    = 16         // PLY_HINTS
	inlineBytes = 4096       // PLY_INLINE
	backingSelf = 64         // PLY_SELF
	backingPart = 128        // PLY_PART(0)
)

// byteRange is struct ply_range.
type byteRange struct{ Off, Len uint64 }

// input is struct ply_in.
type input struct {
	ABI, Op, Phase, Flags uint32
	Ino, Parent           uint64
	Offset, Length        uint64
	Size, Mtime           uint64
	Epoch, Layers         uint64
	Layer, NLayers        uint32
	NParts, Mode          uint32
	UID, GID, PID         uint32
	Error                 int32
	NameLen, NHints       uint32
	Hints                 [maxHints]byteRange
	Name                  [nameMax]byte
}

// extent is struct ply_extent.
type extent struct {
	Off, Len, Src uint64
	Kind, Backing uint32
}

// output is struct ply_out.
type output struct {
	Flags, Layer      uint32
	Skip, Size, Mtime uint64
	ModeClear, TTLms  uint32
	NExtents, DataLen uint32
	Extents           [maxExtents]extent
	Data              [inlineBytes]byte
}

// slot is struct ply_slot, the value of the map ply_slots.
type slot struct {
	In  input
	Out output
}
