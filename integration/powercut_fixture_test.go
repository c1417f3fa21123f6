// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// cutBytes is where all contents are taken from: no byte is zero, so holes
// and lost blocks show.
var cutBytes = pattern(8<<20, 8)

// cutSlice is n bytes of the contents; with another id other ones.
func cutSlice(id uint64, n int) []byte {
	off := id * 0x9e3779b97f4a7c15 >> 20 % uint64(len(cutBytes)-n)
	return cutBytes[off : off+uint64(n) : off+uint64(n)]
}

// cutFixture makes objects in their first states.
type cutFixture struct {
	objects []*cutObject
	files   uint64
}

// Sizes of files in the lower layer.
const (
	cutTiny   = 100
	cutSmall  = 10_000
	cutPages  = 16 << 10
	cutMiddle = 300 << 10
	cutLarge  = 3 << 20
)

// newCutObjects are the objects of all workers. There are more than one round
// needs, so that some are left as they were.
func newCutObjects() []*cutObject {
	var x cutFixture
	for i := range 8 {
		size := []int{cutTiny, cutSmall, cutPages, cutMiddle}[i%4]
		for _, worker := range []string{"append", "overwrite", "syncwrite", "mmap", "truncate", "punch", "rewrite", "tail"} {
			x.one(worker, i, size)
		}
		x.one("attributes", i, []int{cutTiny, cutMiddle}[i%2])
		x.one("still", i, []int{cutTiny, cutSmall, cutMiddle}[i%3])
		for _, worker := range []string{"replace", "replaceunsynced", "remove", "writemove"} {
			x.named(worker, i, cutState{"a": x.file(size)})
		}
		x.named("renamefile", i, cutState{"": x.dir(), "/a": x.dir(), "/a/f": x.file(size), "/b": x.dir()})
		x.named("renamedir", i, cutState{"": x.dir(), "/d": x.dir(), "/d/x": x.file(size), "/d/s": x.dir(), "/d/s/y": x.file(cutTiny)})
		x.named("renameover", i, cutState{"": x.dir(), "/a": x.file(size), "/b": x.file(cutSmall), "/c": x.file(cutTiny)})
		x.named("renamedirover", i, cutState{"": x.dir(), "/d": x.dir(), "/d/x": x.file(cutSmall), "/d/s": x.dir(), "/d/s/y": x.file(cutTiny), "/e": x.dir()})
		x.named("attributes", 20+i, cutState{"": x.dir(), "/x": x.file(size), "/s": x.dir(), "/s/y": x.file(cutTiny)})
		x.named("removedir", i, cutState{"": x.dir(), "/x": x.file(size), "/s": x.dir(), "/s/y": x.file(cutTiny)})
		linked := x.file(size)
		x.named("link", i, []cutState{{"a": linked}, {"a": linked, "b": linked}, {"a": linked, "b": linked, "c": linked}}[i%3])
		x.named("exchange", i, x.pair(i, size))
		x.named("create", i, cutState{"": x.dir(), "/kept": x.file(cutTiny)})
	}
	for i := range 12 {
		x.one("middle", i, cutMiddle)
	}
	for i := range 3 {
		for _, worker := range []string{"append", "mmap", "truncate", "middle", "attributes"} {
			x.one(worker, 12+i, cutLarge)
		}
	}
	return x.objects
}

// pair is two things that can be exchanged.
func (x *cutFixture) pair(i, size int) cutState {
	s := cutState{"": x.dir(), "/a": x.file(size), "/b": x.file(cutTiny)}
	if i%3 > 0 {
		s["/b"], s["/b/inside"] = x.dir(), x.file(cutTiny)
	}
	if i%3 > 1 {
		s["/a"], s["/a/inside"], s["/a/more"] = x.dir(), x.file(cutTiny), x.file(cutSmall)
	}
	return s
}

// one is an object of one file.
func (x *cutFixture) one(worker string, i, size int) {
	x.named(worker, i, cutState{"f": x.file(size)})
}

// named is an object of several names: beside each other in a directory that
// all share, or ("/") in one of its own.
func (x *cutFixture) named(worker string, i int, s cutState) {
	o := &cutObject{key: fmt.Sprintf("g%d/%s-%02d", i%4, worker, i), worker: worker}
	state := cutState{}
	for name, n := range s {
		if name != "" && name[0] != '/' {
			name = "." + name
		}
		state[o.key+name] = n
	}
	o.states = newHistory(state)
	x.objects = append(x.objects, o)
}

func (x *cutFixture) dir() *cutNode { return newCutNode("dir", 0o755) }

func (x *cutFixture) file(size int) *cutNode {
	x.files++
	n := newCutNode("file", 0o644)
	n.data = newCutData(cutSlice(x.files, size))
	n.mtime = fixtureTime.Add(time.Duration(x.files) * time.Second).UnixNano()
	return n
}

// buildCut makes the first states of all objects below the roots, one object
// here and one there.
func buildCut(t testing.TB, roots []string, objects []*cutObject) {
	t.Helper()
	times := map[string]time.Time{}
	for i, o := range objects {
		root, s := roots[i%len(roots)], o.now()
		var names []string
		for p := range s {
			names = append(names, p)
		}
		slices.Sort(names)
		for _, p := range names {
			path := filepath.Join(root, p)
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			first := s.names(s[p])[0]
			switch {
			case s[p].kind == "dir":
				must(t, os.Mkdir(path, 0o755))
			case first != p:
				must(t, os.Link(filepath.Join(root, first), path))
			default:
				must(t, os.WriteFile(path, s[p].data.base, 0o644))
				times[path] = time.Unix(0, s[p].mtime)
			}
		}
	}
	must(t, setTimes(times))
}

// cutName says what a path of an object is called in its log.
func (o *cutObject) cutName(p string) string { return strings.TrimPrefix(p, o.key) }
