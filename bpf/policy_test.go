// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/plyfs/plyfs/bpf/internal/location"
	"github.com/plyfs/plyfs/stack"
	"golang.org/x/sys/unix"
)

// ---- helpers: policies -----------------------------------------------------

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

// ---- helpers: the script ---------------------------------------------------

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

// ---- helpers: questions ----------------------------------------------------

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

// ---- helpers: a handler ----------------------------------------------------

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

// ---- which rule ------------------------------------------------------------

// The nearest place wins, in each set for itself; what is set there hides what
// is set above.
func TestNearestRule(t *testing.T) {
	names, files, both := script(t, someLookup), script(t, someOpen), script(t, someReaddir|someRead)
	p := mustPolicy(t, Options{}, ruleText("/", both, "name: root")+
		ruleText("/a", names, "name: names")+
		ruleText("/a/b", files, "name: files")+
		ruleText("/a/b/f", names, "name: one")+
		ruleText("/ab", both, "name: neighbour"))
	for place, want := range map[string][2]string{
		"/":        {"root", "root"},
		"/x/y/z":   {"root", "root"},
		"/a":       {"names", "root"},
		"/a/x":     {"names", "root"},
		"/a/b":     {"names", "files"},
		"/a/b/c/d": {"names", "files"},
		"/a/b/f":   {"one", "files"},
		"/a/b/f/g": {"one", "files"},
		"/a/b/ff":  {"names", "files"},
		"/ab/x":    {"neighbour", "neighbour"},
		"/abc":     {"root", "root"},
	} {
		var got []string
		for _, s := range p.Rules(place) {
			name, _, _ := strings.Cut(s, " (line")
			got = append(got, name)
		}
		if expect := []string{"inode: " + want[0], "file: " + want[1]}; !slices.Equal(got, expect) {
			t.Errorf("%s: %v, want %v", place, got, expect)
		}
	}
}

// What a place has nothing to say about is said above it.
func TestNearestEmpty(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/a", script(t, someOpen)))
	if s := p.Scope("/b"); s != (stack.Scope{}) {
		t.Errorf("%+v", s)
	}
	if a := p.Name(nameOf("/a/x")); a != (stack.NameAnswer{}) {
		t.Errorf("%+v", a)
	}
	if a := p.File(fileOf("/b", 1)); a.Plan != nil || a.Errno != 0 || a.Rule != "" {
		t.Errorf("%+v", a)
	}
	if a := p.Attr(attrOf("/b")); a != (stack.AttrAnswer{}) {
		t.Errorf("%+v", a)
	}
	if a := p.Data(dataOf("/b", false)); a.Errno != 0 || a.Window != nil || a.Again != 0 {
		t.Errorf("%+v", a)
	}
}

// Of the rules of one place, the first whose match fits has the say: about the
// bytes, and so about the size, too.
func TestRuleOrder(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "match: [\"a*\", \"b*\"]", "ranges: [\"0+4\"]", "name: zeros")+
		ruleText("/", "prepend", "match: [\"b*\", \"c*\"]", "text: \"12345\"", "name: text")+
		ruleText("/", "redact", "match: \"*\"", "whole: true", "name: rest"))
	for name, want := range map[string]struct {
		rule string
		size int64
	}{"a1": {"zeros", 100}, "b1": {"zeros", 100}, "c1": {"text", 105}, "d1": {"rest", 100}} {
		q := fileOf("/"+name, 100)
		a := mustFile(t, p, q)
		if got, _, _ := strings.Cut(a.Rule, " "); got != want.rule || a.Plan == nil || a.Plan.Size != want.size {
			t.Errorf("%s: %+v, want %+v", name, a, want)
		}
		if got := statSize(t, p, q); got != want.size {
			t.Errorf("%s: stat says %d bytes, open %d", name, got, want.size)
		}
	}
}

// statSize is the size that is shown to those who do not open a file.
func statSize(t testing.TB, p *Policy, q stack.FileQuery) int64 {
	t.Helper()
	q.AttrOnly, q.Data = true, nil
	a := mustFile(t, p, q)
	if a.Plan == nil {
		return q.Size
	}
	return a.Plan.Size
}

// ---- scope -----------------------------------------------------------------

func TestScope(t *testing.T) {
	for _, c := range []struct {
		sections int
		want     stack.Scope
	}{
		{0x001, stack.Scope{Names: true}},
		{0x002, stack.Scope{Names: true}},
		{0x004, stack.Scope{Names: true}},
		{0x008, stack.Scope{Names: true}},
		{0x010, stack.Scope{Attrs: true}},
		{0x020, stack.Scope{Attrs: true}},
		{0x040, stack.Scope{Files: true}},
		{0x080, stack.Scope{Files: true}},
		{0x100, stack.Scope{Files: true, Reads: true}},
		{0x200, stack.Scope{Files: true, Reads: true}},
		{0x400, stack.Scope{Files: true, Writes: true}},
		{0x800, stack.Scope{Files: true, Writes: true}},
		{0xfff, stack.Scope{Names: true, Attrs: true, Files: true, Reads: true, Writes: true}},
	} {
		if got := scripted(t, Options{}, script(t, c.sections)).Scope("/x/y"); got != c.want {
			t.Errorf("sections %#x: %+v, want %+v", c.sections, got, c.want)
		}
		want := c.want
		want.NamesByCaller, want.FilesByCaller = want.Names, want.Files
		if got := scripted(t, Options{}, script(t, c.sections, "-DCALLER")).Scope("/x/y"); got != want {
			t.Errorf("sections %#x, by caller: %+v, want %+v", c.sections, got, want)
		}
	}
}

func TestScopeBelow(t *testing.T) {
	byUID := "clauses: [{match: \"*\", uid: 5, hide: true}]"
	all := "clauses: [{match: \"*.x\", hide: true}]"
	p := mustPolicy(t, Options{}, ruleText("/a/b", "select", all)+ruleText("/a/b/c", "redact", "whole: true")+
		ruleText("/d/e", "select", byUID)+ruleText("/de", "redact", "whole: true"))
	type below struct{ any, byCaller bool }
	for place, want := range map[string]below{
		"/": {true, true}, "/a": {true, false}, "/a/b": {true, false}, "/a/b/c": {}, "/a/bb": {},
		"/d": {true, true}, "/d/e": {}, "/de": {}, "/e": {}, "/d/e/f": {},
	} {
		if s := p.Scope(place); (below{s.Below, s.BelowByCaller}) != want {
			t.Errorf("%s: %+v, want %+v", place, s, want)
		}
	}
	if s := p.Scope("/d/e/f"); !s.Names || !s.NamesByCaller {
		t.Errorf("%+v", s)
	}
	if s := p.Scope("/a/b/x"); !s.Names || s.NamesByCaller {
		t.Errorf("select without ids: %+v", s)
	}
}

