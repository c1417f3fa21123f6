// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"maps"
	"slices"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// checkDir is an upper directory on the way of the walk.
type checkDir struct {
	rel  string // path below upper, "" for its root
	up   *layers.Dir
	mark dirMark
	low  *lowerStack // what it merges with, nil for nothing
	// unsure: it is not known what it merges with, so nothing can be said
	// about the names that it hides.
	unsure bool
}

// walk checks what is in an upper directory.
func (c *checker) walk(d *checkDir) {
	c.out.Counts.Directories++
	names, err := c.list(d)
	if err != nil {
		c.unreadable(c.upPath(d.rel), err)
		return
	}
	covers := c.rec.Covers[d.mark.id]
	c.checkCovers(d, covers)
	if err := c.countShown(d, names, covers); err != nil {
		c.unreadable(c.upPath(d.rel), err)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch names[name] {
		case dtWhiteout:
			c.out.Counts.Entries++
			c.out.Counts.Whiteouts++
		case unix.DT_DIR:
			_, covered := covers[name]
			c.subdir(d, name, covered)
		case dtForeign:
		default:
			c.out.Counts.Entries++
			c.file(d, name, names[name])
		}
	}
}

// dtForeign stands for a name that an OCI whiteout of a foreign upper hides.
const dtForeign = 0xfe

// list gives the names in an upper directory, whiteouts told apart.
func (c *checker) list(d *checkDir) (map[string]uint8, error) {
	names := make(map[string]uint8)
	err := d.up.List(func(b []byte, ino uint64, typ uint8) error {
		name := string(b)
		if t, ok := ociHidden(name); ok && c.fs.foreign {
			if _, there := names[t]; t != "" && !there {
				names[t] = dtForeign
			}
			return nil
		}
		typ, err := entryType(c.fs, d.up, name, typ, ino, false)
		if c.gone(err) {
			return nil
		}
		if err == nil && typ != dtUnseen {
			names[name] = typ
		}
		return err
	})
	return names, err
}

// file checks an upper entry that is no directory.
func (c *checker) file(d *checkDir, name string, typ uint8) {
	path := c.upPath(joinRel(d.rel, name))
	attrs, err := c.privateAttrs(d.up, name)
	if err != nil {
		c.unreadable(path, err)
		return
	}
	for _, attr := range attrs {
		if attr != xattrOrigin {
			c.checkAttr(d.up, name, path, attr)
			continue
		}
		c.checkOrigin(d, d.up, name, path)
		if d.low == nil && !d.mark.impure() && !d.unsure {
			c.impureMissing(d, path)
		}
	}
	if c.fs.foreign && typ == unix.DT_REG {
		c.checkMetacopy(d.up, name, path)
	}
}

// impureMissing: a directory without lower parts holds a copy, and does not
// say so.
func (c *checker) impureMissing(d *checkDir, path string) {
	dir := *d
	c.add(Finding{Severity: Violation, Kind: "impure", Path: path, What: "it has an origin, and its directory does not say that it holds such files (" + xattrDir + "): the origin is not read",
		Loses: "its inode number, its other names, and what was never written to it if it is partial",
		fix: func(r *repairer) error {
			up := r.c.upDir(dir.rel)
			m, err := readMark(up)
			if err != nil {
				return err
			}
			m.flags |= markImpure
			return up.Setxattr("", xattrDir, m.encode(), 0)
		}})
}

// checkMetacopy looks for files of a foreign upper that cannot be read.
func (c *checker) checkMetacopy(up *layers.Dir, name, path string) {
	st, err := statIn(up, name)
	if err != nil || st == nil {
		if err != nil {
			c.unreadable(path, err)
		}
		return
	}
	switch is, err := isMetacopy(up, name, st); {
	case err != nil:
		c.unreadable(path, err)
	case is:
		c.add(Finding{Severity: Violation, Kind: "metacopy", Path: path, What: "it is a metacopy of kernel overlayfs: its data is in a lower layer",
			Loses: "the file: looking it up is EIO", Mend: "mount with kernel overlayfs and metacopy=off, and write to it there"})
	}
}

// upDir is an upper directory by its path below upper.
func (c *checker) upDir(rel string) *layers.Dir {
	d := c.fs.upper.Root()
	for _, p := range splitRel(rel) {
		d = d.Child(p)
	}
	return d
}

// checkCovers looks at the names that the journal hides in a directory.
func (c *checker) checkCovers(d *checkDir, covers map[string]struct{}) {
	if len(covers) == 0 || d.unsure {
		return
	}
	if d.low == nil {
		c.add(Finding{Severity: Violation, Kind: "covers-nothing", Path: c.upPath(d.rel),
			What:  fmt.Sprintf("the journal hides %s of lower layers in it, and nothing of a lower layer merges with it", count(len(covers), "name")),
			Loses: "what the lower directory showed here, if its redirect was lost or it was marked opaque by a damage",
			Mend:  "restore upper from a copy; if the lower layers have changed, put them back as they were"})
		return
	}
	var idle []string
	for name := range covers {
		h, err := d.low.lookup(c.fs, name)
		if err != nil {
			c.unreadable(c.upPath(d.rel), err)
			return
		}
		if h == nil {
			idle = append(idle, name)
		} else if h.dirs != nil {
			h.dirs.forget()
		}
	}
	if len(idle) == 0 {
		return
	}
	slices.Sort(idle)
	id := d.mark.id
	c.add(Finding{Severity: Note, Kind: "covers-idle", Path: c.upPath(d.rel),
		What: fmt.Sprintf("the journal hides %s in it that no lower layer has: %s", count(len(idle), "name"), some(idle)),
		fix:  func(r *repairer) error { return r.uncover(id, idle) }})
}

// count is "1 name", "2 names".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// some quotes the first few of a list.
func some(list []string) string {
	const shown = 5
	if len(list) <= shown {
		return fmt.Sprintf("%q", list)
	}
	return fmt.Sprintf("%q and %d more", list[:shown], len(list)-shown)
}
