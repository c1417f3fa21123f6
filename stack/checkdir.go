// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"strings"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// subdir checks a directory in an upper directory, and what is in it.
func (c *checker) subdir(d *checkDir, name string, covered bool) {
	s := &checkDir{rel: joinRel(d.rel, name), up: d.up.Child(name)}
	defer s.up.Forget()
	attrs, err := c.privateAttrs(s.up, "")
	if err != nil {
		c.unreadable(c.upPath(s.rel), err)
		return
	}
	for _, attr := range attrs {
		if attr != xattrDir {
			c.checkAttr(s.up, "", c.upPath(s.rel), attr)
		}
	}
	s.mark, s.unsure = c.readMark(s)
	c.merge(d, s, name, covered)
	if s.low != nil {
		defer s.low.forget()
	}
	if !s.unsure {
		c.checkMark(s)
	} else {
		c.unsure++
	}
	c.register(s)
	c.walk(s)
}

// readMark reads the mark of a directory; unsure if it cannot be read.
func (c *checker) readMark(d *checkDir) (m dirMark, unsure bool) {
	b, err := readAttr(d.up, "", xattrDir)
	switch {
	case err == unix.ENODATA || err == unix.EOPNOTSUPP:
		return m, false
	case err != nil:
		c.unreadable(c.upPath(d.rel), err)
		return m, true
	}
	m, err = decodeMark(b)
	bad := func(what string) (dirMark, bool) {
		c.add(Finding{Severity: Violation, Kind: "mark-unreadable", Path: c.upPath(d.rel), What: what,
			Loses: "the directory with all that is in it: looking it up is EIO", Mend: "restore upper from a copy"})
		return dirMark{}, true
	}
	switch {
	case err != nil || len(m.redirect) > maxRedirect:
		return bad(xattrDir + " is damaged, or of a newer plyfs")
	case m.flags&^(markOpaque|markImpure) != 0:
		return bad(fmt.Sprintf("%s has flags that this plyfs does not know (%#x)", xattrDir, m.flags))
	case m == dirMark{}:
		c.contradiction(d, xattrDir+" says nothing, which plyfs never writes: what it said is lost",
			"what was removed in it may come back, or a lower directory may show in it")
		return m, true
	}
	return m, false
}

func (c *checker) contradiction(d *checkDir, what, loses string) {
	c.add(Finding{Severity: Violation, Kind: "mark-contradiction", Path: c.upPath(d.rel), What: what, Loses: loses, Mend: "restore upper from a copy"})
}

// merge finds what a directory merges with, as resolveUpperDir does.
func (c *checker) merge(d, s *checkDir, name string, covered bool) {
	opaque, redirect := s.mark.opaque(), s.mark.redirect
	if c.fs.foreign && redirect == "" && !opaque {
		m, err := s.up.Marks(lowerDialects)
		if err != nil {
			c.unreadable(c.upPath(s.rel), err)
			s.unsure = true
			return
		}
		opaque, redirect = m.Opaque, m.Redirect
		if redirect != "" && redirect[0] != '/' && d.low != nil {
			redirect = d.low.path() + "/" + redirect
		}
	}
	switch {
	case redirect != "":
		c.follow(s, redirect)
	case opaque, d.low == nil, covered:
		s.unsure = s.unsure || d.unsure && !opaque
	default:
		h, err := d.low.lookup(c.fs, name)
		switch {
		case err != nil:
			c.unreadable(c.upPath(s.rel), err)
			s.unsure = true
		case h != nil:
			s.low = h.dirs
		}
		s.unsure = s.unsure || d.unsure
	}
}

// follow finds the directory that a redirect names.
func (c *checker) follow(s *checkDir, redirect string) {
	low, err := c.fs.lowRoot.walk(c.fs, redirect)
	switch {
	case errMissing(err):
		s.unsure = true
		c.add(Finding{Severity: Violation, Kind: "redirect-lost", Path: c.upPath(s.rel), What: "it merges with " + redirect + ", which is no directory of the lower layers",
			Loses: "what the lower directory showed in it", Mend: "put the lower layer back as it was"})
		return
	case err != nil:
		s.unsure = true
		c.unreadable(c.upPath(s.rel), err)
		return
	}
	s.low = low
	if got := low.path(); got != redirect && s.mark.redirect != "" {
		c.contradiction(s, fmt.Sprintf("its redirect is %q, and plyfs would have written %q", redirect, got), "")
	}
}