// ---- who asks --------------------------------------------------------------

// An object sees who asks only if it says PLY_CALLER, and attributes are shown
// to everybody in any case.
func TestCaller(t *testing.T) {
	who := stack.Caller{UID: 42, GID: 43, PID: 44}
	for flag, want := range map[string]stack.Caller{"-DX": stack.Nobody, "-DCALLER": who} {
		p := scripted(t, Options{}, script(t, 0xfff, flag))
		for o := opLookup; o <= opWrite; o++ {
			say(t, p, o, pre, 0, reply{byUID: true})
		}
		n, l, f, d := nameOf("/x"), listed("/x"), fileOf("/x", 10), dataOf("/x", true)
		n.Caller, l.Caller, f.Caller, d.Caller = who, who, who, who
		errnos := map[op]syscall.Errno{opLookup: p.Name(n).Errno, opReaddir: p.Name(l).Errno, opOpen: p.File(f).Errno,
			opWrite: p.Data(d).Errno, opGetattr: p.Attr(attrOf("/x")).Errno}
		for o, got := range errnos {
			expect := want
			if o == opGetattr {
				expect = stack.Nobody
			}
			_, in := asked(t, p, o, pre, 0)
			if got != syscall.Errno(expect.UID&255) || in.UID != expect.UID || in.GID != expect.GID || in.PID != expect.PID {
				t.Errorf("%s, op %d: errno %d, asked as %d %d %d, want %+v", flag, o, got, in.UID, in.GID, in.PID, expect)
			}
		}
	}
}

// ---- what a program sees ---------------------------------------------------

func TestInputs(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0xfff))
	n := nameOf("/d/name")
	p.Name(n)
	if _, in := asked(t, p, opLookup, pre, 0); in.Op != uint32(opLookup) || in.Phase != uint32(pre) || in.Parent != 2 ||
		in.Layers != 0b110 || in.Layer != 1 || in.NLayers != 3 || in.Mode != n.Mode || in.Size != 10 || in.Ino != 0 ||
		string(in.Name[:in.NameLen+1]) != "name\x00" {
		t.Errorf("%+v", in)
	}
	p.Name(listed("/d/name"))
	if _, in := asked(t, p, opReaddir, pre, 0); in.Op != uint32(opReaddir) || in.Layers != 0 || in.Layer != 0 ||
		in.Mode != unix.S_IFREG || in.Size != 0 {
		t.Errorf("%+v", in)
	}
	f := fileOf("/d/name", 1000)
	f.Write, f.CopyUp, f.Copied = true, true, true
	p.File(f)
	if _, in := asked(t, p, opOpen, pre, 0); in.Flags != inWrite|inCopyUp|inCopied || in.Ino != 9 || in.Size != 1000 ||
		in.Length != 1000 || in.Offset != 0 || in.Mtime != 77 {
		t.Errorf("%+v", in)
	}
	p.Attr(attrOf("/d/name"))
	if _, in := asked(t, p, opGetattr, pre, 0); in.Ino != 9 || in.Size != 10 || in.Mtime != 77 || in.Layer != 1 || string(in.Name[:in.NameLen]) != "name" {
		t.Errorf("%+v", in)
	}
	p.Data(dataOf("/d/name", false))
	if _, in := asked(t, p, opRead, pre, 0); in.Offset != 40 || in.Length != 5 || in.Flags != 0 {
		t.Errorf("%+v", in)
	}
}

// A name of 255 bytes arrives whole.
func TestLongName(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x001))
	name := strings.Repeat("n", 255)
	p.Name(nameOf("/" + name))
	if _, in := asked(t, p, opLookup, pre, 0); string(in.Name[:in.NameLen]) != name || in.Name[255] != 0 {
		t.Errorf("%d bytes", in.NameLen)
	}
}

// A listing asks the readdir program, or else lookup's, with op READDIR.
func TestListingAsks(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x001))
	say(t, p, opLookup, pre, 0, reply{out: output{Flags: outHide}})
	if a := p.Name(listed("/x")); !a.Hide {
		t.Errorf("%+v", a)
	}
	if n, in := asked(t, p, opLookup, pre, 0); n != 1 || in.Op != uint32(opReaddir) {
		t.Errorf("asked %d times, op %d", n, in.Op)
	}
	both := scripted(t, Options{}, script(t, 0x005))
	say(t, both, opLookup, pre, 0, reply{out: output{Flags: outHide}})
	if a := both.Name(listed("/x")); a != (stack.NameAnswer{}) {
		t.Errorf("%+v", a)
	}
	if a := both.Name(nameOf("/x")); !a.Hide {
		t.Errorf("%+v", a)
	}
}

// The readdir program that sees the answer is asked after lookup's, too.
func TestListingAsksPost(t *testing.T) {
	for _, sections := range []int{0x009, 0x00d, 0x00f} {
		p := scripted(t, Options{}, script(t, sections))
		for _, o := range []op{opLookup, opReaddir} {
			say(t, p, o, pre, 0, reply{action: actPostfilter})
		}
		say(t, p, opReaddir, post, 0, reply{action: -1})
		if a := p.Name(listed("/x")); a.Errno != syscall.EPERM {
			t.Errorf("sections %#x: %+v; %v", sections, a, p.Status().LastErrors)
		}
		if n, in := asked(t, p, opReaddir, post, 0); n != 1 || in.Op != uint32(opReaddir) || in.Phase != uint32(post) {
			t.Errorf("sections %#x: asked %d times, op %d, phase %d", sections, n, in.Op, in.Phase)
		}
	}
}

// ---- handlers: before ------------------------------------------------------

