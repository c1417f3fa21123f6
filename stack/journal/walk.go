// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"

	"golang.org/x/sys/unix"
)

// bbolt's file, as far as a walk needs it (version 2, in the machine's byte order).
// Everything is in pages; a page may go on over its overflow pages.
//
//	page header  id(8) flags(2) count(2) overflow(4)
//	meta page    header magic(4) version(4) pageSize(4) flags(4) root(8) sequence(8)
//	             freelist(8) pages(8) txid(8) fnv64a of the 56 bytes before(8)
//	branch page  header {pos(4) ksize(4) page(8)}...     pos counts from the element
//	leaf page    header {flags(4) pos(4) ksize(4) vsize(4)}...
//	bucket       a leaf value with flag 1: root(8) sequence(8), and if root is 0 a
//	             leaf page in the rest of the value
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	boltHeader     = 16
	boltElement    = 16
	boltMetaSize   = 56 // before its checksum
	boltBranch     = 0x01
	boltLeaf       = 0x02
	boltMetaPage   = 0x04
	boltFreelist   = 0x10
	boltNoFreelist = 1<<64 - 1
	boltMaxDepth   = 64
)

var native = binary.NativeEndian

// boltMeta is a meta page that was found sound.
type boltMeta struct {
	pageSize              uint64
	root, freelist, pages uint64
	txid                  uint64
}

// boltWalk walks every page that bbolt would reach, before bbolt does.
type boltWalk struct {
	path string
	data []byte
	meta boltMeta
	seen []bool // by page: reached
	// visit gets each key of each bucket; bucket is never empty.
	visit func(bucket string, key, value []byte) error
	// enter is told of each bucket.
	enter func(bucket string)
	// loose overlooks what no record depends on: the list of free pages, and what
	// hangs over behind the last page.
	loose bool
}

// walkDB checks the structure of the database at path and shows visit and enter its
// content. The slices are valid during the call only. What it finds wrong is
// [ErrDamaged].
func walkDB(path string, enter func(bucket string), visit func(bucket string, key, value []byte) error) error {
	return (&boltWalk{path: path, enter: enter, visit: visit}).file()
}

