// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/bpf/internal/config"
	"github.com/plyfs/plyfs/stack"
	"golang.org/x/sys/unix"
)

// ---- answers ---------------------------------------------------------------

// fuzzReader takes numbers from a fuzzer's bytes; zeros when they are used up.
type fuzzReader struct{ b []byte }

func (r *fuzzReader) take(n int) uint64 {
	var w [8]byte
	r.b = r.b[copy(w[:n], r.b):]
	return binary.LittleEndian.Uint64(w[:])
}

// fuzzRule is a rule whose programs are never run, only counted against.
func fuzzRule(parts int, handler bool) *rule {
	p := newPolicy(&config.File{}, Options{Logger: quiet})
	r := &rule{Rule: &config.Rule{Name: "fuzz"}, policy: p, progs: &programs{}, parts: make([]stack.Part, parts)}
	for _, s := range sections {
		r.progs.progs[s.key.op][s.key.phase] = &program{key: s.key}
	}
	if handler {
		r.handler = new(testHandler)
	}
	p.rules = []*rule{r}
	return r
}

// wrongs counts them all.
func (r *rule) wrongs() (n uint64) {
	r.progs.each(func(pr *program) { n += pr.stats.wrong.Load() })
	return n
}

// fuzzed is a question and the answer to it.
type fuzzed struct {
	r      *rule
	c      *call
	action int32
	file   stack.FileQuery
	name   stack.NameQuery
}

func newFuzzed(b []byte) *fuzzed {
	r := &fuzzReader{b}
	kind := r.take(1)
	f := &fuzzed{r: fuzzRule(int(kind&3), kind&4 != 0), c: new(call), action: int32(r.take(4))}
	if kind&8 != 0 {
		f.action &= 7 // else most mean nothing
	}
	f.file = fileOf("/x", int64(r.take(8)&math.MaxInt64))
	f.file.Holders, f.file.Layer, f.file.AttrOnly = r.take(8), int(kind>>4&3), kind&64 != 0
	f.name = nameOf("/x")
	f.name.Holders, f.name.Listing = f.file.Holders, kind&128 != 0
	copy((*[unsafe.Sizeof(f.c.Out)]byte)(unsafe.Pointer(&f.c.Out))[:], r.b)
	return f
}

// FuzzAnswer: whatever a program puts out is an errno with one count, or
// something that is right as far as the ABI goes.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 600))
	f.Add(seedAnswer(8, actContinue, oneExtent(0, 100)))
	sized := oneExtent(0, 7)
	sized.Flags, sized.Size = outSize, 7
	f.Add(seedAnswer(8|1, actPostfilter, sized))
	f.Add(seedAnswer(8|4, actUserPrefilter, output{}))
	f.Add(seedAnswer(8|128, actUser, output{Flags: outHide | outChoose, Layer: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, check := range []func(*testing.T, *fuzzed) error{fuzzAction, fuzzFile, fuzzName, fuzzAttr} {
			x := newFuzzed(b)
			err := check(t, x)
			var errno syscall.Errno
			if err != nil && (!errors.As(err, &errno) || errno == 0 || errno > maxErrno) {
				t.Errorf("the error is no errno: %v", err)
			}
			if want := flagIf(errno == syscall.EIO && x.action != -int32(syscall.EIO), 1); x.r.wrongs() != uint64(want) {
				t.Errorf("%v, %d counted, want %d", err, x.r.wrongs(), want)
			}
			if n := x.r.policy.refs.Load(); n != 1 {
				t.Errorf("%d uses of the policy", n)
			}
		}
	})
}

// seedAnswer is the input of the fuzzer for an answer, without its tail.
func seedAnswer(kind byte, action int32, out output) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{kind}, uint32(action))
	b = binary.LittleEndian.AppendUint64(b, 100)
	b = binary.LittleEndian.AppendUint64(b, 0b110)
	return append(b, (*[256]byte)(unsafe.Pointer(&out))[:]...)
}

