// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The I/O modes of plyfs that the oracle runs in.
const (
	ioPassthrough = "passthrough"
	ioCoherent    = "coherent"
)

// Whom a difference belongs to.
const (
	whoOverlay     = "kernel overlayfs"
	whoPassthrough = sutPlyfs + " io=" + ioPassthrough
)

// step is what the table of differences decides by: an operation, or for
// "tree" the field B of the entry A.
type step struct {
	op        *op
	seq       *sequence
	typ       string // file type of the entry, for "tree"
	removed   bool   // on a descriptor of a removed directory
	overtaken bool   // on a descriptor opened read-only before its file was first changed
}

// everyone stands for all union mounts in the table of differences.
const everyone = ""

// difference is a way in which a system is known, and allowed, to differ from
// a plain copy of the merged tree.
type difference struct {
	who    string
	reason string
	match  func(st *step, want, got string) bool
}

// differences is the whole list.
var differences = []difference{
	{
		who:    everyone,
		reason: "the kernel serves a fifo by itself and does not hand the time of a write down",
		match: func(st *step, want, got string) bool {
			if st.op.Kind == "tree" {
				return st.typ == "fifo" && st.op.B == "mtime" && want == "now"
			}
			return strings.Contains(want, "type=fifo") && withoutField(want, "mtime") == withoutField(got, "mtime")
		},
	},
	{
		who:    everyone,
		reason: "a rename over a directory that is not empty is EEXIST on xfs; rename(2) allows both",
		match: func(st *step, want, got string) bool {
			return st.op.Kind == "rename" && want == "EEXIST" && got == "ENOTEMPTY"
		},
	},
	{
		who:    everyone,
		reason: "a truncate does not set the time of a file on ramfs",
		match: func(st *step, want, got string) bool {
			if st.op.Kind == "tree" {
				return st.seq.RAM && st.typ == "file" && st.op.B == "mtime"
			}
			return st.seq.RAM && strings.Contains(want, "type=file") && withoutField(want, "mtime") == withoutField(got, "mtime")
		},
	},
	{
		who:    whoOverlay,
		reason: "removing an access control list that is not there is ENODATA, on ext4 no error",
		match: func(st *step, want, got string) bool {
			return st.op.Kind == "rmxattr" && strings.HasPrefix(st.op.B, "system.posix_acl") && want == "ok" && got == "ENODATA"
		},
	},
	{
		who:    whoOverlay,
		reason: "an open lower file whose name is gone has the lower file's link count, not 0",
		match: func(st *step, want, got string) bool {
			return st.op.Kind == "fstat" && strings.Contains(want, "nlink=0") && withoutField(want, "nlink") == withoutField(got, "nlink")
		},
	},
	{
		who:    whoOverlay,
		reason: "rmdir of a directory that held whiteouts removes these first, which changes its time",
		match: func(st *step, want, got string) bool {
			return st.op.Kind == "fstat" && st.removed && withoutField(want, "mtime") == withoutField(got, "mtime")
		},
	},
	{
		who:    whoOverlay,
		reason: "a rename that fails at its end has copied up its directories, which changes the times of those above",
		match: func(st *step, want, got string) bool {
			if st.op.Kind == "tree" {
				return st.typ == "dir" && st.op.B == "mtime" && got == "now"
			}
			return strings.Contains(want, "type=dir") && strings.Contains(got, "mtime=now") &&
				withoutField(want, "mtime") == withoutField(got, "mtime")
		},
	},
	{
		who:    whoOverlay,
		reason: "a mapping of a descriptor opened before the copy-up is one of the lower file",
		match:  func(st *step, _, _ string) bool { return st.op.Kind == "mmapread" && st.overtaken },
	},
	{
		who:    whoPassthrough,
		reason: "a descriptor opened before the copy-up keeps the lower file (io=coherent does not)",
		match: func(st *step, want, got string) bool {
			return st.overtaken && slices.Contains([]string{"pread", "fstat", "seek", "mmapread"}, st.op.Kind) &&
				(st.op.Kind == "seek" || !strings.Contains(got, "E"))
		},
	},
}

// withoutField is a line of statLine without one field.
func withoutField(line, field string) string {
	words := strings.Fields(line)
	words = slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, field+"=") })
	return strings.Join(words, " ")
}

// known finds the reason why who may differ here, "" if it may not.
func known(who string, st *step, want, got string) string {
	for _, d := range differences {
		if (d.who == who || d.who == everyone) && d.match(st, want, got) {
			return d.reason
		}
	}
	return ""
}

