// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// secondsAtMost is what checking may take on a busy machine.
const secondsAtMost = 30 * time.Second

func mustCheck(t *testing.T, path string) *Report {
	t.Helper()
	before := fds(t)
	start := time.Now()
	r, err := Check(path)
	skipUnprivileged(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > secondsAtMost {
		t.Errorf("checking took %v", took)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", &text)
	wantFDs(t, before)
	return r
}

func TestCheck(t *testing.T) {
	r := mustCheck(t, build(t, "echo.c"))
	if r.ABI != 1 || r.Caller || r.License != "GPL" || len(r.Programs) != 3 || len(r.Maps) != 3 || len(r.Variables) != 5 {
		t.Errorf("%+v", r)
	}
	p := r.Programs[0]
	if p.Section != "ply/inode/lookup/pre" || p.Function != "ply_lookup_pre" || p.Instructions == 0 ||
		p.Verified == 0 || p.VerifyNS == 0 || p.Runs == 0 || p.RunNS == 0 || p.Slow != "" {
		t.Errorf("%+v", p)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"prog.o: ABI 1", "struct rule", "Hash", "limit", "const __u64", "7"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text has no %q", want)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func TestCheckWarns(t *testing.T) {
	r := mustCheck(t, build(t, "bad.c", `-DSECTION="ply/file/open/post"`, "-DCALLER"))
	all := strings.Join(r.Warnings, "\n")
	for _, want := range []string{"no license", "PLY_CALLER"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning has %q: %s", want, all)
		}
	}
}

// A slow program is measured for a while only.
func TestCheckSlow(t *testing.T) {
	r := mustCheck(t, build(t, "slow.c", "-DALWAYS"))
	if p := r.Programs[1]; !strings.Contains(p.Slow, "slow: over the budget of 5 ms") || p.Runs > measureRuns/2 {
		t.Errorf("%+v", p)
	}
	if len(r.Warnings) == 0 {
		t.Error("no warning")
	}
}

// Nothing can stop a program that runs, so one that may run for hours is not
// loaded at all.
func TestCheckEndless(t *testing.T) {
	if _, err := Check(build(t, "slow.c", "-DNESTED")); err == nil || !strings.Contains(err.Error(), "loops within loops") {
		t.Errorf("%v", err)
	}
}

// A program that wants more context than there is loads, and cannot be run.
func TestCheckContext(t *testing.T) {
	r := mustCheck(t, build(t, "bad.c", "-DCONTEXT"))
	if p := r.Programs[0]; !strings.Contains(p.Slow, "cannot be run: invalid argument") {
		t.Errorf("%+v", p)
	}
}

func TestCheckMissing(t *testing.T) {
	if _, err := Check(t.TempDir() + "/none.o"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

// Loops are multiplied when one is within another, not when they follow one
// another.
func TestWorstTurns(t *testing.T) {
	key := progKey{opOpen, pre}
	for _, c := range []struct {
		file, flag string
		want       float64
	}{
		{"echo.c", "-DX", 1},
		{"slow.c", "-DX", 1 << 23},
		{"slow.c", "-DLOOPS=100", 100},
		{"slow.c", "-DNESTED", 1 << 46},
	} {
		if got := worstTurns(mustRead(t, build(t, c.file, c.flag)).progs[key].Instructions); got != c.want {
			t.Errorf("%s %s: %v turns, want %v", c.file, c.flag, got, c.want)
		}
	}
	if got := worstTurns(nil); got != 1 {
		t.Error(got)
	}
}
