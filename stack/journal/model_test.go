// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is what a journal ought to hold.
type model struct {
	covers map[DirID]map[string]struct{}
	notes  map[DirID]DirNote
	links  map[Origin]Links
}

func newModel() *model {
	return &model{make(map[DirID]map[string]struct{}), make(map[DirID]DirNote), make(map[Origin]Links)}
}

func (m *model) apply(o Op) {
	switch o.kind {
	case opCover:
		if m.covers[o.dir] == nil {
			m.covers[o.dir] = make(map[string]struct{})
		}
		m.covers[o.dir][o.name] = struct{}{}
	case opUncover:
		delete(m.covers[o.dir], o.name)
	case opDropDir:
		delete(m.covers, o.dir)
		delete(m.notes, o.dir)
	case opNoteDir:
		m.notes[o.dir] = o.note
		if o.note == (DirNote{}) {
			delete(m.notes, o.dir)
		}
	case opSetLinks:
		m.links[o.origin] = o.links
	case opDropLinks:
		delete(m.links, o.origin)
	}
}

const modelDirs = 4

// check compares everything that can be loaded.
func (m *model) check(t *rapid.T, j *Journal) {
	covers := 0
	for d := DirID(1); d <= modelDirs; d++ {
		got, err := j.LoadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, m.covers[d]) || (len(got) == 0 && got != nil) {
			t.Fatalf("dir %d: %v, want %v", d, got, m.covers[d])
		}
		covers += len(got)
		var note DirNote
		err = j.read((*delta).clone, func(v *view) error {
			note, err = v.note(d)
			return err
		})
		if err != nil || note != m.notes[d] {
			t.Fatalf("note of %d: %+v (%v), want %+v", d, note, err, m.notes[d])
		}
	}
	links, err := j.LoadLinks()
	if err != nil || !maps.Equal(links, m.links) {
		t.Fatalf("links: %v (%v), want %v", links, err, m.links)
	}
	s := j.Stats()
	if s.LastErr != nil || s.Covers != uint64(covers) || s.Links != uint64(len(links)) || s.Notes != uint64(len(m.notes)) {
		t.Fatalf("Stats = %+v, want %d covers, %d links, %d notes", s, covers, len(links), len(m.notes))
	}
}

var genOp = rapid.Custom(func(t *rapid.T) Op {
	d := DirID(rapid.IntRange(1, modelDirs).Draw(t, "dir"))
	name := rapid.SampledFrom([]string{"a", "b", "c", "ä", "longer name"}).Draw(t, "name")
	origin := Origin{uint32(rapid.IntRange(0, 1).Draw(t, "layer")), uint64(rapid.IntRange(1, 3).Draw(t, "ino"))}
	ops := []Op{Cover(d, name), Cover(d, name), Uncover(d, name), DropDir(d), NoteDir(d, DirNote{Path: name}), NoteDir(d, DirNote{}),
		SetLinks(origin, Links{2, uint32(d)}), DropLinks(origin)}
	return ops[rapid.IntRange(0, len(ops)-1).Draw(t, "kind")]
})

// TestModel runs random sequences of changes, folds, halves of folds, syncs, crashes
// and remounts against the model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := filepath.Join(t.TempDir(), "plyfs")
		all := []string{dir} // of a few MiB each
		j, m := open(t, dir, quiet), newModel()
		rt.Repeat(map[string]func(*rapid.T){
			"apply": func(rt *rapid.T) {
				ops := rapid.SliceOfN(genOp, 1, 5).Draw(rt, "ops")
				must(t, j.Apply(ops...))
				for _, o := range ops {
					m.apply(o)
				}
			},
			"fold":   func(*rapid.T) { must(t, j.fold()) },
			"freeze": func(*rapid.T) { _, _, err := j.freeze(); must(t, err) },
			"sync":   func(*rapid.T) { must(t, j.Sync()) },
			"crash": func(*rapid.T) {
				dir = copyDir(t, dir)
				all = append(all, dir)
				must(t, j.Close())
				j = open(t, dir, quiet)
			},
			"remount": func(*rapid.T) {
				must(t, j.Close())
				j = open(t, dir, quiet)
			},
			"": func(rt *rapid.T) { m.check(rt, j) },
		})
		must(t, j.Close())
		if p, err := Check(dir); err != nil || len(p) > 0 {
			rt.Fatalf("Check: %v, %v", p, err)
		}
		for _, dir := range all {
			must(t, os.RemoveAll(dir))
		}
	})
}

func TestMergeDirsLeavesItsInputAlone(t *testing.T) {
	a, b := newDelta(), newDelta()
	a.add([]Op{Cover(1, "a")})
	b.add([]Op{Cover(1, "b"), Uncover(1, "a")})
	merged := mergeDirs([]*delta{a, b})
	if got := slices.Sorted(maps.Keys(merged[1].names)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("merged names %v", got)
	}
	if !maps.Equal(a.dirs[1].names, map[string]bool{"a": true}) {
		t.Errorf("input became %v", a.dirs[1].names)
	}
}