// overtakes follows, on the plain copy, which descriptors were opened
// read-only before the first change of their file: those that a copy-up
// overtakes on a union mount. It errs on the side of "overtaken".
type overtakes struct {
	changed map[uint64]bool // inodes that have certainly been copied up
	touched map[uint64]bool // and those that may have been
	slots   map[int]uint64  // inode of slots opened read-only before a certain change
}

func newOvertakes() *overtakes {
	return &overtakes{changed: map[uint64]bool{}, touched: map[uint64]bool{}, slots: map[int]uint64{}}
}

func (m *overtakes) forgetSlots() { clear(m.slots) }

var (
	// readers are the operations that change no file.
	readers = []string{"pread", "readfile", "close", "getxattr", "listxattr", "seek", "mmapread", "readdir",
		"stat", "fstat", "readlink", "access", "fsync", "mkdir", "symlink", "mknod", "rmdir", "remount"}
	// changers are those that certainly change the file at their path.
	changers = []string{"writefile", "append", "truncate", "chmod", "chown", "utimens", "setxattr"}
)

// before notes what an operation may be about to change, and says whether it
// works on an overtaken descriptor.
func (m *overtakes) before(t *opTree, o *op) bool {
	if !slices.Contains(readers, o.Kind) && !(o.Kind == "open" && o.Flags&unix.O_ACCMODE == unix.O_RDONLY) {
		m.mark(m.touched, t, o)
	}
	ino, ok := m.slots[o.Slot]
	return ok && m.touched[ino]
}

// mark adds the inodes of an operation to the set.
func (m *overtakes) mark(set map[uint64]bool, t *opTree, o *op) {
	var st unix.Stat_t
	for _, p := range []string{o.A, o.B} {
		for _, flags := range []int{0, unix.AT_SYMLINK_NOFOLLOW} {
			if p != "" && unix.Fstatat(unix.AT_FDCWD, t.path(p), &st, flags) == nil {
				set[st.Ino] = true
			}
		}
	}
	for _, s := range []int{o.Slot, o.Slot2} {
		if fd, ok := t.fds[s]; ok && unix.Fstat(fd, &st) == nil {
			set[st.Ino] = true
		}
	}
}

// after follows what an operation put into its slot and what it has changed.
func (m *overtakes) after(t *opTree, o *op, outcome string) {
	failed := outcome != "ok" && (outcome == "" || outcome[0] < '0' || outcome[0] > '9')
	switch {
	case failed:
	case slices.Contains(changers, o.Kind):
		flags := unix.AT_SYMLINK_NOFOLLOW
		if slices.Contains([]string{"writefile", "append", "truncate", "chmod"}, o.Kind) {
			flags = 0
		}
		var st unix.Stat_t
		if unix.Fstatat(unix.AT_FDCWD, t.path(o.A), &st, flags) == nil {
			m.changed[st.Ino], m.touched[st.Ino] = true, true
		}
	case slices.Contains([]string{"open", "create", "tmpfile", "close"}, o.Kind):
		m.opened(t, o)
	}
}

// opened looks at the new descriptor of a slot.
func (m *overtakes) opened(t *opTree, o *op) {
	delete(m.slots, o.Slot)
	fd, ok := t.fds[o.Slot]
	var st unix.Stat_t
	if !ok || unix.Fstat(fd, &st) != nil {
		return
	}
	fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	switch {
	case fl&unix.O_PATH != 0:
	case fl&unix.O_ACCMODE != unix.O_RDONLY:
		m.changed[st.Ino], m.touched[st.Ino] = true, true
	case !m.changed[st.Ino]:
		m.slots[o.Slot] = st.Ino
	}
}

// notRun gives the reason why an operation is not run at all: kernel overlayfs
// differs after it in a way that all later steps would show.
func notRun(t *opTree, o *op) string {
	switch {
	case slices.Contains([]string{"fchmod", "fchown", "fsetxattr"}, o.Kind) && removedSlot(t, o) != "":
		return "overlayfs cannot copy up what has been removed with its directory (ENOENT), and copies a removed " +
			"directory up under the name of the one that took its place; TestUnlinked has these operations"
	case o.Kind == "rmxattr" && o.User != 0 && strings.HasPrefix(o.B, "system.posix_acl"):
		return "overlayfs clears the set-group-ID bit when an owner outside the group removes an ACL, ext4 does not"
	}
	return ""
}

// removedSlot is the type of the file in the slot of an operation, if the file
// has no name any more.
func removedSlot(t *opTree, o *op) string {
	var st unix.Stat_t
	fd, ok := t.fds[o.Slot]
	if !ok || unix.Fstat(fd, &st) != nil || st.Nlink != 0 {
		return ""
	}
	return typeName(st.Mode)
}