// A handler is asked once for a plan, however many windows that has, and each
// window shows the program what there is from its offset on.
func TestHandlerWindows(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "handler: test"))
	h := handlerOf(p)
	const count, size = 1000, 100_000
	for i := range int64(count) {
		h.ranges = append(h.ranges, location.Range{Off: 7 + i*100, Len: 1 + i%50})
	}
	q := fileOf("/image", size)
	q.Data = strings.NewReader("")
	plan := mustFile(t, p, q).Plan
	var zeros []location.Range
	windows := 0
	for at := int64(0); at < size; windows++ {
		w, err := plan.Window(at)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range w.Extents {
			if e.Off != at {
				t.Fatalf("an extent at %d follows the end %d", e.Off, at)
			}
			if at += e.Len; e.Kind == stack.ExtentZero {
				zeros = append(zeros, location.Range{Off: e.Off, Len: e.Len})
			}
		}
	}
	if !slices.Equal(zeros, h.ranges) {
		t.Errorf("%d ranges, want %d", len(zeros), count)
	}
	if windows < count/maxHints || len(h.calls) != 1 {
		t.Errorf("%d windows, the handler was asked %d times", windows, len(h.calls))
	}
	c := h.calls[0]
	if c.Section != "ply/file/open/pre" || c.Place != "/image" || c.Name != "image" || c.Size != size || c.Data == nil || !c.Lower || c.Ino != 9 || c.Mtime != 77 {
		t.Errorf("%+v", c)
	}
	wantWrong(t, p, "", 0)
}

// What the program is shown of hints: those that end behind the offset, cut
// there, and no more than there is room for.
func TestHints(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040), "handler: test")
	h := handlerOf(p)
	for i := range int64(20) {
		h.ranges = append(h.ranges, location.Range{Off: 10 + i*10, Len: 5})
	}
	say(t, p, opOpen, pre, 0, reply{action: actUserPrefilter})
	say(t, p, opOpen, pre, lineHandled, reply{out: oneExtent(0, 12)})
	say(t, p, opOpen, pre, lineLater+lineHandled, reply{out: oneExtent(12, 988)})
	plan := mustFile(t, p, fileOf("/x", 1000)).Plan
	_, in := asked(t, p, opOpen, pre, lineHandled)
	if in.NHints != maxHints || in.Hints[0] != (byteRange{10, 5}) || in.Hints[15] != (byteRange{160, 5}) {
		t.Errorf("%d hints %v", in.NHints, in.Hints)
	}
	if _, err := plan.Window(12); err != nil {
		t.Fatal(err)
	}
	_, in = asked(t, p, opOpen, pre, lineLater+lineHandled)
	if in.NHints != maxHints || in.Hints[0] != (byteRange{12, 3}) || in.Hints[15] != (byteRange{160, 5}) || in.Offset != 12 || in.Length != 988 {
		t.Errorf("%d hints %v", in.NHints, in.Hints)
	}
	if len(h.calls) != 1 {
		t.Errorf("the handler was asked %d times", len(h.calls))
	}
}

// oneExtent answers with one extent of the file itself.
func oneExtent(off, n uint64) (out output) {
	out.NExtents = 1
	out.Extents[0] = extent{Off: off, Len: n, Src: off, Backing: backingSelf}
	return out
}

// Asking for the handler after it was asked, or without one, is wrong.
func TestHandlerWrong(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040), "handler: test")
	say(t, p, opOpen, pre, 0, reply{action: actUserPrefilter})
	say(t, p, opOpen, pre, lineHandled, reply{action: actUserPrefilter})
	if a := p.File(fileOf("/x", 10)); a.Errno != syscall.EIO {
		t.Errorf("%+v", a)
	}
	wantWrong(t, p, "ply/file/open/pre", 1)
	without := scripted(t, Options{}, script(t, 0x540))
	for _, o := range []op{opOpen, opRead, opWrite} {
		say(t, without, o, pre, 0, reply{action: actUserPrefilter})
	}
	errnos := []syscall.Errno{without.File(fileOf("/x", 10)).Errno, without.Data(dataOf("/x", false)).Errno, without.Data(dataOf("/x", true)).Errno}
	for i, e := range errnos {
		if e != syscall.EIO {
			t.Errorf("%d: %v", i, e)
		}
	}
	if s := without.Status(); s.WrongAnswers != 3 || !strings.Contains(s.LastErrors[0], "the rule names none (handler: ") {
		t.Errorf("%+v", s)
	}
}

// A handler that fails is no wrong answer: EIO, and its words.
func TestHandlerFails(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "handler: test"))
	handlerOf(p).pre = errors.New("no such luck")
	if a := p.File(fileOf("/x", 10)); a.Errno != syscall.EIO {
		t.Errorf("%+v", a)
	}
	wantWrong(t, p, "", 0)
	if s := p.Status(); len(s.LastErrors) != 1 || !strings.Contains(s.LastErrors[0], "no such luck") {
		t.Errorf("%+v", s.LastErrors)
	}
}

// For its size alone a file is not searched: it does not change.
func TestHandlerAttrOnly(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040), "handler: test")
	say(t, p, opOpen, pre, 0, reply{action: actUserPrefilter})
	if size := statSize(t, p, fileOf("/x", 10)); size != 10 || len(handlerOf(p).calls) != 0 {
		t.Errorf("%d bytes, %+v", size, handlerOf(p).calls)
	}
}

// A program that asks for the handler in the middle of a file asks too late:
// the file cannot be searched any more, and must not be shown as if nothing
// had been found.
func TestHandlerLate(t *testing.T) {
	for _, name := range []string{"test", "image-location"} {
		p := scripted(t, Options{}, script(t, 0x040), "handler: "+name)
		say(t, p, opOpen, pre, 0, reply{out: oneExtent(0, 10)})
		say(t, p, opOpen, pre, lineLater, reply{action: actUserPrefilter})
		say(t, p, opOpen, pre, lineLater+lineHandled, reply{out: oneExtent(10, 90)})
		q := fileOf("/x", 100)
		q.Data = strings.NewReader(strings.Repeat("x", 100))
		plan := mustFile(t, p, q).Plan
		if w, err := plan.Window(10); err == nil {
			t.Errorf("%s: %+v", name, w)
		}
		wantWrong(t, p, "ply/file/open/pre", 1)
	}
}

// countingReader counts reads.
type countingReader struct {
	r     io.ReaderAt
	reads int
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	c.reads++
	return c.r.ReadAt(b, off)
}

