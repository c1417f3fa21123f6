// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"log/slog"
	"time"
)

// I/O modes of a mount, see Config.IO.
const (
	// IOPassthrough hands every file that one layer serves to the kernel.
	// A descriptor opened read-only on a lower file before its copy-up goes
	// on showing the lower content.
	IOPassthrough = "passthrough"
	// IOCoherent serves the lower files of a writable mount through the
	// page cache, under one node that stays over copy-up, so that every
	// descriptor, mapping and lock sees later writes. Upper files, and all
	// files of a read-only mount, are passed through as with IOPassthrough.
	IOCoherent = "coherent"
)

// Choices of Config.Passthrough.
const (
	PassthroughAuto    = "auto"    // where the kernel takes it; refusals are per file and counted
	PassthroughRequire = "require" // a layer that cannot be passed through refuses the mount
	PassthroughOff     = "off"     // every file is read and written by the daemon
)

// Choices of Config.CopyUp.
const (
	CopyUpAuto    = "auto"    // files up to a threshold are copied whole at the first write, others in part
	CopyUpPartial = "partial" // always in part: the blocks that are written
	CopyUpWhole   = "whole"   // always whole, at the first change of any kind
)

// Defaults of Config.
const (
	DefaultCopyUpThreshold = 1 << 20
	DefaultCompleteRate    = 64 << 20
)

// Config says what to mount where. The zero value of each optional field is
// its default.
type Config struct {
	// Upper and Work are the upper directory and its work directory, on one
	// mount of one file system. Both empty: the mount is read-only.
	Upper, Work string
	// Lowers are the lower directories, topmost first. At least one.
	Lowers []string
	// Mountpoint is the directory to mount over; Source is the first column
	// of the mount table ("plyfs" when empty).
	Mountpoint, Source string

	IO            string // IOPassthrough (default) or IOCoherent
	Passthrough   string // PassthroughAuto (default), PassthroughRequire or PassthroughOff
	MaxStackDepth int    // 1 or 2; 0: the smallest that lets most layers be passed through

	// CopyUp says how much of a lower file is copied when it is first written
	// to, see CopyUpAuto (default). CopyUpThreshold is the size in bytes up to
	// which CopyUpAuto copies whole; 0: DefaultCopyUpThreshold; negative:
	// nothing but empty files.
	CopyUp          string
	CopyUpThreshold int64
	// CompleteRate bounds how many bytes a second are copied in the background
	// to make partial files whole; 0: DefaultCompleteRate; negative: none are.
	CompleteRate int64

	// Volatile gives up durability: nothing is synced, and the next mount is
	// refused unless its AfterVolatile says otherwise.
	Volatile bool
	// AfterVolatile says what is done with what a volatile mount left:
	// AfterVolatileRefuse (default), AfterVolatileAuto or AfterVolatileKeep.
	AfterVolatile string
	// NoACL turns POSIX ACLs off.
	NoACL bool

	// MountFlags are MS_* bits of mount(2); MountData further options that
	// the kernel's FUSE takes, such as a security context.
	MountFlags uintptr
	MountData  []string
	// Propagation is how mounts below spread to copies of the mount, MS_PRIVATE
	// and the like, which mount(2) takes by itself only; 0: as the directory that
	// is mounted over makes it.
	Propagation uintptr

	// Threads bounds the threads that serve requests, FDCache the directory
	// descriptors kept open. 0: chosen by the machine's limits.
	Threads, FDCache int

	// Timeout is how long the kernel may keep entries and attributes.
	// 0: a day, for nothing but the mount itself changes them.
	Timeout time.Duration

	// OnMount is called when the mount is in the mount table and answers nobody
	// yet: what it sets up is there for whoever gets an answer of the mount.
	// No path that it uses may lead to the mount: even an open with O_PATH can
	// ask it (where there are audit rules, the kernel looks for capabilities of
	// files) and would wait for ever.
	OnMount func()

	// Policy decides about names and files; nil: the layers' order alone. It
	// is closed at Close, and when SetPolicy replaces it.
	Policy Policy

	Logger *slog.Logger // nil: slog.Default()

	// cutPoint is called between the steps of every operation, by tests.
	cutPoint func(CutPoint)
	// noXattrs has the mount believe that upper's file system has no xattrs.
	noXattrs bool
	// still has nothing done only because time has passed: no settling, no folding
	// of the journal, no completion. For tests of what is before that.
	still bool
}

// Error is a refusal in words: what is wrong with which path, and the mend.
type Error struct {
	Kind ErrorKind
	Path string
	Msg  string
	Mend string
	Err  error
}

// ErrorKind sorts the refusals of Open and Mount for exit codes.
type ErrorKind int

// The kinds of refusal.
const (
	KindUsage       ErrorKind = iota // the options contradict each other or name something wrong
	KindEnvironment                  // the machine lacks something: /dev/fuse, a privilege, a kernel feature
	KindBusy                         // in use by another mount or process
	KindJournal                      // the journal is newer, damaged or of other layers
	KindIO                           // the file system below failed
)

// Error implements error in one line.
func (e *Error) Error() string {
	s := e.Msg
	if e.Path != "" {
		s = e.Path + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Mend != "" {
		s += "; " + e.Mend
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }
