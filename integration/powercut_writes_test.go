// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// stepAppend appends, by itself or by O_APPEND.
func (w *cutWorker) stepAppend(o *cutObject) error {
	p, n := o.only()
	if n.data.size > 2*cutLarge {
		return w.truncate(o, p, w.Int64N(cutLarge))
	}
	b := w.bytes(1 + w.IntN([]int{50, 5000, 40_000}[w.IntN(3)]))
	if w.chance(0.5) {
		return w.write(o, p, n.data.size, b)
	}
	return withFD(w.path(p), unix.O_WRONLY|unix.O_APPEND, func(fd int) error {
		what := fmt.Sprintf("append to %s: %d bytes", o.cutName(p), len(b))
		err := w.data(o, n, n.data.write(n.data.size, b), what, func() error { return writeAll(fd, b, -1) })
		if err != nil || !w.wants() {
			return err
		}
		return w.syncData(o, n, p, fd)
	})
}

// stepTail writes around the end of the file: in its last block and over it.
func (w *cutWorker) stepTail(o *cutObject) error {
	p, n := o.only()
	size := n.data.size
	off := max(0, size-w.Int64N(6000))
	if w.chance(0.2) {
		off = size + w.Int64N(9000) // leaves a hole
	}
	return w.write(o, p, off, w.bytes(1+w.IntN(7000)))
}

// stepOverwrite writes anywhere in the file.
func (w *cutWorker) stepOverwrite(o *cutObject) error {
	p, n := o.only()
	off := w.Int64N(max(1, n.data.size))
	return w.write(o, p, off, w.bytes(1+w.IntN(int(max(1, min(n.data.size-off, 200_000))))))
}

// stepMiddle writes a little in the middle of a large file.
func (w *cutWorker) stepMiddle(o *cutObject) error {
	p, n := o.only()
	off := w.Int64N(max(1, n.data.size-20_000))
	return w.write(o, p, off, w.bytes(1+w.IntN([]int{10, 4096, 20_000}[w.IntN(3)])))
}

