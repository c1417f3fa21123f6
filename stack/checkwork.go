// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"slices"
	"strings"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// backupPrefix begins the names of the copies that a repair makes of the
// journal.
const backupPrefix = "journal.backup-"

// checkWork looks at the rest of the work directory.
func (c *checker) checkWork() {
	var names, tmp []string
	var err error
	collect := func(into *[]string) func([]byte, uint64, uint8) error {
		return func(name []byte, _ uint64, _ uint8) error {
			*into = append(*into, string(name))
			return nil
		}
	}
	if err = c.fs.work.List(collect(&names)); err != nil {
		c.unreadable(c.fs.work.Path(), err)
		return
	}
	if err := c.fs.tmp.List(collect(&tmp)); err != nil && !errMissing(err) {
		c.unreadable(c.fs.tmp.Path(), err)
	}
	slices.Sort(names)
	slices.Sort(tmp)
	for _, name := range names {
		c.workEntry(name)
	}
	if c.out.Counts.Partial > 0 && !slices.Contains(names, partialMark) {
		c.partialMissing()
	}
	for _, name := range tmp {
		if name != sharedWhiteout && !c.live {
			c.add(Finding{Severity: Note, Kind: "tmp", Path: c.fs.tmp.Path() + "/" + name, What: "the mount was cut off while this was made: the next mount removes it",
				fix: func(r *repairer) error { return r.removeTmp(name) }})
		}
	}
}

// workEntry looks at one name in WORK/plyfs.
func (c *checker) workEntry(name string) {
	path := c.fs.work.Path() + "/" + name
	switch {
	case name == liveMark && !c.live:
		c.add(Finding{Severity: Note, Kind: "live", Path: path, What: "the last mount was cut off: the next one counts the links of hard-linked files again"})
	case name == partialMark && c.out.Counts.Partial == 0 && !c.live:
		c.add(Finding{Severity: Note, Kind: "partial-none", Path: path, What: "it says that there may be partial files, and there are none"})
	case name == journal.Files()[1] && !c.live:
		c.add(Finding{Severity: Note, Kind: "tmp", Path: path, What: "the writing of a new journal was cut off: this is nothing that is needed",
			fix: func(r *repairer) error { return r.fs.work.Unlink(name) }})
	case name == volatileMark:
		c.add(Finding{Severity: Note, Kind: "volatile", Path: path, What: "a volatile mount syncs nothing: after a power cut since it began, files may have lost data, which is not looked for; the next mount is refused",
			Mend: "if the machine has run on, mount with -o after_volatile=keep; else use new directories"})
	case slices.Contains(append(journal.Files(), liveMark, partialMark, attrsName, "tmp", "index"), name):
	case strings.HasPrefix(name, backupPrefix):
	default:
		c.add(Finding{Severity: Note, Kind: "work-unknown", Path: path, What: "it is nothing that this plyfs makes there, and is not looked at"})
	}
}

// partialMissing: the mount would not look for partial files.
func (c *checker) partialMissing() {
	c.add(Finding{Severity: Violation, Kind: "partial-mark", Path: c.fs.work.Path() + "/" + partialMark,
		What:  "upper has " + count(c.out.Counts.Partial, "partial file") + ", and this file, which says so, is missing",
		Loses: "that they are completed, and that whoever asks is told of them",
		fix: func(r *repairer) error {
			return r.fs.work.Mknod(partialMark, unix.S_IFREG|0o600, 0)
		}})
}
