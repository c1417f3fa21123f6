// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

func wantWords(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v; want %q", err, words)
	}
}

func TestMapSet(t *testing.T) {
	p := mustLoad(t, loadOptions{}, "echo.c")
	rule := map[string]any{"uid": 7, "shift": -3, "color": "GREEN", "name": "abc", "raw": "hex:00ff1001", "pair": []any{1, 2}}
	if err := p.mapSet("rules", "0x10", rule); err != nil {
		t.Fatal(err)
	}
	if err := p.mapSet("rules", 3, `{"uid": 4294967295, "name": "str:12345678"}`); err != nil {
		t.Fatal(err)
	}
	if p.epoch() != 2 {
		t.Errorf("epoch %d", p.epoch())
	}
	list, more, err := p.mapDump("rules", 10)
	if err != nil || more || len(list) != 2 {
		t.Fatal(list, more, err)
	}
	got := map[string]string{list[0].Key: list[0].Value, list[1].Key: list[1].Value}
	for k, want := range map[string]string{
		"16": `{uid: 7, shift: -3, color: GREEN, name: "abc", raw: hex:00ff1001, pair: [1, 2]}`,
		"3":  `{uid: 4294967295, shift: 0, color: RED, name: "12345678", raw: hex:00000000, pair: [0, 0]}`,
	} {
		if got[k] != want {
			t.Errorf("key %s is %s", k, got[k])
		}
	}
	// The program sees it.
	c := p.get()
	defer p.put(c)
	c.In.UID = 16
	if mustRun(t, p, c, opLookup, pre); int32(c.Out.ModeClear) != -3 {
		t.Errorf("the program saw %d", int32(c.Out.ModeClear))
	}
	if list, more, err = p.mapDump("rules", 1); len(list) != 1 || !more || err != nil {
		t.Error(list, more, err)
	}
	if err := p.mapDelete("rules", 16); err != nil {
		t.Error(err)
	}
	wantWords(t, p.mapDelete("rules", 16), "no such key")
	if p.epoch() != 3 {
		t.Errorf("epoch %d", p.epoch())
	}
}

func TestMapKinds(t *testing.T) {
	p := mustLoad(t, loadOptions{vars: map[string]uint64{"limit": 9}}, "echo.c")
	p.setBudget(time.Minute) // calls are counted here, and one over its budget is repeated
	c := p.get()
	defer p.put(c)
	if err := p.mapSet("counters", 1, 5); err != nil {
		t.Fatal(err)
	}
	mustRun(t, p, c, opLookup, post)
	list, _, err := p.mapDump("counters", 9)
	if err != nil || len(list) != 2 || !strings.Contains(strings.Join(list[1].PerCPU, " "), "6") || list[0].Value != "0" {
		t.Errorf("%v %v", list, err)
	}
	if err := p.mapSet("bare", "str:k", "hex:010203"); err != nil {
		t.Fatal(err)
	}
	list, _, err = p.mapDump("bare", 9)
	if err != nil || len(list) != 1 || list[0].Value != "hex:010203" || list[0].Key != "hex:6b"+strings.Repeat("00", 11) {
		t.Errorf("%v %v", list, err)
	}
	mustRun(t, p, c, opLookup, pre)
	list, _, err = p.mapDump(".bss", 9)
	if err != nil || len(list) != 1 || list[0].Value != "{calls: 1}" {
		t.Errorf("%v %v", list, err)
	}
	if err := p.mapSet(".bss", 0, map[string]any{"calls": 41}); err != nil {
		t.Error(err)
	}
	mustRun(t, p, c, opLookup, pre)
	if list, _, _ = p.mapDump(".bss", 9); list[0].Value != "{calls: 42}" {
		t.Errorf("%v", list)
	}
	list, _, err = p.mapDump(".rodata", 9)
	if err != nil || !strings.Contains(list[0].Value, "limit: 9") {
		t.Errorf("%v %v", list, err)
	}
}

