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

func mustCheck(t *testing.T, path string) *Report {
	t.Helper()
	before := fds(t)
	start := time.Now()
	r, err := Check(path)
	skipUnprivileged(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 4*time.Second {
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
	for _, want := range []string{"no license", "ply/file/open/post: is never asked", "PLY_CALLER"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning has %q: %s", want, all)
		}
	}
}

// A slow program is measured for a while only, and one that may never end not
// at all.
func TestCheckSlow(t *testing.T) {
	for _, c := range []struct{ flag, want string }{
		{"-DALWAYS", "slow: over the budget of 5 ms"},
		{"-DNESTED", "may run for hours"},
	} {
		r := mustCheck(t, build(t, "slow.c", c.flag))
		if p := r.Programs[1]; !strings.Contains(p.Slow, c.want) {
			t.Errorf("%s: %+v", c.flag, p)
		}
		if len(r.Warnings) == 0 {
			t.Errorf("%s: no warning", c.flag)
		}
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
