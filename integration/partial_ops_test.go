// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// writable tells whether the handle is open for writing.
func (h *heldFile) writable() bool {
	return h.m == nil && h.flags&unix.O_ACCMODE != unix.O_RDONLY
}

// forRandomWrite tells whether any range can be written through it.
func (h *heldFile) forRandomWrite() bool {
	return h.writable() && h.flags&(unix.O_APPEND|unix.O_DIRECT) == 0
}

// file is the path of the file in the mount.
func (p *partialRun) file() string { return p.path(p.names[0]) }

// step does one operation on the file and on the model and tells how it ended.
func (p *partialRun) step(i int, o partialOp) string {
	p.Helper()
	err := p.do(o)
	if err != nil {
		p.Fatalf("step %d, %s: %v", i, o, err)
	}
	if p.Failed() {
		p.Fatalf("in step %d, %s", i, o)
	}
	return "ok"
}

// partialDo are the operations by kind.
var partialDo = map[string]func(*partialRun, partialOp) error{
	"write": (*partialRun).opWrite, "append": (*partialRun).opAppend, "truncate": (*partialRun).opTruncate,
	"ftruncate": (*partialRun).opFtruncate, "fallocate": (*partialRun).opFallocate, "mmap": (*partialRun).opMmap,
	"direct": (*partialRun).opDirect, "copy-in": (*partialRun).opCopyIn, "copy-out": (*partialRun).opCopyOut,
	"copy-self": (*partialRun).opCopySelf, "O_TRUNC": (*partialRun).opTrunc, "rename": (*partialRun).opRename,
	"rename-dir": (*partialRun).opRenameDir, "link": (*partialRun).opLink, "unlink": (*partialRun).opUnlink,
	"fsync": (*partialRun).opFsync, "open": (*partialRun).opOpen, "close": (*partialRun).opClose,
	"hold-map": (*partialRun).opHoldMap, "store": (*partialRun).opStore, "kill-in-write": (*partialRun).opKillInWrite,
	"kill-in-truncate": (*partialRun).opKillInTruncate, "unlink-last": (*partialRun).opUnlinkLast,
	"chmod":    func(p *partialRun, o partialOp) error { return unix.Chmod(p.file(), o.Mode) },
	"setxattr": func(p *partialRun, o partialOp) error { return unix.Setxattr(p.file(), o.Text, []byte("v"), 0) },
	"utimens":  func(p *partialRun, _ partialOp) error { return os.Chtimes(p.file(), fixtureTime, fixtureTime) },
	"syncfs": func(p *partialRun, _ partialOp) error {
		return withFile(p.mp, os.O_RDONLY, func(f *os.File) error { return unix.Syncfs(int(f.Fd())) })
	},
	"remount": func(p *partialRun, o partialOp) error { p.again(o.Text); return nil },
	"kill": func(p *partialRun, _ partialOp) error {
		p.flushMaps()
		p.kill9()
		p.revive()
		p.check("after a kill")
		return nil
	},
	"complete": func(p *partialRun, _ partialOp) error { p.finishFile(); return nil },
	"check":    func(p *partialRun, _ partialOp) error { p.check("a look"); return nil },
}

func (p *partialRun) do(o partialOp) error {
	do := partialDo[o.Kind]
	if do == nil {
		return fmt.Errorf("no operation is named %q", o.Kind)
	}
	return do(p, o)
}

// data is what an operation writes.
func (o *partialOp) data() []byte {
	if o.Seed == 0 {
		return make([]byte, o.Len)
	}
	return pattern(int(o.Len), o.Seed)
}

