// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"io"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Policy decides about names and files. The stack asks it when a name is
// looked up or listed, when a file is opened, copied up or asked for its size,
// and, where it wants that, about each read and write that reaches the daemon.
// The stack re-checks each answer, so that a wrong one is EIO and a count, and
// never wrong data. A Policy sees plain types only and must be safe for
// concurrent use. It may be asked with locks of the stack held, so it must not
// come back to the mount.
//
// A nil Policy is the order of the layers alone.
type Policy interface {
	// Scope says what the policy has to say about a place, which is asked
	// about first: see FS.placeOf for what a place is.
	Scope(place string) Scope
	// Name decides about a name in a directory. It is asked only for names
	// that some layer holds, where Scope.Names is set.
	Name(q NameQuery) NameAnswer
	// File decides how a regular file is served, where Scope.Files is set.
	File(q FileQuery) FileAnswer
	// Attr changes what is shown of attributes, where Scope.Attrs is set.
	Attr(q AttrQuery) AttrAnswer
	// Data is asked before and after a read or write that the daemon does,
	// where Scope.Reads or Scope.Writes is set.
	Data(q DataQuery) DataAnswer
	// Epoch is a number that changes when answers may have changed.
	Epoch() uint64
	// Close is called when the policy is no longer asked. Plans that it gave
	// go on working until they are released.
	Close()
}

// Scope is what a policy has to say about a place.
type Scope struct {
	Names bool // Name is asked about it
	Files bool // File is asked
	Attrs bool // Attr is asked
	// NamesByCaller and FilesByCaller: the answers depend on who asks. Then
	// the kernel keeps no names; a plan holds for the opens of one caller.
	NamesByCaller, FilesByCaller bool
	Reads, Writes                bool // Data is asked; the file is not passed through
	// Below: the policy has more to say about places below this one, and
	// BelowByCaller that some of that depends on who asks.
	Below, BelowByCaller bool

	broken bool // the policy did not say, see brokenScope
}

// brokenScope is of a place about which the policy did not say: whatever is
// asked about it is EIO, and nothing is kept.
var brokenScope = Scope{Names: true, Files: true, Attrs: true, NamesByCaller: true, FilesByCaller: true,
	Below: true, BelowByCaller: true, broken: true}

// any tells whether the policy says anything about what is at the place.
func (s Scope) any() bool { return s.Names || s.Files || s.Attrs }

// Caller is who asks: the process that made the request.
type Caller struct{ UID, GID, PID uint32 }

// NobodyID stands for an unknown id.
const NobodyID = ^uint32(0)

// Nobody asks for everybody: what is answered is shared.
var Nobody = Caller{NobodyID, NobodyID, NobodyID}

// mounter asks where the daemon looks for itself: root.
var mounter = Caller{}

// NameQuery asks about one name.
type NameQuery struct {
	Place  string // of the name
	Parent uint64 // st_ino of the directory
	Name   string
	Type   uint32 // S_IFMT bits of the entry that would be shown
	Layer  int    // the layer it comes from: 0 upper, 1 the topmost lower; -1 in a listing, which does not tell
	// Holders has bit k for each layer k that holds the name and may be
	// chosen; layers from 63 on have no bit. In a listing it is 0.
	Holders uint64
	Layers  int // how many layers there are, upper included
	Listing bool
	Caller  Caller
	// Mode and Size are of the entry that would be shown, in a lookup.
	Mode uint32
	Size int64
	Ino  uint64 // its st_ino
	// After is NameAnswer.Again, when the policy asked to see what its choice
	// came to; else 0.
	After uint8
}

// NameAnswer is the decision about a name.
type NameAnswer struct {
	Hide  bool          // as if no layer had the name
	Errno syscall.Errno // not 0: the lookup fails with it
	// Layer, if not 0, is the lower layer that the name comes from; Skip has
	// the bits of lower layers to pass over. What is in upper stays there.
	// For a directory they say from which layers it is merged; then they
	// must not depend on the caller.
	Layer int
	Skip  uint64
	// NoCache: ask again the next time. TTL, if not 0: the kernel keeps the
	// answer no longer than that.
	NoCache bool
	TTL     time.Duration
	// Again, if not 0: ask once more about what the choice came to, with
	// After set to it.
	Again uint8
}

