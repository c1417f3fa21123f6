// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
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

// ---- names -----------------------------------------------------------------

// A token of a pattern: a star, or the set of bytes that it takes.
type token struct {
	star bool
	set  [256]bool
}

// parse is the model of the syntax that match.h tells; false for no pattern.
func parse(p string) (ts []token, ok bool) {
	for len(p) > 0 {
		var t token
		c := p[0]
		p = p[1:]
		switch c {
		case '*':
			t.star = true
		case '?':
			for i := range t.set {
				t.set[i] = true
			}
		case '\\':
			if p == "" {
				return nil, false
			}
			t.set[p[0]] = true
			p = p[1:]
		case '[':
			not := p != "" && (p[0] == '!' || p[0] == '^')
			if not {
				p = p[1:]
			}
			for first := true; first || p == "" || p[0] != ']'; first = false {
				var lo, hi byte
				if lo, p, ok = setByte(p); !ok {
					return nil, false
				}
				hi = lo
				if len(p) > 1 && p[0] == '-' && p[1] != ']' {
					if hi, p, ok = setByte(p[1:]); !ok {
						return nil, false
					}
				}
				for i := int(lo); i <= int(hi); i++ {
					t.set[i] = true
				}
			}
			p = p[1:]
			if not {
				for i := range t.set {
					t.set[i] = !t.set[i]
				}
			}
		default:
			t.set[c] = true
		}
		ts = append(ts, t)
	}
	return ts, true
}

func setByte(p string) (c byte, rest string, ok bool) {
	switch {
	case p == "",
		p[0] == '\\' && len(p) == 1,
		p[0] == '[' && len(p) > 1 && strings.IndexByte(":.=", p[1]) >= 0:
		return 0, "", false
	case p[0] == '\\':
		p = p[1:]
	}
	return p[0], p[1:], true
}

// match is the model: all states at once, no going back.
func match(ts []token, name string) bool {
	at := make([]bool, len(ts)+1)
	skip := func() {
		for i, t := range ts {
			if t.star && at[i] {
				at[i+1] = true
			}
		}
	}
	at[0] = true
	skip()
	for i := range len(name) {
		next := make([]bool, len(ts)+1)
		for k, t := range ts {
			switch {
			case !at[k]:
			case t.star:
				next[k] = true
			case t.set[name[i]]:
				next[k+1] = true
			}
		}
		at = next
		skip()
	}
	return at[len(ts)]
}

// A matcher is redact as an oracle of names: it blanks what matches.
type matcher struct{ *program }

func newMatcher(tb testing.TB, patterns ...string) matcher {
	tb.Helper()
	a := arrays{"patterns": nil}
	for _, p := range patterns {
		a["patterns"] = append(a["patterns"], mkPattern(p))
	}
	return matcher{load(tb, "redact", vars{"n_patterns": uint32(len(patterns)), "whole": uint32(1)}, a)}
}

// match returns 1, 0 or a negative errno.
func (m matcher) match(tb testing.TB, name string) int {
	in := input{Op: opOpen, Size: 1}
	in.setName(name)
	ret, out := m.ask(tb, &in)
	if ret != 0 {
		return int(ret)
	}
	return int(out.NExtents)
}

func (m matcher) set(tb testing.TB, i int, p string) {
	tb.Helper()
	if err := m.coll.Maps["patterns"].Put(uint32(i), mkPattern(p)); err != nil {
		tb.Fatal(err)
	}
}

