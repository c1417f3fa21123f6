// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A check proves what a mount relies on: the structure of the journal, and that
// upper, its private xattrs and the journal's records agree with each other and
// with the lower layers. It walks upper once and changes nothing.
//
// What a crash may leave is no violation: a whiteout whose record is owed, the
// mark of a live mount, names that are counted at the next mount, records of a
// directory that is gone. Such things are notes.
//
// The private xattrs have no sum of their own, so a wrong value is found by what
// contradicts it: an id by the journal's records, opaque and redirect by the
// notes, by what never stands together, and by lower directories that would show
// twice; an origin by the lower file.

// CheckVersion is the version of the JSON form of a CheckReport. It changes
// when a field goes or changes its meaning, not when one is added.
const CheckVersion = 1

// A CheckReport is what a check found.
type CheckReport struct {
	Version int      `json:"version"`
	Upper   string   `json:"upper,omitempty"`
	Work    string   `json:"work,omitempty"`
	Lowers  []string `json:"lowers,omitempty"`
	// Live: a mount's daemon checked its own directories.
	Live bool `json:"live"`
	// Clean: there are no violations.
	Clean bool `json:"clean"`
	// Complete is false if a violation kept the check from looking further.
	Complete bool        `json:"complete"`
	Findings []Finding   `json:"findings"`
	Omitted  int         `json:"omitted,omitempty"` // findings beyond the first 10,000
	Counts   CheckCounts `json:"counts"`
	Repair   *Repaired   `json:"repair,omitempty"`
	Seconds  float64     `json:"seconds"`
}

// CheckCounts says what was looked at.
type CheckCounts struct {
	Directories int `json:"directories"` // in upper, its root among them
	Entries     int `json:"entries"`     // in upper, that are no directories
	Whiteouts   int `json:"whiteouts"`   // of those
	Partial     int `json:"partial"`     // of those, and in the index
	Index       int `json:"index"`       // copies of hard-linked lower files
	Covers      int `json:"covers"`      // records
	Links       int `json:"links"`       // records
}

// A Finding is one thing that is not as it should be.
type Finding struct {
	Severity Severity `json:"severity"`
	Kind     string   `json:"kind"` // see CheckKinds
	// Path on disk. Bytes that cannot be shown are escaped as in a Go string.
	Path string `json:"path"`
	What string `json:"what"`
	// Loses says what a mount would not show, or show wrongly; empty: nothing.
	Loses string `json:"loses,omitempty"`
	// Mend says what to do about it.
	Mend string `json:"mend,omitempty"`
	// Repairable: a repair mends it, and loses nothing by that.
	Repairable bool `json:"repairable"`

	fix func(*repairer) error
}

// Severity sorts findings.
type Severity string

// The severities.
const (
	Violation Severity = "violation" // something is lost, or would be
	Note      Severity = "note"      // legal after a crash, or harmless
)

// maxFindings bounds a report.
const maxFindings = 10_000

// checker is one check under way.
type checker struct {
	fs   *FS
	rec  *journal.Contents
	out  *CheckReport
	live bool

	ids    map[journal.DirID]string // by id: the upper directory
	idOf   map[string]journal.DirID // the same the other way round
	merged map[string][]string      // by lower path: the upper directories that merge with it
	marked []markedDir              // directories with an id or a redirect
	unsure int                      // directories of which it is not known what they merge with

	links  linkCheck
	copyOf map[journal.Origin]inodeID // the file of upper that is the copy
}

// inodeID names an inode of upper.
type inodeID struct{ dev, ino uint64 }

// markedDir is what is kept of a directory for the end of the walk.
type markedDir struct {
	rel    string
	mark   dirMark
	low    string // the lower path that it merges with, "" for none
	unsure bool
}

func newChecker(fs *FS, live bool) *checker {
	return &checker{fs: fs, live: live, ids: map[journal.DirID]string{}, idOf: map[string]journal.DirID{}, merged: map[string][]string{},
		links: newLinkCheck(), copyOf: map[journal.Origin]inodeID{},
		out: &CheckReport{Version: CheckVersion, Upper: fs.cfg.Upper, Work: fs.cfg.Work, Lowers: fs.cfg.Lowers,
			Live: live, Complete: true, Findings: []Finding{}}}
}

// add takes a finding up.
func (c *checker) add(f Finding) {
	if len(c.out.Findings) >= maxFindings {
		c.out.Omitted++
		if f.Severity == Violation { // it must not be lost among notes
			for i := range c.out.Findings {
				if c.out.Findings[i].Severity == Note {
					c.out.Findings[i] = f
					return
				}
			}
		}
		return
	}
	f.Repairable = f.fix != nil
	c.out.Findings = append(c.out.Findings, f)
}

// done finishes the report.
func (c *checker) done(started time.Time) *CheckReport {
	r := c.out
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Path, f.What, f.Loses, f.Mend = printable(f.Path), printable(f.What), printable(f.Loses), printable(f.Mend)
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return strings.Compare(string(b.Severity), string(a.Severity)) })
	r.Clean = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Violation })
	r.Seconds = time.Since(started).Seconds()
	return r
}

