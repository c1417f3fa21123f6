// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

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