// An image in a lower layer is searched once, while it stays what it is; one
// in upper each time.
func TestFoundCache(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "handler: image-location"))
	data := &countingReader{r: strings.NewReader("no image, and longer than the head of one")}
	for _, c := range []struct {
		what     string
		change   func(*stack.FileQuery)
		searched bool
	}{
		{"first", func(*stack.FileQuery) {}, true},
		{"again", func(*stack.FileQuery) {}, false},
		{"another mtime", func(q *stack.FileQuery) { q.Mtime++ }, true},
		{"another size", func(q *stack.FileQuery) { q.Size-- }, true},
		{"another inode", func(q *stack.FileQuery) { q.Ino++ }, true},
		{"in upper", func(q *stack.FileQuery) { q.Layer = 0 }, true},
		{"in upper again", func(q *stack.FileQuery) { q.Layer = 0 }, true},
		{"the first, still", func(*stack.FileQuery) {}, false},
	} {
		q := fileOf("/image", 41)
		q.Data = data
		c.change(&q)
		data.reads = 0
		if a := p.File(q); a.Errno != 0 || a.Plan != nil || (data.reads > 0) != c.searched {
			t.Errorf("%s: %+v, %d reads", c.what, a, data.reads)
		}
	}
}

// What was found is remembered up to a number of ranges, and damage is not.
func TestFoundCacheBounds(t *testing.T) {
	var f foundCache
	f.put(foundKey{1, 1, 1}, make([]location.Range, foundMax-2))
	if _, ok := f.get(foundKey{1, 1, 1}); !ok || f.n != foundMax-1 {
		t.Error(f.n)
	}
	f.put(foundKey{2, 1, 1}, make([]location.Range, 1))
	if _, ok := f.get(foundKey{1, 1, 1}); ok || f.n != 2 {
		t.Errorf("%d", f.n)
	}
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "handler: image-location"))
	damaged := "II*\x00\xff\xff\xff\x7f\x00\x00\x00\x00\x00\x00\x00\x00"
	for range 2 {
		q := fileOf("/image", int64(len(damaged)))
		q.Data = strings.NewReader(damaged)
		if a := p.File(q); a.Errno != syscall.EIO {
			t.Errorf("%+v", a)
		}
	}
	if len(p.found.m) != 0 {
		t.Error("damage was remembered")
	}
}

// ---- after -----------------------------------------------------------------

// opCase is how an op is asked about from its beginning to its end.
type opCase struct {
	name string
	op   op
	ask  func(p *Policy) syscall.Errno
}

var opCases = []opCase{
	{"lookup", opLookup, func(p *Policy) syscall.Errno {
		q := nameOf("/x")
		a := p.Name(q)
		if a.Errno != 0 || a.Again == 0 {
			return a.Errno
		}
		q.After, q.Ino = a.Again, 9
		return p.Name(q).Errno
	}},
	{"readdir", opReaddir, func(p *Policy) syscall.Errno { return p.Name(listed("/x")).Errno }},
	{"getattr", opGetattr, func(p *Policy) syscall.Errno { return p.Attr(attrOf("/x")).Errno }},
	{"open", opOpen, func(p *Policy) syscall.Errno {
		a := p.File(fileOf("/x", 100))
		if a.Plan != nil {
			a.Plan.Release()
		}
		return a.Errno
	}},
	{"read", opRead, func(p *Policy) syscall.Errno { return askData(p, false) }},
	{"write", opWrite, func(p *Policy) syscall.Errno { return askData(p, true) }},
}

func askData(p *Policy, write bool) syscall.Errno {
	q := dataOf("/x", write)
	a := p.Data(q)
	if a.Errno != 0 || a.Again == 0 {
		return a.Errno
	}
	q.After, q.Data = a.Again, []byte("bytes")
	return p.Data(q).Errno
}

// What follows an operation, by what the program before it answered.
func TestPostfilter(t *testing.T) {
	whole, onlyPre, onlyPost := script(t, 0xfff), script(t, allPre), script(t, allPost)
	for _, c := range opCases {
		for _, s := range []struct {
			what      string
			object    string
			handler   string
			pre, post int32
			fail      error
			want      syscall.Errno
			postAsked uint64
			handled   int
			wrong     phase
		}{
			{what: "continue", object: whole, post: -1},
			{what: "user", object: whole, pre: actUser, post: -1},
			{what: "errno", object: whole, pre: -13, post: -1, want: 13},
			{what: "largest errno", object: whole, pre: -511, want: 511},
			{what: "postfilter", object: whole, pre: actPostfilter, postAsked: 1},
			{what: "refused", object: whole, pre: actPostfilter, post: -1, want: 1, postAsked: 1},
			{what: "post says postfilter", object: whole, pre: actPostfilter, post: actPostfilter, want: syscall.EIO, postAsked: 1, wrong: post},
			{what: "post says user", object: whole, pre: actPostfilter, post: actUser, want: syscall.EIO, postAsked: 1, wrong: post},
			{what: "post says prefilter", object: whole, pre: actPostfilter, post: actUserPrefilter, want: syscall.EIO, postAsked: 1, wrong: post},
			{what: "post alone", object: onlyPost, post: -1, want: 1, postAsked: 1},
			{what: "no post program", object: onlyPre, pre: actPostfilter, want: syscall.EIO, wrong: pre},
			{what: "no handler", object: whole, pre: actUserPostfilter, want: syscall.EIO, wrong: pre},
			{what: "handler", object: whole, handler: "handler: test", pre: actUserPostfilter, post: -1, handled: 1},
			{what: "handler fails", object: whole, handler: "handler: test", pre: actUserPostfilter, fail: io.EOF, want: syscall.EIO, handled: 1},
		} {
			t.Run(c.name+"/"+s.what, func(t *testing.T) {
				more := []string{}
				if s.handler != "" {
					more = append(more, s.handler)
				}
				p := scripted(t, Options{}, s.object, more...)
				if s.object != onlyPost {
					say(t, p, c.op, pre, 0, reply{action: s.pre})
				}
				say(t, p, c.op, post, 0, reply{action: s.post})
				if s.handler != "" {
					handlerOf(p).post = s.fail
				}
				if got := c.ask(p); got != s.want {
					t.Errorf("errno %v, want %v; %v", got, s.want, p.Status().LastErrors)
				}
				n, in := asked(t, p, c.op, post, 0)
				if n != s.postAsked || n > 0 && (in.Phase != uint32(post) || in.Op != uint32(c.op)) {
					t.Errorf("the post program was asked %d times, want %d (op %d, phase %d)", n, s.postAsked, in.Op, in.Phase)
				}
				if s.handler != "" {
					wantHandled(t, p, c.op, s.handled)
				}
				if s.wrong == 0 {
					wantWrong(t, p, "", 0)
				} else {
					wantWrong(t, p, progKey{c.op, s.wrong}.String(), 1)
				}
				if refs := p.refs.Load(); refs != 1 {
					t.Errorf("%d uses of the policy are left", refs)
				}
			})
		}
	}
}

