// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/plyfs/plyfs/creds"
	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// Status is a snapshot of the counters.
func (fs *FS) Status() Status {
	caps, _ := creds.EffectiveCaps(os.Getpid())
	s := Status{
		Mountpoint: fs.cfg.Mountpoint, PID: os.Getpid(), ReadOnly: fs.upper == nil, IO: fs.cfg.IO,
		MaxStackDepth: fs.maxStackDepth, Volatile: fs.cfg.Volatile,
		CapEffective: fmt.Sprintf("%016x", caps), CapSysRes: caps>>unix.CAP_SYS_RESOURCE&1 == 1,
		UptimeSeconds: time.Since(fs.started).Seconds(),
		Requests:      map[string]uint64{}, Errors: fs.count.errorsByName(), Panics: fs.count.panics.Load(),
		Nodes: fs.nodes.len(), DirFDs: fs.cache.Len(), FDs: countFDs(),
	}
	if fs.server != nil {
		s.Threads = int(fs.server.threads.Load())
	}
	for op := range fs.count.ops {
		if n := fs.count.ops[op].Load(); n > 0 {
			s.Requests[opName(op)] = n
		}
	}
	for i, l := range fs.layers {
		if l != nil {
			s.Layers = append(s.Layers, fs.layerStatus(i, l))
		}
	}
	fs.countStatus(&s)
	s.Partial = fs.partialStatus()
	s.Journal = fs.journalStatus()
	s.Policy = fs.policyStatus()
	return s
}

func (fs *FS) layerStatus(i int, l *layers.Layer) LayerStatus {
	ls := LayerStatus{Role: "lower", Path: l.Path, FSType: l.FSType, Depth: l.Depth, DepthWhy: l.DepthWhy,
		ReadOnly: l.ReadOnly, Passthrough: fs.noPassthrough[i] == "", Why: fs.noPassthrough[i]}
	if i == 0 {
		ls.Role = "upper"
		ls.Caps = capNames(fs.caps)
		if fs.attrs != nil {
			ls.Attrs = fs.work.Path() + "/" + attrsName
		}
	} else if fs.coherent && ls.Passthrough {
		ls.Passthrough, ls.Why = false, "io=coherent: lower files of a writable mount are served through the page cache"
	}
	return ls
}

func capNames(c layers.Caps) []string {
	var out []string
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"d_type", c.DType}, {"tmpfile", c.Tmpfile}, {"rename_whiteout", c.RenameWhiteout},
		{"rename_exchange", c.RenameExchange}, {"trusted_xattr", c.TrustedXattr}, {"user_xattr", c.UserXattr},
		{"posix_acl", c.POSIXACL}, {"reflink", c.Reflink}, {"copy_file_range", c.CopyFileRange},
		{"file_handles", c.FileHandles}, {"sparse", c.Sparse},
	} {
		if f.has {
			out = append(out, f.name)
		}
	}
	return out
}

func (fs *FS) countStatus(s *Status) {
	c := &fs.count
	s.Opens = OpenStatus{Passthrough: c.passthrough.Load(), Server: c.server.Load(),
		Retired: c.retired.Load(), PolicyRetired: c.policyRetired.Load(), Overtaken: c.overtaken.Load(), Stale: c.stale.Load()}
	s.CopyUps = CopyUpStatus{Files: c.copyFiles.Load(), Dirs: c.copyDirs.Load(), Others: c.copyOthers.Load(),
		Bytes: c.copyBytes.Load(), Failed: c.copyFailed.Load()}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Opens.Refusals = maps.Clone(c.refusals)
	s.CopyUps.How = maps.Clone(c.hows)
	s.LastErrors = slices.Clone(c.last)
}

func (fs *FS) journalStatus() *JournalStatus {
	if fs.j == nil {
		return nil
	}
	st := fs.j.Stats()
	js := &JournalStatus{Path: fs.work.Path(), DBBytes: st.DBBytes, LogBytes: st.LogBytes,
		Records: map[string]uint64{"cover": st.Covers, "links": st.Links, "note": st.Notes},
		Dirty:   st.Dirty, Syncs: st.Syncs, Folds: st.Folds}
	if st.LastErr != nil {
		js.Error = st.LastErr.Error()
	}
	return js
}

// policyStatus is what the policy says of itself, and what the mount has
// counted; nil without one.
func (fs *FS) policyStatus() *PolicyStatus {
	p := fs.pol()
	if p == nil {
		return nil
	}
	s := &PolicyStatus{}
	if r, ok := p.Policy.(interface{ Status() PolicyStatus }); ok {
		*s = r.Status()
	}
	s.Generation = p.gen
	s.WrongAnswers += fs.count.wrong.Load()
	return s
}

// DumpJournal writes the live journal as text, with the records that were
// still owed (settle.go).
func (fs *FS) DumpJournal(w io.Writer) error {
	if fs.j == nil {
		_, err := fmt.Fprintln(w, "# read-only mount: no journal")
		return err
	}
	if err := fs.settle(); err != nil {
		return err
	}
	return fs.j.Dump(w)
}

// DumpJournalJSON is DumpJournal as one JSON document, null without a journal.
func (fs *FS) DumpJournalJSON(w io.Writer) error {
	if fs.j == nil {
		_, err := fmt.Fprintln(w, "null")
		return err
	}
	if err := fs.settle(); err != nil {
		return err
	}
	return fs.j.DumpJSON(w)
}

// countFDs is how many descriptors the process has open.
func countFDs() int {
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(ents) - 1 // the one that reads
}

var opNames = strings.Fields(`0 LOOKUP FORGET GETATTR SETATTR READLINK SYMLINK 7 MKNOD MKDIR UNLINK RMDIR
	RENAME LINK OPEN READ WRITE STATFS RELEASE 19 FSYNC SETXATTR GETXATTR LISTXATTR REMOVEXATTR FLUSH INIT
	OPENDIR READDIR RELEASEDIR FSYNCDIR GETLK SETLK SETLKW ACCESS CREATE INTERRUPT BMAP DESTROY IOCTL POLL
	NOTIFY_REPLY BATCH_FORGET FALLOCATE READDIRPLUS RENAME2 LSEEK COPY_FILE_RANGE SETUPMAPPING REMOVEMAPPING
	SYNCFS TMPFILE STATX COPY_FILE_RANGE_64`)

func opName(op int) string {
	if op < len(opNames) {
		return opNames[op]
	}
	return fmt.Sprintf("OPCODE_%d", op)
}
