// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"testing"

	"golang.org/x/sys/unix"
)

// io=coherent: every descriptor and mapping sees later writes.
func TestCoherentSeesLaterWrites(t *testing.T) {
	for _, links := range [][]string{nil, {"link f d/g"}} {
		x := overLowerFile(t, IOCoherent, links...)
		ino := statOf(t, x.path("f")).Ino
		r := openFD(t, x.path("f"), unix.O_RDONLY)
		b := mapFile(t, r, len(oldContent), false)
		wantContent(t, "the reader at first", r, oldContent)
		w := openFD(t, x.path("f"), unix.O_RDWR)
		w.writeAt(newContent[:10], 0)
		wantContent(t, "the old reader", r, newContent)
		wantContent(t, "the writer", w, newContent)
		wantContent(t, "a new reader", openFD(t, x.path("f"), unix.O_RDONLY), newContent)
		must(t, unix.Madvise(b, unix.MADV_POPULATE_READ))
		if string(b) != newContent {
			t.Errorf("the old mapping shows %q", b)
		}
		if now := statOf(t, x.path("f")).Ino; now != ino {
			t.Errorf("st_ino was %d and is %d", ino, now)
		}
		must(t, unix.Truncate(x.path("f"), 3))
		wantContent(t, "the old reader after a truncate", r, newContent[:3])
		s := x.Status()
		if s.Opens.Retired != 0 || s.Opens.Stale != 0 || s.Opens.Server == 0 || s.IO != IOCoherent {
			t.Errorf("opens: %+v, io %s", s.Opens, s.IO)
		}
		x.wantLowerUnchanged()
	}
}

// Once nobody has the file open any more, its copy is passed through.
func TestCoherentPassesUpperThrough(t *testing.T) {
	x := overLowerFile(t, IOCoherent)
	openFD(t, x.path("f"), unix.O_RDWR).close()
	writePath(t, x.path("new"), "n")
	x.waitReleased("f")
	if got := readPath(t, x.path("new")); got != "n" {
		t.Errorf("new: %q", got)
	}
	if e, err := x.Explain("f"); err != nil || e.IOMode != "passthrough" {
		t.Errorf("%+v, %v", e, err)
	}
	if got := readPath(t, x.path("f")); got != oldContent {
		t.Errorf("f: %q", got)
	}
}

// Locks of descriptors from before and after the copy-up meet.
func TestCoherentLocksMeet(t *testing.T) {
	x := overLowerFile(t, IOCoherent)
	r := openFD(t, x.path("f"), unix.O_RDONLY)
	must(t, unix.Flock(r.fd, unix.LOCK_EX|unix.LOCK_NB))
	w := openFD(t, x.path("f"), unix.O_RDWR)
	w.writeAt("x", 0)
	if err := unix.Flock(w.fd, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("both hold the lock: %v", err)
	}
	must(t, unix.Flock(r.fd, unix.LOCK_UN))
	if err := unix.Flock(w.fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the free lock: %v", err)
	}
}

// A read-only mount passes all through in either mode.
func TestCoherentReadOnly(t *testing.T) {
	m := mountOver(t, func(c *Config) { c.IO, c.Upper, c.Work = IOCoherent, "", "" }, layer(t, "file a 1"))
	if got := readPath(t, m.path("a")); got != "1" {
		t.Errorf("a: %q", got)
	}
	if s := m.Status(); s.Opens.Passthrough != 1 || !s.ReadOnly {
		t.Errorf("%+v", s.Opens)
	}
	wantErrno(t, "writing", tryWrite(m.path("a"), "2"), unix.EROFS)
	wantErrno(t, "mkdir", unix.Mkdir(m.path("d"), 0o755), unix.EROFS)
	wantErrno(t, "unlink", unix.Unlink(m.path("a")), unix.EROFS)
}

// A copy-up without any writer's open: the reader follows it.
func TestCoherentFollowsCopyUpByPath(t *testing.T) {
	x := overLowerFile(t, IOCoherent)
	r := openFD(t, x.path("f"), unix.O_RDONLY)
	wantContent(t, "the reader at first", r, oldContent)
	must(t, unix.Truncate(x.path("f"), 0))
	wantContent(t, "the reader of an empty file", r, "")
	must(t, unix.Truncate(x.path("f"), 5))
	wantContent(t, "the reader of zeros", r, "\x00\x00\x00\x00\x00")
	x.wantLowerUnchanged()
}
