// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A trail is a lookup that goes on in lower layers at the place that a
// redirect of kernel overlayfs names (namei.c:ovl_lookup_layer).
type trail struct {
	from  *lowerStack // where the path begins
	parts []string
}

// redirectTrail begins at what holds a name, and goes where a redirect found
// there says. An empty redirect stays.
func redirectTrail(s *lowerStack, name, redirect string) trail {
	return trail{from: s, parts: []string{name}}.turn(redirect)
}

// turn follows one more redirect: an absolute path, or another last name.
func (t trail) turn(redirect string) trail {
	switch {
	case redirect == "":
	case redirect[0] == '/':
		for t.from.parent != nil {
			t.from = t.from.parent
		}
		t.parts = strings.Split(strings.Trim(redirect, "/"), "/")
	default:
		t.parts = append(append([]string{}, t.parts[:len(t.parts)-1]...), redirect)
	}
	return t
}

// A footing is what one layer has at a trail's end.
type footing struct {
	d    *layers.Dir // the directory that holds the last name; nil: nothing
	name string
	st   unix.Stat_t
	last bool // no layer below may be looked at
}

// step looks at a trail's end in one layer, of which d is the directory where
// the trail begins. Whiteouts and files on the way hide what is below, and so
// does an opaque or redirected directory.
func (t trail) step(d *layers.Dir) (f footing, err error) {
	for i, name := range t.parts {
		if err := d.Stat(name, &f.st); err == syscall.ENOENT {
			hidden, err := ociHides(d, name)
			f.last = f.last || hidden
			return f, err
		} else if err != nil {
			return f, err
		}
		if end := i == len(t.parts)-1; end {
			f.d, f.name = d, name
			return f, f.checkWhiteout()
		}
		if f.st.Mode&unix.S_IFMT != unix.S_IFDIR {
			f.last = true
			return f, nil
		}
		d = d.Child(name)
		m, err := lowerMarks(d)
		if err != nil {
			return f, err
		}
		f.last = f.last || m.Opaque || m.Redirect != ""
	}
	return f, nil
}

// checkWhiteout turns a footing on a whiteout into the end of the trail.
func (f *footing) checkWhiteout() error {
	hidden := layers.IsWhiteoutStat(&f.st)
	if f.st.Mode&unix.S_IFMT == unix.S_IFREG && f.st.Size == 0 {
		m, err := f.d.Marks(lowerDialects)
		if err != nil {
			return err
		}
		if m.XWhiteouts {
			if hidden, err = f.d.IsXWhiteout(f.name); err != nil {
				return err
			}
		}
	}
	if hidden {
		f.d, f.last = nil, true
	}
	return nil
}

func ociHides(d *layers.Dir, name string) (bool, error) {
	var st unix.Stat_t
	switch err := d.Stat(layers.WhiteoutPrefix+name, &st); err {
	case nil:
		return true, nil
	case syscall.ENOENT, syscall.ENAMETOOLONG:
		return false, nil
	default:
		return false, err
	}
}

// follow continues the merge of a directory below layer index, at its
// redirect and at those that it leads to.
func (s *lowerStack) follow(h *lowerHit, t trail, index int) error {
	for again := true; again; {
		again = false
		for _, d := range t.from.dirs {
			if d.Layer().Index <= index {
				continue
			}
			f, err := t.step(d)
			if err != nil {
				return err
			}
			if f.d != nil && f.st.Mode&unix.S_IFMT != unix.S_IFDIR {
				return nil
			}
			if f.d != nil {
				m, err := h.mergeAt(f)
				if err != nil || m.Opaque {
					return err
				}
				if m.Redirect != "" {
					t, index, again = t.turn(m.Redirect), d.Layer().Index, !f.last
					break
				}
			}
			if f.last {
				return nil
			}
		}
	}
	return nil
}

// mergeAt adds a directory that a trail led to.
func (h *lowerHit) mergeAt(f footing) (layers.DirMarks, error) {
	sub := f.d.Child(f.name)
	m, err := lowerMarks(sub)
	h.dirs.add(sub, m)
	return m, err
}
