// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/stack"
)

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
