// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/bpf/internal/location"
	"github.com/plyfs/plyfs/stack"
)

// policyHead begins the policies of the tests. The budget is large, for the
// machine that runs them may be busy.
const policyHead = "version: 1\nbudget: 1s\nrules:\n"

// quiet logs to nowhere: the tests provoke what is logged.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// tryPolicy loads a policy file of the rules.
func tryPolicy(t testing.TB, opt Options, rules string) (*Policy, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	writeFile(t, file, policyHead+rules)
	if opt.Logger == nil {
		opt.Logger = quiet
	}
	p, err := LoadFile(file, opt)
	skipUnprivileged(t, err)
	return p, err
}

// mustPolicy is tryPolicy; the test's end closes.
func mustPolicy(t testing.TB, opt Options, rules string) *Policy {
	t.Helper()
	p, err := tryPolicy(t, opt, rules)
	if err != nil {
		t.Fatalf("%v\n%s", err, rules)
	}
	t.Cleanup(p.Close)
	return p
}

func writeFile(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ruleText is the text of a rule.
func ruleText(place, program string, more ...string) string {
	s := fmt.Sprintf("  - path: %s\n    program: %s\n", place, program)
	for _, m := range more {
		if m != "" {
			s += "    " + m + "\n"
		}
	}
	return s
}

// The sections of testdata/script.c.
const (
	someLookup  = 0x003
	someReaddir = 0x00c
	someGetattr = 0x030
	someOpen    = 0x0c0
	someRead    = 0x300
	someWrite   = 0xc00
	allPre      = 0x555
	allPost     = 0xaaa
)

// script compiles testdata/script.c with some sections.
func script(t testing.TB, sections int, flags ...string) string {
	t.Helper()
	return build(t, "script.c", append(flags, fmt.Sprintf("-DSECTIONS=%#x", sections))...)
}

// scripted is a policy of one such object for the whole mount.
func scripted(t testing.TB, opt Options, object string, more ...string) *Policy {
	t.Helper()
	return mustPolicy(t, opt, ruleText("/", object, append(more, "name: it")...))
}

// Lines of the script besides those of op and phase.
const (
	lineLater   = 16
	lineHandled = 32
)

// reply is what a line of the script answers.
type reply struct {
	action int32
	byUID  bool // the action is -(uid & 255)
	out    output
}

func line(o op, ph phase, add int) uint32 { return uint32(o)*2 + uint32(ph) - 1 + uint32(add) }

// say writes a line of the script of the only rule.
func say(t testing.TB, p *Policy, o op, ph phase, add int, r reply) {
	t.Helper()
	sayTo(t, p.rules[0], o, ph, add, r)
}

func sayTo(t testing.TB, r *rule, o op, ph phase, add int, what reply) {
	t.Helper()
	const head = unsafe.Offsetof(what.out.Data)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.NativeEndian, []int32{what.action, int32(flagIf(what.byUID, 1))})
	b.Write((*[head]byte)(unsafe.Pointer(&what.out))[:])
	if err := r.progs.maps["script"].Put(line(o, ph, add), b.Bytes()); err != nil {
		t.Fatal(err)
	}
}

// asked is how often a line was asked, and about what the last time.
func asked(t testing.TB, p *Policy, o op, ph phase, add int) (times uint64, in input) {
	t.Helper()
	var b []byte
	if err := p.rules[0].progs.maps["asked"].Lookup(line(o, ph, add), &b); err != nil {
		t.Fatal(err)
	}
	copy((*[unsafe.Sizeof(in)]byte)(unsafe.Pointer(&in))[:], b[8:])
	return binary.NativeEndian.Uint64(b), in
}

func nameOf(place string) stack.NameQuery {
	return stack.NameQuery{Place: place, Name: path.Base(place), Type: unix.S_IFREG, Layer: 1, Holders: 0b110, Layers: 3,
		Mode: unix.S_IFREG | 0o644, Size: 10, Parent: 2}
}

func listed(place string) stack.NameQuery {
	return stack.NameQuery{Place: place, Name: path.Base(place), Type: unix.S_IFREG, Layer: -1, Layers: 3, Listing: true, Parent: 2}
}

func fileOf(place string, size int64) stack.FileQuery {
	return stack.FileQuery{Place: place, Name: path.Base(place), Parent: 2, Ino: 9, Size: size, Mtime: 77,
		Mode: unix.S_IFREG | 0o644, Layer: 1, Holders: 0b110, Layers: 3, Caller: stack.Nobody}
}

func attrOf(place string) stack.AttrQuery {
	return stack.AttrQuery{Place: place, Ino: 9, Mode: unix.S_IFREG | 0o644, Size: 10, Mtime: 77, Layer: 1}
}

func dataOf(place string, write bool) stack.DataQuery {
	q := stack.DataQuery{FileQuery: fileOf(place, 100), Off: 40, Len: 5}
	q.Write = write
	return q
}

// mustFile is an answer without an error. What plan it has is released at the
// end.
func mustFile(t testing.TB, p *Policy, q stack.FileQuery) stack.FileAnswer {
	t.Helper()
	a := p.File(q)
	if a.Errno != 0 {
		t.Fatalf("%s: %v; %v", q.Place, a.Errno, p.Status().LastErrors)
	}
	if a.Plan != nil {
		t.Cleanup(a.Plan.Release)
	}
	return a
}

// wantWrong expects so many wrong answers, and none on another program.
func wantWrong(t testing.TB, p *Policy, section string, want uint64) {
	t.Helper()
	if s := p.Status(); s.WrongAnswers != want {
		t.Errorf("%d wrong answers, want %d: %v", s.WrongAnswers, want, s.LastErrors)
	}
	for _, q := range p.rules[0].progs.snapshot().Programs {
		if q.Section != section && q.Wrong != 0 {
			t.Errorf("%d wrong answers of %s, want none but of %s", q.Wrong, q.Section, section)
		}
	}
}

// testHandler finds what a test says, and keeps what it was asked.
type testHandler struct {
	mu         sync.Mutex
	calls      []HandlerCall
	ranges     []location.Range
	pre, post  error
	serveError error
}

func init() { handlers["test"] = func(*Policy) Handler { return new(testHandler) } }

func (h *testHandler) called(c *HandlerCall) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, *c)
}

func (h *testHandler) Prefilter(c *HandlerCall) error {
	h.called(c)
	c.Hints = h.ranges
	return h.pre
}

func (h *testHandler) Postfilter(c *HandlerCall) error {
	h.called(c)
	return h.post
}

func (h *testHandler) Serve(c *HandlerCall, b []byte, off int64) error {
	h.called(c)
	for i := range b {
		b[i] = byte(off) + byte(i)
	}
	return h.serveError
}

// handlerOf is the handler of the only rule.
func handlerOf(p *Policy) *testHandler { return p.rules[0].handler.(*testHandler) }
