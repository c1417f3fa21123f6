// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// linkCheck counts the names of lower inodes that have an account or a copy in
// the index: all of them in the lower layers, and those that show in the mount.
// The difference is what the account must say is gone. It costs a walk through
// the lower layers, and is left out if there is nothing to count.
type linkCheck struct {
	wanted map[journal.Origin]bool
	inos   map[uint64]bool // of those, to look at few files
	index  map[journal.Origin]bool
	all    map[journal.Origin]lowerNames
	shown  map[journal.Origin]uint32
	copies map[journal.Origin]upperCopy // a copy in upper

	// After a crash the next mount counts what upper hides and no record covers
	// (see recount): an account that says so already would count it twice.
	recounted bool
	uncounted map[journal.Origin]uint32
}

// lowerNames are the names of a lower inode.
type lowerNames struct {
	count uint32
	nlink uint32 // st_nlink
}

// upperCopy is an upper name of a copy.
type upperCopy struct {
	d    *layers.Dir
	name string
	path string
	ino  uint64
}

func newLinkCheck() linkCheck {
	return linkCheck{wanted: map[journal.Origin]bool{}, inos: map[uint64]bool{}, index: map[journal.Origin]bool{},
		all: map[journal.Origin]lowerNames{}, shown: map[journal.Origin]uint32{}, copies: map[journal.Origin]upperCopy{},
		uncounted: map[journal.Origin]uint32{}}
}

// sawCopy notes an upper name of a copy with an account, or the index's.
func (l *linkCheck) sawCopy(o journal.Origin, d *layers.Dir, name, path string, st *unix.Stat_t) {
	if !l.wanted[o] || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return
	}
	if _, ok := l.copies[o]; !ok {
		l.copies[o] = upperCopy{d, name, path, st.Ino}
	}
}

// loadIndex reads the index, and finds out whose names are to be counted.
func (c *checker) loadIndex() {
	l := &c.links
	var names []string
	err := c.fs.index.List(func(name []byte, _ uint64, _ uint8) error {
		names = append(names, string(name))
		return nil
	})
	if err != nil && !errMissing(err) { // the next mount makes it
		c.unreadable(c.fs.index.Path(), err)
	}
	for o := range c.rec.Links {
		l.wanted[o], l.inos[o.Ino] = true, true
	}
	for _, name := range names {
		o, ok := parseIndexName(name)
		path := c.fs.index.Path() + "/" + name
		if !ok || name != indexName(o) {
			c.add(Finding{Severity: Note, Kind: "index-unknown", Path: path, What: "it is no name that plyfs gives there, and is not looked at", Mend: "look what it is, and remove it"})
			continue
		}
		l.wanted[o], l.inos[o.Ino], l.index[o] = true, true, true
	}
	for o := range l.index {
		c.indexed(o)
	}
	var st unix.Stat_t
	l.recounted = !c.live && c.fs.work.Stat(liveMark, &st) == nil && (len(l.index) > 0 || st.Size > 0)
}

// indexed checks a copy in the index.
func (c *checker) indexed(o journal.Origin) {
	c.out.Counts.Index++
	name := indexName(o)
	path := c.fs.index.Path() + "/" + name
	bad := func(what string) {
		c.add(Finding{Severity: Violation, Kind: "index-origin", Path: path, What: what,
			Loses: "that its names are one file: names that were changed through the mount, and those that were not, come apart",
			Mend:  "restore it from a copy"})
	}
	b, err := readAttr(c.fs.index, name, xattrOrigin)
	switch {
	case c.gone(err):
	case err == unix.ENODATA || err == unix.EOPNOTSUPP:
		bad(xattrOrigin + " is missing on it")
	case err != nil:
		c.unreadable(path, err)
	default:
		if got, err := decodeOrigin(b); err == nil && got.Origin != o {
			bad(fmt.Sprintf("its name says that it is a copy of inode %d in layer %d, and %s says inode %d in layer %d", o.Ino, o.Layer, xattrOrigin, got.Ino, got.Layer))
			return
		}
		c.checkOrigin(nil, c.fs.index, name, path)
		delete(c.links.copies, o) // it is not a name of upper
	}
}

// countShown counts the lower names that show in a directory, and in what is
// below it that upper does not have.
func (c *checker) countShown(d *checkDir, names map[string]uint8, covers map[string]struct{}) error {
	if len(c.links.wanted) == 0 || d.low == nil || d.unsure {
		return nil
	}
	if err := c.countUncounted(d, names, covers); err != nil {
		return err
	}
	return c.countLower(d.low, func(name string) bool {
		_, upper := names[name]
		_, covered := covers[name]
		return !upper && !covered
	}, func(o journal.Origin, _ *unix.Stat_t) { c.links.shown[o]++ })
}

// countUncounted counts the lower names that upper hides and that the next mount
// will count, as recountName does.
func (c *checker) countUncounted(d *checkDir, names map[string]uint8, covers map[string]struct{}) error {
	if !c.links.recounted {
		return nil
	}
	for name, typ := range names {
		if _, covered := covers[name]; covered || typ == unix.DT_DIR {
			continue
		}
		h, err := d.low.lookup(c.fs, name)
		if err != nil {
			return err
		}
		if h == nil || h.dirs != nil || h.st.Nlink < 2 {
			continue
		}
		o, err := h.originOf(c.fs)
		if err != nil {
			return err
		}
		c.links.uncounted[o]++
	}
	return nil
}

