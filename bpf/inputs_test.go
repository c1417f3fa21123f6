// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

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