func wantHandled(t *testing.T, p *Policy, o op, want int) {
	t.Helper()
	calls := handlerOf(p).calls
	if len(calls) != want {
		t.Fatalf("the handler was asked %d times, want %d", len(calls), want)
	}
	for _, c := range calls {
		if c.Section != (progKey{o, post}).String() || c.Place != "/x" || c.Name != "x" {
			t.Errorf("%+v", c)
		}
		if (o == opRead || o == opWrite) && (string(c.Bytes) != "bytes" || c.Off != 40) {
			t.Errorf("%+v", c)
		}
	}
}

// What a post program sees.
func TestPostInputs(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0xfff))
	hide := output{Flags: outHide}
	say(t, p, opLookup, pre, 0, reply{action: actPostfilter, out: hide})
	say(t, p, opReaddir, pre, 0, reply{action: actPostfilter, out: hide})
	for o, q := range map[op]stack.NameQuery{opLookup: nameOf("/x"), opReaddir: listed("/x")} {
		a := p.Name(q)
		if _, in := asked(t, p, o, post, 0); !a.Hide || a.Again != 0 || in.Error != -int32(unix.ENOENT) {
			t.Errorf("op %d: %+v, error %d", o, a, in.Error)
		}
	}
	out := output{Flags: outSize, Size: 7, NExtents: 1}
	out.Extents[0] = extent{Len: 7, Kind: extZero}
	say(t, p, opOpen, pre, 0, reply{action: actPostfilter, out: out})
	mustFile(t, p, fileOf("/x", 100))
	if _, in := asked(t, p, opOpen, post, 0); in.Size != 7 {
		t.Errorf("open/post saw a size of %d", in.Size)
	}
	statSize(t, p, fileOf("/x", 100))
	if n, _ := asked(t, p, opOpen, post, 0); n != 1 {
		t.Errorf("open/post was asked %d times, though once something was opened", n)
	}
	say(t, p, opRead, pre, 0, reply{action: actPostfilter})
	q := dataOf("/x", false)
	q.After, q.Data, q.Len = actPostfilter, bytes.Repeat([]byte("d"), 1000), 1000
	p.Data(q)
	if _, in := asked(t, p, opRead, post, 0); in.NameLen != nameMax || in.Name[0] != 'd' || in.Name[255] != 'd' || in.Length != 1000 {
		t.Errorf("read/post saw %d bytes", in.NameLen)
	}
}

// What getattr/post sets goes in the place of what getattr/pre set.
func TestAttr(t *testing.T) {
	p := scripted(t, Options{}, script(t, someGetattr))
	say(t, p, opGetattr, pre, 0, reply{out: output{Flags: outMode, ModeClear: 0o022}})
	if a := p.Attr(attrOf("/x")); a != (stack.AttrAnswer{ClearMode: 0o022}) {
		t.Errorf("%+v", a)
	}
	say(t, p, opGetattr, pre, 0, reply{action: actPostfilter, out: output{Flags: outMode, ModeClear: 0o022}})
	say(t, p, opGetattr, post, 0, reply{out: output{Flags: outMtime, Mtime: 5, ModeClear: 1}})
	if a := p.Attr(attrOf("/x")); a != (stack.AttrAnswer{SetMtime: true, Mtime: 5}) {
		t.Errorf("%+v", a)
	}
}

// A read program's extents are for the read alone.
func TestReadWindow(t *testing.T) {
	p := scripted(t, Options{}, script(t, someRead))
	say(t, p, opRead, pre, 0, reply{out: oneExtent(40, 5)})
	a := p.Data(dataOf("/x", false))
	if a.Errno != 0 || a.Again != 0 || a.Window == nil || len(a.Window.Extents) != 1 ||
		a.Window.Extents[0] != (stack.Extent{Off: 40, Len: 5, Src: 40}) {
		t.Errorf("%+v", a)
	}
	say(t, p, opRead, pre, 0, reply{action: actPostfilter})
	if a := p.Data(dataOf("/x", false)); a.Window != nil || a.Again != actPostfilter {
		t.Errorf("%+v", a)
	}
}

// PLY_EXT_SERVER is the handler's.
func TestServe(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040), "handler: test")
	out := output{NExtents: 1}
	out.Extents[0] = extent{Len: 100, Kind: extServer}
	say(t, p, opOpen, pre, 0, reply{out: out})
	plan := mustFile(t, p, fileOf("/x", 100)).Plan
	b := make([]byte, 3)
	if err := plan.Serve(b, 50); err != nil || !bytes.Equal(b, []byte{50, 51, 52}) {
		t.Errorf("%v, %v", b, err)
	}
	if c := handlerOf(p).calls; len(c) != 1 || c[0].Place != "/x" {
		t.Errorf("%+v", c)
	}
	handlerOf(p).serveError = io.ErrUnexpectedEOF
	if err := plan.Serve(b, 0); err == nil {
		t.Error("the handler's error is lost")
	}
	none := scripted(t, Options{}, script(t, 0x040))
	say(t, none, opOpen, pre, 0, reply{out: out})
	if plan := mustFile(t, none, fileOf("/x", 100)).Plan; plan.Serve != nil {
		t.Error("somebody serves, though the rule names no handler")
	}
}

// ---- switched off ----------------------------------------------------------

// turnOff switches a rule's programs off.
func turnOff(r *rule) {
	why := "by the test"
	r.progs.budget.off.Store(&why)
}

// What was switched off fails all it is asked about, or says nothing more, as
// the policy has it; the options go before the file.
func TestFail(t *testing.T) {
	object := script(t, 0xfff)
	for _, c := range []struct {
		file, option string
		want         syscall.Errno
	}{
		{"", "", syscall.EIO},
		{"fail: closed\n", "", syscall.EIO},
		{"fail: open\n", "", 0},
		{"fail: open\n", FailClosed, syscall.EIO},
		{"", FailOpen, 0},
	} {
		file := filepath.Join(t.TempDir(), "policy.yaml")
		writeFile(t, file, c.file+policyHead+ruleText("/", object))
		p, err := LoadFile(file, Options{Fail: c.option, Logger: quiet})
		skipUnprivileged(t, err)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		turnOff(p.rules[0])
		for _, o := range opCases {
			for range 2 {
				if got := o.ask(p); got != c.want {
					t.Errorf("%+v: %s: %v", c, o.name, got)
				}
			}
		}
		if s := p.Status(); len(s.LastErrors) != 1 || s.Rules[0].Off != "by the test" || s.WrongAnswers != 0 {
			t.Errorf("%+v: %+v", c, s)
		}
		if got := p.Rules("/x"); !strings.Contains(got[0], "switched off") {
			t.Errorf("%v", got)
		}
	}
}

