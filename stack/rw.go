// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Read serves a file that is not passed through.
func (fs *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := fs.node(in.NodeId)
	if n == nil {
		return nil, fuse.Status(syscall.ESTALE)
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.io == nil || n.io.rd < 0 && n.io.wr < 0 {
		return nil, fuse.EBADF
	}
	fs.takesLong()
	got, err := fs.readLocked(n, buf, int64(in.Offset))
	if err != nil {
		return nil, fs.status(err)
	}
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// readLocked reads what the node shows to those who have it open.
// Precondition: n.mu is held; the daemon serves the file.
func (fs *FS) readLocked(n *node, buf []byte, off int64) (int, error) {
	self := selfFile{fd: n.io.wr, part: n.io.part}
	if self.fd < 0 {
		self.fd = n.io.rd
	}
	switch {
	case n.io.data != nil && n.io.data.reads:
		return fs.readAsking(n.io, buf, off, self)
	case n.io.plan != nil:
		return n.io.plan.readAt(buf, off, self)
	}
	return self.readAt(buf, off)
}

// Write serves a file that is not passed through.
func (fs *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := fs.node(in.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.io == nil || n.io.wr < 0 {
		return 0, fuse.EBADF
	}
	fs.takesLong()
	ask, again := n.io.data, uint8(0)
	if ask != nil && ask.writes {
		var err error
		if again, err = fs.askWrite(ask, callerOf(&in.InHeader), int64(in.Offset), data, 0); err != nil {
			return 0, fs.status(err)
		}
	}
	done, err := selfFile{fd: n.io.wr, part: n.io.part}.writeAt(data, int64(in.Offset))
	if err != nil {
		return 0, fs.status(err)
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		r, err := fs.refLocked(n)
		if err == nil {
			err = fs.killPriv(n, r, &in.InHeader)
		}
		if err != nil {
			return 0, fs.status(err)
		}
	}
	if again != 0 {
		if _, err := fs.askWrite(ask, callerOf(&in.InHeader), int64(in.Offset), data[:done], again); err != nil {
			return 0, fs.status(err)
		}
	}
	return uint32(done), fuse.OK
}

// Flush is not needed: opens say FOPEN_NOFLUSH, and ENOSYS says it to kernels
// that do not know the flag.
func (fs *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// dataFile opens the file whose bytes the node's handles show; the caller
// closes it.
func (fs *FS) dataFile(n *node, flags int) (selfFile, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.overtaken { // its handles show the lower file
		fd, err := n.low.ref(true).open(flags | unix.O_NONBLOCK)
		return selfFile{fd: fd}, err
	}
	r, err := fs.dataRefLocked(n)
	if err != nil {
		return selfFile{fd: -1}, err
	}
	return fs.openSelfLocked(n, r, flags)
}

// withData calls fn with the file whose bytes the node's handles show. No lock
// is held meanwhile.
func (fs *FS) withData(n *node, flags int, fn func(f selfFile) error) error {
	f, err := fs.dataFile(n, flags)
	if err != nil {
		return err
	}
	defer f.close()
	return fn(f)
}

// Lseek answers SEEK_DATA and SEEK_HOLE from the backing file.
func (fs *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if pieces, size := fs.inPieces(n); pieces {
		return fs.lseekPieces(in, size, out)
	}
	n = n.holder()
	err := fs.withData(n, unix.O_RDONLY, func(f selfFile) error {
		off, err := f.lseek(int64(in.Offset), int(in.Whence))
		out.Offset = uint64(off)
		return err
	})
	if err == syscall.ENXIO {
		return fuse.Status(syscall.ENXIO)
	}
	return fs.status(err)
}

// Fallocate serves fallocate; the handle is open for writing, so the file is
// in upper.
func (fs *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	n = n.current()
	if in.Mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
		// FUSE does not pass these on; they would move what is blanked, or lower.
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	fs.takesLong()
	return fs.status(fs.withData(n, unix.O_RDWR, func(f selfFile) error {
		if f.part == nil {
			return fallocate(f.fd, in.Mode, int64(in.Offset), int64(in.Length))
		}
		return f.part.fallocate(f.fd, in.Mode, int64(in.Offset), int64(in.Length))
	}))
}

// CopyFileRange copies between two files of the mount, by reflink where the
// file system below can. A FICLONE of the user does not come here: FUSE has no
// message for it.
func (fs *FS) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, dst := fs.node(in.NodeId), fs.node(in.NodeIdOut)
	if src == nil || dst == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	dst = dst.current()
	for _, n := range []*node{src, dst} {
		if pieces, _ := fs.inPieces(n); pieces {
			return 0, fuse.Status(syscall.EXDEV) // the kernel reads and writes instead
		}
	}
	src = src.holder()
	fs.takesLong()
	var total int
	err := fs.withData(src, unix.O_RDONLY, func(from selfFile) error {
		return fs.withData(dst, unix.O_RDWR, func(to selfFile) error {
			if from.part.inPieces() || to.part != nil && !to.part.is(partGone) {
				return syscall.EXDEV // copying may make holes
			}
			off1, off2 := int64(in.OffIn), int64(in.OffOut)
			length := int(min(in.Len, 1<<30))
			k, err := unix.CopyFileRange(from.fd, &off1, to.fd, &off2, length, 0)
			total = k
			return err
		})
	})
	return uint32(total), fs.status(err)
}

// Fsync makes a file durable, and before it every record that its names need.
func (fs *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fs.fsync(in.NodeId, in.FsyncFlags&fsyncData != 0)
}

// FsyncDir makes a directory durable.
func (fs *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fs.fsync(in.NodeId, false)
}

func (fs *FS) fsync(id uint64, dataOnly bool) fuse.Status {
	n := fs.node(id)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if fs.j == nil || fs.cfg.Volatile {
		return fuse.OK
	}
	n = n.current()
	fs.takesLong()
	if err := fs.j.Sync(); err != nil {
		return fs.status(err)
	}
	n.mu.RLock()
	durable := n.inUpper() && !(n.isDir() && n.unlinked)
	n.mu.RUnlock()
	if !durable {
		return fuse.OK
	}
	return fs.status(fs.syncFile(n, dataOnly))
}

// fsyncData is FUSE_FSYNC_FDATASYNC.
const fsyncData = 1
