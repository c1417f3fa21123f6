// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"math"
)

// A Plan says of what a file is made: a list of extents, asked for window by
// window, for a list may be long. The stack checks every window before it is
// used (checkWindow), and executes it (planfile.go).
type Plan struct {
	// Size is the size of the file that is shown, in bytes.
	Size int64
	// Window gives extents from off on, as many as it likes: the first one
	// begins at off, and each where the one before ends. 0 <= off < Size. It
	// must be safe for concurrent use, and give the same for the same off as
	// long as the plan is used.
	Window func(off int64) (Window, error)
	// Parts are the files that PartBacking names, from 0.
	Parts []Part
	// Serve fills b with the bytes at off, for extents of ExtentServer.
	Serve func(b []byte, off int64) error
	// Release, if not nil, is called once when the plan is no longer used.
	Release func()
}

// A Part is a file that is no layer's.
type Part struct {
	Name string // for messages
	FD   int    // open for reading; the policy's, and open until the plan is released
}

// A Window is a run of extents.
type Window struct {
	Extents []Extent
	Data    []byte // of ExtentInline
}

// An Extent is where the bytes [Off, Off+Len) of the file come from.
type Extent struct {
	Off, Len int64
	// Src is where they begin in the backing file, or in Window.Data.
	Src     int64
	Kind    ExtentKind
	Backing Backing // of ExtentBacking
}

// ExtentKind says what an extent's bytes are.
type ExtentKind uint8

// The kinds of extents.
const (
	ExtentBacking ExtentKind = iota // bytes of a backing file
	ExtentZero                      // zeros
	ExtentInline                    // bytes of the answer itself
	ExtentServer                    // made by Plan.Serve
)

var kindNames = map[ExtentKind]string{ExtentBacking: "backing", ExtentZero: "zero", ExtentInline: "inline", ExtentServer: "server"}

// String names the kind.
func (k ExtentKind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A Backing names a backing file of a plan.
type Backing int32

// Self is the file that serves the name.
const Self Backing = 0

const partBase = 1 << 16

// LayerBacking is the version of the same path in lower layer k, from 1 on.
func LayerBacking(k int) Backing { return Backing(k) }

// PartBacking is a file of Plan.Parts.
func PartBacking(i int) Backing { return Backing(partBase + i) }

func (b Backing) part() (int, bool) { return int(b) - partBase, b >= partBase }

// String names the backing file.
func (b Backing) String() string {
	if i, ok := b.part(); ok {
		return fmt.Sprintf("part %d", i)
	}
	if b == Self {
		return "self"
	}
	return fmt.Sprintf("layer %d", int32(b))
}

// release ends the use of a plan; a nil plan is none.
func (p *Plan) release() {
	if p != nil && p.Release != nil {
		p.Release()
	}
}

// releasePlan is release for a policy that may panic: whoever holds locks goes
// on.
func (fs *FS) releasePlan(p *Plan) {
	defer fs.policyPanics(func() {})
	p.release()
}

// planBounds is what a window is checked against.
type planBounds struct {
	size    int64                          // of the file shown
	inPlace bool                           // a file in upper: only blanking is allowed
	length  func(b Backing) (int64, error) // of a backing file; an error if there is none
	serves  bool                           // there is a Plan.Serve
}

// checkWindow makes sure of all that the executor relies on: extents from off
// on without a gap, an overlap or an overflow, none beyond the size, and each
// in a backing file that is there and long enough.
func checkWindow(w Window, off int64, b planBounds) error {
	if len(w.Extents) == 0 {
		return fmt.Errorf("no extent for byte %d of %d", off, b.size)
	}
	at := off
	for i, e := range w.Extents {
		if err := checkExtent(e, at, w, b); err != nil {
			return fmt.Errorf("extent %d (offset %d, length %d, %v): %w", i, e.Off, e.Len, e.Kind, err)
		}
		at += e.Len
	}
	return nil
}

func checkExtent(e Extent, at int64, w Window, b planBounds) error {
	switch {
	case e.Len <= 0:
		return fmt.Errorf("its length is no positive number")
	case e.Off > at:
		return fmt.Errorf("a gap before it, from byte %d on", at)
	case e.Off < at:
		return fmt.Errorf("overlaps what is before byte %d", at)
	case e.Len > b.size-at:
		return fmt.Errorf("goes beyond the size of %d", b.size)
	case e.Src < 0 || e.Src > math.MaxInt64-e.Len:
		return fmt.Errorf("its source %d overflows", e.Src)
	}
	return checkSource(e, w, b)
}

func checkSource(e Extent, w Window, b planBounds) error {
	if b.inPlace && e.Kind != ExtentZero && !(e.Kind == ExtentBacking && e.Backing == Self && e.Src == e.Off) {
		return fmt.Errorf("a file in upper may only be blanked")
	}
	switch e.Kind {
	case ExtentZero:
		return nil
	case ExtentInline:
		if e.Src+e.Len > int64(len(w.Data)) {
			return fmt.Errorf("needs %d inline bytes of %d", e.Src+e.Len, len(w.Data))
		}
		return nil
	case ExtentServer:
		if !b.serves {
			return fmt.Errorf("nobody serves its bytes")
		}
		return nil
	case ExtentBacking:
		n, err := b.length(e.Backing)
		if err == nil && e.Src+e.Len > n {
			err = fmt.Errorf("needs %v up to byte %d, which ends at %d", e.Backing, e.Src+e.Len, n)
		}
		return err
	}
	return fmt.Errorf("no such kind")
}