// In the middle of a file there is no "as if there were no program": what was
// shown so far may be of another size.
func TestSwitchedOffMidPlan(t *testing.T) {
	for _, fail := range []string{FailClosed, FailOpen} {
		p := scripted(t, Options{Fail: fail}, script(t, 0x040))
		say(t, p, opOpen, pre, 0, reply{out: oneExtent(0, 10)})
		say(t, p, opOpen, pre, lineLater, reply{out: oneExtent(10, 90)})
		plan := mustFile(t, p, fileOf("/x", 100)).Plan
		if _, err := plan.Window(10); err != nil {
			t.Fatal(err)
		}
		turnOff(p.rules[0])
		if w, err := plan.Window(10); err != syscall.EIO {
			t.Errorf("%s: %+v, %v", fail, w, err)
		}
		if _, err := plan.Window(0); err != nil {
			t.Errorf("%s: what is known is not: %v", fail, err)
		}
		wantWrong(t, p, "", 0)
	}
}

// The epoch changes when programs are switched off, so that what is kept is
// asked for anew.
func TestEpoch(t *testing.T) {
	object := script(t, 0x040)
	p := mustPolicy(t, Options{}, ruleText("/a", object)+ruleText("/b", object))
	seen := map[uint64]bool{p.Epoch(): true}
	for i, change := range []func(){
		func() { p.rules[0].progs.bumpEpoch() },
		func() { p.rules[1].progs.bumpEpoch() },
		func() { turnOff(p.rules[0]) },
		func() { turnOff(p.rules[1]) },
	} {
		change()
		if e := p.Epoch(); seen[e] {
			t.Errorf("change %d left the epoch, or brought an old one back: %d", i, e)
		} else {
			seen[e] = true
		}
		if e := p.Epoch(); !seen[e] {
			t.Error("the epoch changes by itself")
		}
	}
}

// A call that does not come back switches the programs off for those that
// follow it, and those of no other rule.
func TestWatch(t *testing.T) {
	object := script(t, 0x041)
	p := mustPolicy(t, Options{}, ruleText("/a", object)+ruleText("/b", object))
	progs := p.rules[0].progs
	k := progs.slots.take()
	defer progs.slots.give(k)
	progs.since[k].Store(int64(monotonic()))
	p.watchOnce()
	if a := p.File(fileOf("/a/x", 10)); a.Errno != 0 {
		t.Fatalf("a call under way is enough: %+v", a)
	}
	progs.since[k].Store(int64(monotonic() - 2*hangTime))
	p.watchOnce()
	before := p.Epoch()
	if a := p.File(fileOf("/a/x", 10)); a.Errno != syscall.EIO {
		t.Errorf("%+v", a)
	}
	if a := p.Name(nameOf("/a/x")); a.Errno != syscall.EIO {
		t.Errorf("%+v", a)
	}
	if a := p.File(fileOf("/b/x", 10)); a.Errno != 0 {
		t.Errorf("another rule's: %+v", a)
	}
	progs.since[k].Store(0)
	if after := p.Epoch(); after != before || !progs.budget.isOff() {
		t.Error("it was switched on again")
	}
	if s := p.Status(); !strings.Contains(s.Rules[0].Off, "has not returned") || s.Rules[1].Off != "" {
		t.Errorf("%+v", s.Rules)
	}
}

// A program over its budget is switched off by its first answer.
func TestPolicyBudget(t *testing.T) {
	p := mustPolicy(t, Options{Budget: 50 * time.Microsecond}, ruleText("/", build(t, "slow.c")))
	if s := p.Status(); s.BudgetNS != 50_000 {
		t.Errorf("budget %d", s.BudgetNS)
	}
	if a := p.File(fileOf("/x", 10)); a.Errno != syscall.EIO {
		t.Errorf("%+v", a)
	}
	if s := p.Status(); !strings.Contains(s.Rules[0].Off, "the budget is 0.05 ms") || len(s.LastErrors) != 1 {
		t.Errorf("%+v", s)
	}
}

// ---- the end of a policy ---------------------------------------------------

// Plans go on after Close; with the last of them all is freed.
func TestCloseWithPlans(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a"), "aaaa")
	writeFile(t, filepath.Join(dir, "b"), "bbbb")
	rules := ruleText("/", "redact", fmt.Sprintf("ranges: [%s]", manyRanges(100))) +
		ruleText("/split", "split", fmt.Sprintf("parts: [%s/a, %s/b]", dir, dir))
	if p, err := tryPolicy(t, Options{}, rules); err != nil { // what is opened once and kept
		t.Fatal(err)
	} else {
		p.Close()
	}
	before := fds(t)
	p, err := tryPolicy(t, Options{}, rules)
	if err != nil {
		t.Fatal(err)
	}
	var plans []*stack.Plan
	for range 10 {
		plans = append(plans, p.File(fileOf("/x", 10_000)).Plan, p.File(fileOf("/split", 1)).Plan)
	}
	p.Close()
	p.Close() // is once
	for i, plan := range plans {
		readWhole(t, plan)
		for _, part := range plan.Parts {
			b := make([]byte, 4)
			if n, err := unix.Pread(part.FD, b, 0); err != nil || n != 4 || string(b) != strings.Repeat(filepath.Base(part.Name), 4) {
				t.Fatalf("%q, %v", b, err)
			}
		}
		if fds(t) <= before {
			t.Fatalf("plan %d: something was freed while plans are left", i)
		}
		plan.Release()
		plan.Release() // is once
	}
	wantFDs(t, before)
	if a := p.File(fileOf("/x", 10_000)); a.Errno != syscall.EIO || a.Plan != nil {
		t.Errorf("a closed policy: %+v", a)
	}
	if e := p.Epoch(); e != 0 {
		t.Errorf("epoch %d", e)
	}
}

// manyRanges is n ranges of a byte, ten bytes apart.
func manyRanges(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("\"%d+1\"", i*10))
	}
	return strings.Join(list, ", ")
}

// readWhole asks for all windows of a plan.
func readWhole(t testing.TB, plan *stack.Plan) {
	t.Helper()
	for at := int64(0); at < plan.Size; {
		w, err := plan.Window(at)
		if err != nil || len(w.Extents) == 0 {
			t.Fatalf("at %d: %+v, %v", at, w, err)
		}
		last := w.Extents[len(w.Extents)-1]
		at = last.Off + last.Len
	}
}

