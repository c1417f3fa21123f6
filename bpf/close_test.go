// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

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
