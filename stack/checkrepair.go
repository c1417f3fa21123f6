// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"time"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// Repaired says what a repair has done.
type Repaired struct {
	// Backup is the copy of the journal's files that was made first; empty if
	// nothing was done.
	Backup string `json:"backup,omitempty"`
	// Done are the findings that were mended.
	Done []Finding `json:"done"`
	// Failed are those that should have been.
	Failed []Finding `json:"failed,omitempty"`
}

// repairer has what the mends of findings need.
type repairer struct {
	c  *checker
	fs *FS
	j  *journal.Journal
}

// Repair checks the directories of a mount that is not mounted, mends what
// loses nothing by it, after a copy of the journal, and checks again. What
// would lose something is left as it is.
func Repair(cfg Config) (*CheckReport, error) {
	started := time.Now()
	fs, err := openForCheck(cfg, true)
	if err != nil {
		return nil, err
	}
	defer fs.closeCheck()
	c, err := fs.checkOffline()
	if err != nil {
		return nil, err
	}
	did := &Repaired{Done: []Finding{}}
	if c.repairable() {
		if c, err = fs.repair(c, did); err != nil {
			return nil, err
		}
	}
	r := c.done(started)
	r.Repair = did
	return r, nil
}

func (c *checker) repairable() bool {
	for _, f := range c.out.Findings {
		if f.fix != nil {
			return true
		}
	}
	return false
}

// repair makes the copy and mends: first the database, for the rest of the
// check waits for that, then what the records say. It gives the check of what
// is left.
func (fs *FS) repair(c *checker, did *Repaired) (*checker, error) {
	dir := fs.work.Path()
	name := backupPrefix + time.Now().UTC().Format("20060102T150405.000")
	var err error
	if did.Backup, err = journal.Backup(dir, name); err != nil {
		return nil, err
	}
	if !c.out.Complete {
		if err := journal.Rebuild(dir); err != nil {
			return nil, err
		}
		did.take(c.out.Findings, func(Finding) error { return nil })
		if c, err = fs.checkOffline(); err != nil || !c.repairable() || !c.out.Complete {
			return c, err
		}
	}
	if err := fs.mend(c, did); err != nil {
		return nil, err
	}
	return fs.checkOffline()
}

// mend calls the mends of the findings, with the journal open for writing.
func (fs *FS) mend(c *checker, did *Repaired) error {
	s, err := journal.OpenReadOnly(fs.work.Path())
	if err != nil {
		return err
	}
	meta := s.Meta()
	if err := s.Close(); err != nil {
		return err
	}
	j, err := journal.Open(fs.work.Path(), meta, journal.Options{})
	if err != nil {
		return err
	}
	r := &repairer{c: c, fs: fs, j: j}
	did.take(c.out.Findings, func(f Finding) error { return f.fix(r) })
	return errors.Join(fs.syncUpper(), j.Close())
}

// take mends what can be mended of a list and keeps account of it.
func (did *Repaired) take(list []Finding, mend func(Finding) error) {
	for _, f := range list {
		if f.fix == nil {
			continue
		}
		err := mend(f)
		f.Path, f.What, f.Loses = printable(f.Path), printable(f.What), printable(f.Loses)
		if err != nil {
			f.Mend = fmt.Sprintf("mending it failed: %v", err)
			did.Failed = append(did.Failed, f)
			continue
		}
		did.Done = append(did.Done, f)
	}
}

// uncover takes records of names back that hide nothing.
func (r *repairer) uncover(id journal.DirID, names []string) error {
	const batch = 1000
	for len(names) > 0 {
		n := min(batch, len(names))
		ops := make([]journal.Op, 0, n)
		for _, name := range names[:n] {
			ops = append(ops, journal.Uncover(id, name))
		}
		if err := r.j.Apply(ops...); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

// removeTmp removes what was under way in the work directory.
func (r *repairer) removeTmp(name string) error {
	st, err := statIn(r.fs.tmp, name)
	if err != nil || st == nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return r.fs.tmp.Unlink(name)
	}
	sub := r.fs.tmp.Child(name)
	if err := r.fs.clearTmp(sub); err != nil {
		return err
	}
	sub.Forget()
	return r.fs.tmp.Rmdir(name)
}