// file maps the file and walks it.
func (w *boltWalk) file() error {
	path := w.path
	f, err := os.Open(path)
	if err != nil {
		return ioError(path, "the journal cannot be opened", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return ioError(path, "the journal cannot be read", err)
	}
	if fi.Size() < 4*1024 {
		return damaged(path, "the file has only %d bytes", fi.Size())
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return ioError(path, "the journal cannot be mapped", err)
	}
	defer unix.Munmap(data)
	w.data = data
	return guard(path, w.run)
}

func (w *boltWalk) bad(format string, args ...any) error { return damaged(w.path, format, args...) }

func (w *boltWalk) run() error {
	if err := w.findMeta(); err != nil {
		return err
	}
	size := uint64(len(w.data))
	if w.meta.pages > size/w.meta.pageSize {
		return w.bad("the file is cut short, it has %d bytes of at least %d", size, w.meta.pages*w.meta.pageSize)
	}
	if size%w.meta.pageSize != 0 && !w.loose {
		return w.bad("the file is cut short, its %d bytes are no whole number of pages of %d", size, w.meta.pageSize)
	}
	w.seen = make([]bool, w.meta.pages)
	if err := w.page(w.meta.root, "", 0, nil, nil); err != nil {
		return err
	}
	if w.loose {
		return nil
	}
	return w.freelist()
}

// findMeta takes the sound meta page of the newest transaction, as bbolt does.
func (w *boltWalk) findMeta() error {
	m0, ok0 := w.metaAt(0)
	m1, ok1 := boltMeta{}, false
	if ok0 {
		m1, ok1 = w.metaAt(m0.pageSize)
	} else {
		for size := uint64(1024); size <= 1024<<14 && !ok1; size *= 2 {
			m1, ok1 = w.metaAt(size)
			ok1 = ok1 && m1.pageSize == size
		}
	}
	switch {
	case ok0 && (!ok1 || m0.txid > m1.txid):
		w.meta = m0
	case ok1:
		w.meta = m1
	default:
		return w.bad("both of its meta pages are bad")
	}
	// Every commit writes the same header, so that a torn meta page still has it.
	for id := range uint64(2) {
		off := id * w.meta.pageSize
		if off+boltHeader > uint64(len(w.data)) || native.Uint64(w.data[off:]) != id || native.Uint16(w.data[off+8:]) != boltMetaPage {
			return w.bad("page %d has a bad header", id)
		}
	}
	return nil
}

func (w *boltWalk) metaAt(off uint64) (boltMeta, bool) {
	if off+boltHeader+boltMetaSize+8 > uint64(len(w.data)) {
		return boltMeta{}, false
	}
	b := w.data[off+boltHeader:]
	h := fnv.New64a()
	h.Write(b[:boltMetaSize])
	if native.Uint32(b) != boltMagic || native.Uint32(b[4:]) != boltVersion || native.Uint64(b[boltMetaSize:]) != h.Sum64() {
		return boltMeta{}, false
	}
	m := boltMeta{pageSize: uint64(native.Uint32(b[8:])), root: native.Uint64(b[16:]),
		freelist: native.Uint64(b[32:]), pages: native.Uint64(b[40:]), txid: native.Uint64(b[48:])}
	return m, m.pageSize >= 1024 && m.pageSize&(m.pageSize-1) == 0
}

// reach marks a page and its overflow and gives their bytes.
func (w *boltWalk) reach(id uint64) ([]byte, error) {
	if id < 2 || id >= w.meta.pages {
		return nil, w.bad("page %d does not exist", id)
	}
	b := w.data[id*w.meta.pageSize:]
	overflow := uint64(native.Uint32(b[12:]))
	if native.Uint64(b) != id || overflow >= w.meta.pages-id {
		return nil, w.bad("page %d has a bad header", id)
	}
	for i := id; i <= id+overflow; i++ {
		if w.seen[i] {
			return nil, w.bad("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	return b[:(1+overflow)*w.meta.pageSize], nil
}

// page walks a page of bucket, whose keys must be at least lo and below hi; nil is
// no bound. The root bucket is "".
func (w *boltWalk) page(id uint64, bucket string, depth int, lo, hi []byte) error {
	if depth > boltMaxDepth {
		return w.bad("page %d is too deep", id)
	}
	b, err := w.reach(id)
	if err != nil {
		return err
	}
	switch flags := native.Uint16(b[8:]); flags {
	case boltLeaf:
		return w.leaf(b, id, bucket, lo, hi)
	case boltBranch:
		return w.branch(b, id, bucket, depth, lo, hi)
	default:
		return w.bad("page %d has type %#x", id, flags)
	}
}

// elements gives the number of elements of a page, all within it.
func (w *boltWalk) elements(b []byte, id uint64) (int, error) {
	n := int(native.Uint16(b[10:]))
	if boltHeader+n*boltElement > len(b) {
		return 0, w.bad("page %d has %d elements in %d bytes", id, n, len(b))
	}
	return n, nil
}

// cut gives size bytes at pos from element i, behind all elements.
func (w *boltWalk) cut(b []byte, id uint64, i, n int, pos, size uint64) ([]byte, error) {
	off := uint64(boltHeader+i*boltElement) + pos
	if off < uint64(boltHeader+n*boltElement) || off+size > uint64(len(b)) {
		return nil, w.bad("element %d of page %d lies outside of it", i, id)
	}
	return b[off : off+size : off+size], nil
}

// order checks that key follows prev within [lo, hi).
func (w *boltWalk) order(id uint64, prev, key, lo, hi []byte) error {
	if len(key) == 0 || (prev != nil && bytes.Compare(prev, key) >= 0) ||
		bytes.Compare(key, lo) < 0 || (hi != nil && bytes.Compare(key, hi) >= 0) {
		return w.bad("the keys of page %d are out of order", id)
	}
	return nil
}

func (w *boltWalk) branch(b []byte, id uint64, bucket string, depth int, lo, hi []byte) error {
	n, err := w.elements(b, id)
	if err != nil {
		return err
	}
	if n == 0 {
		return w.bad("branch page %d is empty", id)
	}
	keys := make([][]byte, n, n+1)
	var prev []byte
	for i := range n {
		e := b[boltHeader+i*boltElement:]
		if keys[i], err = w.cut(b, id, i, n, uint64(native.Uint32(e)), uint64(native.Uint32(e[4:]))); err != nil {
			return err
		}
		if err := w.order(id, prev, keys[i], lo, hi); err != nil {
			return err
		}
		prev = keys[i]
	}
	keys = append(keys, hi)
	for i := range n {
		child := native.Uint64(b[boltHeader+i*boltElement+8:])
		if err := w.page(child, bucket, depth+1, keys[i], keys[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (w *boltWalk) leaf(b []byte, id uint64, bucket string, lo, hi []byte) error {
	n, err := w.elements(b, id)
	if err != nil {
		return err
	}
	var prev []byte
	for i := range n {
		e := b[boltHeader+i*boltElement:]
		ksize, vsize := uint64(native.Uint32(e[8:])), uint64(native.Uint32(e[12:]))
		kv, err := w.cut(b, id, i, n, uint64(native.Uint32(e[4:])), ksize+vsize)
		if err != nil {
			return err
		}
		key, value := kv[:ksize], kv[ksize:]
		if err := w.order(id, prev, key, lo, hi); err != nil {
			return err
		}
		prev = key
		if err := w.element(native.Uint32(e), id, bucket, key, value); err != nil {
			return err
		}
	}
	return nil
}

// element takes a leaf element: a bucket in the root bucket, a record in the others.
func (w *boltWalk) element(flags uint32, id uint64, bucket string, key, value []byte) error {
	switch {
	case flags == 0 && bucket != "":
		return w.visit(bucket, key, value)
	case flags != 1 || bucket != "" || len(value) < 16:
		return w.bad("page %d has an element of a wrong kind", id)
	}
	w.enter(string(key))
	if root := native.Uint64(value); root != 0 {
		return w.page(root, string(key), 0, nil, nil)
	}
	inline := value[16:]
	if len(inline) < boltHeader || native.Uint16(inline[8:]) != boltLeaf {
		return w.bad("bucket %q is bad", key)
	}
	return w.leaf(inline, id, string(key), nil, nil)
}

// freelist checks the list of free pages, which we do not write but bbolt's tools do.
func (w *boltWalk) freelist() error {
	if w.meta.freelist == boltNoFreelist {
		return nil
	}
	b, err := w.reach(w.meta.freelist)
	if err != nil {
		return err
	}
	if native.Uint16(b[8:]) != boltFreelist {
		return w.bad("the list of free pages is bad")
	}
	n, ids := uint64(native.Uint16(b[10:])), b[boltHeader:]
	if n == 0xffff {
		n, ids = native.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		return w.bad("the list of free pages is too long")
	}
	for ; n > 0; n, ids = n-1, ids[8:] {
		id := native.Uint64(ids)
		if id < 2 || id >= w.meta.pages || w.seen[id] {
			return w.bad("page %d is free and in use", id)
		}
		w.seen[id] = true
	}
	return nil
}

// isDamage reports whether err says that content is bad, and not that it cannot be
// read.
func isDamage(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrNewer) }
