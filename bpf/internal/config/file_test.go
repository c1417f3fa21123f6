// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestExample loads the file that shows everything.
func TestExample(t *testing.T) {
	dir := exampleDir(t)
	path := filepath.Join(dir, "example.yaml")
	got, err := Load(path, known)
	if err != nil {
		t.Fatal(err)
	}
	want := &File{Path: path, Fail: FailClosed, Budget: 5 * time.Millisecond, Rules: exampleRules(dir)}
	if len(got.Rules) != len(want.Rules) {
		t.Fatalf("%d rules, want %d", len(got.Rules), len(want.Rules))
	}
	for i := range got.Rules {
		forgetLines(&got.Rules[i])
		if !reflect.DeepEqual(got.Rules[i], want.Rules[i]) {
			t.Errorf("rule %d:\n got %+v\nwant %+v", i, got.Rules[i], want.Rules[i])
		}
	}
	got.Rules, want.Rules = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// exampleRules is what the example says.
func exampleRules(dir string) []Rule {
	return []Rule{
		{Name: "gps", Path: "/photos", Program: Redact, Match: []string{"*.jpg", "*.jpeg"}, Handler: "image-location"},
		{Name: "redact:/photos", Path: "/photos", Program: Redact, Match: []string{"*.raw"}, Ranges: []Range{{0, 10}, {4096, 4096}, {1 << 20, 100}}},
		{Name: "redact:/photos/private", Path: "/photos/private", Program: Redact, Whole: true},
		{Name: "prepend:/src", Path: "/src", Program: Prepend, Match: []string{"*.go"}, Prefix: []byte("// Copyright\n")},
		{Name: "prepend:/src#2", Path: "/src", Program: Prepend, Match: []string{"*.sh"}, PrefixFile: dir + "/header.txt"},
		{Name: "split:/disk.img", Path: "/disk.img", Program: Split,
			Parts: []string{dir + "/chunks/1", dir + "/chunks/10", dir + "/chunks/2", dir + "/tail.bin"}, Size: ptr[uint64](10 << 30)},
		{Name: "split:/firmware.img", Path: "/firmware.img", Program: Split, Base: dir + "/base.img", Size: ptr[uint64](2 << 20),
			Patches: []Patch{
				{Offset: 1 << 20, File: dir + "/patch.bin", Length: ptr[uint64](4096)},
				{Offset: 1 << 20, File: dir + "/fix.bin"},
			}},
		{Name: "select:/", Path: "/", Program: Select, Clauses: []Clause{
			{Match: "id_*", Action: Hide, UID: &IDRange{1000, 1000}, Not: true},
			{Match: "*.conf", Action: Layer, Layer: 2, OrHide: true},
			{Match: "secret*", Action: Deny, GID: &IDRange{1000, 1999}, Type: unix.S_IFREG},
			{Match: "README", Action: Show, UID: &IDRange{0, 0}},
			{Match: "*", Action: Skip, Skip: []int{1, 3}},
		}},
		{Name: "mine:/x", Path: "/x", Program: "./mine.o", Object: dir + "/mine.o", Handler: "image-location",
			Parts:  []string{dir + "/a.bin", dir + "/b.bin"},
			Params: map[string]uint64{"limit": 4096, "verbose": 1, "window": 65536},
			Maps: map[string]Map{
				"allowed": {Entries: []MapEntry{{0, int64(1000), int64(1)}, {0, int64(1001), int64(1)}}},
				"names": {Entries: []MapEntry{{0, "id_rsa", []MapEntry{
					{0, "mode", int64(0x180)}, {0, "tries", []any{int64(1), int64(2), int64(-3)}},
				}}}},
			}},
	}
}

// forgetLines sets all lines of a rule to 0; each must have been there.
func forgetLines(r *Rule) {
	forget := func(line *int) {
		if *line > 0 {
			*line = 0
		}
	}
	forget(&r.Line)
	for i := range r.Patches {
		forget(&r.Patches[i].Line)
	}
	for i := range r.Clauses {
		forget(&r.Clauses[i].Line)
	}
	for name, m := range r.Maps {
		forget(&m.Line)
		forgetEntries(m.Entries, forget)
		r.Maps[name] = m
	}
}

func forgetEntries(entries []MapEntry, forget func(*int)) {
	for i := range entries {
		forget(&entries[i].Line)
		if below, ok := entries[i].Value.([]MapEntry); ok {
			forgetEntries(below, forget)
		}
	}
}

// TestLoadRefs reports each file that others can change, with the line of its
// name.
func TestLoadRefs(t *testing.T) {
	dir := trustedDir(t)
	write(t, dir+"/a", "")
	write(t, dir+"/b", "")
	write(t, dir+"/policy.yaml", "version: 1\nrules:\n- path: /a\n  program: ./none.o\n  parts: [a, b,\n    a]\n")
	if err := os.Chmod(dir+"/a", 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir+"/policy.yaml", known)
	want := dir + "/policy.yaml:4: stat " + dir + "/none.o: no such file or directory; mend the name, or make the file\n" +
		dir + "/policy.yaml:5: " + dir + "/a can be written by anybody; chmod go-w " + dir + "/a"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestLoadUntrusted does not read a policy that others can write.
func TestLoadUntrusted(t *testing.T) {
	dir := exampleDir(t)
	if err := os.Chmod(dir+"/example.yaml", 0o664); err != nil {
		t.Fatal(err)
	}
	f, err := Load(dir+"/example.yaml", known)
	if f != nil || err == nil || !strings.Contains(err.Error(), "policy file: "+dir+"/example.yaml can be written by its group") {
		t.Errorf("got %v, %v", f, err)
	}
}

// TestLoadLarge refuses a file of more than 4 MiB, and takes one of 4 MiB.
func TestLoadLarge(t *testing.T) {
	dir := trustedDir(t)
	text := "version: 1\nrules: [{path: /, program: redact, whole: true}]\n#"
	write(t, dir+"/p", text+strings.Repeat("x", maxFile-len(text)))
	if _, err := Load(dir+"/p", known); err != nil {
		t.Error(err)
	}
	write(t, dir+"/p", text+strings.Repeat("x", maxFile-len(text)+1))
	_, err := Load(dir+"/p", known)
	if err == nil || !strings.HasPrefix(err.Error(), dir+"/p:1: the file is larger than 4 MiB; ") {
		t.Errorf("got %v", err)
	}
}