// checkMark looks for what never stands together. A directory merges with one
// lower directory, or with none, for as long as it lives.
func (c *checker) checkMark(s *checkDir) {
	m, foreign := s.mark, c.fs.foreign
	switch {
	case m.opaque() && m.redirect != "":
		c.contradiction(s, "it is marked opaque and has a redirect", "")
	case m.impure() && !m.opaque() && s.low != nil && !foreign:
		c.contradiction(s, "it merges with "+s.low.path()+" of the lower layers and is marked as a directory that does not",
			"it may show what was removed, or what it never showed")
	}
	if m.id > c.rec.Reserved && !foreign {
		c.add(Finding{Severity: Violation, Kind: "id-unknown", Path: c.upPath(s.rel), What: fmt.Sprintf("its id %#x was never handed out by this journal", uint64(m.id)),
			Loses: "the records about it: what was removed in it may come back", Mend: "restore upper from a copy"})
	}
	if note, ok := c.rec.Notes[m.id]; ok && m.id != 0 {
		c.checkNote(s, note)
	}
}

// checkNote compares a directory with the journal's note about it. The note may
// be older, or newer if power was cut before the xattr reached the disk; but
// what a directory merges with never changes.
func (c *checker) checkNote(s *checkDir, n journal.DirNote) {
	m := s.mark
	const loses = "it may show what it never showed, or not what it showed"
	switch {
	case n.Redirect != "" && m.redirect != "" && n.Redirect != m.redirect:
		c.contradiction(s, fmt.Sprintf("its redirect is %q, and the journal says %q", m.redirect, n.Redirect), loses)
	case n.Redirect != "" && m.redirect == "" && s.low == nil:
		c.contradiction(s, fmt.Sprintf("the journal says that it merges with %q, and it merges with nothing", n.Redirect), loses)
	case n.Redirect != "" && m.redirect == "" && s.low.path() != n.Redirect:
		c.contradiction(s, fmt.Sprintf("the journal says that it merges with %q, and it merges with %q", n.Redirect, s.low.path()), loses)
	case n.Opaque && n.Redirect == "" && s.low != nil:
		c.contradiction(s, fmt.Sprintf("the journal says that it is opaque, and it merges with %q", s.low.path()), loses)
	}
}

// register notes a directory for the end of the walk.
func (c *checker) register(s *checkDir) {
	low := ""
	if s.low != nil && !s.unsure {
		low = s.low.path()
		c.merged[low] = append(c.merged[low], s.rel)
	}
	id := s.mark.id
	if id == 0 && s.mark.redirect == "" {
		return
	}
	c.marked = append(c.marked, markedDir{rel: s.rel, mark: s.mark, low: low, unsure: s.unsure})
	if id == 0 {
		return
	}
	if other, dup := c.ids[id]; dup {
		c.add(Finding{Severity: Violation, Kind: "id-twice", Path: c.upPath(s.rel), What: fmt.Sprintf("it has the same id %#x as %s", uint64(id), c.upPath(other)),
			Loses: "the records about one of the two: what was removed in it may come back", Mend: "restore upper from a copy"})
		return
	}
	c.ids[id], c.idOf[s.rel] = s.rel, id
}

// checkMergedOnce: a lower directory is part of one upper directory.
func (c *checker) checkMergedOnce() {
	for low, dirs := range c.merged {
		for _, rel := range dirs[1:] {
			c.add(Finding{Severity: Violation, Kind: "merged-twice", Path: c.upPath(rel), What: fmt.Sprintf("it merges with %s of the lower layers, and so does %s", low, c.upPath(dirs[0])),
				Loses: "one of the two shows what it should not, and not what it should", Mend: "restore upper from a copy"})
		}
	}
}

