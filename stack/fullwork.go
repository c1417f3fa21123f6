// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A mount on a full disk is how users make room, so it must come about without
// making anything new: what upper's file system can do, which is found by
// trying, is kept from the mount before, and so is the whiteout that all
// whiteouts are links to (clearTmp). The journal has a reserve of its own.

// xattrCaps is on WORK/plyfs: layers.Caps.Bits of the last mount that could
// try, big-endian.
const xattrCaps = xattrPrefix + "caps"

const capsBytes = 2

// isFull says whether an error is for want of space.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// rememberedCaps are those of an earlier mount of this work directory.
func rememberedCaps(work *layers.Dir) (layers.Caps, bool) {
	d := work.Child("plyfs")
	defer d.Forget()
	buf := make([]byte, capsBytes+1)
	if n, err := d.Getxattr("", xattrCaps, buf); err != nil || n != capsBytes {
		return layers.Caps{}, false
	}
	return layers.CapsOf(binary.BigEndian.Uint16(buf)), true
}

// rememberCaps keeps them for a mount that finds the disk full. That they
// cannot be kept harms nobody yet.
func (fs *FS) rememberCaps() {
	old, ok := rememberedCaps(fs.workLayer.Root())
	if ok && old.Bits() == fs.caps.Bits() {
		return
	}
	if err := fs.work.Setxattr("", xattrCaps, binary.BigEndian.AppendUint16(nil, fs.caps.Bits()), 0); err != nil {
		fs.log.Warn("what upper's file system can do is not kept for the next mount", "err", err)
	}
}

// isWhiteout says whether a whiteout has the name.
func isWhiteout(d *layers.Dir, name string) bool {
	var st unix.Stat_t
	return d.Stat(name, &st) == nil && layers.IsWhiteoutStat(&st)
}