// FileQuery asks about one regular file.
type FileQuery struct {
	Place   string
	Name    string
	Parent  uint64 // st_ino of the directory of Name, 0 if it has no name left
	Ino     uint64
	Size    int64  // of the file that serves the name
	Mtime   int64  // ns since 1970
	Mode    uint32 // st_mode
	Layer   int
	Holders uint64 // as in NameQuery
	Layers  int
	Write   bool // opened for writing
	// AttrOnly: only the size is asked for, extents are not looked at.
	AttrOnly bool
	// CopyUp: what the answer shows is about to be copied to upper.
	CopyUp bool
	// Copied: the file is in upper and was copied there through a plan; it
	// already looks as that plan said.
	Copied bool
	Caller Caller
	// Data reads the file that serves the name. Not with AttrOnly.
	Data io.ReaderAt
}

// FileAnswer is the decision about a file.
type FileAnswer struct {
	// Server: the daemon serves the file, it is not passed through; Why is
	// the reason to show.
	Server bool
	Why    string
	Errno  syscall.Errno // not 0: the open fails with it
	// Plan says of what the file is made; nil: the file as it is. The stack
	// releases it.
	Plan *Plan
	// Rule names what decided, for those who ask why.
	Rule string
}

// AttrQuery asks what to show of a regular file's, or any other inode's,
// attributes.
type AttrQuery struct {
	Place string
	Ino   uint64
	Mode  uint32
	Size  int64 // as shown
	Mtime int64 // ns since 1970
	Layer int
}

// AttrAnswer changes what is shown. Nothing else can be changed, and a mode
// only loses bits, so that no access is widened.
type AttrAnswer struct {
	Errno     syscall.Errno
	SetMtime  bool
	Mtime     int64
	ClearMode uint32 // of the permission and set-ID bits
}

// DataQuery asks about a read or, with Write set, a write of the daemon.
type DataQuery struct {
	FileQuery
	Off   int64
	Len   int
	After uint8  // DataAnswer.Again; 0 before the read or write
	Data  []byte // what is to be written, or was read; then the policy may change it
}

// DataAnswer is the decision about it.
type DataAnswer struct {
	Errno syscall.Errno
	// Window, in the answer before a read, replaces the plan for the bytes
	// asked about.
	Window *Window
	// Parts are what Window's extents name.
	Parts []Part
	// Again, if not 0: ask once more afterwards, with After set to it.
	Again uint8
}

// OnlyNames is embedded by policies that decide about names and whole files
// alone: the rest of Policy, without a say.
type OnlyNames struct{}

// Scope implements Policy: asked about every name and every file.
func (OnlyNames) Scope(string) Scope { return Scope{Names: true, Files: true} }

// Attr implements Policy.
func (OnlyNames) Attr(AttrQuery) AttrAnswer { return AttrAnswer{} }

// Data implements Policy.
func (OnlyNames) Data(DataQuery) DataAnswer { return DataAnswer{} }

// Epoch implements Policy.
func (OnlyNames) Epoch() uint64 { return 0 }

// Close implements Policy.
func (OnlyNames) Close() {}

// maxErrno is the largest error that the kernel takes in an answer; it does
// not even wake the caller up for a larger one (fs/fuse/dev.c).
const maxErrno = 511

// wrongErrno tells whether an operation may not fail with an errno: numbers
// that are none, and ENOSYS, by which the kernel would never ask us to do such
// a thing again, for any file.
func wrongErrno(e syscall.Errno) bool { return e > maxErrno || e == syscall.ENOSYS }

// policyState is the policy in force.
type policyState struct {
	Policy
	gen   uint64 // counts replacements
	epoch uint64 // the policy's, before anything was asked

	using  sync.RWMutex // held for reading while the policy is asked
	closed bool         // guarded by using
}

// pol is the policy in force, nil if there is none.
func (fs *FS) pol() *policyState { return fs.policy.Load() }

// usePolicy is pol for whoever asks the policy something: it is not closed
// before p.using is unlocked.
func (fs *FS) usePolicy() *policyState {
	for {
		p := fs.pol()
		if p == nil {
			return nil
		}
		p.using.RLock()
		if !p.closed {
			return p
		}
		p.using.RUnlock() // it was replaced just now
	}
}

