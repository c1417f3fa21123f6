// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// check compares the file with the model by all ways of reading.
func (p *partialRun) check(when string) {
	p.Helper()
	for _, n := range p.names {
		if st := lstat(p, p.path(n)); st.Size != int64(len(p.content)) {
			p.Errorf("%s: %s has %d bytes, want %d", when, n, st.Size, len(p.content))
		}
	}
	if (len(p.content)+len(p.seq.Ops))%2 == 0 {
		p.forgetPages()
	}
	for i, n := range p.names {
		if i > 1 {
			break
		}
		path := p.path(n)
		p.compare(when+", "+n+" by read", func() ([]byte, error) { return readAll(path, 0) })
		p.compare(when+", "+n+" by O_DIRECT", func() ([]byte, error) { return readAll(path, unix.O_DIRECT) })
		p.compare(when+", "+n+" by mmap", func() ([]byte, error) { return readMapped(path) })
	}
	for slot, h := range p.held {
		p.checkHeld(fmt.Sprintf("%s, handle %d", when, slot), h)
	}
	p.checkHoles(when)
	if p.Failed() {
		p.FailNow()
	}
}

// compare compares what was read with the model.
func (p *partialRun) compare(what string, read func() ([]byte, error)) {
	p.Helper()
	got, err := read()
	if err != nil {
		p.Errorf("%s: %v", what, err)
	} else if d := firstDifference(p.content, got); d != "" {
		p.Errorf("%s: %s", what, d)
	}
}

// checkFD compares an open file with the model.
func (p *partialRun) checkFD(what string, fd int) {
	p.Helper()
	p.compare(what, func() ([]byte, error) { return readFD(fd) })
}

// checkHeld compares what a held handle shows with the model.
func (p *partialRun) checkHeld(what string, h *heldFile) {
	p.Helper()
	if h.m != nil {
		var err error
		func() {
			defer catchFault(&err)()
			n := min(len(h.m), len(p.content))
			if d := firstDifference(p.content[:n], h.m[:n]); d != "" {
				p.Errorf("%s, a mapping: %s", what, d)
			}
		}()
		if err != nil {
			p.Errorf("%s: %v", what, err)
		}
		return
	}
	if h.flags&unix.O_ACCMODE == unix.O_WRONLY {
		return
	}
	if h.early && p.written && (sut == sutOverlay || p.seq.IO == ioPassthrough) {
		return // a known difference: it goes on showing the lower file
	}
	p.checkFD(what, h.fd)
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil || st.Size != int64(len(p.content)) {
		p.Errorf("%s: fstat: %d bytes, %v; want %d", what, st.Size, err, len(p.content))
	}
}

// forgetPages drops the file's pages, so that it is read anew.
func (p *partialRun) forgetPages() {
	p.Helper()
	fd, err := unix.Open(p.file(), unix.O_RDONLY, 0)
	must(p, err)
	defer unix.Close(fd)
	must(p, unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
}

// checkHoles walks through data and holes: where a hole is said to be there is
// no other byte than zero, and the walk comes to the end.
func (p *partialRun) checkHoles(when string) {
	p.Helper()
	p.flushMaps() // SEEK_HOLE does not send pages to the daemon
	fd, err := unix.Open(p.file(), unix.O_RDONLY, 0)
	must(p, err)
	defer unix.Close(fd)
	if err := holesFit(fd, p.content); err != nil {
		p.Errorf("%s: %v", when, err)
	}
}

// holesFit is an error if a file takes bytes of the content for holes.
func holesFit(fd int, content []byte) error {
	size := int64(len(content))
	for off := int64(0); off < size; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = size, nil
		}
		if err != nil {
			return fmt.Errorf("SEEK_DATA from %d: %w", off, err)
		}
		if data < off || data > size {
			return fmt.Errorf("SEEK_DATA from %d goes to %d of %d", off, data, size)
		}
		if i := firstNonZero(content[off:data]); i >= 0 {
			return fmt.Errorf("SEEK_DATA from %d takes byte %d of %d for a hole", off, off+int64(i), size)
		}
		if data == size {
			break
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("SEEK_HOLE from %d: %w", data, err)
		}
		if hole <= data || hole > size {
			return fmt.Errorf("SEEK_HOLE from %d goes to %d of %d", data, hole, size)
		}
		off = hole
	}
	for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
		if _, err := unix.Seek(fd, size, whence); !errors.Is(err, unix.ENXIO) {
			return fmt.Errorf("seek from the end: %w, want ENXIO", err)
		}
	}
	return nil
}

var zeros [1 << 16]byte

// firstNonZero is the index of the first byte that is not zero, -1 without any.
// It compares in pieces, for the race detector makes loops over bytes slow.
func firstNonZero(b []byte) int {
	for off := 0; off < len(b); off += len(zeros) {
		piece := b[off:min(off+len(zeros), len(b))]
		if bytes.Equal(piece, zeros[:len(piece)]) {
			continue
		}
		for i, c := range piece {
			if c != 0 {
				return off + i
			}
		}
	}
	return -1
}