// stepSyncWrite writes through a descriptor that syncs each write.
func (w *cutWorker) stepSyncWrite(o *cutObject) error {
	p, n := o.only()
	flags := []int{unix.O_SYNC, unix.O_DSYNC}[w.IntN(2)]
	return withFD(w.path(p), unix.O_WRONLY|flags, func(fd int) error {
		for range 1 + w.IntN(3) {
			off := w.Int64N(n.data.size + 1)
			b := w.bytes(1 + w.IntN(30_000))
			op := n.data.write(off, b)
			err := w.data(o, n, op, fmt.Sprintf("synchronous write: %d bytes at %d", len(b), off), func() error { return writeAll(fd, b, off) })
			if err != nil {
				return err
			}
			if err := w.sync(o, "it was synchronous", func() error { return nil }, func(m cutMark) { m.contents(n) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// stepMmap stores through a mapping.
func (w *cutWorker) stepMmap(o *cutObject) error {
	p, n := o.only()
	if n.data.size == 0 {
		return w.write(o, p, 0, w.bytes(cutSmall))
	}
	return withFD(w.path(p), unix.O_RDWR, func(fd int) error {
		m, err := unix.Mmap(fd, 0, int(n.data.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			w.fail(o, "mmap", err)
			return err
		}
		defer unix.Munmap(m)
		for range 1 + w.IntN(3) {
			off := w.Int64N(max(1, n.data.size))
			b := w.bytes(1 + w.IntN(int(min(n.data.size-off, 9000))))
			op := n.data.write(off, b)
			op.loose = true
			what := fmt.Sprintf("store through a mapping: %d bytes at %d", len(b), off)
			if err := w.data(o, n, op, what, func() error { copy(m[off:], b); return nil }); err != nil {
				return err
			}
		}
		if !w.wants() {
			return nil
		}
		return w.sync(o, "msync", func() error { return unix.Msync(m, unix.MS_SYNC) }, func(m cutMark) { m.contents(n) })
	})
}

// truncate sets the size by path or by descriptor.
func (w *cutWorker) truncate(o *cutObject, p string, size int64) error {
	n := o.now()[p]
	op := cutWrite{size: size}
	what := fmt.Sprintf("truncate %s to %d", o.cutName(p), size)
	if w.chance(0.5) {
		return w.data(o, n, op, what, func() error { return unix.Truncate(w.path(p), size) })
	}
	return withFD(w.path(p), unix.O_WRONLY, func(fd int) error {
		err := w.data(o, n, op, what, func() error { return unix.Ftruncate(fd, size) })
		if err != nil || !w.wants() {
			return err
		}
		return w.syncData(o, n, p, fd)
	})
}

// stepTruncate cuts the file off and lets it grow again.
func (w *cutWorker) stepTruncate(o *cutObject) error {
	p, n := o.only()
	if err := w.truncate(o, p, w.Int64N(n.data.size+1)); err != nil {
		return err
	}
	if w.chance(0.3) {
		return nil
	}
	if err := w.truncate(o, p, n.data.size+w.Int64N(100_000)); err != nil || w.chance(0.5) {
		return err
	}
	return w.write(o, p, w.Int64N(n.data.size+1), w.bytes(1+w.IntN(9000)))
}

// stepPunch makes holes and writes into them.
func (w *cutWorker) stepPunch(o *cutObject) error {
	p, n := o.only()
	if n.data.size == 0 || w.chance(0.3) {
		return w.write(o, p, w.Int64N(n.data.size+1), w.bytes(1+w.IntN(9000)))
	}
	off := w.Int64N(max(1, n.data.size))
	zeros := make([]byte, 1+w.Int64N(min(n.data.size-off, 100_000)))
	mode := []uint32{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE}[w.IntN(2)]
	return withFD(w.path(p), unix.O_RDWR, func(fd int) error {
		what := fmt.Sprintf("punch (%#x) %d bytes at %d", mode, len(zeros), off)
		op := n.data.write(off, zeros)
		op.punch = true
		err := w.data(o, n, op, what, func() error { return unix.Fallocate(fd, mode, off, int64(len(zeros))) })
		if err != nil || !w.wants() {
			return err
		}
		return w.syncData(o, n, p, fd)
	})
}

// stepRewrite empties the file by opening it, and writes it anew.
func (w *cutWorker) stepRewrite(o *cutObject) error {
	p, n := o.only()
	fd := -1
	err := w.data(o, n, cutWrite{}, "open "+o.cutName(p)+" with O_TRUNC", func() (err error) {
		fd, err = unix.Open(w.path(p), unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range 1 + w.IntN(3) {
		b := w.bytes(1 + w.IntN(30_000))
		what := fmt.Sprintf("append to %s: %d bytes", o.cutName(p), len(b))
		op := n.data.write(n.data.size, b)
		if err := w.data(o, n, op, what, func() error { return writeAll(fd, b, op.off) }); err != nil {
			return err
		}
	}
	if !w.wants() {
		return nil
	}
	return w.syncData(o, n, p, fd)
}

// stepAttributes changes attributes of files and directories and nothing else.
func (w *cutWorker) stepAttributes(o *cutObject) error {
	p, n := w.pick(o)
	a := n.attrs.now
	var what string
	var call func() error
	switch w.IntN(3) {
	case 0:
		a.mode = []uint32{0o600, 0o644, 0o755, 0o640}[w.IntN(4)]
		what, call = fmt.Sprintf("chmod %o", a.mode), func() error { return unix.Chmod(w.path(p), a.mode) }
	case 1:
		a.uid = uint32(w.IntN(2000))
		what, call = fmt.Sprintf("chown %d", a.uid), func() error { return unix.Lchown(w.path(p), int(a.uid), -1) }
	case 2:
		a.xattr = fmt.Sprint(w.IntN(1_000_000))
		what, call = "setxattr "+a.xattr, func() error { return unix.Lsetxattr(w.path(p), "user.cut", []byte(a.xattr), 0) }
	}
	if err := w.attrs(o, n, a, what, call); err != nil || !w.wants() {
		return err
	}
	return withFD(w.path(p), unix.O_RDONLY, func(fd int) error { return w.fsync(o, n, p, fd) })
}
