// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// What can be wrong with a journal. Each comes wrapped in an [*Error], which says
// which file, what is wrong and what to do.
var (
	// ErrNewer: made by a later version of the program.
	ErrNewer = errors.New("journal of a newer version")
	// ErrDamaged: its content is not what was written.
	ErrDamaged = errors.New("journal damaged")
	// ErrLayerSet: it belongs to other layers than those given.
	ErrLayerSet = errors.New("journal of another set of layers")
	// ErrLocked: a live mount or another command uses it.
	ErrLocked = errors.New("journal in use")
	// ErrReadOnlyFS: it is on a file system that cannot be written.
	ErrReadOnlyFS = errors.New("journal on a read-only file system")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal closed")
)

// Error is a refusal explained. errors.Is finds both the sentinel and, if there is
// one, the errno behind it.
type Error struct {
	Kind error  // one of the sentinels above, or nil
	File string // the file it is about
	What string // what is wrong, one sentence without a full stop
	Mend string // what to do about it, or empty
	Err  error  // the cause, or nil
}

// Error gives one line: file: what; mend.
func (e *Error) Error() string {
	s := e.File + ": " + e.What
	if e.Err != nil {
		s += ": " + cause(e.Err).Error()
	}
	if e.Mend != "" {
		s += "; " + e.Mend
	}
	return s
}

// Unwrap gives the sentinel and the cause.
func (e *Error) Unwrap() []error {
	var out []error
	if e.Kind != nil {
		out = append(out, e.Kind)
	}
	if e.Err != nil {
		out = append(out, e.Err)
	}
	return out
}

// cause leaves out the operation and path that *fs.PathError would repeat.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

const (
	mendDamaged = "restore upperdir and workdir together from a backup, or mount with a fresh upperdir and workdir"
	mendSpace   = "make space on the file system of workdir"
)

// damaged makes an [ErrDamaged] about file.
func damaged(file, format string, args ...any) *Error {
	return &Error{Kind: ErrDamaged, File: file, What: "the journal is damaged: " + fmt.Sprintf(format, args...), Mend: mendDamaged}
}

// ioError explains an errno of an operation on file.
func ioError(file, what string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{File: file, What: what, Err: err}
	switch {
	case errors.Is(err, syscall.EROFS):
		e.Kind = ErrReadOnlyFS
		e.Mend = "use a workdir on a file system that can be written, or mount without upperdir"
	case isSpace(err):
		e.Mend = mendSpace
	}
	return e
}

// isSpace reports whether err is for want of space, which may come back.
func isSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// The names of the files in WORK/plyfs.
const (
	DBName    = "journal.db"
	newDBName = "journal.db.new"
	logName   = "journal.log"
	altName   = "journal.alt"
)

func dbPath(dir string) string { return filepath.Join(dir, DBName) }

// errIO makes any failure one that errors.Is finds to be EIO.
func errIO(err error) error {
	if errors.Is(err, syscall.EIO) {
		return err
	}
	return fmt.Errorf("%w (%w)", syscall.EIO, err)
}

// Files are the names of all files that a journal may have in its directory.
func Files() []string { return []string{DBName, newDBName, logName, altName} }
