// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/plyfs/plyfs/bpf/internal/location"
)

// A Handler does for a rule what its program cannot: it is asked before the
// program (PLY_USER_PREFILTER), after the operation (PLY_USER_POSTFILTER), or
// for bytes (PLY_EXT_SERVER). It must be safe for concurrent use, and may be
// asked while a file is locked, so it must not come back to the mount.
type Handler interface {
	// Prefilter edits the inputs with which the program is asked again.
	Prefilter(*HandlerCall) error
	// Postfilter sees what the operation came to; an error refuses it.
	Postfilter(*HandlerCall) error
}

// A Server is a Handler that makes bytes: it fills b with those at off of the
// file that is shown.
type Server interface {
	Serve(c *HandlerCall, b []byte, off int64) error
}

// HandlerCall is what a handler is asked about.
type HandlerCall struct {
	Section string // of the program that asks for it
	Place   string
	Name    string
	Size    int64       // of the file that serves the name
	Data    io.ReaderAt // reads that file; nil where there is none
	Ino     uint64
	Mtime   int64
	Lower   bool // the file is in a lower layer, so it does not change

	// Bytes are what was read, for Postfilter of a read, which may change
	// them; they are at Off of the file.
	Bytes []byte
	Off   int64

	// Hints are the ranges that the program is to see, sorted and disjoint;
	// Prefilter sets them.
	Hints []location.Range
}

// handlers are those that rules can name.
var handlers = map[string]func(*Policy) Handler{
	"image-location": func(p *Policy) Handler { return imageLocation{&p.found} },
}

// handlerNames are the names, for the policy file and for messages.
func handlerNames() []string { return slices.Sorted(maps.Keys(handlers)) }

// imageLocation finds the places of an image that tell where it was taken.
type imageLocation struct{ found *foundCache }

// Prefilter implements Handler: an image of which it cannot be sure is refused.
func (h imageLocation) Prefilter(c *HandlerCall) error {
	if c.Data == nil {
		return nil
	}
	key := foundKey{c.Ino, c.Size, c.Mtime}
	if c.Lower {
		if r, ok := h.found.get(key); ok {
			c.Hints = r
			return nil
		}
	}
	r, err := location.Find(c.Data, c.Size)
	if err != nil {
		return fmt.Errorf("%s: image-location: %w", c.Place, err)
	}
	if c.Lower {
		h.found.put(key, r)
	}
	c.Hints = r
	return nil
}

// Postfilter implements Handler.
func (imageLocation) Postfilter(*HandlerCall) error { return nil }

// foundCache keeps what was found in lower files, which do not change, so that
// an image is searched at its first open only. It is emptied when it has grown
// to foundMax ranges or files.
type foundCache struct {
	mu sync.Mutex
	m  map[foundKey][]location.Range
	n  int
}

type foundKey struct {
	ino         uint64
	size, mtime int64
}

const foundMax = 1 << 16

func (f *foundCache) get(k foundKey) ([]location.Range, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.m[k]
	return r, ok
}

func (f *foundCache) put(k foundKey, r []location.Range) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n += 1 + len(r); f.m == nil || f.n > foundMax {
		f.m, f.n = make(map[foundKey][]location.Range), 1+len(r)
	}
	f.m[k] = r
}
