// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// cutHistory is a sequence of states, the first of which is the last that is
// known to be durable. After a power cut it is one of them.
type cutHistory[T any] struct {
	vals  []T
	first int // number of states before vals
	done  int // the last state whose operation has returned
	now   T   // the last state, for its worker to read without a lock
}

func newHistory[T any](v T) cutHistory[T] { return cutHistory[T]{vals: []T{v}, now: v} }

func (h *cutHistory[T]) begin(v T) { h.vals, h.now = append(h.vals, v), v }
func (h *cutHistory[T]) finish()   { h.done = h.first + len(h.vals) - 1 }

// durable forgets the states before n, which is on disk.
func (h *cutHistory[T]) durable(n int) {
	if n > h.first {
		h.vals, h.first = h.vals[n-h.first:], n
	}
}

// cutNode is an inode: what is found under one name or more.
type cutNode struct {
	kind   string // dir, file, symlink
	target string
	data   cutData
	attrs  cutHistory[cutAttrs]
	mtime  int64 // of a file that nobody has written to yet, or 0
}

// cutAttrs are the attributes of a file that change in order.
type cutAttrs struct {
	mode  uint32
	uid   uint32
	xattr string // user.cut
}

func newCutNode(kind string, mode uint32) *cutNode {
	return &cutNode{kind: kind, attrs: newHistory(cutAttrs{mode: mode})}
}

// cutState is what an object is: its names and what is there.
type cutState map[string]*cutNode

// with is the state with name leading to n, or to nothing.
func (s cutState) with(name string, n *cutNode) cutState {
	c := maps.Clone(s)
	if c[name] = n; n == nil {
		delete(c, name)
	}
	return c
}

// moved is the state after the rename of from to to, with all below, which
// replaces what is at to.
func (s cutState) moved(from, to string) cutState {
	c := cutState{}
	for p, n := range s {
		if rest, ok := below(p, from); ok {
			c[to+rest] = n
		} else if _, ok := below(p, to); !ok {
			c[p] = n
		}
	}
	return c
}

// exchanged is the state after a and b have changed places.
func (s cutState) exchanged(a, b string) cutState {
	c := cutState{}
	for p, n := range s {
		if rest, ok := below(p, a); ok {
			c[b+rest] = n
		} else if rest, ok := below(p, b); ok {
			c[a+rest] = n
		} else {
			c[p] = n
		}
	}
	return c
}

// below returns what follows dir in p, if p is dir or below it.
func below(p, dir string) (string, bool) {
	rest, ok := strings.CutPrefix(p, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// names are the names of a node, sorted.
func (s cutState) names(n *cutNode) []string {
	var names []string
	for p, m := range s {
		if m == n {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	return names
}

// files are the names of regular files, sorted.
func (s cutState) files() []string {
	var names []string
	for p, n := range s {
		if n.kind == "file" {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	return names
}

// cutObject is what one worker works on, one operation after the other: some
// names in one place, which begin with its key.
type cutObject struct {
	mu     sync.Mutex
	key    string
	worker string
	states cutHistory[cutState]
	log    []string // intents, what returned and what was synced, in this round
}

// note writes into the log of the object, whose lock is held.
func (o *cutObject) note(start time.Time, format string, args ...any) {
	o.log = append(o.log, fmt.Sprintf("%8.3f ms  %s", float64(time.Since(start).Microseconds())/1000, fmt.Sprintf(format, args...)))
}

// now is the state as the worker sees it.
func (o *cutObject) now() cutState { return o.states.now }

// nodes are all inodes of the states that the object may be in.
func (o *cutObject) nodes() map[*cutNode]bool {
	nodes := map[*cutNode]bool{}
	for _, s := range o.states.vals {
		for _, n := range s {
			nodes[n] = true
		}
	}
	return nodes
}

// A cutMark remembers what had returned when a sync began.
type cutMark struct {
	o      *cutObject
	states int
	data   map[*cutNode]int
	attrs  map[*cutNode]int
}

// mark remembers what has returned so far; the lock is held.
func (o *cutObject) mark() cutMark {
	m := cutMark{o: o, states: o.states.done, data: map[*cutNode]int{}, attrs: map[*cutNode]int{}}
	for n := range o.nodes() {
		m.data[n], m.attrs[n] = n.data.done, n.attrs.done
	}
	return m
}

// all notes that everything of the mark is durable, or all but contents with
// stores through mappings; the lock is held.
func (m cutMark) all(mapped bool) {
	m.names()
	for n := range m.data {
		if mapped || !n.data.mapped() {
			m.contents(n)
		}
		m.attributes(n)
	}
}

func (m cutMark) names()                { m.o.states.durable(m.states) }
func (m cutMark) contents(n *cutNode)   { n.data.durable(m.data[n]) }
func (m cutMark) attributes(n *cutNode) { n.attrs.durable(m.attrs[n]) }
