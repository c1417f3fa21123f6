// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// xattrBlocks bounds the 512-byte blocks that a file without data may have for
// its xattrs.
const xattrBlocks = 128

// maybeMetacopy tells, from what costs nothing, whether a lower file may be a
// metacopy of kernel overlayfs (metacopy=on): one above another layer, with
// fewer blocks than its size needs, or so few that they may all be for xattrs
// in a directory that overlayfs marked as holding copies (impure).
func (fs *FS) maybeMetacopy(d *layers.Dir, st *unix.Stat_t, impure bool) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 || d.Layer().Index >= fs.bottom {
		return false
	}
	return st.Blocks*512 < st.Size || impure && st.Blocks <= xattrBlocks
}

// metacopyData finds the file, in a layer below, that holds the data of a
// metacopy (namei.c:ovl_lookup with uppermetacopy). nil: the file is none. It
// is EIO if the data is nowhere.
func (s *lowerStack) metacopyData(d *layers.Dir, name string) (*lowerFile, error) {
	m, err := d.FileMarks(name)
	if err != nil || !m.Metacopy {
		return nil, err
	}
	t, index := redirectTrail(s, name, m.Redirect), d.Layer().Index
	for again := true; again; {
		again = false
		for _, below := range t.from.dirs {
			if below.Layer().Index <= index {
				continue
			}
			f, err := t.step(below)
			if err != nil {
				return nil, err
			}
			if f.d != nil {
				if f.st.Mode&unix.S_IFMT != unix.S_IFREG {
					return nil, syscall.EIO
				}
				next, err := f.d.FileMarks(f.name)
				if err != nil {
					return nil, err
				}
				if !next.Metacopy {
					return &lowerFile{d: f.d, name: f.name}, nil
				}
				t, index, again = t.turn(next.Redirect), below.Layer().Index, !f.last
				break
			}
			if f.last {
				return nil, syscall.EIO
			}
		}
	}
	return nil, syscall.EIO
}
