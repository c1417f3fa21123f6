// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// A partial file relies on more than that holes are reported: a block is data
// once it was written, at once and after a power cut, and nothing else is. The
// probe shows the first; the second is known of these file systems, for which
// it was tested with power cuts: their extents become data only when what was
// written is on the disk. Of tmpfs a power cut leaves nothing.
var sparseTypes = map[int64]string{
	unix.EXT4_SUPER_MAGIC:  "ext4", // see checkExt4
	unix.XFS_SUPER_MAGIC:   "xfs",
	unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC:       "tmpfs",
}

// sparse finds out whether holes tell exactly what was not written.
func (p *prober) sparse() error {
	var st unix.Statfs_t
	if err := p.dir.Statfs(&st); err != nil {
		return err
	}
	if _, ok := sparseTypes[int64(st.Type)]; !ok {
		return fmt.Errorf("nothing is known of how this file system (type %#x) keeps holes over a power cut", st.Type)
	}
	if int64(st.Type) == unix.TMPFS_MAGIC {
		if err := p.noHugePages(); err != nil {
			return err
		}
	}
	fd, err := p.dir.Open("s", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = probeHoles(fd, BlockSize(&st))
	if err == nil && int64(st.Type) == unix.EXT4_SUPER_MAGIC {
		err = p.checkExt4(fd)
	}
	return errors.Join(err, p.dir.Unlink("s"))
}

// checkExt4 is an error where blocks can be a file's on the disk before their
// data is: without extents (ext2, ext3), and with data=writeback.
func (p *prober) checkExt4(fd int) error {
	const extents = 0x80000 // FS_EXTENT_FL
	if flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); err != nil || flags&extents == 0 {
		return errors.New("its files have no extents (ext2, ext3): after a power cut a block may show before its data is there")
	}
	return p.noOption("data=writeback", "after a power cut a block may show before its data is there")
}

// BlockSize is the unit in which a file system turns holes into data, or a
// multiple of it: of at least a page, for pages are written as a whole.
func BlockSize(st *unix.Statfs_t) int64 {
	return max(st.Bsize, st.Frsize, int64(os.Getpagesize()))
}

// probeHoles writes a block amid a hole, and zeros in another one, and looks
// for them.
func probeHoles(fd int, block int64) error {
	const size = 16 << 20
	if err := ftruncate(fd, size); err != nil {
		return err
	}
	at := []int64{size / 4, size / 2}
	for i, b := range [][]byte{probeBlock, make([]byte, len(probeBlock))} {
		full := make([]byte, block)
		copy(full, b)
		if _, err := unix.Pwrite(fd, full, at[i]); err != nil {
			return err
		}
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, size*3/4, block); err != nil && err != unix.EOPNOTSUPP {
		return err
	}
	off := int64(0)
	for _, want := range at {
		from, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err != nil {
			return fmt.Errorf("SEEK_DATA: %w", err)
		}
		to, err := unix.Seek(fd, from, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("SEEK_HOLE: %w", err)
		}
		if from != want || to != want+block {
			return fmt.Errorf("a block written at %d shows as data from %d to %d", want, from, to)
		}
		off = to
	}
	if from, err := unix.Seek(fd, off, unix.SEEK_DATA); err != unix.ENXIO {
		return fmt.Errorf("what was never written shows as data at %d", from)
	}
	return nil
}

// noHugePages is an error if the tmpfs may back a block by a huge page, all of
// which then is data.
func (p *prober) noHugePages() error {
	if b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/shmem_enabled"); err == nil && strings.Contains(string(b), "[force]") {
		return errors.New("transparent huge pages are forced on for shared memory: a written block makes the blocks around it data")
	}
	return p.noOption("huge=", "a written block makes the blocks around it data", "huge=never")
}

// noOption is an error if the file system is mounted with an option that begins
// so, but for some.
func (p *prober) noOption(prefix, why string, but ...string) error {
	var st unix.Stat_t
	if err := p.dir.Stat("", &st); err != nil {
		return err
	}
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return uint64(unix.Mkdev(uint32(m.Major), uint32(m.Minor))) != uint64(st.Dev), false
	})
	if err != nil {
		return err
	}
	for _, m := range all {
		for o := range strings.SplitSeq(m.VFSOptions, ",") {
			if strings.HasPrefix(o, prefix) && !slices.Contains(but, o) {
				return fmt.Errorf("mounted with %s: %s", o, why)
			}
		}
	}
	return nil
}
