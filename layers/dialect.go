// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Dialect is a set of ways in which a layer may tell what it hides. A
// character device 0/0 is a whiteout in all of them.
type Dialect uint8

// The dialects.
const (
	Overlay     Dialect = 1 << iota // kernel overlayfs: trusted.overlay.*
	UserOverlay                     // kernel overlayfs with userxattr, fuse-overlayfs: user.overlay.*
	OCI                             // image layers and aufs: .wh.NAME and .wh..wh..opq

	AllDialects = Overlay | UserOverlay | OCI
)

// Names of the OCI dialect (image-spec layer.md, "Whiteouts").
const (
	WhiteoutPrefix = ".wh."         // before the name that is hidden
	OpaqueMarker   = ".wh..wh..opq" // a directory with this entry is opaque
	// WhiteoutMetaPrefix begins the names that aufs kept for itself; none
	// hides anything but OpaqueMarker.
	WhiteoutMetaPrefix = ".wh..wh."
)

// DirMarks is what a directory of a layer tells about itself.
type DirMarks struct {
	Opaque     bool   // hides all that lies below it in lower layers
	XWhiteouts bool   // may hold whiteouts that are regular files (opaque "x")
	Impure     bool   // overlayfs copied something up into it
	Redirect   string // lower directory it merges with: a name beside it, or from the root if it begins with a slash
}

// FileMarks is what a file of a layer tells about itself.
type FileMarks struct {
	Metacopy bool   // its data are in a lower layer
	Redirect string // where, if not under its own name
}

// prefixes are the xattr name spaces of the set. user.overlay is second: where
// both are given the trusted one counts.
func (s Dialect) prefixes() (p []string) {
	if s&Overlay != 0 {
		p = append(p, "trusted.overlay.")
	}
	if s&UserOverlay != 0 {
		p = append(p, "user.overlay.")
	}
	return p
}

// Marks reads what d tells about itself in the given dialects. A redirect is
// read from trusted.overlay only: any owner of a file can set the other, and
// kernel overlayfs does not follow it either (params.c, userxattr).
func (d *Dir) Marks(dialects Dialect) (m DirMarks, err error) {
	// Most directories have no xattrs at all: one call instead of four.
	var small [1024]byte
	n, err := d.Listxattr("", small[:])
	if n > 0 || err != nil {
		if m, err = d.xattrMarks(dialects); err != nil {
			return m, err
		}
	}
	if dialects&OCI != 0 && !m.Opaque {
		m.Opaque, err = d.exists(OpaqueMarker)
	}
	return m, err
}

// xattrMarks is the part of Marks that xattrs tell.
func (d *Dir) xattrMarks(dialects Dialect) (m DirMarks, err error) {
	for _, p := range dialects.prefixes() {
		val, err := d.mark("", p+"opaque")
		if err != nil {
			return m, err
		}
		m.Opaque = m.Opaque || val == "y"
		m.XWhiteouts = m.XWhiteouts || val == "x"
	}
	if dialects&Overlay == 0 {
		return m, nil
	}
	val, err := d.mark("", "trusted.overlay.impure")
	if err != nil {
		return m, err
	}
	m.Impure = val == "y"
	m.Redirect, err = d.mark("", "trusted.overlay.redirect")
	return m, err
}

// FileMarks reads what the file name tells about itself. Like redirects, these
// count from trusted.overlay only, and only if the layer's Dialects hold
// Overlay.
func (d *Dir) FileMarks(name string) (m FileMarks, err error) {
	if d.layer.Dialects&Overlay == 0 {
		return m, nil
	}
	if m.Metacopy, err = d.marked(name, "trusted.overlay.metacopy"); err != nil {
		return m, err
	}
	m.Redirect, err = d.mark(name, "trusted.overlay.redirect")
	return m, err
}

// IsWhiteoutStat reports whether st is of a whiteout as overlayfs makes them:
// a character device 0/0.
func IsWhiteoutStat(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// OCIWhiteout takes the name of an OCI whiteout apart: ok with the name that
// it hides. OpaqueMarker and other names that begin with ".wh..wh." hide no
// name, and ".wh." alone, or before "." or "..", is no whiteout.
func OCIWhiteout(name string) (target string, ok bool) {
	target, ok = strings.CutPrefix(name, WhiteoutPrefix)
	if !ok || strings.HasPrefix(name, WhiteoutMetaPrefix) {
		return "", false
	}
	if target == "" || target == "." || target == ".." {
		return "", false
	}
	return target, true
}

// IsXWhiteout reports whether name is a whiteout in the form of an empty
// regular file with the xattr overlay.whiteout, in one of the layer's
// Dialects. It only means anything in a directory with [DirMarks].XWhiteouts.
func (d *Dir) IsXWhiteout(name string) (bool, error) {
	var st unix.Stat_t
	if err := d.Stat(name, &st); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false, nil
	}
	for _, p := range d.layer.Dialects.prefixes() {
		if is, err := d.marked(name, p+"whiteout"); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// mark is the value of an xattr that need not be there.
func (d *Dir) mark(name, attr string) (string, error) {
	var small [256]byte
	n, err := d.Getxattr(name, attr, small[:])
	if err == nil {
		return string(small[:n]), nil
	}
	if err != unix.ERANGE {
		return "", ignoreUnset(err)
	}
	val, err := readXattr(At{d, name}, attr)
	return string(val), ignoreUnset(err)
}

// marked reports whether an xattr is there at all.
func (d *Dir) marked(name, attr string) (bool, error) {
	_, err := d.Getxattr(name, attr, nil)
	return err == nil, ignoreUnset(err)
}

// ignoreUnset takes the errors away that only say that an xattr is not set, or
// could not be.
func ignoreUnset(err error) error {
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

func (d *Dir) exists(name string) (bool, error) {
	var st unix.Stat_t
	err := d.Stat(name, &st)
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil, err
}