// checkShownOnce: a lower directory that was moved does not show at its old
// place as well.
func (c *checker) checkShownOnce() {
	for _, m := range c.marked {
		if m.mark.redirect == "" || m.low == "" || m.low == "/" || m.unsure {
			continue
		}
		hidden, err := c.hiddenAtHome(m)
		if err != nil {
			c.unreadable(c.upPath(m.rel), err)
		} else if !hidden {
			c.add(Finding{Severity: Violation, Kind: "shown-twice", Path: c.upPath(m.rel), What: fmt.Sprintf("it merges with %s of the lower layers, which shows at its old place too: what hid it there is missing", m.low),
				Loses: "nothing, but what was moved is there twice", Mend: "remove the one at the old place in a mount, if it was moved"})
		}
	}
}

// hiddenAtHome tells whether the lower directory of m is hidden where it lies
// itself: in the nearest directory above it that is in upper.
func (c *checker) hiddenAtHome(m markedDir) (bool, error) {
	parts := strings.Split(m.low[1:], "/")
	for i := len(parts) - 1; i >= 0; i-- {
		above := "/" + strings.Join(parts[:i], "/")
		dirs := c.merged[above]
		if len(dirs) != 1 {
			if len(dirs) > 1 {
				return true, nil // merged-twice says what is wrong
			}
			continue
		}
		up := c.upDir(dirs[0])
		defer up.Forget()
		st, err := statIn(up, parts[i])
		if err != nil || st != nil { // its own upper part, or what hides it
			return err == nil || c.gone(err), err
		}
		if c.fs.foreign && c.fs.foreignHides(up, parts[i]) != nil {
			return true, nil
		}
		_, covered := c.rec.Covers[c.idOf[dirs[0]]][parts[i]]
		return covered, nil
	}
	return true, nil
}

// checkLeftovers looks at records of directories that upper does not have. A
// crash leaves them when a directory was removed; but a damaged id does too.
func (c *checker) checkLeftovers() {
	for id := range c.rec.Covers {
		c.leftover(id)
	}
	for id := range c.rec.Notes {
		if len(c.rec.Covers[id]) == 0 {
			c.leftover(id)
		}
	}
}

func (c *checker) leftover(id journal.DirID) {
	if _, there := c.ids[id]; there {
		return
	}
	path := c.fs.work.Path() + "/" + journal.DBName
	for _, m := range c.marked {
		if m.mark.id == 0 || m.unsure || c.rec.Known(m.mark.id) || !c.mayBeAbout(id, m) {
			continue
		}
		c.add(Finding{Severity: Violation, Kind: "id-lost", Path: c.upPath(m.rel),
			What:  fmt.Sprintf("the journal knows nothing of its id %#x, and has records of a directory %#x that is not in upper and that fit it", uint64(m.mark.id), uint64(id)),
			Loses: "the records about it: what was removed in it comes back", Mend: "restore upper from a copy"})
		return
	}
	if c.live {
		return // they go at the next settling
	}
	f := Finding{Severity: Note, Kind: "leftover", Path: path,
		What: fmt.Sprintf("it has records of a directory %#x that is not in upper (%s): it was removed when the mount was cut off", uint64(id), count(len(c.rec.Covers[id]), "name"))}
	f.fix = func(r *repairer) error { return r.j.Apply(journal.DropDir(id)) }
	c.add(f)
}

// mayBeAbout tells whether the records of an id can be about a directory.
func (c *checker) mayBeAbout(id journal.DirID, m markedDir) bool {
	n, noted := c.rec.Notes[id]
	if noted && n.Redirect != "" {
		return n.Redirect == m.low
	}
	names := c.rec.Covers[id]
	if len(names) == 0 {
		return noted && n.Opaque && m.mark.opaque()
	}
	if m.low == "" {
		return false
	}
	low, err := c.fs.lowRoot.walk(c.fs, m.low)
	if err != nil {
		return false
	}
	defer low.forget()
	for name := range names {
		h, err := low.lookup(c.fs, name)
		if err != nil || h == nil {
			return false
		}
		if h.dirs != nil {
			h.dirs.forget()
		}
	}
	return true
}

func splitRel(rel string) []string {
	if rel == "" {
		return nil
	}
	return strings.Split(rel, "/")
}