// Closing while files are being opened leaves each plan whole or none.
func TestCloseRace(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a"), "aaaa")
	rules := ruleText("/", "split", fmt.Sprintf("parts: [%s/a]", dir))
	for range 20 {
		p, err := tryPolicy(t, Options{}, rules)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		started := make(chan bool, 8)
		for range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					a := p.File(fileOf("/x", 1))
					if i == 50 {
						started <- true
					}
					if a.Errno != 0 {
						return
					}
					if b := make([]byte, 4); len(a.Plan.Parts) != 1 {
						t.Error("a plan without its part")
					} else if _, err := unix.Pread(a.Plan.Parts[0].FD, b, 0); err != nil || string(b) != "aaaa" {
						t.Errorf("%q, %v", b, err)
					}
					a.Plan.Release()
				}
			})
		}
		<-started
		p.Close()
		wg.Wait()
	}
}

// ---- loading ---------------------------------------------------------------

// Errors say in which line of the policy file, and of which rule.
func TestLoadFileErrors(t *testing.T) {
	dir := t.TempDir()
	bad := build(t, "bad.c", "-DOUT_OF_BOUNDS")
	good := script(t, 0xfff)
	writeFile(t, filepath.Join(dir, "text"), "text")
	for _, c := range []struct{ what, rules, want string }{
		{"yaml", "  - path: /\n    program: nothing\n", "policy.yaml:5:"},
		{"object missing", ruleText("/", dir+"/none.o"), "policy.yaml:5"},
		{"refused", ruleText("/x", good) + ruleText("/", bad, "name: far"), "policy.yaml:6: rule far: "},
		{"no object", ruleText("/", dir+"/text", "name: it"), "policy.yaml:4: rule it: "},
		{"parameter", ruleText("/", good, "name: it", "params: {none: 1}"), "policy.yaml:4: rule it: "},
		{"map", ruleText("/", good, "name: it", "maps:", "  nothing: {1: 2}"), "rule it: line 8: "},
		{"entry", ruleText("/", good, "name: it", "maps:", "  script: {0: 5}"), "rule it: line 8: "},
		{"empty part", ruleText("/", "split", "parts: ["+dir+"/empty]", "name: it"), "rule it"},
		{"no base", ruleText("/f", "split", "patches: [{offset: 0, file: "+dir+"/text}]", "size: 10", "name: it"), "rule it"},
	} {
		writeFile(t, filepath.Join(dir, "empty"), "")
		before := fds(t)
		p, err := tryPolicy(t, Options{}, c.rules)
		if err == nil {
			p.Close()
			t.Errorf("%s: no error", c.what)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "policy.yaml:") {
			t.Errorf("%s: %q has no %q", c.what, err, c.want)
		}
		wantFDs(t, before)
	}
}

// A verifier's refusal comes out as such, with its log.
func TestLoadFileRefusal(t *testing.T) {
	_, err := tryPolicy(t, Options{}, ruleText("/", build(t, "bad.c", "-DOUT_OF_BOUNDS")))
	var refusal *VerifierRefusal
	if !errors.As(err, &refusal) || len(refusal.Log) == 0 {
		t.Errorf("%v", err)
	}
}

