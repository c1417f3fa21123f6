// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
// follow it, and those of no other rule. One that merely began long ago does not:
// the process may have been stopped.
func TestWatch(t *testing.T) {
	object := script(t, 0x041)
	p := mustPolicy(t, Options{}, ruleText("/a", object)+ruleText("/b", object))
	progs := p.rules[0].progs
	k := progs.slots.take()
	defer progs.slots.give(k)
	for _, age := range []time.Duration{0, 2 * hangTime} {
		progs.since[k].Store(int64(monotonic() - age))
		p.watchOnce()
		p.watchOnce()
		if a := p.File(fileOf("/a/x", 10)); a.Errno != 0 {
			t.Fatalf("a call that began %v ago is enough: %+v", age, a)
		}
	}
	for range hangTime / watchEvery {
		p.watchOnce()
	}
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