// fuzzAction lets through what goes on, and nothing else.
func fuzzAction(t *testing.T, x *fuzzed) error {
	q := x.r.newQuestion(opOpen, "/x", "x", stack.Nobody)
	q.fillFile(x.file)
	again, action, err := q.judge(x.action, opOpen, pre)
	switch {
	case err != nil && (again || action != 0):
		t.Errorf("%v, and action %d", err, action)
	case again && (x.action != actUserPrefilter || x.r.handler == nil || q.in.Flags&inHandled == 0):
		t.Errorf("action %d asks again", x.action)
	case action != actContinue && action != actUser && action != actPostfilter && action != actUserPostfilter:
		t.Errorf("action %d became %d", x.action, action)
	}
	return err
}

// fuzzFile checks a plan as far as it is made of what there is.
func fuzzFile(t *testing.T, x *fuzzed) error {
	x.action = 0
	q := x.r.newQuestion(opOpen, "/x", "x", stack.Nobody)
	q.fillFile(x.file)
	plan, err := q.plan(x.c, x.file)
	if err != nil && plan != nil {
		t.Errorf("a plan and %v", err)
	}
	if plan == nil {
		return err
	}
	defer plan.Release()
	if plan.Size < 0 || len(plan.Parts) != len(x.r.parts) || (plan.Serve != nil) != (x.r.handler != nil) {
		t.Errorf("%+v", plan)
	}
	if x.file.AttrOnly || plan.Size == 0 {
		return nil
	}
	w, err := plan.Window(0)
	if err != nil || len(w.Extents) != int(x.c.Out.NExtents) || len(w.Data) != int(x.c.Out.DataLen) || len(w.Extents) > maxExtents || len(w.Data) > inlineBytes {
		t.Fatalf("%+v, %v", w, err)
	}
	for i, e := range w.Extents {
		wantExtent(t, x, e, x.c.Out.Extents[i])
	}
	return nil
}

// wantExtent expects the extent that a program put out.
func wantExtent(t *testing.T, x *fuzzed, e stack.Extent, out extent) {
	t.Helper()
	want := stack.Extent{Off: int64(out.Off), Len: int64(out.Len), Src: int64(out.Src), Kind: stack.ExtentKind(out.Kind)}
	k := out.Backing
	switch {
	case out.Kind > extServer:
		t.Errorf("kind %d", out.Kind)
	case out.Kind == extZero:
		want.Src = 0
	case out.Kind != extBacking, k == backingSelf, k == 0 && x.file.Layer == 0:
	case k >= backingPart && int(k-backingPart) < len(x.r.parts):
		want.Backing = stack.PartBacking(int(k - backingPart))
	case k >= 1 && k <= 62 && x.file.Holders>>k&1 == 1:
		want.Backing = stack.LayerBacking(int(k))
	default:
		t.Errorf("backing file %d of layers %#x and %d parts", k, x.file.Holders, len(x.r.parts))
	}
	if e != want || e.Off < 0 || e.Len < 0 || e.Src < 0 {
		t.Errorf("%+v became %+v, want %+v", out, e, want)
	}
}

func fuzzName(t *testing.T, x *fuzzed) error {
	x.action = 0
	q := x.r.newQuestion(opLookup, "/x", "x", stack.Nobody)
	q.fillName(x.name)
	a, err := q.nameAnswer(x.c, opLookup, x.name)
	switch {
	case err != nil:
	case x.name.Listing && (a.Layer != 0 || a.Skip != 0):
		t.Errorf("a listing: %+v", a)
	case a.Layer < 0 || a.Layer > 62 || a.Layer > 0 && x.name.Holders>>a.Layer&1 == 0:
		t.Errorf("%+v of layers %#x", a, x.name.Holders)
	case a.TTL < 0 || a.Errno != 0 || a.Again != 0:
		t.Errorf("%+v", a)
	}
	return err
}

