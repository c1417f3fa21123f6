// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"fmt"
	"testing"
)

// The model of the power cut test is tested here: what it must take, and what
// it must not.

// cutCase is a file that was written to, and what is found of it.
type cutCase struct {
	name string
	ops  []cutWrite
	got  []byte
	want string // the word for what is wrong
}

// TestPowerCutContents checks contents against operations since a sync.
func TestPowerCutContents(t *testing.T) {
	base, late := cutSlice(1, 10_000), cutSlice(2, 20_000)
	put := func(b []byte, off int, more []byte) []byte {
		c := append(bytes.Clone(b), make([]byte, max(0, off+len(more)-len(b)))...)
		copy(c[off:], more)
		return c
	}
	over := cutWrite{off: 5000, data: late[:3000], size: 10_000}
	grow := cutWrite{off: 10_000, data: late[:5000], size: 15_000}
	cut, up := cutWrite{size: 5000}, cutWrite{size: 12_000}
	punch := cutWrite{off: 8000, data: make([]byte, 3000), size: 15_000, punch: true}
	mapped := cutWrite{off: 5000, data: late[:3000], size: 10_000, loose: true}
	for _, c := range []cutCase{
		{"untouched", nil, base, ""},
		{"not done", []cutWrite{over}, base, ""},
		{"done", []cutWrite{over}, put(base, 5000, late[:3000]), ""},
		{"one block", []cutWrite{over}, put(base, 5632, late[632:1144]), ""},
		{"torn", []cutWrite{over}, put(base, 5632, late[632:700]), "mixed"},
		{"torn by a mapping", []cutWrite{mapped}, put(base, 5632, late[632:700]), ""},
		{"a hole", []cutWrite{over}, put(base, 4096, make([]byte, 4096)), "zeros"},
		{"a hole beside it", []cutWrite{over}, put(base, 0, make([]byte, 4096)), "zeros"},
		{"short", []cutWrite{over}, base[:9999], "size"},
		{"empty", nil, nil, "size"},
		{"grown", []cutWrite{grow}, put(base, 10_000, late[:5000]), ""},
		{"grown in part", []cutWrite{grow}, put(base, 10_000, late[:240]), ""},
		{"grown without data", []cutWrite{grow}, put(base, 10_000, make([]byte, 5000)), ""},
		{"grown at an odd place", []cutWrite{grow}, put(base, 10_000, late[:241]), "size"},
		{"grown with other data", []cutWrite{grow}, put(put(base, 10_000, late[:5000]), 12_288, late[:512]), "mixed"},
		{"grown over zeros", []cutWrite{grow}, put(make([]byte, 10_000), 10_000, late[:5000]), "zeros"},
		{"cut", []cutWrite{cut}, base[:5000], ""},
		{"cut half", []cutWrite{cut}, put(base, 5000, make([]byte, 3192)), ""},
		{"cut and more", []cutWrite{cut}, put(base, 5000, make([]byte, 5000)), "zeros"},
		{"cut and grown", []cutWrite{cut, up}, put(base[:5000], 5000, make([]byte, 7000)), ""},
		{"come back", []cutWrite{cut, up}, put(put(nil, 0, make([]byte, 12_000)), 0, base), "uncut"},
		{"come back behind the block", []cutWrite{cut, up}, put(put(make([]byte, 12_000), 0, base[:5000]), 8192, base[8192:]), "old"},
		{"punched", []cutWrite{grow, punch}, put(put(base, 10_000, late[:5000]), 8000, make([]byte, 3000)), ""},
		{"punched, to its end", []cutWrite{grow, punch}, put(base, 8000, make([]byte, 3000)), ""},
	} {
		d := newCutData(base)
		for _, op := range c.ops {
			d.begin(op)
		}
		if kind, text := d.check(c.got); kind != c.want {
			t.Errorf("%s: %q (%s), want %q", c.name, kind, text, c.want)
		}
	}
}

// TestPowerCutSynced: what was before a sync is not taken after it.
func TestPowerCutSynced(t *testing.T) {
	base, late := cutSlice(1, 10_000), cutSlice(2, 3000)
	d := newCutData(base)
	d.begin(d.write(5000, late))
	d.finish()
	d.begin(cutWrite{size: 20_000})
	d.durable(d.done)
	want := append(append(bytes.Clone(base[:5000]), late...), base[8000:]...)
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"as it was synced": {want, ""},
		"as it was before": {base, "old"},
		"grown":            {append(bytes.Clone(want), make([]byte, 10_000)...), ""},
	} {
		if kind, text := d.check(c.got); kind != c.want {
			t.Errorf("%s: %q (%s), want %q", name, kind, text, c.want)
		}
	}
	if !bytes.Equal(base, cutSlice(1, 10_000)) {
		t.Error("a sync has changed contents that others share")
	}
}