// printable escapes what is not to be sent to a terminal or is no UTF-8.
func printable(s string) string {
	q := strconv.Quote(s)
	if q = q[1 : len(q)-1]; !strings.Contains(q, `\`) {
		return s
	}
	return strings.ReplaceAll(q, `\"`, `"`)
}

// upPath is where an upper entry is on disk.
func (c *checker) upPath(rel string) string {
	if rel == "" {
		return c.fs.cfg.Upper
	}
	return strings.TrimSuffix(c.fs.cfg.Upper, "/") + "/" + rel
}

func joinRel(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// gone tells whether an error only says that an entry went away while a live
// mount was checked.
func (c *checker) gone(err error) bool {
	return c.live && (err == syscall.ENOENT || err == syscall.ESTALE || err == syscall.ENOTDIR || err == syscall.ELOOP)
}

// unreadable notes what the file system below does not give.
func (c *checker) unreadable(path string, err error) {
	if c.gone(err) {
		return
	}
	c.unsure++
	c.add(Finding{Severity: Violation, Kind: "unreadable", Path: path, What: fmt.Sprintf("it cannot be read: %v", err),
		Loses: "what it holds, unless reading it again succeeds", Mend: "look for disk errors in the kernel log"})
}

// errMissing tells whether a path leads nowhere, whatever errno says so.
func errMissing(err error) bool {
	switch err {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.EINVAL, syscall.ESTALE, syscall.ELOOP:
		return true
	}
	return false
}

// all makes the whole check. Precondition: the layers and the journal are open.
func (c *checker) all() {
	c.out.Counts.Links = len(c.rec.Links)
	for _, names := range c.rec.Covers {
		c.out.Counts.Covers += len(names)
	}
	c.loadIndex()
	root := &checkDir{up: c.fs.upper.Root(), low: c.fs.lowRoot}
	root.mark, root.unsure = c.readMark(root)
	if root.unsure {
		c.unsure++
	} else {
		c.checkMark(root)
	}
	c.register(root)
	c.walk(root)
	c.checkLeftovers()
	c.checkMergedOnce()
	c.checkShownOnce()
	c.checkLinks()
	c.checkWork()
	c.holdBack()
}

// doubts are kinds of violations after which it is not certain what the records
// and the marks of other directories are about.
var doubts = map[string]bool{"mark-unreadable": true, "mark-contradiction": true, "id-unknown": true, "id-twice": true, "id-lost": true,
	"redirect-lost": true, "merged-twice": true, "shown-twice": true, "covers-nothing": true, "unreadable": true}

// relying are kinds of findings that a repair may mend only without such doubts.
var relying = map[string]bool{"leftover": true, "covers-idle": true, "links-many": true, "links-few": true, "links-nlink": true,
	"links-missing": true, "links-leftover": true, "impure": true, "index-missing": true}

func (c *checker) doubtful() bool {
	return c.unsure > 0 || slices.ContainsFunc(c.out.Findings, func(f Finding) bool { return doubts[f.Kind] })
}

// holdBack takes mends away that could lose something.
func (c *checker) holdBack() {
	if !c.doubtful() {
		return
	}
	for i := range c.out.Findings {
		if f := &c.out.Findings[i]; relying[f.Kind] && f.fix != nil {
			f.fix, f.Repairable, f.Mend = nil, false, "mend the other violations first: they may be the cause of this"
		}
	}
}

// Check is the check of a mount by its own daemon. It first looks while changes
// go on; renames alone wait. What it finds may then be a change that was seen
// half, so violations are believed only if they are there while no request is
// under way.
func (fs *FS) Check() (*CheckReport, error) {
	started := time.Now()
	if fs.upper == nil {
		c := newChecker(fs, true)
		c.add(Finding{Severity: Note, Kind: "read-only", Path: fs.cfg.Mountpoint, What: "a read-only mount has no journal and no upper: there is nothing to prove"})
		return c.done(started), nil
	}
	for range 2 {
		fs.moving.Lock()
		c, err := fs.checkOnce()
		fs.moving.Unlock()
		if err != nil {
			return nil, err
		}
		if r := c.done(started); r.Clean {
			return r, nil
		}
	}
	fs.holdRequests()
	defer fs.requests.Unlock()
	fs.settling.Lock()
	defer fs.settling.Unlock()
	c, err := fs.checkOnce()
	if err != nil {
		return nil, err
	}
	return c.done(started), nil
}

// holdRequests waits for a moment without requests, without keeping new ones
// back for some time, and then keeps them back.
func (fs *FS) holdRequests() {
	for range 200 {
		if fs.requests.TryLock() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	fs.requests.Lock()
}

func (fs *FS) checkOnce() (*checker, error) {
	c := newChecker(fs, true)
	var err error
	if c.rec, err = fs.j.Contents(); err != nil {
		return nil, err
	}
	c.checkPair()
	c.all()
	return c, nil
}

// statIn is the stat of an entry, nil if there is none.
func statIn(d interface {
	Stat(string, *unix.Stat_t) error
}, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := d.Stat(name, &st)
	if err == syscall.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}