// countLower calls found for each name of a wanted inode in a merged lower
// directory, and all below it.
func (c *checker) countLower(s *lowerStack, take func(name string) bool, found func(journal.Origin, *unix.Stat_t)) error {
	var files, dirs []string
	trusted := c.trustsInos(s)
	err := s.list(c.fs, func(name string, ino uint64, typ uint8) {
		switch {
		case take != nil && !take(name):
		case typ == unix.DT_DIR:
			dirs = append(dirs, name)
		case !trusted || c.links.inos[ino]:
			files = append(files, name)
		}
	})
	if err != nil {
		return err
	}
	for _, name := range files {
		h, err := s.lookup(c.fs, name)
		if err != nil {
			return err
		}
		if h == nil || h.dirs != nil {
			continue
		}
		o, err := h.originOf(c.fs)
		if err != nil {
			return err
		}
		if c.links.wanted[o] {
			found(o, &h.st)
		}
	}
	for _, name := range dirs {
		h, err := s.lookup(c.fs, name)
		if err != nil {
			return err
		}
		if h == nil || h.dirs == nil {
			continue
		}
		err = c.countLower(h.dirs, nil, found)
		h.dirs.forget()
		if err != nil {
			return err
		}
	}
	return nil
}

// trustsInos tells whether listings give the inode numbers that stat gives:
// stacked file systems and some others need not.
func (c *checker) trustsInos(s *lowerStack) bool {
	for _, d := range s.dirs {
		if !slices.Contains([]string{"ext2", "ext3", "ext4", "xfs", "tmpfs"}, d.Layer().FSType) {
			return false
		}
	}
	return true
}

// checkLinks compares the accounts with what was counted.
func (c *checker) checkLinks() {
	l := &c.links
	if len(l.wanted) == 0 || c.doubtful() {
		return // what a directory merges with must be known
	}
	err := c.countLower(c.fs.lowRoot, nil, func(o journal.Origin, st *unix.Stat_t) {
		n := l.all[o]
		n.count, n.nlink = n.count+1, uint32(st.Nlink)
		l.all[o] = n
	})
	if err != nil {
		c.unreadable(strings.Join(c.fs.cfg.Lowers, ":"), err)
		return
	}
	for _, o := range slices.SortedFunc(maps.Keys(l.wanted), func(a, b journal.Origin) int { return strings.Compare(indexName(a), indexName(b)) }) {
		c.checkAccount(o)
	}
}

// checkAccount compares one account.
func (c *checker) checkAccount(o journal.Origin) {
	l := &c.links
	path := c.fs.work.Path() + "/" + journal.DBName
	acc, kept := c.rec.Links[o]
	names, indexed := l.all[o], l.index[o]
	what := fmt.Sprintf("inode %d of lower layer %d", o.Ino, o.Layer)
	right := journal.Links{Nlink: names.nlink, Gone: names.count - min(l.shown[o], names.count)}
	now := right // until the next mount has counted
	now.Gone -= min(l.uncounted[o], now.Gone)
	set := func(r *repairer) error { return r.j.Apply(journal.SetLinks(o, now)) }
	switch {
	case names.count == 0 && indexed:
		c.add(Finding{Severity: Violation, Kind: "index-lower", Path: c.fs.index.Path() + "/" + indexName(o), What: "it is a copy of " + what + ", which is not there",
			Loses: "the copy, under the names that were not changed through the mount", Mend: "put the lower layer back as it was"})
	case names.count == 0:
		c.add(Finding{Severity: Note, Kind: "links-leftover", Path: path, What: "it has the account of " + what + ", which is not there",
			fix: func(r *repairer) error { return r.j.Apply(journal.DropLinks(o)) }})
	case !kept:
		c.add(Finding{Severity: Note, Kind: "links-missing", Path: path, What: "it has no account of " + what + ", which has a copy in the index: power was cut before it was on the disk", fix: set})
	case acc.Gone > right.Gone:
		f := Finding{Severity: Violation, Kind: "links-many", Path: path, fix: set,
			What: fmt.Sprintf("it says that %d names of %s are gone, and %d are", acc.Gone, what, right.Gone)}
		if acc.Gone >= acc.Nlink {
			f.Loses = "the copy of it, once the last name in upper is removed: names that were not changed through the mount show the lower file again"
		}
		c.add(f)
	case acc.Gone < right.Gone && !c.live:
		if acc.Gone >= now.Gone {
			set = nil
		}
		c.add(Finding{Severity: Note, Kind: "links-few", Path: path, fix: set,
			What: fmt.Sprintf("it says that %d names of %s are gone, and %d are: they are counted when the next mount meets them", acc.Gone, what, right.Gone)})
	case acc.Nlink != names.nlink && !c.live:
		c.add(Finding{Severity: Note, Kind: "links-nlink", Path: path, fix: set,
			What: fmt.Sprintf("it says that %s has %d links, and it has %d: the link count that is shown is wrong", what, acc.Nlink, names.nlink)})
	}
	if cp, ok := l.copies[o]; ok && kept && !indexed && right.Gone < names.count {
		c.indexMissing(o, cp)
	}
}

// indexMissing: names of a lower inode are left, and lead to the lower file
// instead of the copy.
func (c *checker) indexMissing(o journal.Origin, cp upperCopy) {
	c.add(Finding{Severity: Violation, Kind: "index-missing", Path: cp.path, What: fmt.Sprintf("it is a copy of inode %d of lower layer %d, which has further names, and is not in the index", o.Ino, o.Layer),
		Loses: "what was written to it, under the names that were not changed through the mount: they show the lower file",
		fix: func(r *repairer) error {
			err := cp.d.Link(cp.name, r.fs.index, indexName(o))
			if err == syscall.EEXIST {
				return nil
			}
			return err
		}})
}
