// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func newNodeTable() *nodeTable {
	t := new(nodeTable)
	t.init()
	return t
}

func TestNodeTableCounts(t *testing.T) {
	tab := newNodeTable()
	n := &node{typ: unix.S_IFREG}
	tab.add(n)
	if n.id == rootID || tab.get(n.id) != n || n.lookups != 1 {
		t.Fatalf("added: %+v", n)
	}
	for range 2 {
		if !tab.ref(n) {
			t.Fatal("a live node cannot be referenced")
		}
	}
	if dead := tab.unref(n.id, 2); dead != nil {
		t.Fatal("died with a reference left")
	}
	if dead := tab.unref(n.id, 1); dead != n || !n.dead.Load() {
		t.Fatalf("the last reference did not end it: %v", dead)
	}
	if tab.get(n.id) != nil || tab.ref(n) || tab.len() != 0 {
		t.Error("a dead node is still found")
	}
	if dead := tab.unref(n.id, 1); dead != nil {
		t.Error("a node died twice")
	}
}

func TestNodeTablePinned(t *testing.T) {
	tab := newNodeTable()
	root := &node{id: rootID, pinned: true, lookups: 1}
	tab.put(root)
	if tab.unref(rootID, 1<<40) != nil || tab.get(rootID) != root || !tab.ref(root) || root.lookups != 1 {
		t.Error("the root can be forgotten")
	}
}

func TestNodeTableIDsAreNeverUsedAgain(t *testing.T) {
	tab := newNodeTable()
	seen := map[uint64]bool{rootID: true}
	for range 3 * tableShards {
		n := &node{}
		tab.add(n)
		if seen[n.id] {
			t.Fatalf("id %d again", n.id)
		}
		seen[n.id] = true
		tab.unref(n.id, 1)
	}
	if tab.len() != 0 {
		t.Errorf("%d nodes left", tab.len())
	}
}

// Lookups race with forgets: whoever gets a reference gets a live node, and a
// node dies once.
func TestNodeTableConcurrent(t *testing.T) {
	tab := newNodeTable()
	const threads, rounds = 8, 2000
	var mu sync.Mutex
	var shared *node
	deaths := map[*node]int{}
	made := 0
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for range rounds {
				mu.Lock()
				n := shared
				if n == nil || !tab.ref(n) {
					n = &node{typ: unix.S_IFREG}
					tab.add(n)
					shared = n
					made++
				}
				mu.Unlock()
				if tab.get(n.id) != n {
					t.Error("a referenced node is not in the table")
				}
				if dead := tab.unref(n.id, 1); dead != nil {
					mu.Lock()
					deaths[dead]++
					mu.Unlock()
				}
				tab.len()
			}
		})
	}
	wg.Wait()
	if tab.len() != 0 {
		t.Errorf("%d nodes left", tab.len())
	}
	if len(deaths) != made {
		t.Errorf("%d nodes made, %d died", made, len(deaths))
	}
	for n, times := range deaths {
		if times != 1 || n.lookups != 0 {
			t.Fatalf("a node died %d times, with %d references", times, n.lookups)
		}
	}
}

func TestNodeTableEachMayChangeTheTable(t *testing.T) {
	tab := newNodeTable()
	for range 200 {
		tab.add(&node{})
	}
	n := 0
	tab.each(func(x *node) {
		n++
		tab.unref(x.id, 1)
	})
	if n != 200 || tab.len() != 0 {
		t.Errorf("%d visited, %d left", n, tab.len())
	}
}

// A name holds a reference on its directory's node.
func TestNodeNames(t *testing.T) {
	fs := &FS{}
	fs.nodes.init()
	a, b, n := &node{orphan: -1}, &node{orphan: -1}, &node{orphan: -1}
	fs.nodes.add(a)
	fs.nodes.add(b)
	fs.addName(n, a, "x")
	fs.addName(n, a, "x")
	fs.addName(n, b, "x")
	fs.addName(n, a, "y")
	if len(n.names) != 3 || !n.hasName(b, "x") || n.hasName(b, "y") {
		t.Fatalf("%v", n.names)
	}
	if a.lookups != 3 || b.lookups != 2 {
		t.Errorf("references %d and %d, want 3 and 2", a.lookups, b.lookups)
	}
	fs.dropName(n, a, "x")
	fs.dropName(n, a, "none")
	if len(n.names) != 2 || n.hasName(a, "x") || !n.hasName(a, "y") || !n.hasName(b, "x") {
		t.Errorf("%v", n.names)
	}
	if a.lookups != 2 || b.lookups != 2 {
		t.Errorf("references %d and %d, want 2 and 2", a.lookups, b.lookups)
	}
}

// References that the daemon takes for itself are given back, and all names of
// a hard-linked inode are one node.
func TestChildReferences(t *testing.T) {
	cfg := mountDirs(t, layer(t, "file a 1", "link a b", "file d/e/f 1"))
	fs := openFS(t, cfg)
	a, err := fs.child(fs.root, "a", Nobody)
	must(t, err)
	b, err := fs.child(fs.root, "b", Nobody)
	must(t, err)
	if a != b || a.lookups != 2 || len(a.names) != 2 {
		t.Errorf("two names of an inode: %p %+v, %p %+v", a, a.names, b, b.names)
	}
	if _, err := fs.child(fs.root, "none", Nobody); err != unix.ENOENT {
		t.Errorf("none: %v", err)
	}
	fs.Forget(a.id, 2)
	n, err := fs.walk("/d/e/f")
	must(t, err)
	if got := fs.nodes.len(); got != 4 {
		t.Errorf("%d nodes with one file referenced, want root, the file and the two directories that its name keeps", got)
	}
	fs.Forget(n.id, 1)
	for _, bad := range []string{"/none/x", "/d/none/x", "/d/e/f/x"} {
		if _, err := fs.walk(bad); err == nil {
			t.Errorf("walk %s found something", bad)
		}
	}
	if got := fs.nodes.len(); got != 1 {
		t.Errorf("%d nodes are left, want the root alone", got)
	}
	if len(fs.root.dir.children) != 0 || len(fs.hard.nodes) != 0 {
		t.Errorf("%d children, %d hard links left", len(fs.root.dir.children), len(fs.hard.nodes))
	}
}
