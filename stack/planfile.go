// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sort"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A planFile is a plan in use: its windows as far as they were asked for, and
// the backing files as far as they were needed. It belongs to one node, or to
// one copy-up.
//
// The node's own file is not opened by it: whoever reads gives it (self), for
// a copy-up changes what that is.
type planFile struct {
	fs      *FS
	plan    *Plan
	place   string // for messages
	size    int64
	inPlace bool // a file in upper: blanked where it lies, it may grow and shrink
	selfLen int64
	version func(layer int) (ref, error) // a lower layer's version of the path

	mu    sync.Mutex
	wins  []Window // by the offset of their first extent
	bytes int      // of memory that they take
	files map[Backing]backingFile
}

// backingFile is an open backing file.
type backingFile struct {
	fd   int
	own  bool // opened here
	st   unix.Stat_t
	name string
}

// windowBytes bounds the memory for the windows of one open file.
const windowBytes = 1 << 20

// openPlan takes a plan over and makes the checks that need no window. On an
// error it is released.
func (fs *FS) openPlan(q FileQuery, p *Plan, version func(int) (ref, error)) (*planFile, error) {
	f := &planFile{fs: fs, plan: p, place: q.Place, size: p.Size, inPlace: q.Layer == 0, selfLen: q.Size,
		version: version, files: make(map[Backing]backingFile)}
	var err error
	switch {
	case p.Size < 0:
		err = fs.wrongAnswer(q.Place, "size %d is negative", p.Size)
	case f.inPlace && p.Size != q.Size:
		err = fs.wrongAnswer(q.Place, "size %d instead of %d: a file in upper may only be blanked", p.Size, q.Size)
	}
	if err != nil {
		fs.releasePlan(p)
		return nil, err
	}
	return f, nil
}

// wrongAnswer counts a wrong answer of the policy and keeps its words.
func (fs *FS) wrongAnswer(place, format string, args ...any) error {
	fs.count.wrong.Add(1)
	err := &wrongError{msg: fmt.Sprintf("wrong answer of the policy about %s: %s", place, fmt.Sprintf(format, args...))}
	fs.noteError("policy", err)
	return err
}

// close lets go of the plan and the backing files.
func (f *planFile) close() {
	if f == nil {
		return
	}
	for _, b := range f.files {
		if b.own {
			_ = unix.Close(b.fd)
		}
	}
	f.files = nil
	f.fs.releasePlan(f.plan)
}

// backing opens a backing file other than the node's own.
// Precondition: f.mu is held.
func (f *planFile) backing(b Backing) (backingFile, error) {
	if bf, ok := f.files[b]; ok {
		return bf, nil
	}
	bf, err := f.openBacking(b)
	if err != nil {
		return bf, err
	}
	if err := unix.Fstat(bf.fd, &bf.st); err != nil {
		if bf.own {
			_ = unix.Close(bf.fd)
		}
		return bf, err
	}
	f.files[b] = bf
	return bf, nil
}

func (f *planFile) openBacking(b Backing) (backingFile, error) {
	if i, ok := b.part(); ok {
		if i >= len(f.plan.Parts) {
			return backingFile{}, fmt.Errorf("there are %d parts", len(f.plan.Parts))
		}
		p := f.plan.Parts[i]
		return backingFile{fd: p.FD, name: p.Name}, nil
	}
	if b < 0 || f.version == nil {
		return backingFile{}, fmt.Errorf("there is no backing file %d", b)
	}
	r, err := f.version(int(b))
	if err != nil {
		return backingFile{}, err
	}
	fd, err := r.open(unix.O_RDONLY | unix.O_NONBLOCK)
	return backingFile{fd: fd, own: true, name: r.d.Path() + "/" + r.name}, err
}

// length is the size of a backing file. Precondition: f.mu is held.
func (f *planFile) length(b Backing) (int64, error) {
	if b == Self {
		return f.selfLen, nil
	}
	bf, err := f.backing(b)
	if err != nil {
		return 0, err
	}
	// A part may have changed its size since it was opened.
	var st unix.Stat_t
	if err := unix.Fstat(bf.fd, &st); err != nil {
		return 0, err
	}
	return st.Size, nil
}

// window is a checked window that holds the byte at off.
func (f *planFile) window(off int64) (Window, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := sort.Search(len(f.wins), func(i int) bool { return f.wins[i].Extents[0].Off > off }) - 1
	if i >= 0 && f.wins[i].end() > off {
		return f.wins[i], nil
	}
	w, err := f.ask(off)
	if err != nil {
		return Window{}, err
	}
	f.keep(w, i+1)
	return w, nil
}

