// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"bytes"
	"io"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

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