func fuzzAttr(t *testing.T, x *fuzzed) error {
	x.action = 0
	a := x.r.newQuestion(opGetattr, "/x", "x", stack.Nobody).attrAnswer(x.c, pre)
	if a.Errno == 0 {
		return nil
	}
	if a != (stack.AttrAnswer{Errno: a.Errno}) {
		t.Errorf("%+v", a)
	}
	return a.Errno
}

// ---- whole plans -----------------------------------------------------------

// planFuzz is a tree that is not mounted, whose files a program makes.
type planFuzz struct {
	p          *Policy
	fs         *stack.FS
	self, part []byte
}

func newPlanFuzz(t testing.TB) *planFuzz {
	t.Helper()
	x := &planFuzz{self: make([]byte, 300), part: make([]byte, 200)}
	for i := range x.self {
		x.self[i] = byte(i)*3 + 1
	}
	for i := range x.part {
		x.part[i] = byte(i)*5 + 2
	}
	dir := t.TempDir()
	lower, part := filepath.Join(dir, "lower"), filepath.Join(dir, "part")
	if err := os.Mkdir(lower, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(lower, "f"), string(x.self))
	writeFile(t, part, string(x.part))
	x.p = mustPolicy(t, Options{}, ruleText("/", build(t, "table.c"), "parts: ["+part+"]"))
	mountpoint := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mountpoint, 0o755); err != nil {
		t.Fatal(err)
	}
	fs, err := stack.Open(stack.Config{Lowers: []string{lower}, Mountpoint: mountpoint, Passthrough: stack.PassthroughOff, Policy: x.p, Logger: quiet})
	if err != nil {
		t.Skip("the tree cannot be opened: ", err)
	}
	x.fs = fs
	t.Cleanup(func() { _ = fs.Close() })
	return x
}

// table takes extents from a fuzzer's bytes: most of them where the one before
// ends, and what they name there.
func (x *planFuzz) table(b []byte) (list []extent, size uint64, window uint32) {
	r := &fuzzReader{b}
	window = uint32(r.take(1)%17 + 1)
	at := uint64(0)
	for len(r.b) > 0 && len(list) < 64 {
		how := r.take(1)
		e := extent{Off: at, Len: r.take(1)%100 + 1, Src: r.take(1), Kind: uint32(how & 3), Backing: backingSelf}
		if how&4 != 0 {
			e.Backing = backingPart
		}
		if e.Kind == extServer {
			e.Kind = extBacking
		}
		switch how >> 3 {
		case 31:
			e.Off += 1
		case 30:
			e.Len = 0
		case 29:
			e.Src = r.take(8)
		case 28:
			if e.Len = r.take(8); e.Kind == extZero && e.Len < 1<<63 {
				e.Len &= 0xfff // else there would be much to read
			}
		case 27:
			e.Kind = uint32(r.take(1))
		case 26:
			e.Backing = uint32(r.take(4))
		}
		at = e.Off + e.Len
		list = append(list, e)
	}
	size = at
	if r.take(1) == 1 {
		size++
	}
	return list, size, window
}

// bytesOf is the byte array that a table means, up to what is wrong with it.
func (x *planFuzz) bytesOf(list []extent, size uint64) (all []byte, ok bool) {
	for _, e := range list {
		if e.Off != uint64(len(all)) || e.Len == 0 || e.Len > 4096 || e.Src >= 1<<63 {
			return all, false
		}
		from := x.self
		switch {
		case e.Kind == extZero:
			from = make([]byte, 4096)
			e.Src = 0
		case e.Kind == extInline:
			from = make([]byte, 64)
			for i := range from {
				from[i] = byte(i)
			}
		case e.Kind != extBacking:
			return all, false
		case e.Backing == backingPart:
			from = x.part
		case e.Backing != backingSelf && e.Backing != 1:
			return all, false
		}
		if e.Src > uint64(len(from)) || e.Len > uint64(len(from))-e.Src {
			return all, false
		}
		all = append(all, from[e.Src:e.Src+e.Len]...)
	}
	return all, size == uint64(len(all))
}