// ask gets a window from the policy and checks it.
// Precondition: f.mu is held.
func (f *planFile) ask(off int64) (w Window, err error) {
	defer f.fs.policyPanics(func() { w, err = Window{}, syscall.EIO })
	if w, err = f.plan.Window(off); err != nil {
		return w, err
	}
	return w, f.check(w, off, f.size)
}

// check is checkWindow, with a wrong answer counted.
// Precondition: f.mu is held.
func (f *planFile) check(w Window, off, size int64) error {
	err := checkWindow(w, off, planBounds{size: size, inPlace: f.inPlace, length: f.length, serves: f.plan.Serve != nil})
	if err != nil {
		return f.fs.wrongAnswer(f.place, "%v", err)
	}
	return nil
}

// keep puts a window into the cache at index i, which is emptied when it takes
// too much. Precondition: f.mu is held.
func (f *planFile) keep(w Window, i int) {
	n := 48*len(w.Extents) + len(w.Data) + 64
	if f.bytes+n > windowBytes {
		f.wins, f.bytes, i = nil, 0, 0
	}
	f.wins = append(f.wins, Window{})
	copy(f.wins[i+1:], f.wins[i:])
	f.wins[i] = w
	f.bytes += n
}

// end is where a window ends. Precondition: it has extents.
func (w Window) end() int64 {
	e := w.Extents[len(w.Extents)-1]
	return e.Off + e.Len
}

// readAt fills buf with the bytes at off and returns how many there are, fewer
// than asked for only at the end of the file. self is the node's own file.
func (f *planFile) readAt(buf []byte, off int64, self selfFile) (int, error) {
	got := 0
	for got < len(buf) && off < f.size {
		w, err := f.window(off)
		if err != nil {
			return 0, err
		}
		n, err := f.fromWindow(w, buf[got:], off, self)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return got, nil // a file in upper that was cut meanwhile
		}
		got += n
		off += int64(n)
	}
	if f.inPlace && got < len(buf) && off >= f.size { // it has grown since
		n, err := self.readAt(buf[got:], off)
		return got + n, err
	}
	return got, nil
}

// fromWindow reads as much as a window has from off on, extent by extent.
func (f *planFile) fromWindow(w Window, buf []byte, off int64, self selfFile) (int, error) {
	i := sort.Search(len(w.Extents), func(i int) bool { return w.Extents[i].Off > off }) - 1
	got := 0
	for ; i < len(w.Extents) && got < len(buf); i++ {
		e := w.Extents[i]
		skip := off - e.Off
		b := buf[got:min(len(buf), got+int(min(e.Len-skip, int64(len(buf)))))]
		n, err := f.fromExtent(e, w.Data, b, skip, self)
		if err != nil {
			return 0, err
		}
		got += n
		off += int64(n)
		if n < len(b) {
			break
		}
	}
	return got, nil
}

// fromExtent fills b with the bytes of an extent from skip on. Fewer than
// asked for come only of a file in upper.
func (f *planFile) fromExtent(e Extent, data, b []byte, skip int64, self selfFile) (int, error) {
	switch e.Kind {
	case ExtentZero:
		clear(b)
		return f.clip(e.Off+skip, b, self)
	case ExtentInline:
		return copy(b, data[e.Src+skip:]), nil
	case ExtentServer:
		return len(b), f.serve(b, e.Off+skip)
	}
	from, name := self, "the file itself"
	if e.Backing != Self {
		f.mu.Lock()
		bf, err := f.backing(e.Backing)
		f.mu.Unlock()
		if err != nil {
			return 0, f.fs.wrongAnswer(f.place, "%v: %v", e.Backing, err)
		}
		from, name = selfFile{fd: bf.fd}, bf.name
	}
	n, err := from.readAt(b, e.Src+skip)
	if err == nil && n < len(b) && !f.inPlace {
		err = f.fs.wrongAnswer(f.place, "%s has become shorter than byte %d, which the plan needs", name, e.Src+skip+int64(len(b)))
	}
	return n, err
}

// clip bounds zeros by the end of a file in upper, which may have been cut.
func (f *planFile) clip(off int64, b []byte, self selfFile) (int, error) {
	if !f.inPlace {
		return len(b), nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(self.fd, &st); err != nil {
		return 0, err
	}
	return int(max(0, min(int64(len(b)), st.Size-off))), nil
}

// serve has the policy make bytes.
func (f *planFile) serve(b []byte, off int64) (err error) {
	defer f.fs.policyPanics(func() { err = syscall.EIO })
	return f.plan.Serve(b, off)
}

// preadFull reads until b is full or the file ends.
func preadFull(fd int, b []byte, off int64) (int, error) {
	got := 0
	for got < len(b) {
		n, err := unix.Pread(fd, b[got:], off+int64(got))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return got, err
		}
		if n == 0 {
			break
		}
		got += n
	}
	return got, nil
}

