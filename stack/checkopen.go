// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
)

// Check checks the directories of a mount that is not mounted: Upper, Work and
// Lowers of cfg. Upper and work are reached through read-only clones of their
// mounts, so that nothing is changed, not even a time of access. The error is
// for what kept it from looking, an *Error or one of package journal.
func Check(cfg Config) (*CheckReport, error) {
	started := time.Now()
	fs, err := openForCheck(cfg, false)
	if err != nil {
		return nil, err
	}
	defer fs.closeCheck()
	c, err := fs.checkOffline()
	if err != nil {
		return nil, err
	}
	return c.done(started), nil
}

// openForCheck opens and locks the layers, as a mount would, but shared; for a
// repair alone.
func openForCheck(cfg Config, repair bool) (*FS, error) {
	cfg.Mountpoint = ""
	fs := &FS{cfg: cfg, started: time.Now()}
	fs.setDefaults()
	err := fs.checkConfig()
	if err == nil && cfg.Upper == "" {
		err = &Error{Kind: KindUsage, Msg: "no upper directory: there is nothing to check"}
	}
	if err == nil {
		err = fs.checkDirs()
	}
	if err == nil {
		err = fs.openCheckLayers(repair)
	}
	if err == nil {
		err = fs.lockForCheck(repair)
	}
	if err == nil {
		err = fs.openRoot()
	}
	if err != nil {
		fs.closeCheck()
		return nil, err
	}
	fs.work = fs.workLayer.Root().Child("plyfs")
	fs.tmp, fs.index = fs.work.Child("tmp"), fs.work.Child("index")
	return fs, nil
}

// openCheckLayers opens upper and work, for writing only if they are to be
// repaired, and the lowers.
func (fs *FS) openCheckLayers(repair bool) error {
	fs.layers = make([]*layers.Layer, 1, len(fs.cfg.Lowers)+1)
	open := func(path string) (*layers.Layer, error) {
		var l *layers.Layer
		var err error
		if repair {
			l, err = layers.OpenUpper(path, fs.cache)
		} else {
			l, err = layers.OpenLower(path, 0, fs.cache)
		}
		if err != nil {
			return nil, openError(path, err)
		}
		return l, nil
	}
	var err error
	if fs.upper, err = open(fs.cfg.Upper); err != nil {
		return err
	}
	fs.layers[0] = fs.upper
	if fs.workLayer, err = open(fs.cfg.Work); err != nil {
		return err
	}
	if err := fs.findAttrStore(); err != nil {
		return err
	}
	fs.own = []inoKey{{fs.upper.Dev, fs.upper.RootIno}, {fs.workLayer.Dev, fs.workLayer.RootIno}}
	for i, path := range fs.cfg.Lowers {
		l, err := layers.OpenLower(path, i+1, fs.cache)
		if err != nil {
			return openError(path, err)
		}
		fs.layers = append(fs.layers, l)
	}
	for _, l := range append(fs.layers, fs.workLayer) {
		if l.CloneErr != nil {
			return &Error{Kind: KindEnvironment, Path: l.Path, Msg: "cannot be reached through a private read-only mount", Err: l.CloneErr,
				Mend: "check as root (CAP_SYS_ADMIN) on Linux 5.12 or newer"}
		}
	}
	fs.bottom = len(fs.cfg.Lowers)
	return nil
}

// lockForCheck keeps mounts away that would change what is checked.
func (fs *FS) lockForCheck(repair bool) error {
	for i, l := range append([]*layers.Layer{fs.workLayer}, fs.layers...) {
		take := layers.LockLower
		if repair && i < 2 {
			take = layers.LockUpper
		}
		k, err := take(l.Root())
		if errors.Is(err, syscall.EBUSY) {
			return &Error{Kind: KindBusy, Path: l.Path, Msg: "is in use by a live plyfs mount, or by another check", Mend: "check the mount itself: plyfs check MOUNTPOINT (plyfs status lists them)"}
		}
		if err != nil {
			return &Error{Kind: KindIO, Path: l.Path, Msg: "cannot be locked", Err: err}
		}
		fs.locks = append(fs.locks, k)
	}
	return nil
}

// closeCheck lets go of what openForCheck opened.
func (fs *FS) closeCheck() {
	for _, k := range fs.locks {
		_ = k.Close()
	}
	for _, l := range append(fs.layers, fs.workLayer) {
		if l != nil {
			_ = l.Close()
		}
	}
	fs.cache.Close()
}

// checkOffline checks the pair, the journal, and if both are as they should be
// all the rest.
func (fs *FS) checkOffline() (*checker, error) {
	c := newChecker(fs, false)
	st, err := statIn(fs.work, journal.DBName)
	if err != nil && err != syscall.ENOENT && err != syscall.ENOTDIR {
		return nil, &Error{Kind: KindIO, Path: fs.work.Path(), Msg: "cannot be read", Err: err}
	}
	if st == nil {
		return c, c.withoutJournal()
	}
	s, err := journal.OpenReadOnly(fs.work.Path())
	switch {
	case errors.Is(err, journal.ErrDamaged):
		return c, c.damagedJournal()
	case err != nil:
		return nil, err
	}
	defer s.Close() //nolint:errcheck // nothing was written
	if c.rec, err = s.Contents(); err != nil {
		return c, c.damagedJournal()
	}
	if err := c.damagedJournal(); err != nil || !c.out.Complete {
		return c, err
	}
	fs.foreign = s.Meta().ForeignUpper
	if paired := c.checkPair(); !c.checkLayers(s.Meta()) || !paired {
		c.out.Complete = false
		return c, nil
	}
	c.all()
	return c, nil
}

