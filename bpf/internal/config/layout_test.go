// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// sizesOf answers for the sizes of some files.
func sizesOf(sizes map[string]int64) func(string) (int64, error) {
	return func(path string) (int64, error) {
		n, ok := sizes[path]
		if !ok {
			return 0, errors.New("no file " + path)
		}
		return n, nil
	}
}

func TestLayout(t *testing.T) {
	sizes := sizesOf(map[string]int64{"": 100, "/a": 10, "/b": 20, "/empty": 0})
	cases := []struct {
		name string
		rule Rule
		want Table
	}{
		{"parts", Rule{Parts: []string{"/a", "/empty", "/b", "/a"}},
			Table{Total: 40, Parts: []string{"/a", "/empty", "/b"}, Extents: []Extent{
				{0, 10, 0, KindBacking, 128}, {10, 20, 0, KindBacking, 130}, {30, 10, 0, KindBacking, 128}}}},
		{"parts and a hole", Rule{Parts: []string{"/a"}, Size: ptr[uint64](15)},
			Table{Total: 15, Parts: []string{"/a"}, Extents: []Extent{{0, 10, 0, KindBacking, 128}, {10, 5, 0, KindZero, 0}}}},
		{"parts, cut", Rule{Parts: []string{"/a", "/b"}, Size: ptr[uint64](5)},
			Table{Total: 5, Parts: []string{"/a", "/b"}, Extents: []Extent{{0, 5, 0, KindBacking, 128}}}},
		{"nothing", Rule{Parts: []string{"/empty"}}, Table{Parts: []string{"/empty"}}},
		{"patches over the file itself", Rule{Patches: []Patch{
			{Offset: 10, File: "/a"}, {Offset: 15, File: "/b", From: 5, Length: ptr[uint64](10)}, {Offset: 95, File: "/b"}}},
			Table{Total: 100, Parts: []string{"/a", "/b"}, Extents: []Extent{
				{0, 10, 0, KindBacking, 64}, {10, 5, 0, KindBacking, 128}, {15, 10, 5, KindBacking, 129},
				{25, 70, 25, KindBacking, 64}, {95, 5, 0, KindBacking, 129}}}},
		{"a hole between base and patch", Rule{Base: "/b", Size: ptr[uint64](50), Patches: []Patch{{Offset: 30, File: "/a"}}},
			Table{Total: 50, Parts: []string{"/b", "/a"}, Extents: []Extent{
				{0, 20, 0, KindBacking, 128}, {20, 10, 0, KindZero, 0}, {30, 10, 0, KindBacking, 129}, {40, 10, 0, KindZero, 0}}}},
		{"merged", Rule{Base: "/b", Patches: []Patch{{Offset: 5, From: 5, Length: ptr[uint64](5), File: "/b"}}},
			Table{Total: 20, Parts: []string{"/b"}, Extents: []Extent{{0, 20, 0, KindBacking, 128}}}},
	}
	for _, c := range cases {
		got, err := Layout(&c.rule, sizes)
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", c.name, got, err, c.want)
		}
	}
}

func TestLayoutErrors(t *testing.T) {
	sizes := sizesOf(map[string]int64{"": 100, "/a": 10, "/huge": maxOffset})
	cases := []struct {
		rule Rule
		want string
	}{
		{Rule{Parts: []string{"/none"}}, "rule x (line 7): no file /none"},
		{Rule{Parts: []string{"/a", "/huge"}}, "rule x (line 7): the parts together are larger than the largest file; name fewer"},
		{Rule{Patches: []Patch{{Line: 9, File: "/a", From: 11}}}, "rule x (line 7): patch in line 9: /a has only 10 bytes, from is 11; make it smaller"},
		{Rule{Patches: []Patch{{Line: 9, File: "/a", From: 5, Length: ptr[uint64](6)}}},
			"rule x (line 7): patch in line 9: /a has only 5 bytes from 5 on, length is 6; make it smaller"},
		{Rule{Patches: []Patch{{Line: 9, File: "/huge", Offset: 1}}},
			"rule x (line 7): patch in line 9: the patch ends beyond the largest file; make offset or length smaller"},
	}
	for _, c := range cases {
		c.rule.Name, c.rule.Line = "x", 7
		if _, err := Layout(&c.rule, sizes); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// TestLayoutModel compares tables with bytes that were copied.
func TestLayoutModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		r := &Rule{}
		if rapid.Bool().Draw(t, "parts") {
			r.Parts = rapid.SliceOfN(rapid.SampledFrom(m.names[1:]), 1, 8).Draw(t, "names")
		} else {
			m.drawPatches(t, r)
		}
		if rapid.Bool().Draw(t, "sized") {
			r.Size = ptr(rapid.Uint64Range(0, 200).Draw(t, "size"))
		}
		table, err := Layout(r, func(path string) (int64, error) { return int64(len(m.files[path])), nil })
		if err != nil {
			t.Fatal(err)
		}
		checkTable(t, table)
		if got, want := m.read(table), m.expect(r); !bytes.Equal(got, want) {
			t.Fatalf("got\n%q\nwant\n%q\n%+v", got, want, table)
		}
	})
}