func TestMapErrors(t *testing.T) {
	p := mustLoad(t, loadOptions{sizes: map[string]uint32{"rules": 1}}, "echo.c")
	wantWords(t, p.mapSet("rules", 1, map[string]any{"color": "BLUE"}), "field color: BLUE: is no integer")
	wantWords(t, p.mapSet("rules", 1, map[string]any{"colour": 1}), "field colour: struct rule has none of that name; there are uid, shift")
	wantWords(t, p.mapSet("rules", 1, map[string]any{"uid": -1}), "field uid: -1: does not fit __u32")
	wantWords(t, p.mapSet("rules", 1, map[string]any{"shift": uint64(1) << 31}), "does not fit __s32")
	wantWords(t, p.mapSet("rules", 1, map[string]any{"name": "123456789"}), "more than 8 bytes")
	wantWords(t, p.mapSet("rules", 1, map[string]any{"pair": []any{1, 2, 3}}), "3 elements")
	wantWords(t, p.mapSet("rules", 1, 5), "does not make struct rule")
	wantWords(t, p.mapSet("rules", "x", 5), "key: x: is no integer")
	wantWords(t, p.mapSet("rules", "hex:00", 5), "has 1 bytes instead of 4")
	wantWords(t, p.mapSet("rules", "hex:0g", 5), "hex:0g")
	wantWords(t, p.mapSet("rules", 1, `{"uid": 1`), "unexpected EOF")
	wantWords(t, p.mapSet("ply_slots", 1, 5), "no map ply_slots; there are")
	wantWords(t, p.mapDelete("ply_slots", 1), "no map ply_slots")
	wantWords(t, p.mapDelete("counters", 1), "cannot be removed")
	wantWords(t, p.mapSet("counters", 2, 5), "no such index")
	wantWords(t, p.mapSet(".rodata", 0, map[string]any{"limit": 1}), "map .rodata: is read-only")
	if _, _, err := p.mapDump("ply_slots", 1); err == nil {
		t.Error("ply_slots was dumped")
	}
	if p.epoch() != 0 {
		t.Errorf("epoch %d after failures", p.epoch())
	}
	if err := p.mapSet("rules", 1, map[string]any{}); err != nil {
		t.Error(err)
	}
	wantWords(t, p.mapSet("rules", 2, map[string]any{}), "is full")
}