// closePolicy closes a policy that is no longer in force, once nobody asks it.
func (fs *FS) closePolicy(p *policyState) {
	p.using.Lock()
	p.closed = true
	p.using.Unlock()
	defer fs.policyPanics(func() {})
	p.Close()
}

// scope is what the policy in force says about a place.
func (fs *FS) scope(place string) Scope {
	p := fs.usePolicy()
	if p == nil {
		return Scope{}
	}
	defer p.using.RUnlock()
	return fs.scopeOf(p, place)
}

// scopeOf is what a policy that is not closed says about a place.
func (fs *FS) scopeOf(p *policyState, place string) (s Scope) {
	if p == nil {
		return Scope{}
	}
	defer fs.policyPanics(func() { s = brokenScope })
	if strings.HasPrefix(place, unknownPlace) {
		return Scope{Names: true, Files: true}
	}
	return p.Scope(place)
}

// decide asks the policy about a name that a layer holds. The error is
// errHidden for a name that is to be hidden, EIO for an answer that is no
// errno, or none at all: a panic.
func (fs *FS) decide(q NameQuery) (a NameAnswer, err error) {
	p := fs.usePolicy()
	if p == nil {
		return NameAnswer{}, nil
	}
	defer p.using.RUnlock()
	if strings.HasPrefix(q.Place, unknownPlace) {
		return NameAnswer{}, syscall.EIO
	}
	defer fs.policyPanics(func() { a, err = NameAnswer{}, syscall.EIO })
	a = p.Name(q)
	switch {
	case wrongErrno(a.Errno):
		return a, fs.wrongAnswer(q.Place, "it may not fail with errno %d", uintptr(a.Errno))
	case a.Errno == syscall.ENOENT, a.Errno == 0 && a.Hide:
		return a, errHidden
	case a.Errno != 0:
		return a, a.Errno
	}
	return a, nil
}

// askFile asks the policy about a regular file.
func (fs *FS) askFile(q FileQuery) (a FileAnswer, err error) {
	p := fs.usePolicy()
	if p == nil {
		return FileAnswer{}, nil
	}
	defer p.using.RUnlock()
	if strings.HasPrefix(q.Place, unknownPlace) {
		return FileAnswer{}, syscall.EIO
	}
	defer fs.policyPanics(func() { a, err = FileAnswer{}, syscall.EIO })
	a = p.File(q)
	switch {
	case wrongErrno(a.Errno):
		err = fs.wrongAnswer(q.Place, "it may not fail with errno %d", uintptr(a.Errno))
	case a.Errno != 0:
		err = a.Errno
	}
	if err != nil {
		fs.releasePlan(a.Plan)
		a.Plan = nil
	}
	return a, err
}

// askData asks the policy about a read or write of the daemon.
func (fs *FS) askData(q DataQuery) (a DataAnswer, err error) {
	p := fs.usePolicy()
	if p == nil {
		return a, nil
	}
	defer p.using.RUnlock()
	defer fs.policyPanics(func() { a, err = DataAnswer{}, syscall.EIO })
	a = p.Data(q)
	switch {
	case wrongErrno(a.Errno):
		return DataAnswer{}, fs.wrongAnswer(q.Place, "it may not fail with errno %d", uintptr(a.Errno))
	case a.Errno != 0:
		return DataAnswer{}, a.Errno
	}
	return a, nil
}

// policyPanics, deferred, keeps a policy's panic from whoever holds locks.
func (fs *FS) policyPanics(answer func()) {
	if r := recover(); r != nil {
		fs.panicked(r)
		answer()
	}
}

// hiddenError is ENOENT for a name that a layer holds and the policy hides.
type hiddenError struct{}

var errHidden error = hiddenError{}

// Error implements error.
func (hiddenError) Error() string { return "hidden by the policy" }

// Unwrap makes it ENOENT for users.
func (hiddenError) Unwrap() error { return syscall.ENOENT }

// wrongError is a wrong answer of a policy: EIO, in words.
type wrongError struct{ msg string }

// Error implements error.
func (e *wrongError) Error() string { return e.msg }

// Unwrap makes it EIO for users.
func (e *wrongError) Unwrap() error { return syscall.EIO }