// withoutJournal says what it means that there is none.
func (c *checker) withoutJournal() error {
	up, err := c.fs.upperPair()
	if err != nil {
		return &Error{Kind: KindIO, Path: c.fs.cfg.Upper, Msg: "cannot be read", Err: err}
	}
	if up == nil {
		if id, err := readPair(c.fs.workLayer.Root()); err == nil && id != nil {
			return &Error{Kind: KindUsage, Path: c.fs.cfg.Work, Msg: "given as workdir, but it was mounted as upperdir", Mend: "give UPPERDIR first, then WORKDIR, then the lower directories"}
		}
		c.add(Finding{Severity: Note, Kind: "never-mounted", Path: c.fs.cfg.Work, What: "there is no journal, and upper belongs to none: these directories were never mounted together"})
		return nil
	}
	c.out.Complete = false
	c.add(Finding{Severity: Violation, Kind: "journal-missing", Path: c.fs.work.Path() + "/" + journal.DBName,
		What:  "the journal of upper is not there",
		Loses: "which names were removed: entries of lower layers would come back; a mount is refused",
		Mend:  "name the workdir that upper was used with, or restore it from a copy"})
	return nil
}

// damagedJournal makes the problems that the journal's own check finds findings.
func (c *checker) damagedJournal() error {
	dir := c.fs.work.Path()
	problems, err := journal.Check(dir)
	if err != nil {
		return err
	}
	f := Finding{Severity: Violation, Kind: "journal-damaged", Loses: "which names were removed: entries of lower layers would come back; a mount is refused",
		Mend: "restore upperdir and workdir together from a backup"}
	if len(problems) > 0 && journal.CanRebuild(dir) {
		f.Loses, f.Mend = "", "every record is there: --repair writes the database anew"
		f.fix = func(*repairer) error { return nil } // see repair
	}
	for _, p := range problems {
		f.Path, f.What = p.File, p.What
		c.add(f)
		c.out.Complete = false
	}
	return nil
}

// checkLayers compares the layers with those of the journal.
func (c *checker) checkLayers(stored journal.Meta) bool {
	given := journal.Meta{Upper: layerID(c.fs.upper)}
	for _, l := range c.fs.layers[1:] {
		given.Lowers = append(given.Lowers, layerID(l))
	}
	err := journal.CompareLayers(c.fs.work.Path(), stored, given)
	if err == nil {
		return true
	}
	f := Finding{Severity: Violation, Kind: "layers-differ", Path: c.fs.work.Path() + "/" + journal.DBName, What: err.Error(),
		Loses: "all: a mount with these layers is refused", Mend: "name the layers that the journal was made for, in their order"}
	var e *journal.Error
	if errors.As(err, &e) {
		f.What = e.What
	}
	c.add(f)
	return false
}

// checkPair looks whether upper and work belong together, as pair.go does.
func (c *checker) checkPair() bool {
	up, err := c.fs.upperPair()
	var wk []byte
	if err == nil {
		if wk, err = readPair(c.fs.work); err == syscall.EOPNOTSUPP { // the store is not there
			wk, err = nil, nil
		}
	}
	bad := func(what string) bool {
		c.add(Finding{Severity: Violation, Kind: "pair", Path: c.fs.cfg.Work, What: what,
			Loses: "all: a mount with the two is refused, for the journal of another upper would hide and show the wrong names",
			Mend:  "name the workdir that upper was used with"})
		return false
	}
	records := c.out.Counts.Links + len(c.rec.Covers) + len(c.rec.Notes) + len(c.rec.Links)
	switch {
	case err == syscall.ERANGE:
		return bad("the marks that say that upper and work belong together (" + xattrPair + ") are damaged")
	case err != nil:
		c.unreadable(c.fs.cfg.Upper, err)
		return false
	case up == nil && records > 0:
		return bad(fmt.Sprintf("upper %s does not say that it belongs to this journal, which has records (%s is missing)", c.fs.cfg.Upper, xattrPair))
	case up == nil:
		c.add(Finding{Severity: Note, Kind: "first-mount", Path: c.fs.cfg.Work, What: "the first mount was cut off before upper and work were marked as a pair: the next one does it"})
	case wk == nil:
		return bad("work does not say that it belongs to upper " + c.fs.cfg.Upper + " (" + xattrPair + " is missing)")
	case !bytes.Equal(up, wk):
		return bad("upper " + c.fs.cfg.Upper + " and work do not belong together, or one of their marks (" + xattrPair + ") is damaged")
	case len(up) != pairBytes:
		return bad(fmt.Sprintf("the marks that say that upper and work belong together (%s) are damaged: they have %d bytes, not %d", xattrPair, len(up), pairBytes))
	}
	return true
}
