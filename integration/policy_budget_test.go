// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Programs that are too slow.

// slowProgram runs for n times 2^23 turns: half a second or so with 8.
func slowProgram(n int) string {
	return `#include <plyfs.h>
static long inner(__u32 i, void *ctx) { return 0; }
static long outer(__u32 i, void *ctx) { bpf_loop(1 << 23, inner, 0, 0); return 0; }
PLY_PROGRAM("ply/file/open/pre", slow)
{
	bpf_loop(` + itoa(n) + `, outer, 0, 0);
	return PLY_CONTINUE;
}
PLY_LICENSE("GPL");
`
}

// ruledStatus is what these tests read of a status.
type ruledStatus struct {
	Policy struct {
		Fail         string   `json:"fail"`
		BudgetNS     int64    `json:"budget_ns"`
		WrongAnswers uint64   `json:"wrong_answers"`
		LastErrors   []string `json:"last_errors"`
		Rules        []struct {
			Name      string `json:"name"`
			Off       string `json:"switched_off"`
			Wrong     uint64 `json:"wrong_answers"`
			Questions []struct {
				Section string `json:"section"`
				Runs    uint64 `json:"runs"`
				Slow    uint64 `json:"slow"`
			} `json:"questions"`
		} `json:"rules"`
	} `json:"policy"`
}

// slowOpen opens the file of a mount with the slow program for the first time,
// and then others, which must not wait for it.
func slowOpen(t *testing.T, u *union, check func(err error)) {
	t.Helper()
	start := time.Now()
	_, err := os.ReadFile(u.path("f"))
	check(err)
	if took := time.Since(start); took > 2*patience {
		t.Errorf("the call that switches the program off took %v", took)
	}
	start = time.Now()
	for range 20 {
		for _, name := range []string{"f", "g"} {
			_, err := os.ReadFile(u.path(name))
			check(err)
		}
	}
	if took := time.Since(start); took > patience { // checkSwitchedOff is exact
		t.Errorf("40 opens after it was switched off took %v", took)
	}
}

// checkSwitchedOff looks at what the status says.
func checkSwitchedOff(t *testing.T, u *union, fail string) {
	t.Helper()
	var st ruledStatus
	u.statusInto(&st)
	p := st.Policy
	if p.Fail != fail || p.BudgetNS != int64(5*time.Millisecond) || len(p.Rules) != 1 || len(p.Rules[0].Questions) != 1 {
		t.Fatalf("status: %+v", p)
	}
	q := p.Rules[0].Questions[0]
	if !strings.Contains(p.Rules[0].Off, "ply/file/open/pre") || q.Slow == 0 || q.Slow > 3 || q.Runs == 0 || q.Runs > 3 {
		t.Errorf("switched off %q; %+v; want it off after one call", p.Rules[0].Off, q)
	}
	if len(p.LastErrors) != 1 || !strings.Contains(p.LastErrors[0], "switched off") {
		t.Errorf("last errors %q, want one that says it", p.LastErrors)
	}
	out, err := plyfs("status", u.mp)
	if err != nil || !strings.Contains(out, "SWITCHED OFF") {
		t.Errorf("status: %v\n%s", err, out)
	}
}

// TestBudgetClosed: what a program that was switched off has a say about is
// EIO, at once, until there is another policy.
func TestBudgetClosed(t *testing.T) {
	w := newWorkshop(t)
	u := newMount(t, mountOpts{options: []string{"bpf=" + w.compile("slow", slowProgram(8))}, lowers: [][]string{{"f=1", "g=2"}}})
	u.allowEIO = true
	slowOpen(t, u, func(err error) { wantErrno(t, "reading", err, unix.EIO) })
	checkSwitchedOff(t, u, "closed")
	out, err := plyfs("explain", u.path("f"))
	wantRefused(t, "explain", out, err, "status")
	u.setPolicy(w.openProgram("good", "return PLY_CONTINUE;"))
	wantFile(t, u.path("f"), "1")
}

// TestBudgetOpen: as if there were no program.
func TestBudgetOpen(t *testing.T) {
	w := newWorkshop(t)
	u := newMount(t, mountOpts{options: []string{"bpf=" + w.compile("slow", slowProgram(8)), "bpf_fail=open"}, lowers: [][]string{{"f=1", "g=2"}}})
	slowOpen(t, u, func(err error) { must(t, err) })
	checkSwitchedOff(t, u, "open")
	wantFile(t, u.path("f"), "1")
	if e := u.explain("f"); e.IOMode != "passthrough" || len(e.Rules) != 1 || !strings.Contains(e.Rules[0], "switched off") {
		t.Errorf("explain: %+v", e)
	}
}

// TestBudgetOption: what is too slow for one budget is fine for another.
func TestBudgetOption(t *testing.T) {
	w := newWorkshop(t)
	object := w.compile("slow", strings.Replace(slowProgram(1), "1 << 23", "1 << 20", 1)) // some 10 ms
	u := newMount(t, mountOpts{options: []string{"bpf=" + object, "bpf_budget=1s"}, lowers: [][]string{{"f=1"}}})
	wantFile(t, u.path("f"), "1")
	u.unmount()
	u.allowEIO = true
	u.opts.options[1] = "bpf_budget=100us"
	u.mount()
	// A call that was slow is repeated by the thread's own clock, which is not
	// always exact to the tick: one of a few must be found out.
	var err error
	for range 20 {
		if _, err = os.ReadFile(u.path("f")); err != nil {
			break
		}
	}
	wantErrno(t, "reading over a budget of 100us", err, unix.EIO)
}

// TestBudgetNever: a program that may run for hours is not loaded at all, by
// nobody, for nothing could stop it.
func TestBudgetNever(t *testing.T) {
	w := newWorkshop(t)
	object := w.compile("hours", slowProgram(1<<23))
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}})
	for _, args := range [][]string{{"bpf", "check", object}, {"policy", "set", u.mp, object}} {
		start := time.Now()
		out, err := plyfs(args...)
		wantRefused(t, strings.Join(args, " "), out, err, "hours.o", "ply/file/open/pre", "loop")
		checkOneLine(t, out, nil)
		if took := time.Since(start); took > patience { // the program takes hours
			t.Errorf("%q took %v", args, took)
		}
	}
	wantFile(t, u.path("f"), "1")
}
