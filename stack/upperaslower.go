// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// An upper is not whole without its journal and its lower layers: names that
// were removed are in the one, the bytes of partial files in the others. As a
// lower layer of another mount it would show removed names again, and zeros. So
// of a lower layer that was the upper of a mount, directories that may hide names,
// opaque and moved ones, and partial files are EIO; the rest of it is as plain as
// it looks. An engine that mounts the layers of an image for writing, to compare
// them, leaves nothing but the pair mark.

const needsItsMount = "it was changed through a plyfs mount, and its upperdir is used as a lower layer without the journal and the lower layers that belong to it; " +
	"give the merged tree as the layer, or a copy of that"

// checkPaired refuses a lower layer whose root says that it cannot be one, and
// notes which layers must be watched.
func checkPaired(l *layers.Layer) error {
	pair, err := readPair(l.Root())
	if err == syscall.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return &Error{Kind: KindIO, Path: l.Path, Msg: "cannot be read", Err: err}
	}
	if l.Paired = pair != nil; !l.Paired {
		return nil
	}
	if err := markedUpper(l.Root()); err != nil && toErrno(err) != syscall.EIO {
		return &Error{Kind: KindIO, Path: l.Path, Msg: "cannot be read", Err: err}
	} else if err != nil {
		return &Error{Kind: KindJournal, Path: l.Path, Msg: "this lower layer was the upperdir of a plyfs mount, and is not whole without its workdir and lower layers",
			Mend: "mount it with these, and give the mount as the lower layer, or a copy of what it shows"}
	}
	return nil
}

// lowerMarks is Marks of a directory of a lower layer.
func lowerMarks(d *layers.Dir) (layers.DirMarks, error) {
	m, err := d.Marks(lowerDialects)
	if err == nil && d.Layer().Paired {
		err = markedUpper(d)
	}
	return m, err
}

// markedUpper is an error that wraps EIO if a directory bears a mark by which it
// shows something else than it holds: it may hide names, is opaque or was moved.
// That it holds copies changes nothing.
func markedUpper(d *layers.Dir) error {
	m, err := readMark(d)
	if err == nil && m.id == 0 && m.redirect == "" && !m.opaque() || err == syscall.EOPNOTSUPP {
		return nil
	}
	if err == nil || err == syscall.ERANGE || errors.Is(err, errMark) {
		err = fmt.Errorf("%s: %s: %w", d.Path(), needsItsMount, syscall.EIO)
	}
	return err
}

// partialUpper is an error that wraps EIO if a file of a lower layer is
// partial.
func partialUpper(d *layers.Dir, name string, st *unix.Stat_t) error {
	if !d.Layer().Paired || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	m, ok, err := readOriginMark(ref{d: d, name: name, fd: -1})
	if err == nil && ok && m.partial || err == errMark {
		err = fmt.Errorf("%s/%s: %s: %w", d.Path(), name, needsItsMount, syscall.EIO)
	}
	return err
}