// identity tells whether the plan is one backing file from end to end, and
// which.
func (f *planFile) identity() (Backing, bool, error) {
	if f.size == 0 {
		return Self, f.selfLen == 0, nil
	}
	w, err := f.window(0)
	if err != nil {
		return 0, false, err
	}
	e := w.Extents[0]
	if len(w.Extents) > 1 || e.Kind != ExtentBacking || e.Src != 0 || e.Len != f.size {
		return 0, false, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.length(e.Backing)
	return e.Backing, n == f.size, err
}

// wholeWindows is how many windows of a plan are asked for at an open, to tell
// whether it is still the one of before.
const wholeWindows = 1024

var tagSeed = maphash.MakeSeed()

// tag is a number for all that the plan shows: 0 if it has too many windows to
// tell, or cannot tell.
func (f *planFile) tag() (uint64, error) {
	var h maphash.Hash
	h.SetSeed(tagSeed)
	put := func(n int64) { _ = binary.Write(&h, binary.NativeEndian, n) }
	put(f.size)
	put(f.selfLen)
	for off, n := int64(0), 0; off < f.size; n++ {
		if n == wholeWindows {
			return 0, nil
		}
		w, err := f.window(off)
		if err != nil {
			return 0, err
		}
		for _, e := range w.Extents {
			if e.Kind == ExtentServer {
				return 0, nil
			}
			put(e.Off)
			put(e.Len)
			put(e.Src)
			put(int64(e.Kind)<<32 | int64(e.Backing))
			if e.Kind == ExtentInline {
				_, _ = h.Write(w.Data[e.Src : e.Src+e.Len])
			}
		}
		off = w.end()
	}
	f.tagFiles(put)
	return max(h.Sum64(), 2), nil
}

// tagFiles adds which backing files there are, and of when.
func (f *planFile) tagFiles(put func(int64)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]Backing, 0, len(f.files))
	for b := range f.files {
		all = append(all, b)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	for _, b := range all {
		st := f.files[b].st
		put(int64(b))
		put(int64(st.Dev))
		put(int64(st.Ino))
		put(st.Size)
		put(st.Mtim.Nano())
		put(st.Ctim.Nano())
	}
}

// extents is the whole plan, up to a number of extents.
func (f *planFile) extents(most int) (list []Extent, more bool, err error) {
	for off := int64(0); off < f.size; {
		if len(list) >= most {
			return list, true, nil
		}
		w, err := f.window(off)
		if err != nil {
			return list, false, err
		}
		for _, e := range w.Extents {
			if e.Off+e.Len > off {
				list = append(list, e)
			}
		}
		off = w.end()
	}
	return list, false, nil
}

// copyTo writes what the plan shows to dst, which is empty, and leaves holes
// for zeros.
func (f *planFile) copyTo(dst int, self selfFile) (int64, error) {
	if err := layers.FD(dst).Ftruncate(f.size); err != nil {
		return 0, err
	}
	buf := make([]byte, min(f.size, copyChunk))
	for off := int64(0); off < f.size; {
		w, err := f.window(off)
		if err != nil {
			return off, err
		}
		for _, e := range w.Extents {
			if e.Off+e.Len <= off || e.Kind == ExtentZero {
				off = max(off, e.Off+e.Len)
				continue
			}
			if err := f.copyExtent(dst, self, e, w.Data, off-e.Off, buf); err != nil {
				return off, err
			}
			off = e.Off + e.Len
		}
	}
	return f.size, nil
}

// copyChunk is how much is copied at a time.
const copyChunk = 1 << 20

func (f *planFile) copyExtent(dst int, self selfFile, e Extent, data []byte, skip int64, buf []byte) error {
	for skip < e.Len {
		n, err := f.fromExtent(e, data, buf[:min(int64(len(buf)), e.Len-skip)], skip, self)
		if err == nil && n == 0 {
			err = syscall.EIO
		}
		if err == nil {
			err = pwriteFull(dst, buf[:n], e.Off+skip)
		}
		if err != nil {
			return err
		}
		skip += int64(n)
	}
	return nil
}

func pwriteFull(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
