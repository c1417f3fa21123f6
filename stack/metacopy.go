// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// maybeMetacopy tells, from attributes alone, whether a lower file may be a
// metacopy of kernel overlayfs (metacopy=on): one with a size and no blocks,
// above another layer. Most files are not, and cost nothing more.
func (fs *FS) maybeMetacopy(d *layers.Dir, st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 && st.Blocks == 0 && d.Layer().Index < fs.bottom
}

// metacopyData finds the file, in a layer below, that holds the data of a
// metacopy (namei.c:ovl_lookup with uppermetacopy). It is EIO if there is none.
func (s *lowerStack) metacopyData(fs *FS, d *layers.Dir, name string) (*lowerFile, error) {
	m, err := d.FileMarks(name)
	if err != nil || !m.Metacopy {
		return nil, err
	}
	from, parts := s, []string{name}
	if m.Redirect != "" {
		parts = strings.Split(strings.Trim(m.Redirect, "/"), "/")
		if m.Redirect[0] == '/' {
			from = fs.lowRoot
		}
	}
	for _, below := range from.dirs {
		if below.Layer().Index <= d.Layer().Index {
			continue
		}
		for _, p := range parts[:len(parts)-1] {
			below = below.Child(p)
		}
		last := parts[len(parts)-1]
		var st unix.Stat_t
		switch err := below.Stat(last, &st); {
		case err == syscall.ENOENT || err == syscall.ENOTDIR:
			continue
		case err != nil:
			return nil, err
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			return nil, syscall.EIO
		}
		next, err := below.FileMarks(last)
		if err != nil {
			return nil, err
		}
		if !next.Metacopy {
			return &lowerFile{d: below, name: last}, nil
		}
	}
	return nil, syscall.EIO
}