// A model has files with bytes of their own.
type model struct {
	names []string // the first is the file itself
	files map[string][]byte
}

func newModel(t *rapid.T) *model {
	m := &model{names: []string{"", "/a", "/b", "/c", "/d"}, files: make(map[string][]byte)}
	for i, name := range m.names {
		data := make([]byte, rapid.IntRange(0, 50).Draw(t, "len"))
		for j := range data {
			data[j] = byte(50*i + j + 1)
		}
		m.files[name] = data
	}
	return m
}

func (m *model) drawPatches(t *rapid.T, r *Rule) {
	r.Base = rapid.SampledFrom(m.names).Draw(t, "base")
	for range rapid.IntRange(1, 12).Draw(t, "patches") {
		p := Patch{Offset: rapid.Uint64Range(0, 120).Draw(t, "offset"), File: rapid.SampledFrom(m.names[1:]).Draw(t, "file")}
		size := uint64(len(m.files[p.File]))
		p.From = rapid.Uint64Range(0, size).Draw(t, "from")
		if rapid.Bool().Draw(t, "whole") {
			p.Length = ptr(rapid.Uint64Range(0, size-p.From).Draw(t, "length"))
		}
		r.Patches = append(r.Patches, p)
	}
}

// expect is what a rule means.
func (m *model) expect(r *Rule) []byte {
	var whole []byte
	for _, part := range r.Parts {
		whole = append(whole, m.files[part]...)
	}
	if len(r.Parts) == 0 {
		whole = append(whole, m.files[r.Base]...)
	}
	total := len(whole)
	if r.Size != nil {
		total = int(*r.Size)
	}
	whole = append(whole, make([]byte, 1000)...)
	for _, p := range r.Patches {
		data := m.files[p.File][p.From:]
		if p.Length != nil {
			data = data[:*p.Length]
		}
		copy(whole[p.Offset:], data)
	}
	return whole[:total]
}

// read reads as a table says.
func (m *model) read(table *Table) []byte {
	var out []byte
	for _, e := range table.Extents {
		if e.Kind == KindZero {
			out = append(out, make([]byte, e.Len)...)
			continue
		}
		name := ""
		if e.Backing != BackingSelf {
			name = table.Parts[e.Backing-BackingPart]
		}
		out = append(out, m.files[name][e.Src:e.Src+e.Len]...)
	}
	return out
}

// checkTable checks that extents are sorted, without a gap and merged.
func checkTable(t *rapid.T, table *Table) {
	var at uint64
	for i, e := range table.Extents {
		if e.Off != at || e.Len == 0 {
			t.Fatalf("extent %d of %+v", i, table)
		}
		at += e.Len
		if i == 0 || len(appendExtent(append([]Extent{}, table.Extents[i-1]), e)) == 2 {
			continue
		}
		t.Fatalf("extents %d and %d could be one: %+v", i-1, i, table)
	}
	if at != table.Total {
		t.Fatalf("extents end at %d: %+v", at, table)
	}
}

// TestLayoutMany is not quadratic.
func TestLayoutMany(t *testing.T) {
	r := &Rule{Size: ptr[uint64](1 << 40)}
	for i := range maxPatches {
		r.Patches = append(r.Patches, Patch{Offset: uint64(i), File: "/a"})
	}
	table, err := Layout(r, sizesOf(map[string]int64{"": 0, "/a": 1 << 30}))
	if err != nil || len(table.Extents) != maxPatches+1 {
		t.Errorf("%v", err)
	}
	if strings.Join(table.Parts, " ") != "/a" {
		t.Errorf("parts are %v", table.Parts)
	}
}
