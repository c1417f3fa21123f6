// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import "syscall"

// A Policy decides about names and open files. The stack asks it when a name
// is looked up or listed and when a file is first opened, and keeps the answer
// with the node; it re-checks each answer,
// so that a wrong one is EIO and never wrong data. A Policy sees plain types
// only and must be safe for concurrent use.
//
// A nil Policy is the order of the layers alone.
type Policy interface {
	// Name decides about a name in a directory. It is asked only for names
	// that some layer holds.
	Name(q NameQuery) NameAnswer
	// File decides how a regular file may be served.
	File(q FileQuery) FileAnswer
}

// NameQuery asks about one name.
type NameQuery struct {
	Parent uint64 // st_ino of the directory
	Name   string
	Type   uint32 // S_IFMT bits of the entry that would be shown
	Layer  int    // the layer it comes from: 0 upper, 1 the topmost lower; -1 in a listing, which does not tell
}

// NameAnswer is the decision about a name.
type NameAnswer struct {
	Hide  bool          // as if no layer had the name
	Errno syscall.Errno // not 0: the lookup fails with it
}

// FileQuery asks about one regular file.
type FileQuery struct {
	Ino   uint64
	Size  int64
	Layer int
	Write bool
}

// FileAnswer is the decision about a file.
type FileAnswer struct {
	// Server: the daemon serves the file, it is not passed through; Why is
	// the reason to show.
	Server bool
	Why    string
	Errno  syscall.Errno // not 0: the open fails with it
}

// TablePolicy is a static policy: names to hide anywhere in the tree, and
// whether files are kept from passthrough.
type TablePolicy struct {
	Hide   map[string]bool // by name
	Server string          // not empty: the reason for which no file is passed through
}

// Name implements Policy.
func (p *TablePolicy) Name(q NameQuery) NameAnswer { return NameAnswer{Hide: p.Hide[q.Name]} }

// File implements Policy.
func (p *TablePolicy) File(FileQuery) FileAnswer {
	return FileAnswer{Server: p.Server != "", Why: p.Server}
}

// maxErrno is the largest error that the kernel takes in an answer; it does
// not even wake the caller up for a larger one (fs/fuse/dev.c).
const maxErrno = 511

// decide asks the policy about a name that a layer holds. It returns 0 when
// the name may be shown, ENOENT when it is hidden, EIO for an answer that is
// no errno, or none at all: a panic.
func (fs *FS) decide(q NameQuery) (e syscall.Errno) {
	if fs.policy == nil {
		return 0
	}
	defer fs.policyPanics(func() { e = syscall.EIO })
	a := fs.policy.Name(q)
	switch {
	case a.Errno > maxErrno:
		return syscall.EIO
	case a.Errno != 0:
		return a.Errno
	case a.Hide:
		return syscall.ENOENT
	}
	return 0
}

// decideFile asks the policy about a regular file: why it is not to be passed
// through ("" if it may be), or the error with which its open fails.
func (fs *FS) decideFile(q FileQuery) (why string, err error) {
	if fs.policy == nil {
		return "", nil
	}
	defer fs.policyPanics(func() { why, err = "", syscall.EIO })
	a := fs.policy.File(q)
	switch {
	case a.Errno > maxErrno:
		return "", syscall.EIO
	case a.Errno != 0:
		return "", a.Errno
	case a.Server:
		return "policy: " + a.Why, nil
	}
	return "", nil
}

// policyPanics, deferred, keeps a policy's panic from whoever holds locks.
func (fs *FS) policyPanics(answer func()) {
	if r := recover(); r != nil {
		fs.panicked(r)
		answer()
	}
}
