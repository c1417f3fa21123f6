// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Statx answers what GETATTR cannot: the birth time. The kernel asks only for
// callers that want it; the rest is as in GetAttr.
func (fs *FS) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	cur := n.lockCurrent()
	defer cur.mu.RUnlock()
	var a fuse.Attr
	if err := fs.fillAttrLocked(cur, &a); err != nil {
		return fs.status(err)
	}
	r, err := fs.refLocked(cur)
	if err != nil {
		return fs.status(err)
	}
	stx, err := r.statx(unix.STATX_BTIME)
	if err != nil {
		return fs.status(err)
	}
	fillStatx(&out.Statx, &a)
	if stx.Mask&unix.STATX_BTIME != 0 {
		out.Mask |= unix.STATX_BTIME
		out.Btime = fuse.SxTime{Sec: uint64(stx.Btime.Sec), Nsec: stx.Btime.Nsec}
	}
	if cur == n {
		out.SetTimeout(fs.attrTimeoutLocked(cur))
	}
	return fuse.OK
}

// fillStatx puts attributes into the form of statx.
func fillStatx(s *fuse.Statx, a *fuse.Attr) {
	s.Mask = unix.STATX_BASIC_STATS
	s.Blksize, s.Nlink = a.Blksize, a.Nlink
	s.Uid, s.Gid, s.Mode = a.Uid, a.Gid, uint16(a.Mode)
	s.Ino, s.Size, s.Blocks = a.Ino, a.Size, a.Blocks
	s.Atime = fuse.SxTime{Sec: a.Atime, Nsec: a.Atimensec}
	s.Mtime = fuse.SxTime{Sec: a.Mtime, Nsec: a.Mtimensec}
	s.Ctime = fuse.SxTime{Sec: a.Ctime, Nsec: a.Ctimensec}
	s.RdevMajor, s.RdevMinor = unix.Major(uint64(a.Rdev)), unix.Minor(uint64(a.Rdev))
}