// writer opens the file for the operation, or takes the held handle.
func (p *partialRun) writer(o partialOp, flags int, f func(fd int) error) error {
	if h := p.held[o.Handle]; h != nil && h.forRandomWrite() && flags == unix.O_RDWR {
		return f(h.fd)
	}
	p.written = true
	fd, err := unix.Open(p.file(), flags, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	return f(fd)
}

// put writes to the model.
func (p *partialRun) put(b []byte, off int64) {
	if len(b) == 0 {
		return
	}
	p.resize(max(int64(len(p.content)), off+int64(len(b))))
	copy(p.content[off:], b)
}

// resize changes the model's size.
func (p *partialRun) resize(to int64) {
	if n := int64(len(p.content)); to > n {
		p.content = append(p.content, make([]byte, to-n)...)
	} else {
		p.content = slices.Clone(p.content[:to])
	}
}

// pwriteAll writes all.
func pwriteAll(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("pwrite writes nothing")
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func (p *partialRun) opWrite(o partialOp) error {
	return p.writer(o, unix.O_RDWR, func(fd int) error {
		p.put(o.data(), o.Off)
		return pwriteAll(fd, o.data(), o.Off)
	})
}

func (p *partialRun) opAppend(o partialOp) error {
	return p.writer(o, unix.O_WRONLY|unix.O_APPEND, func(fd int) error {
		n, err := unix.Write(fd, o.data())
		if err == nil && n != int(o.Len) {
			err = fmt.Errorf("%d bytes were appended", n)
		}
		p.put(o.data(), int64(len(p.content)))
		return err
	})
}

func (p *partialRun) opTruncate(o partialOp) error {
	p.written = true
	p.resize(o.Len)
	return unix.Truncate(p.file(), o.Len)
}

func (p *partialRun) opFtruncate(o partialOp) error {
	return p.writer(o, unix.O_RDWR, func(fd int) error {
		p.resize(o.Len)
		return unix.Ftruncate(fd, o.Len)
	})
}

func (p *partialRun) opTrunc(o partialOp) error {
	return p.writer(o, unix.O_WRONLY|unix.O_TRUNC, func(fd int) error {
		p.resize(0)
		p.put(o.data(), 0)
		return pwriteAll(fd, o.data(), 0)
	})
}

// opFallocate: a mode that the file system does not have fails, and changes
// nothing. The kernel's FUSE has no collapsing and no inserting.
func (p *partialRun) opFallocate(o partialOp) error {
	return p.writer(o, unix.O_RDWR, func(fd int) error {
		err := unix.Fallocate(fd, o.Mode, o.Off, o.Len)
		shift := o.Mode == unix.FALLOC_FL_COLLAPSE_RANGE || o.Mode == unix.FALLOC_FL_INSERT_RANGE
		switch {
		case err == nil:
			p.fallocated(o)
		case errors.Is(err, unix.EOPNOTSUPP) && (errors.Is(p.plain[o.Mode], unix.EOPNOTSUPP) || shift && sut == sutPlyfs):
		case errors.Is(err, unix.EINVAL) && shift: // not whole blocks, or beyond the end
		default:
			return err
		}
		return nil
	})
}

// fallocated does to the model what fallocate has done.
func (p *partialRun) fallocated(o partialOp) {
	size, end := int64(len(p.content)), o.Off+o.Len
	if o.Mode == 0 || o.Mode == unix.FALLOC_FL_ZERO_RANGE {
		p.resize(max(size, end))
	}
	switch o.Mode {
	case unix.FALLOC_FL_COLLAPSE_RANGE:
		p.content = slices.Concat(p.content[:o.Off], p.content[end:])
	case unix.FALLOC_FL_INSERT_RANGE:
		p.content = slices.Concat(p.content[:o.Off], make([]byte, o.Len), p.content[o.Off:])
	case 0, unix.FALLOC_FL_KEEP_SIZE:
	default:
		if size = int64(len(p.content)); o.Off < size {
			clear(p.content[o.Off:min(end, size)])
		}
	}
}

// inside shortens a range to the file; n is 0 if nothing is left.
func (p *partialRun) inside(o partialOp) (off, n int64) {
	size := int64(len(p.content))
	if o.Off >= size {
		return 0, 0
	}
	return o.Off, min(o.Len, size-o.Off)
}

// opMmap stores through a mapping that is gone afterwards.
func (p *partialRun) opMmap(o partialOp) error {
	off, n := p.inside(o)
	if n == 0 {
		return nil
	}
	return p.writer(o, unix.O_RDWR, func(fd int) (err error) {
		defer catchFault(&err)()
		start := off - off%int64(os.Getpagesize())
		m, err := unix.Mmap(fd, start, int(off+n-start), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(m[off-start:], o.data()[:n])
		p.put(o.data()[:n], off)
		if o.Mode != 0 {
			err = unix.Msync(m, unix.MS_SYNC)
		}
		return errors.Join(err, unix.Munmap(m))
	})
}

func (p *partialRun) opDirect(o partialOp) error {
	return p.writer(o, unix.O_RDWR|unix.O_DIRECT, func(fd int) error {
		b := alignedBuffer(int(o.Len))
		copy(b, o.data())
		p.put(b, o.Off)
		return pwriteAll(fd, b, o.Off)
	})
}

// copyRange is copy_file_range, as far as it goes.
func copyRange(dst, src int, to, from, n int64) error {
	for n > 0 {
		k, err := unix.CopyFileRange(src, &from, dst, &to, int(n), 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("copy_file_range: %w", err)
		}
		if k == 0 {
			return fmt.Errorf("copy_file_range ends %d bytes early", n)
		}
		n -= int64(k)
	}
	return nil
}

func (p *partialRun) opCopyIn(o partialOp) error {
	n := min(o.Len, int64(len(p.side))-o.Src)
	return p.writer(o, unix.O_RDWR, func(fd int) error {
		return withFile(p.path("side"), os.O_RDONLY, func(f *os.File) error {
			p.put(p.side[o.Src:o.Src+n], o.Off)
			return copyRange(fd, int(f.Fd()), o.Off, o.Src, n)
		})
	})
}

func (p *partialRun) opCopyOut(o partialOp) error {
	off, n := p.inside(o)
	err := withFile(p.file(), os.O_RDONLY, func(in *os.File) error {
		return withFile(p.path("out"), os.O_CREATE|os.O_TRUNC|os.O_RDWR, func(out *os.File) error {
			return copyRange(int(out.Fd()), int(in.Fd()), 0, off, n)
		})
	})
	if err != nil {
		return err
	}
	got, err := readAll(p.path("out"), 0)
	if err != nil {
		return err
	}
	if d := firstDifference(p.content[off:off+n], got); d != "" {
		return fmt.Errorf("what was copied out: %s", d)
	}
	return nil
}

// opCopySelf copies within the file, if the ranges do not overlap.
func (p *partialRun) opCopySelf(o partialOp) error {
	src, n := p.inside(partialOp{Off: o.Src, Len: o.Len})
	if n == 0 || o.Off < src+n && src < o.Off+n {
		return nil
	}
	return p.writer(o, unix.O_RDWR, func(fd int) error {
		p.put(slices.Clone(p.content[src:src+n]), o.Off)
		return copyRange(fd, fd, o.Off, src, n)
	})
}

// free tells whether a name can be given to the file: its directory is there
// now, and nothing of the name.
func (p *partialRun) free(name string) (string, bool) {
	name = strings.Replace(name, "d/", p.dir()+"/", 1)
	if strings.HasPrefix(name, "new/") {
		os.Mkdir(p.path("new"), 0o755)
	}
	_, err := os.Lstat(p.path(name))
	return name, os.IsNotExist(err)
}

// dir is what the directory of the lower file is named now.
func (p *partialRun) dir() string {
	if _, err := os.Lstat(p.path("d")); err == nil {
		return "d"
	}
	return "d2"
}

func (p *partialRun) opRename(o partialOp) error {
	name, ok := p.free(o.Text)
	if !ok {
		return nil
	}
	i := int(o.Src) % len(p.names)
	err := unix.Rename(p.path(p.names[i]), p.path(name))
	p.names[i] = name
	return err
}

func (p *partialRun) opRenameDir(partialOp) error {
	old := p.dir()
	name := map[string]string{"d": "d2", "d2": "d"}[old]
	for i, n := range p.names {
		if rest, ok := strings.CutPrefix(n, old+"/"); ok {
			p.names[i] = name + "/" + rest
		}
	}
	return unix.Rename(p.path(old), p.path(name))
}

func (p *partialRun) opLink(o partialOp) error {
	name, ok := p.free(o.Text)
	if !ok || len(p.names) > 3 {
		return nil
	}
	i := int(o.Src) % len(p.names)
	err := unix.Link(p.path(p.names[i]), p.path(name))
	p.names = append([]string{name}, p.names...) // the next operations go by the new one
	return err
}

func (p *partialRun) opUnlink(o partialOp) error {
	if len(p.names) == 1 {
		return nil
	}
	i := int(o.Src) % len(p.names)
	err := unix.Unlink(p.path(p.names[i]))
	p.names = slices.Delete(p.names, i, i+1)
	return err
}

func (p *partialRun) opFsync(o partialOp) error {
	if h := p.held[o.Handle]; h != nil {
		return unix.Fsync(h.fd)
	}
	return withFile(p.file(), os.O_RDONLY, (*os.File).Sync)
}

func (p *partialRun) opOpen(o partialOp) error {
	p.release(o.Handle)
	h := &heldFile{flags: int(o.Mode), early: !p.written}
	if h.writable() {
		h.early, p.written = false, true
	}
	var err error
	h.fd, err = unix.Open(p.file(), h.flags, 0)
	if err == nil {
		p.held[o.Handle] = h
	}
	return err
}

// opHoldMap maps the file for reading and writing.
func (p *partialRun) opHoldMap(o partialOp) error {
	if len(p.content) == 0 {
		return nil
	}
	p.release(o.Handle)
	return p.writer(partialOp{}, unix.O_RDWR, func(fd int) error {
		m, err := unix.Mmap(fd, 0, len(p.content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err == nil {
			p.held[o.Handle] = &heldFile{fd: -1, m: m}
		}
		return err
	})
}

// opStore stores through a held mapping.
func (p *partialRun) opStore(o partialOp) (err error) {
	h := p.held[o.Handle]
	if h == nil || h.m == nil {
		return p.opMmap(o)
	}
	off, n := p.inside(o)
	n = min(n, int64(len(h.m))-off)
	if n <= 0 {
		return nil
	}
	defer catchFault(&err)()
	copy(h.m[off:], o.data()[:n])
	p.put(o.data()[:n], off)
	if o.Mode != 0 {
		return unix.Msync(h.m, unix.MS_SYNC)
	}
	return nil
}

func (p *partialRun) opClose(o partialOp) error {
	p.release(o.Handle)
	return nil
}

// release lets a held handle go.
func (p *partialRun) release(slot int) {
	h := p.held[slot]
	if h == nil {
		return
	}
	delete(p.held, slot)
	if h.m != nil {
		unix.Munmap(h.m)
	} else {
		unix.Close(h.fd)
	}
}

func (p *partialRun) closeAll() {
	for s := range partialSlots + 1 {
		p.release(s)
	}
}

// flushMaps sends what was stored through held mappings to the daemon.
func (p *partialRun) flushMaps() {
	p.Helper()
	for _, h := range p.held {
		if h.m != nil {
			must(p, unix.Msync(h.m, unix.MS_SYNC))
		}
	}
}

// revive mounts again after a kill, by the same command.
func (p *partialRun) revive() {
	p.Helper()
	p.closeAll()
	p.mount()
	p.written = false
	p.kills++
}

// killSoon kills the daemon while f runs, and mounts again.
func (p *partialRun) killSoon(o partialOp, f func() error) (err error) {
	p.flushMaps()
	pid := p.pid
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(time.Duration(o.Off%7*o.Len%1500) * time.Microsecond)
		unix.Kill(pid, unix.SIGKILL)
	}()
	err = f()
	<-done
	p.awaitDeath()
	p.revive()
	return err
}

// opKillInWrite kills the daemon while it writes: each byte is the old or the
// new one. If the write had returned all of it is there.
func (p *partialRun) opKillInWrite(o partialOp) error {
	old := slices.Clone(p.content)
	var returned error
	p.killSoon(o, func() error {
		returned = p.writer(partialOp{}, unix.O_RDWR, func(fd int) error { return pwriteAll(fd, o.data(), o.Off) })
		return returned
	})
	p.put(o.data(), o.Off)
	if returned == nil {
		p.check("after a write and a kill")
		return nil
	}
	if !dead(returned) {
		return returned
	}
	got, err := readAll(p.file(), 0)
	if err != nil {
		return err
	}
	if len(got) < len(old) || len(got) > len(p.content) {
		return fmt.Errorf("killed while writing: %d bytes, before %d, after it %d", len(got), len(old), len(p.content))
	}
	for i, c := range got {
		before := byte(0)
		if i < len(old) {
			before = old[i]
		}
		if c != p.content[i] && (c != before) {
			return fmt.Errorf("killed while writing: byte %d is %#x, before %#x, after it %#x", i, c, before, p.content[i])
		}
	}
	p.content = got
	p.check("after a kill while writing")
	return nil
}

// opKillInTruncate kills the daemon while it cuts the file, or lets it grow.
func (p *partialRun) opKillInTruncate(o partialOp) error {
	old := slices.Clone(p.content)
	var returned error
	p.killSoon(partialOp{Off: o.Len, Len: o.Len + 77}, func() error {
		returned = unix.Truncate(p.file(), o.Len)
		return returned
	})
	p.resize(o.Len)
	if returned != nil && !dead(returned) {
		return returned
	}
	var st unix.Stat_t
	if err := unix.Stat(p.file(), &st); err != nil {
		return err
	}
	if returned != nil && st.Size == int64(len(old)) {
		p.content = old
	}
	p.check("after a kill in truncate")
	return nil
}

// opUnlinkLast removes the file while it is open, and goes on with it.
func (p *partialRun) opUnlinkLast(partialOp) error {
	fd, err := unix.Open(p.file(), unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, n := range p.names {
		if err := unix.Unlink(p.path(n)); err != nil {
			return err
		}
	}
	p.deleted = true
	size := int64(len(p.content))
	for i, off := range []int64{size / 2, 0, size + 5000, size * 2 / 3} {
		b := pattern(1000+i, 9)
		p.put(b, off)
		if err := pwriteAll(fd, b, off); err != nil {
			return fmt.Errorf("writing to a removed file: %w", err)
		}
		if i == 1 {
			p.resize(size / 3)
			if err := unix.Ftruncate(fd, size/3); err != nil {
				return fmt.Errorf("truncating a removed file: %w", err)
			}
		}
		p.checkFD("the removed file", fd)
	}
	for _, n := range p.names {
		wantGone(p, filepath.Join(p.mp, n))
	}
	return nil
}
