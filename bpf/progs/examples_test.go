// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package progs_test runs the programs beside it in the kernel and compares
// each answer with a model in Go. It knows the objects only, not the loader.
package progs_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// examples compiles ../examples.
func examples(t *testing.T) func(name string) *program {
	for _, tool := range []string{"make", "clang"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("compiling the examples: %v", err)
		}
	}
	dir := t.TempDir()
	if b, err := exec.Command("make", "-C", "../examples", "OUT="+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return func(name string) *program { return load(t, filepath.Join(dir, name), nil, nil) }
}

func TestExamples(t *testing.T) {
	example := examples(t)
	check := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	named := func(name string, in input) input {
		in.setName(name)
		return in
	}

	p := example("blank_header")
	ext, _, _ := p.plan(t, input{Size: 5000}, nil)
	check("blank_header", ext, []extent{{0, 4096, 0, zero, 0}, {4096, 904, 4096, backing, self}})
	ext, _, _ = p.plan(t, input{Size: 5}, nil)
	check("blank_header, small", ext, []extent{{0, 5, 0, zero, 0}})
	ext, _, _ = p.plan(t, input{}, nil)
	check("blank_header, empty", len(ext), 0)

	const licence = "/* SPDX-License-Identifier: BSD-3-Clause */\n"
	n := uint64(len(licence))
	p = example("licence_header")
	ext, size, data := p.plan(t, named("a.c", input{Size: 10, Layer: 1}), nil)
	check("licence_header", ext, []extent{{0, n, 0, inline, 0}, {n, 10, 0, backing, self}})
	check("licence_header, size", size, n+10)
	check("licence_header, bytes", string(data), licence)
	for _, in := range []input{named("a.h", input{Size: 10, Layer: 1}), named("a.c", input{Size: 10}), named("c", input{Layer: 1})} {
		ret, out := p.ask(t, &in)
		check("licence_header, others", []uint32{uint32(ret), out.Flags, out.NExtents}, []uint32{user, 0, 0})
	}

	p = example("chunks")
	ret, _ := p.ask(t, &input{Layer: 1})
	check("chunks, no parts", uint32(ret), uint32(user))
	for _, parts := range []uint32{1, 16, 17, 100, 5000} {
		var want []extent
		for i := range uint64(parts) {
			want = append(want, extent{i << 20, 1 << 20, 0, backing, part0 + uint32(i)})
		}
		ext, size, _ = p.plan(t, input{Layer: 1, NParts: parts}, nil)
		check("chunks", ext, want)
		check("chunks, size", size, uint64(parts)<<20)
	}
	ext, _, _ = p.plan(t, input{Layer: 1, NParts: 2, Offset: 1<<20 + 5}, nil)
	check("chunks, from the middle", ext, []extent{{1<<20 + 5, 1<<20 - 5, 5, backing, part0 + 1}})

	p = example("by_caller")
	for _, c := range []struct {
		uid          uint32
		layers       uint64
		flags, layer uint32
	}{{1000, 6, outChoose, 2}, {999, 6, 0, 0}, {nobody, 6, 0, 0}, {1000, 2, 0, 0}, {1000, 7, 0, 0}} {
		ret, out := p.ask(t, &input{Op: opLookup, UID: c.uid, Layers: c.layers})
		check("by_caller", []uint32{uint32(ret), out.Flags, out.Layer}, []uint32{0, c.flags, c.layer})
	}

	p = example("hide_dotfiles")
	for name, flags := range map[string]uint32{".a": outHide, "a.": 0} {
		in := named(name, input{Op: opLookup})
		_, out := p.ask(t, &in)
		check("hide_dotfiles "+name, out.Flags, flags)
	}

	p = example("deny_big")
	for fn, want := range map[string]int32{"ply_deny_big_pre": postfilter, "ply_deny_big": -int32(unix.EFBIG)} {
		p.attr.progFD = uint32(p.coll.Programs[fn].FD())
		ret, _ := p.ask(t, &input{Size: 1<<30 + 1})
		check(fn, ret, want)
	}
	p.attr.progFD = uint32(p.coll.Programs["ply_deny_big"].FD())
	for _, in := range []input{{Size: 1 << 30}, {Size: 1 << 40, Flags: inAttr}, {Size: 1 << 40, Flags: inCopyUp}} {
		ret, _ := p.ask(t, &in)
		check("deny_big, others", ret, 0)
	}

	p = example("count_reads")
	for _, ino := range []uint64{7, 8, 7} {
		p.ask(t, &input{Ino: ino, Length: 4096})
	}
	var got [2]uint64
	if err := p.coll.Maps["reads"].Lookup(uint64(7), &got); err != nil {
		t.Fatal(err)
	}
	check("count_reads", got, [2]uint64{2, 8192})
}