func TestGlobTable(t *testing.T) {
	m := newMatcher(t, "")
	const eio = -int(unix.EIO)
	long := strings.Repeat("a", 255)
	for _, c := range []struct {
		pattern, name string
		want          int
	}{
		{"*", "a", 1},
		{"*", ".a", 1},
		{"**", "a", 1},
		{"", "a", 0},
		{"a", "a", 1},
		{"a", "ab", 0},
		{"ab", "a", 0},
		{"a*", "a", 1},
		{"*a", "a", 1},
		{"*a*", "xay", 1},
		{"*.key", ".key", 1},
		{"*.key", "a.key.key", 1},
		{"*.key", "a.keys", 0},
		{"?", "a", 1},
		{"?", "ab", 0},
		{"??", "a", 0},
		{"a?c", "abc", 1},
		{"[abc]", "b", 1},
		{"[abc]", "d", 0},
		{"[!abc]", "d", 1},
		{"[!abc]", "a", 0},
		{"[^abc]", "a", 0},
		{"[a-c]x", "bx", 1},
		{"[a-cx-z]", "y", 1},
		{"[c-a]", "b", 0},
		{"[]]", "]", 1},
		{"[]-a]", "^", 1},
		{"[!]]", "]", 0},
		{"[!]]", "a", 1},
		{"[a-]", "-", 1},
		{"[-a]", "-", 1},
		{"[--0]", ".", 1},
		{`[\]]`, "]", 1},
		{`[\a-\c]`, "b", 1},
		{`[a\-c]`, "b", 0},
		{`[a\-c]`, "-", 1},
		{"[[]", "[", 1},
		{"[!!]", "!", 0},
		{"[*]", "*", 1},
		{"[?]", "a", 0},
		{`\*`, "*", 1},
		{`\*`, "a", 0},
		{`\\`, `\`, 1},
		{`*\?`, "a?", 1},
		{"*[0-9]", "a1b2", 1},
		{"*[0-9]", "a1b", 0},
		{"*[!0-9]*z", "1a2z", 1},
		{"[\x80-\xff]", "\xc3", 1},
		{"[!a]", "\xff", 1},
		{strings.Repeat("*", 64), "a", 1},
		{strings.Repeat("a", 64), long, 0},
		{strings.Repeat("a", 63) + "*", long, 1},
		{strings.Repeat("?", 64), long[:64], 1},
		{strings.Repeat("*a", 32), long, 1},
		{strings.Repeat("*a", 31) + "*b", long, 0},
		{"*" + strings.Repeat("a", 62) + "b", long, 0},
		{"*" + strings.Repeat("[a]", 20) + "[b]", long, 0},
		{"*" + strings.Repeat("a", 62) + "b", long[:254] + "b", 1},
		{worst, long, 0},
		{strings.Repeat("*a", 31) + "ba", long, 0},
		// No patterns, no decisions.
		{"[", "a", eio},
		{"[a", "a", eio},
		{"[]", "a", eio},
		{"[!]", "a", eio},
		{"[a-", "a", eio},
		{`[\`, "a", eio},
		{`[a-\`, "a", eio},
		{`[\]`, "a", eio},
		{`\`, "a", eio},
		{`a\`, "ab", eio},
		{"[[:alpha:]]", "a", eio},
		{"[a-[.-.]]", "a", eio},
		{"*[", "a", eio},
		{"*[a", "b", eio},
		{"*", "", eio}, // a file without a name
	} {
		m.set(t, 0, c.pattern)
		if got := m.match(t, c.name); got != c.want {
			t.Errorf("%q, name %q: %d, want %d", c.pattern, c.name, got, c.want)
		}
	}
}

func randBytes(r *rand.Rand, from string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = from[r.IntN(len(from))]
	}
	return string(b)
}

// A pattern that comes from a name and so has a chance to match it.
func patternOf(r *rand.Rand, name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch c := name[i]; r.IntN(9) {
		case 0:
			b.WriteByte('?')
		case 1:
			fmt.Fprintf(&b, "[%c]", c)
		case 2:
			fmt.Fprintf(&b, "[!%c]", c+1)
		case 3:
			fmt.Fprintf(&b, "[%c-%c]", c-1, c+1)
		case 4:
			fmt.Fprintf(&b, `\%c`, c)
		case 5:
			b.WriteByte('*')
			i += r.IntN(4)
		case 6:
			b.WriteByte('*')
			i--
			if r.IntN(2) == 0 {
				i++
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func TestGlobRandom(t *testing.T) {
	m := newMatcher(t, "")
	r := newRand(t)
	matched, bad := 0, 0
	for range 60_000 * *rounds {
		name := randBytes(r, "abab.d", 1+r.IntN(12))
		var p string
		switch r.IntN(3) {
		case 0:
			p = patternOf(r, name)
		case 1:
			p = randBytes(r, "ab*?.", r.IntN(12))
		case 2:
			p = randBytes(r, `ab-!^[[]]\*:.`, r.IntN(12))
		}
		if len(p) > 64 {
			continue
		}
		m.set(t, 0, p)
		got := m.match(t, name)
		ts, ok := parse(p)
		switch {
		case !ok:
			bad++
			if got > 0 {
				t.Fatalf("%q is no pattern but matches %q", p, name)
			}
		case match(ts, name):
			matched++
			if got != 1 {
				t.Fatalf("%q, name %q: %d, want 1", p, name, got)
			}
		case got != 0:
			t.Fatalf("%q, name %q: %d, want 0", p, name, got)
		}
		// The library knows the same syntax but for "[!", a ']' that
		// comes first, a bare '-' and classes.
		if ok && !strings.ContainsAny(p, "!-") && !strings.Contains(p, "[]") && !strings.Contains(p, "[^]") {
			want, err := path.Match(p, name)
			if err == nil && want != (got == 1) {
				t.Fatalf("%q, name %q: %d, path.Match says %v", p, name, got, want)
			}
		}
	}
	t.Logf("%d matched, %d were no patterns", matched, bad)
}

// A fault in one pattern is not made good by the next.
func TestBrokenPattern(t *testing.T) {
	for _, ps := range [][]string{{"[a", "b"}, {"b", "[a"}, {"[a", "*"}} {
		if got := newMatcher(t, ps...).match(t, "a"); got != -int(unix.EIO) {
			t.Errorf("%q: %d", ps, got)
		}
	}
	p := load(t, "redact", vars{"n_patterns": uint32(33)}, nil)
	in := input{Size: 1}
	in.setName("a")
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("33 patterns: %d", ret)
	}
}

func TestManyPatterns(t *testing.T) {
	r := newRand(t)
	for _, n := range []int{0, 1, 2, 32} {
		ps := make([]string, n)
		m := newMatcher(t, ps...)
		for range 3000 * *rounds {
			name := randBytes(r, "abcd", 1+r.IntN(8))
			want := n == 0
			for i := range ps {
				for {
					ps[i] = patternOf(r, randBytes(r, "abcd", 1+r.IntN(8)))
					if ts, ok := parse(ps[i]); ok && len(ps[i]) <= 64 {
						want = want || match(ts, name)
						break
					}
				}
				m.set(t, i, ps[i])
			}
			if got := m.match(t, name) == 1; got != want {
				t.Fatalf("%q, name %q: %v, want %v", ps, name, got, want)
			}
		}
	}
}

// ---- redact ----------------------------------------------------------------

func spans(r *rand.Rand, n int, limit uint64) (s []span) {
	var off uint64
	for range n {
		off += r.Uint64N(2*limit/uint64(n)+1) + 1
		l := 1 + r.Uint64N(limit/uint64(n)+1)
		s = append(s, span{off - 1, l})
		off += l
	}
	return s
}

// blanked tells of each byte of the plan whether it reads as zero, and fails
// the test for whatever is no byte of the file at its place.
func blanked(t *testing.T, ext []extent, size uint64) []bool {
	t.Helper()
	b := make([]bool, size)
	for _, e := range ext {
		switch {
		case e.Kind == zero:
			for i := range e.Len {
				b[e.Off+i] = true
			}
		case e.Kind != backing || e.Backing != self || e.Src != e.Off:
			t.Fatalf("extent %+v", e)
		}
	}
	return b
}

func TestRedact(t *testing.T) {
	r := newRand(t)
	windows := 0
	for round := range 150 * *rounds {
		limit := uint64(1 + r.IntN(2000))
		var ranges, hints []span
		if r.IntN(5) > 0 {
			ranges = spans(r, 1+r.IntN(80), limit)
		}
		handler := uint32(r.IntN(2))
		a := arrays{"ranges": nil}
		for _, s := range ranges {
			a["ranges"] = append(a["ranges"], s)
		}
		p := load(t, "redact", vars{"n_ranges": uint32(len(ranges)), "use_handler": handler}, a)
		for range 40 {
			hints = nil
			if handler == 1 && r.IntN(5) > 0 {
				hints = spans(r, 1+r.IntN(80), limit)
			}
			size := r.Uint64N(2*limit + 2)
			want := make([]bool, size)
			some := false
			for _, s := range append(append([]span(nil), ranges...), hints...) {
				for i := s.Off; i < s.Off+s.Len && i < size; i++ {
					want[i], some = true, true
				}
			}
			in := input{Size: size, Layer: uint32(r.IntN(3))}
			in.setName("a")
			ext, got, _ := p.plan(t, in, hints)
			if got != size {
				t.Fatalf("round %d: the size was %d, now %d", round, size, got)
			}
			if !some && ext != nil && len(hints) < maxHints {
				t.Fatalf("round %d: nothing to blank, but a plan of %d extents", round, len(ext))
			}
			if b := blanked(t, ext, size); !equal(b, want) {
				t.Fatalf("round %d: size %d, ranges %v, hints %v: %v", round, size, ranges, hints, ext)
			}
			windows += len(ext) / maxExtents
			// From an offset in the middle.
			if some {
				in.Offset = r.Uint64N(size)
				mid := in.Offset
				ext, _, _ = p.plan(t, in, hints)
				if b := blanked(t, ext, size); !equal(b[mid:], want[mid:]) {
					t.Fatalf("round %d: from %d of %d, ranges %v, hints %v: %v", round, mid, size, ranges, hints, ext)
				}
			}
			// For its size alone.
			in.Flags = inAttr
			if ret, out := p.ask(t, &in); ret != 0 || out.Flags != 0 {
				t.Fatalf("size only: %d, flags %#x", ret, out.Flags)
			}
		}
		p.coll.Close()
	}
	t.Logf("more than %d windows", windows)
}

func equal(a, b []bool) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestRedactEdges(t *testing.T) {
	const top = math.MaxUint64
	p := load(t, "redact", vars{"n_ranges": uint32(2)}, arrays{"ranges": {span{10, 5}, span{1 << 40, top}}})
	in := input{Size: top - 1}
	in.setName("a")
	ext, _, _ := p.plan(t, in, nil)
	want := []extent{
		{0, 10, 0, backing, self}, {10, 5, 0, zero, 0}, {15, 1<<40 - 15, 15, backing, self},
		{1 << 40, top - 1 - 1<<40, 0, zero, 0},
	}
	if fmt.Sprint(ext) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", ext, want)
	}
	in.Size = 10
	if ext, _, _ = p.plan(t, in, nil); ext != nil {
		t.Errorf("a file that ends before the ranges: %v", ext)
	}

	// More ranges than are merged at once, side by side: the answer ends early.
	a := arrays{"ranges": nil}
	for i := range uint64(1000) {
		a["ranges"] = append(a["ranges"], span{10 + i, 1})
	}
	p = load(t, "redact", vars{"n_ranges": uint32(1000)}, a)
	in.Size = 2000
	ext, _, _ = p.plan(t, in, nil)
	for i, b := range blanked(t, ext, in.Size) {
		if b != (i >= 10 && i < 1010) {
			t.Fatalf("ranges side by side, byte %d: %v", i, b)
		}
	}

	// Sixteen hints that end before the window: what is behind is not known.
	p = load(t, "redact", vars{"use_handler": uint32(1)}, nil)
	in = input{Size: 1000, Offset: 500, Flags: inHandled, NHints: maxHints}
	in.setName("a")
	for i := range in.Hints {
		in.Hints[i] = span{uint64(i), 1}
	}
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("hints before the window: %d", ret)
	}
	in.NHints = maxHints + 1
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("too many hints: %d", ret)
	}
	// One hint for all of it.
	in.Flags, in.Offset = 0, 0
	ext, _, _ = p.plan(t, in, []span{{0, top}})
	if fmt.Sprint(ext) != fmt.Sprint([]extent{{0, 1000, 0, zero, 0}}) {
		t.Errorf("one hint: %v", ext)
	}

	p = load(t, "redact", vars{"whole": uint32(1), "use_handler": uint32(1)}, nil)
	in.Flags, in.Offset = 0, 7
	ext, _, _ = p.plan(t, in, nil)
	if fmt.Sprint(ext) != fmt.Sprint([]extent{{7, 993, 0, zero, 0}}) {
		t.Errorf("whole: %v", ext)
	}
	in.Size, in.Offset = 0, 0
	if ext, _, _ = p.plan(t, in, nil); ext != nil {
		t.Errorf("an empty file: %v", ext)
	}
}

// loadBig is load for a table too large to fill entry by entry.
func loadBig[T any](tb testing.TB, name, table string, entries []T, v vars) *program {
	tb.Helper()
	all := vars{"n_" + table: uint32(len(entries))}
	for n, x := range v {
		all[n] = x
	}
	p := loadEmpty(tb, name, all, map[string]int{table: len(entries)})
	k := make([]uint32, len(entries))
	for i := range k {
		k[i] = uint32(i)
	}
	if _, err := p.coll.Maps[table].BatchUpdate(k, entries, nil); err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestRedactMillion(t *testing.T) {
	const n = 1 << 20
	v := make([]span, n)
	for i := range v {
		v[i] = span{uint64(i)*100 + 10, 20}
	}
	p := loadBig(t, "redact", "ranges", v, nil)
	in := input{Size: n * 100}
	in.setName("a")
	r := newRand(t)
	for range 2000 {
		in.Offset = r.Uint64N(in.Size)
		ret, out := p.ask(t, &in)
		if ret != 0 || out.NExtents == 0 {
			t.Fatalf("offset %d: %d, %d extents", in.Offset, ret, out.NExtents)
		}
		off := in.Offset
		for _, e := range out.Extents[:out.NExtents] {
			k := off % 100
			want := extent{off, 110 - k, off, backing, self}
			switch {
			case k < 10:
				want.Len = 10 - k
			case k < 30:
				want = extent{off, 30 - k, 0, zero, 0}
			}
			want.Len = min(want.Len, in.Size-off)
			if e != want {
				t.Fatalf("offset %d: %+v, want %+v", off, e, want)
			}
			off += e.Len
		}
		if out.NExtents < maxExtents && off < in.Size {
			t.Fatalf("offset %d: %d extents, ends at %d", in.Offset, out.NExtents, off)
		}
	}
}

// ---- prepend ---------------------------------------------------------------

func TestPrepend(t *testing.T) {
	r := newRand(t)
	text := []byte(randBytes(r, "abcdefgh\x00\xff", 4096))
	for _, part := range []uint32{0, 1} {
		for _, n := range []uint64{0, 1, 7, 512, 4095, 4096, 1 << 40} {
			if part == 0 && n > 4096 {
				continue
			}
			p := load(t, "prepend", vars{"prefix_len": n, "prefix_part": part, "n_patterns": uint32(1)},
				arrays{"patterns": {mkPattern("*.c")}, "prefix": {text}})
			for range 100 {
				size := r.Uint64N(10000)
				if r.IntN(4) == 0 {
					size = 0
				}
				in := input{Size: size, Layer: 1}
				in.setName("a.c")
				if r.IntN(2) == 0 {
					in.Offset = pick(r, n, r.Uint64N(n+size+1))
				}
				var want []extent
				if n > 0 && in.Offset < n {
					e := extent{in.Offset, n - in.Offset, in.Offset, inline, 0}
					if part == 1 {
						e.Kind, e.Backing = backing, part0
					}
					want = append(want, e)
				}
				if at := max(in.Offset, n); n > 0 && at < n+size {
					want = append(want, extent{at, n + size - at, at - n, backing, self})
				}
				ext, got, data := p.plan(t, in, nil)
				if got != n+size || fmt.Sprint(ext) != fmt.Sprint(want) {
					t.Fatalf("prefix %d, size %d, offset %d: size %d, %v, want %v", n, size, in.Offset, got, ext, want)
				}
				if part == 0 && in.Offset < n && !bytes.Equal(data, text[:n]) {
					t.Fatalf("prefix %d: other bytes", n)
				}
				in.Flags = inAttr
				ret, out := p.ask(t, &in)
				if ret != 0 || (n > 0) != (out.Flags == outSize) || n > 0 && out.Size != n+size {
					t.Fatalf("size only: %d, flags %#x, %d", ret, out.Flags, out.Size)
				}
				in.Flags = 0
				for range 2 { // upper; another name
					in.Layer = 1 - in.Layer
					if ret, out := p.ask(t, &in); ret != 0 || out.Flags != 0 || out.NExtents != 0 {
						t.Fatalf("layer %d: %d, flags %#x", in.Layer, ret, out.Flags)
					}
					in.setName("a.h")
				}
			}
			if n > 0 {
				in := input{Size: math.MaxUint64, Layer: 1}
				in.setName("a.c")
				if ret, _ := p.ask(t, &in); ret != -int32(unix.EFBIG) {
					t.Fatalf("too large: %d", ret)
				}
			}
			p.coll.Close()
		}
	}
	p := load(t, "prepend", vars{"prefix_len": uint64(4097)}, nil)
	if ret, _ := p.ask(t, &input{Layer: 1}); ret != -int32(unix.EIO) {
		t.Fatalf("more than fits: %d", ret)
	}
}

// ---- split -----------------------------------------------------------------

func TestSplit(t *testing.T) {
	r := newRand(t)
	for range 150 * *rounds {
		fromSelf := uint32(r.IntN(2))
		n := r.IntN(100)
		table := make([]extent, n)
		a := arrays{"table": nil}
		var total uint64
		for i := range table {
			e := extent{Off: total, Len: 1 + r.Uint64N(50), Src: r.Uint64N(1 << 50), Backing: part0 + uint32(r.IntN(5))}
			switch r.IntN(5) {
			case 0:
				e.Kind, e.Src, e.Backing = zero, 0, 0
			case 1:
				e.Src, e.Backing = total, self
			}
			total += e.Len
			table[i] = e
			a["table"] = append(a["table"], e)
		}
		p := load(t, "split", vars{"n_table": uint32(n), "total": total, "size_from_self": fromSelf}, a)
		for range 30 {
			in := input{Size: r.Uint64N(total + 100), Layer: 1}
			in.setName("a")
			size := total
			if fromSelf == 1 {
				size = in.Size
			}
			if r.IntN(2) == 0 && size > 0 && n > 0 {
				in.Offset = r.Uint64N(size)
			}
			var want []extent
			for _, e := range append(table, extent{total, math.MaxUint64 - total, total, backing, self}) {
				cut := uint64(0)
				if in.Offset > e.Off {
					cut = in.Offset - e.Off
				}
				if cut >= e.Len || e.Off+cut >= size {
					continue
				}
				e.Off += cut
				e.Len = min(e.Len-cut, size-e.Off)
				if e.Kind == backing {
					e.Src += cut
				}
				want = append(want, e)
			}
			if n == 0 {
				want = nil
			}
			ext, got, _ := p.plan(t, in, nil)
			if got != size || fmt.Sprint(ext) != fmt.Sprint(want) {
				t.Fatalf("table of %d, size %d, offset %d: size %d, %v, want %v", n, size, in.Offset, got, ext, want)
			}
			in.Flags = inAttr
			ret, out := p.ask(t, &in)
			if ret != 0 || out.NExtents != 0 || fromSelf == 0 && out.Size != total {
				t.Fatalf("size only: %d, flags %#x, %d", ret, out.Flags, out.Size)
			}
			in.Flags, in.Layer = 0, 0
			if ret, out := p.ask(t, &in); ret != 0 || out.Flags != 0 || out.NExtents != 0 {
				t.Fatalf("upper: %d, flags %#x", ret, out.Flags)
			}
		}
		p.coll.Close()
	}
	// The table does not have what total says.
	p := load(t, "split", vars{"n_table": uint32(1), "total": uint64(20)}, arrays{"table": {extent{Len: 10}}})
	if ret, _ := p.ask(t, &input{Layer: 1}); ret != -int32(unix.EIO) {
		t.Errorf("short table: %d", ret)
	}
	if ret, _ := p.ask(t, &input{Layer: 1, Offset: 15}); ret != -int32(unix.EIO) {
		t.Errorf("behind a short table: %d", ret)
	}
}

func TestSplitMillion(t *testing.T) {
	const n = 1 << 20
	v := make([]extent, n)
	for i := range v {
		v[i] = extent{uint64(i) * 4096, 4096, uint64(n-i) * 4096, backing, part0}
	}
	p := loadBig(t, "split", "table", v, vars{"total": uint64(n * 4096)})
	in := input{Layer: 1}
	r := newRand(t)
	for range 2000 {
		in.Offset = r.Uint64N(n * 4096)
		ret, out := p.ask(t, &in)
		if ret != 0 || out.NExtents != uint32(min(maxExtents, n-in.Offset/4096)) {
			t.Fatalf("offset %d: %d, %d extents", in.Offset, ret, out.NExtents)
		}
		off := in.Offset
		for _, e := range out.Extents[:out.NExtents] {
			k := off % 4096
			if want := (extent{off, 4096 - k, (n-off/4096)*4096 + k, backing, part0}); e != want {
				t.Fatalf("offset %d: %+v, want %+v", off, e, want)
			}
			off += e.Len
		}
	}
}

// ---- select ----------------------------------------------------------------

const (
	hasUID, hasGID, invert, orHide = 1, 2, 4, 8

	actHide, actChoose, actSkip, actShow, actDeny = 1, 2, 3, 4, 5
)

// decide is the model of select.
func decide(cs []clause, in *input, name string) (ret int32, flags, layer uint32, skip uint64) {
	for _, c := range cs {
		stern := c.Action == actHide || c.Action == actDeny
		test := func(known, is bool) bool { return known && is || !known && stern }
		uid := c.Flags&hasUID == 0 || in.UID >= c.UIDLo && in.UID <= c.UIDHi
		gid := c.Flags&hasGID == 0 || in.GID >= c.GIDLo && in.GID <= c.GIDHi
		known := in.UID != nobody && in.GID != nobody
		if c.Flags&(hasUID|hasGID) != 0 && !test(known, (uid && gid) != (c.Flags&invert != 0)) {
			continue
		}
		if typ := in.Mode & unix.S_IFMT; c.TypeFmt != 0 && !test(typ != 0, typ == c.TypeFmt) {
			continue
		}
		ts, ok := parse(string(c.Pattern.Text[:c.Pattern.Len]))
		if !ok {
			panic("no pattern")
		}
		if c.Pattern.Len != 0 && !match(ts, name) {
			continue
		}
		switch c.Action {
		case actHide:
			return 0, outHide, 0, 0
		case actChoose:
			switch {
			case in.Layers&1 != 0, in.Op == opReaddir && in.Layers == 0:
			case c.Layer > 0 && c.Layer < 63 && in.Layers&(1<<c.Layer) != 0:
				return 0, outChoose, c.Layer, 0
			case c.Flags&orHide != 0:
				return 0, outHide, 0, 0
			}
		case actSkip:
			return 0, 0, 0, c.Skip &^ 1
		case actDeny:
			if in.Op != opReaddir {
				return -int32(unix.EACCES), 0, 0, 0
			}
		}
		return 0, 0, 0, 0
	}
	return 0, 0, 0, 0
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func TestSelect(t *testing.T) {
	r := newRand(t)
	seen := map[string]int{}
	for range 200 * *rounds {
		cs := make([]clause, pick(r, 0, 1, 2, 3, 8, 64))
		a := arrays{"clauses": nil}
		for i := range cs {
			c := clause{
				Flags:  uint32(r.IntN(16)),
				Action: 1 + uint32(r.IntN(5)),
				Layer:  pick[uint32](r, 0, 1, 2, 3, 62, 63, 64, nobody),
				UIDLo:  pick[uint32](r, 0, 1000), UIDHi: pick[uint32](r, 0, 1000, nobody),
				GIDLo: pick[uint32](r, 0, 1000), GIDHi: pick[uint32](r, 0, 1000, nobody),
				TypeFmt: pick[uint32](r, 0, 0, unix.S_IFREG, unix.S_IFDIR),
				Skip:    r.Uint64(),
			}
			for {
				p := patternOf(r, randBytes(r, "abc", 1+r.IntN(6)))
				if r.IntN(10) == 0 {
					p = ""
				}
				if _, ok := parse(p); ok && len(p) <= 64 {
					c.Pattern = mkPattern(p)
					break
				}
			}
			cs[i] = c
			a["clauses"] = append(a["clauses"], c)
		}
		p := load(t, "select", vars{"n_clauses": uint32(len(cs))}, a)
		for range 300 {
			name := randBytes(r, "abc", 1+r.IntN(6))
			in := input{
				Op: pick[uint32](r, opLookup, opReaddir), Mode: pick[uint32](r, unix.S_IFREG, unix.S_IFDIR, 0),
				UID: pick[uint32](r, 0, 1, 999, 1000, 1001, nobody), GID: pick[uint32](r, 0, 1, 1000, 1001, nobody),
				Layers: pick(r, 0, 1, 2, 4, 6, 7, 14, 14, 1<<62, 1<<63, r.Uint64()),
			}
			in.setName(name)
			ret, out := p.ask(t, &in)
			wret, wflags, wlayer, wskip := decide(cs, &in, name)
			if ret != wret || out.Flags != wflags || out.Layer != wlayer || out.Skip != wskip {
				t.Fatalf("%q of %+v: %d %d %d %#x, want %d %d %d %#x\n%+v", name, in, ret, out.Flags, out.Layer, out.Skip,
					wret, wflags, wlayer, wskip, cs)
			}
			seen[fmt.Sprint(ret, out.Flags, out.Skip != 0)]++
		}
		p.coll.Close()
	}
	t.Log(seen)
}

func TestSelectBroken(t *testing.T) {
	c := clause{Pattern: mkPattern("[a"), Action: actHide}
	p := load(t, "select", vars{"n_clauses": uint32(1)}, arrays{"clauses": {c}})
	in := input{Op: opLookup}
	in.setName("a")
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("no pattern: %d", ret)
	}
	c = clause{Action: 9}
	p = load(t, "select", vars{"n_clauses": uint32(1)}, arrays{"clauses": {c}})
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("no action: %d", ret)
	}
	p = load(t, "select", vars{"n_clauses": uint32(65)}, nil)
	if ret, _ := p.ask(t, &in); ret != -int32(unix.EIO) {
		t.Errorf("65 clauses: %d", ret)
	}
}

// ---- cost ------------------------------------------------------------------

// Every object loads fast, whatever the loader sets, and says so.
func TestVerifierTime(t *testing.T) {
	usec := regexp.MustCompile(`verification time (\d+) usec`)
	insns := regexp.MustCompile(`processed \d+ insns`)
	all := vars{"n_patterns": uint32(32)}
	for _, c := range []struct {
		name string
		v    vars
	}{
		{"redact", vars{"n_ranges": uint32(1 << 20), "use_handler": uint32(1)}},
		{"prepend", vars{"prefix_len": uint64(4096)}},
		{"prepend", vars{"prefix_len": uint64(4096), "prefix_part": uint32(1)}},
		{"split", vars{"n_table": uint32(1 << 20), "total": uint64(1 << 40)}},
		{"split", vars{"n_table": uint32(1 << 20), "size_from_self": uint32(1)}},
		{"select", vars{"n_clauses": uint32(64)}},
	} {
		if c.name != "select" {
			for k, x := range all {
				c.v[k] = x
			}
		}
		p := load(t, c.name, c.v, nil)
		m := usec.FindStringSubmatch(p.VerifierLog)
		if m == nil {
			t.Fatalf("%s: no time in %q", c.name, p.VerifierLog)
		}
		n, _ := strconv.Atoi(m[1])
		t.Logf("%s: %d µs, %s", c.name, n, insns.FindString(p.VerifierLog))
		if n > 500_000 {
			t.Errorf("%s: the verifier took %d µs", c.name, n)
		}
	}
}

// The objects tell nobody where they were built.
func TestNoAbsolutePath(t *testing.T) {
	for _, name := range []string{"redact", "prepend", "split", "select"} {
		b, err := os.ReadFile(name + ".o")
		if err != nil {
			t.Fatal(err)
		}
		if m := regexp.MustCompile(`(?:^|\x00)(?:/[\w.-]{2,}){2,}`).Find(b); m != nil {
			t.Errorf("%s: %q", name, m)
		}
		if !bytes.Contains(b, []byte(".BTF.ext")) || bytes.Contains(b, []byte(".debug_info")) {
			t.Errorf("%s: sections", name)
		}
		if binary.LittleEndian.Uint16(b[18:]) != 247 { // EM_BPF
			t.Errorf("%s: not for BPF", name)
		}
	}
}

// ---- the examples ----------------------------------------------------------

// examples compiles ../examples.
func examples(t *testing.T) func(name string) *program {
	for _, tool := range []string{"make", "clang"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("compiling the examples: %v", err)
		}
	}
	dir := t.TempDir()
	if b, err := exec.Command("make", "-C", "../examples", "OUT="+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return func(name string) *program { return load(t, filepath.Join(dir, name), nil, nil) }
}

func TestExamples(t *testing.T) {
	example := examples(t)
	check := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	named := func(name string, in input) input {
		in.setName(name)
		return in
	}

	p := example("blank_header")
	ext, _, _ := p.plan(t, input{Size: 5000}, nil)
	check("blank_header", ext, []extent{{0, 4096, 0, zero, 0}, {4096, 904, 4096, backing, self}})
	ext, _, _ = p.plan(t, input{Size: 5}, nil)
	check("blank_header, small", ext, []extent{{0, 5, 0, zero, 0}})
	ext, _, _ = p.plan(t, input{}, nil)
	check("blank_header, empty", len(ext), 0)

	const licence = "/* SPDX-License-Identifier: BSD-3-Clause */\n"
	n := uint64(len(licence))
	p = example("licence_header")
	ext, size, data := p.plan(t, named("a.c", input{Size: 10, Layer: 1}), nil)
	check("licence_header", ext, []extent{{0, n, 0, inline, 0}, {n, 10, 0, backing, self}})
	check("licence_header, size", size, n+10)
	check("licence_header, bytes", string(data), licence)
	for _, in := range []input{named("a.h", input{Size: 10, Layer: 1}), named("a.c", input{Size: 10}), named("c", input{Layer: 1})} {
		ret, out := p.ask(t, &in)
		check("licence_header, others", []uint32{uint32(ret), out.Flags, out.NExtents}, []uint32{user, 0, 0})
	}

	p = example("chunks")
	ret, _ := p.ask(t, &input{Layer: 1})
	check("chunks, no parts", uint32(ret), uint32(user))
	for _, parts := range []uint32{1, 16, 17, 100, 5000} {
		var want []extent
		for i := range uint64(parts) {
			want = append(want, extent{i << 20, 1 << 20, 0, backing, part0 + uint32(i)})
		}
		ext, size, _ = p.plan(t, input{Layer: 1, NParts: parts}, nil)
		check("chunks", ext, want)
		check("chunks, size", size, uint64(parts)<<20)
	}
	ext, _, _ = p.plan(t, input{Layer: 1, NParts: 2, Offset: 1<<20 + 5}, nil)
	check("chunks, from the middle", ext, []extent{{1<<20 + 5, 1<<20 - 5, 5, backing, part0 + 1}})

	p = example("by_caller")
	for _, c := range []struct {
		uid          uint32
		layers       uint64
		flags, layer uint32
	}{{1000, 6, outChoose, 2}, {999, 6, 0, 0}, {nobody, 6, 0, 0}, {1000, 2, 0, 0}, {1000, 7, 0, 0}} {
		ret, out := p.ask(t, &input{Op: opLookup, UID: c.uid, Layers: c.layers})
		check("by_caller", []uint32{uint32(ret), out.Flags, out.Layer}, []uint32{0, c.flags, c.layer})
	}

	p = example("hide_dotfiles")
	for name, flags := range map[string]uint32{".a": outHide, "a.": 0} {
		in := named(name, input{Op: opLookup})
		_, out := p.ask(t, &in)
		check("hide_dotfiles "+name, out.Flags, flags)
	}

	p = example("deny_big")
	for fn, want := range map[string]int32{"ply_deny_big_pre": postfilter, "ply_deny_big": -int32(unix.EFBIG)} {
		p.attr.progFD = uint32(p.coll.Programs[fn].FD())
		ret, _ := p.ask(t, &input{Size: 1<<30 + 1})
		check(fn, ret, want)
	}
	p.attr.progFD = uint32(p.coll.Programs["ply_deny_big"].FD())
	for _, in := range []input{{Size: 1 << 30}, {Size: 1 << 40, Flags: inAttr}, {Size: 1 << 40, Flags: inCopyUp}} {
		ret, _ := p.ask(t, &in)
		check("deny_big, others", ret, 0)
	}

	p = example("count_reads")
	for _, ino := range []uint64{7, 8, 7} {
		p.ask(t, &input{Ino: ino, Length: 4096})
	}
	var got [2]uint64
	if err := p.coll.Maps["reads"].Lookup(uint64(7), &got); err != nil {
		t.Fatal(err)
	}
	check("count_reads", got, [2]uint64{2, 8192})
}

// Run with -bench: ns/op is a whole bpf(2) call, body-ns what the program
// itself takes in it.
func bench(b *testing.B, p *program, in input) {
	if ret, _ := p.ask(b, &in); ret != 0 {
		b.Fatalf("answer %d", ret)
	}
	out := &p.slots[0].Out
	for b.Loop() {
		out.NExtents = 0
		p.call(b)
	}
	b.StopTimer()
	c, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return
	}
	defer c.Close()
	const n = 2000
	for range n {
		out.NExtents = 0
		p.call(b)
	}
	if s, err := p.Stats(); err == nil && s.RunCount > 0 {
		b.ReportMetric(float64(s.Runtime.Nanoseconds())/float64(s.RunCount), "body-ns")
	}
}

func BenchmarkRedact(b *testing.B) {
	for _, n := range []int{1, 100, 1 << 20} {
		b.Run(fmt.Sprintf("ranges=%d", n), func(b *testing.B) {
			v := make([]span, n)
			for i := range v {
				v[i] = span{uint64(i)*100 + 10, 20}
			}
			p := loadBig(b, "redact", "ranges", v, nil)
			in := input{Size: uint64(n) * 100, Offset: uint64(n) * 50}
			if n == 1 {
				in.Offset = 0
			}
			bench(b, p, in)
		})
	}
}

// A pattern that fails late, everywhere in a name of this one letter.
var worst = "*" + strings.Repeat("a", 61) + "ba"

func BenchmarkGlob(b *testing.B) {
	fill := func(n int, p string) (ps []string) {
		for range n {
			ps = append(ps, p)
		}
		return ps
	}
	for _, c := range []struct {
		what     string
		patterns []string
		name     string
	}{
		{"none", nil, "server.key"},
		{"suffix", []string{"*.key"}, "server.key"},
		{"32suffixes", fill(32, "*.key"), "server.crt"},
		{"32literals", fill(32, "id_rsa"), "server.crt"},
		{"contains", []string{"*secret*"}, "quite-an-ordinary-name.txt"},
		{"set", []string{"*.[ch]"}, "server.crt"},
		{"worst", []string{worst}, strings.Repeat("a", 255)},
		{"32worst", fill(32, worst), strings.Repeat("a", 255)},
	} {
		b.Run(c.what, func(b *testing.B) {
			in := input{Size: 1}
			in.setName(c.name)
			bench(b, newMatcher(b, c.patterns...).program, in)
		})
	}
}

func BenchmarkPrepend(b *testing.B) {
	for _, part := range []uint32{0, 1} {
		b.Run(fmt.Sprintf("part=%d", part), func(b *testing.B) {
			bench(b, load(b, "prepend", vars{"prefix_len": uint64(4096), "prefix_part": part}, nil), input{Size: 1, Layer: 1})
		})
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, n := range []int{1, 100, 1 << 20} {
		b.Run(fmt.Sprintf("table=%d", n), func(b *testing.B) {
			v := make([]extent, n)
			for i := range v {
				v[i] = extent{uint64(i) * 4096, 4096, 0, backing, part0}
			}
			p := loadBig(b, "split", "table", v, vars{"total": uint64(n) * 4096})
			bench(b, p, input{Layer: 1, Offset: uint64(n/2) * 4096})
		})
	}
}

func BenchmarkSelect(b *testing.B) {
	for _, c := range []struct {
		what string
		n    int
		c    clause
		name string
	}{
		{"1", 1, clause{Pattern: mkPattern(".*"), Action: actHide}, "Makefile"},
		{"64", 64, clause{Pattern: mkPattern("*.key"), Action: actHide}, "server.crt"},
		{"64callers", 64, clause{Pattern: mkPattern("*.key"), Action: actHide, Flags: hasUID, UIDLo: 5, UIDHi: 5}, "server.crt"},
		{"64worst", 64, clause{Pattern: mkPattern(worst), Action: actHide}, strings.Repeat("a", 255)},
	} {
		b.Run(c.what, func(b *testing.B) {
			a := arrays{"clauses": nil}
			for range c.n {
				a["clauses"] = append(a["clauses"], c.c)
			}
			in := input{Op: opLookup, Layers: 2}
			in.setName(c.name)
			bench(b, load(b, "select", vars{"n_clauses": uint32(c.n)}, a), in)
		})
	}
}
