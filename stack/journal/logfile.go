// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
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
