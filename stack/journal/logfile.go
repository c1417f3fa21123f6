// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// logFile is one of the two logs.
type logFile struct {
	f    *os.File
	size int64 // where the next frame goes
	torn bool  // there may be bytes behind size, of a write that failed
}

func (l *logFile) path() string { return l.f.Name() }

// append writes b behind the last frame with one write(2). If that fails the log is
// as before: the torn frame is cut off now, or before the next one is written.
func (l *logFile) append(b []byte) error {
	if l.torn {
		if err := l.cutBack(); err != nil {
			return err
		}
	}
	if _, err := l.f.WriteAt(b, l.size); err != nil {
		l.torn = true
		_ = l.cutBack() // if this fails it is tried again
		return err
	}
	l.size += int64(len(b))
	return nil
}

// cutBack removes what lies behind size.
func (l *logFile) cutBack() error {
	if err := l.f.Truncate(l.size); err != nil {
		return err
	}
	l.torn = false
	l.reserve() // that went, too
	return nil
}

// wipe empties the file and keeps its blocks, which might not be had again: it
// writes zeros and makes them durable, if sync. Frames that are written over them
// later are then found whole or as zeros after a power cut, never as older ones.
func (l *logFile) wipe(sync bool) error {
	fi, err := l.f.Stat()
	if err != nil {
		return err
	}
	size := fi.Size()
	if size > logReserve {
		if err := l.f.Truncate(logReserve); err != nil {
			return err
		}
		size = logReserve
	}
	dirty := false
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < size; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), size-off)]
		if _, err := l.f.ReadAt(b, off); err != nil {
			return err
		}
		if bytes.Equal(b, zeros[:len(b)]) {
			continue
		}
		dirty = true
		if _, err := l.f.WriteAt(zeros[:len(b)], off); err != nil {
			return err
		}
	}
	if dirty && sync {
		return fdatasync(l)
	}
	return nil
}

// readAll gives the whole file.
func (l *logFile) readAll() ([]byte, error) {
	fi, err := l.f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, fi.Size())
	n, err := l.f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}