func TestMapInfo(t *testing.T) {
	p := mustLoad(t, loadOptions{sizes: map[string]uint32{"rules": 5}}, "echo.c")
	for i := range 3 {
		if err := p.mapSet("rules", i, map[string]any{"uid": i}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, m := range p.mapInfo() {
		names = append(names, m.Name)
		if m.Name == "rules" && (m.Entries != 3 || m.MaxEntries != 5 || m.Key != "__u32" || m.Value != "struct rule" || m.Type != "Hash") {
			t.Errorf("%+v", m)
		}
	}
	if got := strings.Join(names, " "); got != ".bss .rodata bare counters ply_epoch rules" {
		t.Errorf("maps %s", got)
	}
}

func TestOptions(t *testing.T) {
	o := mustRead(t, build(t, "echo.c"))
	for _, c := range []struct {
		opt  loadOptions
		want string
	}{
		{loadOptions{vars: map[string]uint64{"limits": 1}}, "no variable limits; there are calls, flag, limit, small, text"},
		{loadOptions{vars: map[string]uint64{"ply_abi": 2}}, "no variable ply_abi"},
		{loadOptions{vars: map[string]uint64{"calls": 1 << 32}}, "variable calls: 4294967296 does not fit its 32 bits"},
		{loadOptions{vars: map[string]uint64{"small": 1 << 15}}, "variable small: 32768 does not fit its 16 bits"},
		{loadOptions{vars: map[string]uint64{"flag": 2}}, "variable flag: 2 does not fit"},
		{loadOptions{vars: map[string]uint64{"text": 2}}, "variable text: is no integer"},
		{loadOptions{sizes: map[string]uint32{"rule": 2}}, "no map rule whose size can be set; there are bare, counters, rules"},
		{loadOptions{sizes: map[string]uint32{"ply_slots": 2}}, "no map ply_slots"},
		{loadOptions{sizes: map[string]uint32{"rules": 0}}, "map rules: the size must be more than 0"},
		{loadOptions{pinTo: "/proc"}, "/proc is not on a bpffs"},
		{loadOptions{pinTo: "/nowhere"}, "/nowhere: no such file"},
	} {
		_, err := o.load(c.opt)
		skipUnprivileged(t, err)
		wantError(t, err, c.want)
	}
	p := mustLoad(t, loadOptions{vars: map[string]uint64{"small": ^uint64(0) - 1, "calls": 10}}, "echo.c")
	c := p.get()
	defer p.put(c)
	if mustRun(t, p, c, opLookup, pre); int32(c.Out.ModeClear) != -2 {
		t.Errorf("small is %d", int32(c.Out.ModeClear))
	}
}

// Pinned maps are shared by all who load with the same directory, and outlive
// them.
func TestPin(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skip("bpffs cannot be mounted: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	o := mustRead(t, build(t, "echo.c"))
	a, err := o.load(loadOptions{pinTo: dir})
	skipUnprivileged(t, err)
	if err != nil {
		t.Fatal(err)
	}
	b, err := o.load(loadOptions{pinTo: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.mapSet("rules", 1, map[string]any{"uid": 5}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	list, _, err := b.mapDump("rules", 9)
	if err != nil || len(list) != 1 || b.epoch() != 1 {
		t.Error(list, err, b.epoch())
	}
	if info := b.mapInfo(); info[5].Pinned != filepath.Join(dir, "rules") || info[0].Pinned != "" {
		t.Errorf("%+v", info)
	}
	b.Close()
	wantPins(t, dir, "bare counters ply_epoch rules")
	_, err = o.load(loadOptions{pinTo: dir, sizes: map[string]uint32{"rules": 99}})
	wantError(t, err, "MaxEntries: 16 changed to 99", "remove the pinned map")
	wantPins(t, dir, "bare counters ply_epoch rules")
}

// A load that fails pins nothing.
func TestPinNothing(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skip("bpffs cannot be mounted: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	_, err := mustRead(t, build(t, "bad.c", "-DOUT_OF_BOUNDS")).load(loadOptions{pinTo: dir})
	skipUnprivileged(t, err)
	wantError(t, err, "refused by the verifier")
	wantPins(t, dir, "")
	_, err = mustRead(t, build(t, "echo.c")).load(loadOptions{pinTo: dir, sizes: map[string]uint32{"rules": 1 << 31}})
	wantError(t, err, "map rules")
	wantPins(t, dir, "")
}

func wantPins(t *testing.T, dir, want string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), ".debug") { // the kernel's own
			names = append(names, e.Name())
		}
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("pinned: %s; want %s", got, want)
	}
}

// What BTF can describe and testdata has no map of.
func TestBTF(t *testing.T) {
	u8 := &btf.Int{Name: "unsigned char", Size: 1}
	s64 := &btf.Int{Name: "long long", Size: 8, Encoding: btf.Signed}
	u64 := &btf.Typedef{Name: "__u64", Type: &btf.Int{Name: "unsigned long long", Size: 8}}
	nested := &btf.Struct{Name: "s", Size: 16, Members: []btf.Member{
		{Name: "low", Type: u8, Offset: 0, BitfieldSize: 3},
		{Name: "high", Type: u8, Offset: 3, BitfieldSize: 5},
		{Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "a", Type: u64}, {Name: "b", Type: s64}}}, Offset: 64},
	}}
	for _, c := range []struct {
		t    btf.Type
		size uint32
		v    any
		hex  string // "" if it is an error
		text string
	}{
		{nil, 4, "0x0102", "02010000", "258"},
		{nil, 4, -1, "ffffffff", "4294967295"},
		{nil, 4, "4294967296", "", ""},
		{nil, 3, 1, "", ""},
		{nil, 3, "str:a", "610000", "hex:610000"},
		{u64, 8, "18446744073709551615", "ffffffffffffffff", "18446744073709551615"},
		{u64, 8, "18446744073709551616", "", ""},
		{u64, 8, -1, "", ""},
		{u64, 8, 1.5, "", ""},
		{u64, 8, 1e3, "e803000000000000", "1000"},
		{u64, 8, nil, "", ""},
		{u64, 8, []any{1}, "", ""},
		{u64, 8, map[string]any{"a": 1}, "", ""},
		{s64, 8, "-9223372036854775808", "0000000000000080", "-9223372036854775808"},
		{s64, 8, "-9223372036854775809", "", ""},
		{s64, 8, "9223372036854775808", "", ""},
		{s64, 8, "010", "0a00000000000000", "10"},
		{&btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}, 1, "true", "01", "true"},
		{&btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}, 1, 2, "", ""},
		{&btf.Array{Type: u8, Nelems: 4}, 4, "ab", "61620000", "hex:61620000"},
		{&btf.Array{Type: u8, Nelems: 4}, 4, "[1, 2]", "01020000", "hex:01020000"},
		{&btf.Array{Type: u64, Nelems: 2}, 16, []any{1, "2"}, "01000000000000000200000000000000", "[1, 2]"},
		{&btf.Array{Type: u64, Nelems: 2}, 16, "[1] 2", "", ""},
		{nested, 16, map[string]any{"b": -2}, "0000000000000000feffffffffffffff", "{low: 0, high: 0, {a: 18446744073709551614, b: -2}}"},
		{nested, 16, "hex:0f000000000000000100000000000000", "0f000000000000000100000000000000", "{low: 7, high: 1, {a: 1, b: 1}}"},
		{nested, 16, map[string]any{"low": 1}, "", ""},
		{nested, 4, 9, "09000000", "9"},
		{&btf.Pointer{Target: u8}, 8, 9, "0900000000000000", "9"},
	} {
		b, err := encodeBTF(c.t, c.size, c.v)
		if c.hex == "" {
			if err == nil {
				t.Errorf("%v as %s: no error, %x", c.v, typeName(c.t), b)
			}
			continue
		}
		want, _ := hex.DecodeString(c.hex)
		if err != nil || !bytes.Equal(b, want) {
			t.Errorf("%v as %s: %x, %v", c.v, typeName(c.t), b, err)
			continue
		}
		if s := formatBTF(c.t, b); s != c.text {
			t.Errorf("%x as %s: %s", b, typeName(c.t), s)
		}
	}
}

func TestNearestSection(t *testing.T) {
	for name, want := range map[string]string{
		"ply/file/opne/pre": "ply/file/open/pre", "ply/lookup/pre": "ply/inode/lookup/pre",
		"ply/inode/getattr": "ply/inode/getattr/pre", "x": "", "": "",
	} {
		if got := nearestSection(name); got != want {
			t.Errorf("nearest to %q is %q", name, got)
		}
	}
	for _, s := range sections {
		if k, ok := parseSection(s.name); !ok || k.String() != s.name {
			t.Error(s.name)
		}
	}
}
