// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A layer can hold inodes of several devices, each with inode numbers of its
// own: the subvolumes of a btrfs, the layers of an overlay mounted without xino.
// Devices have other numbers at each mount, so what is written about an inode
// that is not of the device of the layer's root goes by a hash of its file
// handle, which names the subvolume or layer too:
//
//	 63 62 61                                   0
//	+-----+--------------------------------------+
//	| 1 1 | hash of the handle                   |
//	+-----+--------------------------------------+
const inoHandle = 3 << 62

// isHandleIno tells whether an inode number is made of a file handle.
func isHandleIno(ino uint64) bool { return ino&inoHandle == inoHandle }

// numbersPass tells whether a file system gives inodes other numbers at each
// mount or boot, or while it is mounted: FAT does, most FUSE daemons, and those
// in which the kernel shows its own state, the files of which are no files to
// leave data in either, for their sizes are not those of their content.
func numbersPass(fstype string) bool {
	switch fstype {
	case "fuse.plyfs":
		return false
	case "fuse", "fuseblk", "vfat", "msdos", "exfat",
		"sysfs", "proc", "cgroup", "cgroup2", "debugfs", "tracefs", "configfs":
		return true
	}
	return strings.HasPrefix(fstype, "fuse.")
}

// originOf names the inode of a lower non-directory, in a way that lasts. It is
// the zero Origin if there is no such name: then files are copied up whole, and
// hard links are not kept over copy-up, nor is st_ino.
func (fs *FS) originOf(d *layers.Dir, name string, st *unix.Stat_t) (journal.Origin, error) {
	o := journal.Origin{Layer: uint32(d.Layer().Index), Ino: st.Ino}
	switch {
	case numbersPass(d.Layer().FSType), d.Layer().FSType == "fuse.plyfs" && st.Ino&inoHandle == inoExtra:
		return journal.Origin{}, nil
	case st.Dev == d.Layer().Dev:
		return o, nil
	}
	handle, err := d.Handle(name)
	switch err {
	case nil:
	case syscall.EOPNOTSUPP, syscall.EOVERFLOW, syscall.ENAMETOOLONG:
		return journal.Origin{}, nil
	default:
		return o, err
	}
	sum := sha256.Sum256([]byte(handle))
	o.Ino = inoHandle | binary.BigEndian.Uint64(sum[:])
	return o, nil
}

// originOf is the origin of what was hit, which is no directory.
func (h *lowerHit) originOf(fs *FS) (journal.Origin, error) {
	return fs.originOf(h.d, h.name, &h.st)
}
