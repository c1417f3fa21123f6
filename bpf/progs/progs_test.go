// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var (
	seed   = flag.Uint64("seed", 1, "of the random inputs")
	rounds = flag.Int("rounds", 1, "how many times the usual number of random inputs")
)

// The structs of plyfs.h and of the programs' maps.

const (
	user, userPrefilter, postfilter = 1, 2, 3

	opLookup, opReaddir, opOpen = 1, 3, 4

	inHandled, inAttr, inCopyUp = 1, 2, 8

	outHide, outChoose, outSize = 1, 2, 4

	backing, zero, inline = 0, 1, 2

	self, part0 = 64, 128

	maxExtents, maxHints = 16, 16

	nobody = math.MaxUint32
)

type span struct{ Off, Len uint64 }

type input struct {
	ABI, Op, Phase, Flags uint32
	Ino, Parent           uint64
	Offset, Length        uint64
	Size, Mtime           uint64
	Epoch, Layers         uint64
	Layer, NLayers        uint32
	NParts, Mode          uint32
	UID, GID, PID         uint32
	Error                 int32
	NameLen, NHints       uint32
	Hints                 [maxHints]span
	Name                  [256]byte
}

type extent struct {
	Off, Len, Src uint64
	Kind, Backing uint32
}

type output struct {
	Flags, Layer      uint32
	Skip, Size, Mtime uint64
	ModeClear, TTLms  uint32
	NExtents, DataLen uint32
	Extents           [maxExtents]extent
	Data              [4096]byte
}

type slot struct {
	In  input
	Out output
}

type pattern struct {
	Text     [64]byte
	Len, Pad uint32
}

type clause struct {
	Pattern               pattern
	Flags, Action, Layer  uint32
	UIDLo, UIDHi          uint32
	GIDLo, GIDHi, TypeFmt uint32
	Skip                  uint64
}

func mkPattern(s string) (p pattern) {
	p.Len = uint32(copy(p.Text[:], s))
	return p
}

func (in *input) setName(s string) { in.NameLen = uint32(copy(in.Name[:255], s)) }

// A program is one loaded object.
type program struct {
	*ebpf.Program
	spec  *ebpf.CollectionSpec
	coll  *ebpf.Collection
	slots []slot
	ctx   *uint32
	attr  testRunAttr
}

// The part of union bpf_attr that BPF_PROG_RUN takes.
type testRunAttr struct {
	progFD, retval           uint32
	sizeIn, sizeOut          uint32
	dataIn, dataOut          uint64
	repeat, duration         uint32
	ctxSizeIn, ctxSizeOut    uint32
	ctxIn, ctxOut            uint64
	flags, cpu, batchSize, _ uint32
}

type vars map[string]any

// An array fills the map of its name; the map gets as many entries.
type arrays map[string][]any

func load(tb testing.TB, name string, v vars, a arrays) *program {
	tb.Helper()
	entries := map[string]int{}
	for n, x := range a {
		entries[n] = len(x)
	}
	p := loadEmpty(tb, name, v, entries)
	for n, x := range a {
		for i := range x {
			if err := p.coll.Maps[n].Put(uint32(i), x[i]); err != nil {
				tb.Fatalf("map %s: %v", n, err)
			}
		}
	}
	return p
}

// loadEmpty leaves the maps to the caller.
func loadEmpty(tb testing.TB, name string, v vars, entries map[string]int) *program {
	tb.Helper()
	spec, err := ebpf.LoadCollectionSpec(name + ".o")
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range spec.Programs {
		if strings.HasPrefix(p.SectionName, "ply/") {
			p.Type = ebpf.Syscall
			p.Flags |= unix.BPF_F_SLEEPABLE
		}
	}
	for n, x := range v {
		if err := spec.Variables[n].Set(x); err != nil {
			tb.Fatalf("variable %s: %v", n, err)
		}
	}
	for n, x := range entries {
		spec.Maps[n].MaxEntries = uint32(max(1, x))
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats},
	})
	if errors.Is(err, unix.EPERM) {
		tb.Skipf("loading programs needs CAP_BPF and CAP_PERFMON: %v", err)
	}
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(coll.Close)
	p := &program{spec: spec, coll: coll, ctx: new(uint32)}
	for _, prog := range coll.Programs {
		p.Program = prog
	}
	m := coll.Maps["ply_slots"]
	if got := m.ValueSize(); uintptr(got) != unsafe.Sizeof(slot{}) {
		tb.Fatalf("a slot has %d bytes, here %d", got, unsafe.Sizeof(slot{}))
	}
	mem, err := unix.Mmap(m.FD(), 0, int(m.ValueSize()*m.MaxEntries()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Munmap(mem) })
	p.slots = unsafe.Slice((*slot)(unsafe.Pointer(&mem[0])), m.MaxEntries())
	p.attr = testRunAttr{
		progFD:    uint32(p.FD()),
		ctxSizeIn: 4,
		ctxIn:     uint64(uintptr(unsafe.Pointer(p.ctx))),
	}
	return p
}

// call runs the program on the slot as it is.
func (p *program) call(tb testing.TB) int32 {
	_, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&p.attr)), unsafe.Sizeof(p.attr))
	runtime.KeepAlive(p)
	if e != 0 {
		tb.Fatalf("running the program: %v", e)
	}
	return int32(p.attr.retval)
}

func (p *program) ask(tb testing.TB, in *input) (int32, *output) {
	s := &p.slots[*p.ctx]
	in.ABI = 1
	s.In, s.Out = *in, output{}
	return p.call(tb), &s.Out
}

// plan asks window after window, as the daemon does, and returns the whole
// answer. It fails the test for what the daemon would refuse.
func (p *program) plan(tb testing.TB, in input, hints []span) (ext []extent, size uint64, data []byte) {
	tb.Helper()
	in.Op = opOpen
	size = in.Size
	for first := true; first || in.Offset < size; first = false {
		in.Length = size - in.Offset
		in.Flags &^= inHandled
		ret, out := p.ask(tb, &in)
		if ret == userPrefilter {
			in.Flags |= inHandled
			in.NHints, in.Hints = 0, [maxHints]span{}
			for _, h := range hints {
				if h.Off+h.Len > in.Offset && in.NHints < maxHints {
					in.Hints[in.NHints] = h
					in.NHints++
				}
			}
			ret, out = p.ask(tb, &in)
		}
		if ret != 0 {
			tb.Fatalf("offset %d: answer %d", in.Offset, ret)
		}
		if out.Flags&outSize != 0 {
			if !first && size != out.Size {
				tb.Fatalf("the size was %d, now %d", size, out.Size)
			}
			size = out.Size
		}
		if out.NExtents == 0 {
			if !first {
				tb.Fatalf("offset %d of %d: no extents", in.Offset, size)
			}
			return nil, size, nil
		}
		for _, e := range out.Extents[:out.NExtents] {
			if e.Off != in.Offset || e.Len == 0 || e.Len > size-e.Off {
				tb.Fatalf("offset %d of %d: extent %+v", in.Offset, size, e)
			}
			in.Offset += e.Len
			ext = append(ext, e)
		}
		data = append([]byte(nil), out.Data[:out.DataLen]...)
	}
	return ext, size, data
}

func newRand(t *testing.T) *rand.Rand {
	t.Logf("seed %d", *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}