// set makes the table what the program answers.
func (x *planFuzz) set(t *testing.T, list []extent, size uint64, window uint32) {
	t.Helper()
	maps := x.p.rules[0].progs.maps
	var b bytes.Buffer
	_ = binary.Write(&b, binary.NativeEndian, []uint64{size, uint64(len(list)) | uint64(window)<<32})
	if err := maps["head"].Put(uint32(0), b.Bytes()); err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if err := maps["table"].Put(uint32(i), (*[unsafe.Sizeof(list[0])]byte)(unsafe.Pointer(&list[i]))[:]); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzPlan: what a program's extents say is what is read, byte by byte and from
// anywhere; if they say nonsense, no byte is read that they do not say.
func FuzzPlan(f *testing.F) {
	x := newPlanFuzz(f)
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{3, 0, 99, 0, 1, 50, 0, 2, 20, 3, 4, 80, 7}, uint16(60))
	f.Add(bytes.Repeat([]byte{1, 2, 3}, 70), uint16(5))
	f.Add([]byte{2, 0, 10, 0, 0xf8, 10, 0, 0, 10, 0}, uint16(12))
	f.Add([]byte{2, 0, 10, 0, 0xe8, 10, 0, 255, 255, 255, 255, 255, 255, 255, 255}, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, off uint16) {
		list, size, window := x.table(b)
		x.set(t, list, size, window)
		all, ok := x.bytesOf(list, size)
		got, err := x.read(0, len(all)+1000)
		if err == nil && ok && !bytes.Equal(got, all) || ok && err != nil {
			t.Fatalf("%+v: %v, want %v; %v", list, got, all, err)
		}
		if err == nil && !ok && !x.unneeded(size, got, all) {
			t.Fatalf("%+v, %d bytes: %v", list, size, got)
		}
		at := int64(off) % (int64(len(all)) + 1)
		if part, err := x.read(at, 33); ok && (err != nil || !bytes.Equal(part, all[at:min(at+33, int64(len(all)))])) {
			t.Fatalf("%+v: %v at %d, want %v; %v", list, part, at, all, err)
		}
	})
}

// unneeded tells whether what is wrong with a table was not needed to read the
// file: it lies behind the end, or there are no extents and the file keeps its
// size.
func (x *planFuzz) unneeded(size uint64, got, right []byte) bool {
	return bytes.Equal(got, right) && size == uint64(len(right)) || bytes.Equal(got, x.self) && size == uint64(len(x.self))
}

// read opens the file, reads and closes it.
func (x *planFuzz) read(off int64, n int) ([]byte, error) {
	var entry fuse.EntryOut
	if st := x.fs.Lookup(nil, &fuse.InHeader{NodeId: 1}, "f", &entry); !st.Ok() {
		return nil, fmt.Errorf("lookup: %v", st)
	}
	defer x.fs.Forget(entry.NodeId, 1)
	open := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: entry.NodeId}, Flags: unix.O_RDONLY}
	var out fuse.OpenOut
	if st := x.fs.Open(nil, &open, &out); !st.Ok() {
		return nil, fmt.Errorf("open: %v", st)
	}
	defer x.fs.Release(nil, &fuse.ReleaseIn{InHeader: open.InHeader, Fh: out.Fh})
	buf := make([]byte, n)
	res, st := x.fs.Read(nil, &fuse.ReadIn{InHeader: open.InHeader, Fh: out.Fh, Offset: uint64(off), Size: uint32(n)}, buf)
	if !st.Ok() {
		return nil, fmt.Errorf("read: %v", st)
	}
	got, st := res.Bytes(buf)
	if !st.Ok() {
		return nil, fmt.Errorf("bytes: %v", st)
	}
	return got, nil
}