// A file that is written through the mount is no file of the policy.
func TestWritten(t *testing.T) {
	written := t.TempDir()
	if err := os.MkdirAll(filepath.Join(written, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(written, "sub", "part")
	writeFile(t, part, "part")
	outside := t.TempDir()
	link := filepath.Join(outside, "link")
	if err := os.Symlink(part, link); err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(written, "sub", "object.o")
	data, err := os.ReadFile(script(t, 0x040))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, object, string(data))
	opt := Options{Written: []string{"", written}}
	for _, rules := range []string{
		ruleText("/", "split", "parts: ["+part+"]"),
		ruleText("/", "split", "parts: ["+link+"]"),
		ruleText("/", "prepend", "file: "+part),
		ruleText("/", script(t, 0x040), "parts: ["+part+"]"),
		ruleText("/", object),
	} {
		if _, err := tryPolicy(t, opt, rules); err == nil || !strings.Contains(err.Error(), "written through the mount") {
			t.Errorf("%v\n%s", err, rules)
		}
	}
	if _, err := LoadObject(object, opt); err == nil || !strings.Contains(err.Error(), "written through the mount") {
		t.Errorf("%v", err)
	}
	file := filepath.Join(written, "policy.yaml")
	writeFile(t, file, policyHead+ruleText("/", "redact", "whole: true"))
	if _, err := LoadFile(file, opt); err == nil || !strings.Contains(err.Error(), "written through the mount") {
		t.Errorf("%v", err)
	}
}

// Part files are opened for reading, whatever root may do.
func TestPartsReadOnly(t *testing.T) {
	part := filepath.Join(t.TempDir(), "part")
	writeFile(t, part, "part")
	for _, rules := range []string{
		ruleText("/", "split", "parts: ["+part+"]"),
		ruleText("/", "prepend", "text: \""+strings.Repeat("t", 5000)+"\""),
	} {
		plan := mustFile(t, mustPolicy(t, Options{}, rules), fileOf("/x", 1)).Plan
		if len(plan.Parts) != 1 {
			t.Fatalf("%+v", plan.Parts)
		}
		if _, err := unix.Pwrite(plan.Parts[0].FD, []byte("x"), 0); err == nil {
			t.Errorf("%s can be written", plan.Parts[0].Name)
		}
	}
}

// One object is a policy of its own.
func TestLoadObject(t *testing.T) {
	p, err := LoadObject(script(t, 0x040), Options{Logger: quiet})
	skipUnprivileged(t, err)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	say(t, p, opOpen, pre, 0, reply{action: -13})
	if a := p.File(fileOf("/x", 1)); a.Errno != syscall.EACCES {
		t.Errorf("%+v", a)
	}
	if got := p.Rules("/x"); len(got) != 1 || got[0] != "file: prog" {
		t.Errorf("%v", got)
	}
	if _, err := LoadObject(filepath.Join(t.TempDir(), "none.o"), Options{}); err == nil {
		t.Error("no error")
	}
}

// ---- maps ------------------------------------------------------------------

func TestPolicyMaps(t *testing.T) {
	object := build(t, "echo.c")
	p := mustPolicy(t, Options{}, ruleText("/a", object, "name: one", "maps:", "  rules: {7: {uid: 1, shift: -2, name: ab}}")+
		ruleText("/b", object, "name: two"))
	list := p.Maps()
	if len(list) != 2 || list[0].Rule != "one" || list[0].Path != "/a" || list[1].Rule != "two" || len(list[0].Maps) == 0 {
		t.Fatalf("%+v", list)
	}
	if got, _, err := p.MapDump("one", "rules", 10); err != nil || len(got) != 1 || got[0].Key != "7" || !strings.Contains(got[0].Value, "shift: -2") {
		t.Errorf("%+v, %v", got, err)
	}
	before := p.Epoch()
	if err := p.MapSet("two", "rules", "0x10", `{"uid": 5, "name": "cd"}`); err != nil {
		t.Fatal(err)
	}
	if e := p.Epoch(); e != before+1 {
		t.Errorf("epoch %d, was %d", e, before)
	}
	if got, more, err := p.MapDump("two", "rules", 0); err != nil || len(got) != 0 || !more {
		t.Errorf("%+v, %v, %v", got, more, err)
	}
	if got, _, err := p.MapDump("one", "rules", 10); err != nil || len(got) != 1 {
		t.Errorf("another rule's map changed: %+v, %v", got, err)
	}
	if err := p.MapDelete("two", "rules", "16"); err != nil {
		t.Fatal(err)
	}
	if e := p.Epoch(); e != before+2 {
		t.Errorf("epoch %d, was %d", e, before)
	}
}

func TestPolicyMapErrors(t *testing.T) {
	object := build(t, "echo.c")
	p := mustPolicy(t, Options{}, ruleText("/a", object, "name: one")+ruleText("/b", object, "name: two"))
	before := p.Epoch()
	for what, err := range map[string]error{
		"no rule":       p.MapSet("three", "rules", "1", "{}"),
		"which rule":    p.MapSet("", "rules", "1", "{}"),
		"no map":        p.MapSet("one", "none", "1", "1"),
		"slots":         p.MapSet("one", "ply_slots", "0", "0"),
		"key":           p.MapSet("one", "rules", "x", "{}"),
		"no JSON":       p.MapSet("one", "rules", "1", "{uid"),
		"key no JSON":   p.MapSet("one", "rules", "[", "{}"),
		"value":         p.MapSet("one", "rules", "1", `{"uid": -1}`),
		"delete none":   p.MapDelete("one", "rules", "1"),
		"delete key":    p.MapDelete("one", "rules", "{"),
		"delete norule": p.MapDelete("three", "rules", "1"),
		"dump":          second(p.MapDump("one", "none", 1)),
		"dump norule":   second(p.MapDump("three", "rules", 1)),
	} {
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if p.Epoch() != before {
		t.Error("a map that did not change is an epoch")
	}
}

func second(_ []MapEntry, _ bool, err error) error { return err }

// bpffs mounts one for the test.
func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Skip("mounting a bpffs: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// Maps of the user's objects are pinned, and found again by the next policy.
func TestPolicyPin(t *testing.T) {
	dir, object := bpffs(t), build(t, "echo.c")
	opt := Options{Pin: filepath.Join(dir, "pin"), Logger: quiet}
	p, err := LoadObject(object, opt)
	skipUnprivileged(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.MapSet("", "rules", "3", `{"uid": 4}`); err != nil {
		t.Fatal(err)
	}
	if pinned := p.Maps()[0].Maps; !slices.ContainsFunc(pinned, func(m MapInfo) bool { return m.Pinned == filepath.Join(dir, "pin", "rules") }) {
		t.Errorf("%+v", pinned)
	}
	p.Close()
	if p, err = LoadObject(object, opt); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, _, err := p.MapDump("", "rules", 9); err != nil || len(got) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// With rules of their names each has a directory of its own; two rules that
// would share one are refused, for their maps would be one, too.
func TestPolicyPinRules(t *testing.T) {
	dir, object := bpffs(t), build(t, "echo.c")
	opt := Options{Pin: filepath.Join(dir, "pin")}
	p := mustPolicy(t, opt, ruleText("/a", object, "name: one")+ruleText("/b", object, "name: two.x")+ruleText("/c", "redact", "whole: true"))
	for _, want := range []string{"one/rules", "two_x/rules", "one/ply_epoch"} {
		if _, err := os.Stat(filepath.Join(opt.Pin, want)); err != nil {
			t.Error(err)
		}
	}
	if list, err := os.ReadDir(opt.Pin); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	_ = p
	_, err := tryPolicy(t, opt, ruleText("/a", object, "name: a.b")+ruleText("/b", object, "name: a_b"))
	if err == nil || !strings.Contains(err.Error(), "rule a_b") {
		t.Errorf("%v", err)
	}
	if _, err := tryPolicy(t, Options{Pin: t.TempDir()}, ruleText("/", object)); err == nil || !strings.Contains(err.Error(), "not on a bpffs") {
		t.Errorf("%v", err)
	}
}

// ---- status ----------------------------------------------------------------

func TestPolicyStatus(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/a", script(t, 0x041, "-DCALLER"), "name: one")+ruleText("/b", "redact", "whole: true"))
	for range 3 {
		p.File(fileOf("/a/x", 10))
	}
	say(t, p, opOpen, pre, 0, reply{action: 99})
	for range lastErrors + 4 {
		p.File(fileOf("/a/x", 10))
	}
	s := p.Status()
	if s.Fail != FailClosed || s.BudgetNS != int64(time.Second) || filepath.Base(s.Source) != "policy.yaml" || len(s.Rules) != 2 {
		t.Fatalf("%+v", s)
	}
	one, two := s.Rules[0], s.Rules[1]
	if one.Name != "one" || one.Path != "/a" || !one.Caller || one.Off != "" || one.Wrong != lastErrors+4 || len(one.Questions) != 2 {
		t.Errorf("%+v", one)
	}
	if q := one.Questions[1]; q.Section != "ply/file/open/pre" || q.Runs != lastErrors+7 || q.P50NS == 0 || len(q.Latency) == 0 || q.Errors != 0 {
		t.Errorf("%+v", q)
	}
	if two.Name != "redact:/b" || two.Program != "redact" || two.Caller || two.Wrong != 0 {
		t.Errorf("%+v", two)
	}
	if s.WrongAnswers != lastErrors+4 || len(s.LastErrors) != lastErrors || !strings.Contains(s.LastErrors[0], "about /a/x: action 99 means nothing") {
		t.Errorf("%d, %v", s.WrongAnswers, s.LastErrors)
	}
}
