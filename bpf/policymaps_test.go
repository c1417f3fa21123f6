// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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
