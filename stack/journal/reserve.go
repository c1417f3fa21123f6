// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"os"

	"golang.org/x/sys/unix"
)

// To remove a file of a lower layer is to write a record, and that must work on
// a full disk, where it is how users make room. So each file of the journal has
// blocks allocated ahead of what is in it, and they are asked for again after
// each fold. On a file system that writes nothing in place (btrfs) blocks that
// are allocated help only if the file is exempt from that, which a file can be
// made as long as it is empty; frames and records have checksums of their own.
// Nothing relies on the reserve: without it a record is refused with ENOSPC.

const (
	// logReserve is room for some 6,000 records in each log.
	logReserve = 512 << 10
	// dbReserve is room for the pages of a commit beyond the database's end.
	dbReserve = 1 << 20
	// reserveShare keeps small file systems from being filled by the reserve.
	reserveShare = 256
)

// reserve allocates blocks up to end for f, or fewer on a small file system.
func reserve(f *os.File, used, ahead int64) {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) == nil {
		ahead = min(ahead, int64(st.Blocks)*st.Bsize/reserveShare)
	}
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, used+ahead)
}

// reserve allocates room for frames.
func (l *logFile) reserve() { reserve(l.f, l.size, logReserve) }

// reserve allocates what the database's file has not, and room to grow.
func (s *store) reserve() {
	if fi, err := s.file.Stat(); err == nil {
		reserve(s.file, fi.Size(), dbReserve)
	}
}

// Of linux/fs.h: _IOW('f', 2, long) and the flag for chattr +C.
const (
	fsIocSetFlags = 0x40086602
	fsNoCOW       = 0x00800000
)

// writeInPlace exempts an empty file from copy on write, where there is that.
func writeInPlace(f *os.File) {
	fi, err := f.Stat()
	if err != nil || fi.Size() > 0 {
		return
	}
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&fsNoCOW == 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), fsIocSetFlags, flags|fsNoCOW)
	}
}