// TestPowerCutNames checks names against the states of an object.
func TestPowerCutNames(t *testing.T) {
	var x cutFixture
	a, b := x.file(100), x.file(200)
	see := func(n *cutNode, nlink uint64) *cutSeen {
		return &cutSeen{kind: n.kind, data: n.data.base, attrs: n.attrs.now, ino: uint64(len(n.data.base)), nlink: nlink, mtime: n.mtime}
	}
	for i, c := range []struct {
		state cutState
		found map[string]*cutSeen
		want  string
	}{
		{cutState{"a": a}, map[string]*cutSeen{"a": see(a, 1)}, "[]"},
		{cutState{"a": a}, map[string]*cutSeen{"a": see(b, 1)}, "[mtime]"},
		{cutState{"a": a}, map[string]*cutSeen{}, "[missing]"},
		{cutState{}, map[string]*cutSeen{"a": see(a, 1)}, "[unexpected]"},
		{cutState{"a": a, "b": a}, map[string]*cutSeen{"a": see(a, 2), "b": see(a, 2)}, "[]"},
		{cutState{"a": a, "b": a}, map[string]*cutSeen{"a": see(a, 1), "b": see(a, 2)}, "[nlink]"},
		{cutState{"a": newCutNode("dir", 0o755)}, map[string]*cutSeen{"a": see(a, 1)}, "[type]"},
	} {
		var kinds []string
		for _, p := range c.state.compare(c.found) {
			kinds = append(kinds, p.kind)
		}
		if got := fmt.Sprint(kinds); got != c.want {
			t.Errorf("case %d: %s, want %s", i, got, c.want)
		}
	}
}

// TestPowerCutUnordered: of removed names each is there or not, whatever the
// order; but what was synced is gone, and what was not removed is there.
func TestPowerCutUnordered(t *testing.T) {
	var x cutFixture
	d, a, b := x.dir(), x.file(100), x.file(200)
	seen := func(names ...string) map[string]*cutSeen {
		found := map[string]*cutSeen{}
		for _, p := range names {
			n := cutState{"d": d, "a": a, "b": b}[p]
			found[p] = &cutSeen{kind: n.kind, data: n.data.base, attrs: n.attrs.now, nlink: 1, mtime: n.mtime}
		}
		return found
	}
	o := &cutObject{states: newHistory(cutState{"d": d, "a": a, "b": b})}
	o.states.begin(cutState{"d": d, "b": b})
	o.states.begin(cutState{"d": d})
	if s := o.unordered(seen("d", "a")); len(s) != 2 || s["a"] != a {
		t.Errorf("b gone before a: %v", s)
	}
	if s := o.unordered(seen("a", "b")); s != nil {
		t.Errorf("d gone, which nobody removed: %v", s)
	}
	o.states.finish()
	o.states.durable(1)
	if s := o.unordered(seen("d", "a")); s != nil {
		t.Errorf("a is back after it was synced: %v", s)
	}
}

// TestPowerCutMoves checks what renames make of names.
func TestPowerCutMoves(t *testing.T) {
	var x cutFixture
	d, f, g := x.dir(), x.file(1), x.file(2)
	s := cutState{"o/a": d, "o/a/f": f, "o/ab": g}
	if m := s.moved("o/a", "o/c"); len(m) != 3 || m["o/c"] != d || m["o/c/f"] != f || m["o/ab"] != g {
		t.Errorf("moved: %v", m)
	}
	if m := s.moved("o/ab", "o/a/f"); len(m) != 2 || m["o/a/f"] != g {
		t.Errorf("replaced: %v", m)
	}
	if m := s.exchanged("o/a", "o/ab"); len(m) != 3 || m["o/ab/f"] != f || m["o/a"] != g {
		t.Errorf("exchanged: %v", m)
	}
	for p, want := range map[string]string{"g0": "", "g0/a-01": "g0/a-01", "g0/a-01.f": "g0/a-01", "g0/a-01/x.y/z": "g0/a-01"} {
		if got := cutKey(p); got != want {
			t.Errorf("the key of %s is %s, want %s", p, got, want)
		}
	}
}
