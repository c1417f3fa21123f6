// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wantForgotten has the kernel drop what it need not keep, and waits until the
// root is the only node left.
func (m *mounted) wantForgotten() {
	m.t.Helper()
	must(m.t, m.Sync()) // a record that is owed keeps its directory
	var nodes int
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			m.t.Skipf("the kernel cannot be made to forget here: %v", err)
		}
		for range 10 {
			if nodes = m.Status().Nodes; nodes == 1 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	var left []string
	m.nodes.each(func(n *node) {
		if n != m.root {
			left = append(left, fmt.Sprintf("node %d ino %d type %#o lookups %d unlinked %v names %d", n.id, n.ino, n.typ, n.lookups, n.unlinked, len(n.names)))
		}
	})
	m.t.Errorf("%d nodes after the kernel forgot all: %q", nodes, left[:min(len(left), 5)])
}

// All that a tree's use brings into memory goes again.
func TestForget(t *testing.T) {
	low := layer(t, "file hard 1", "link hard link1", "file r 1", "file gone 1")
	for i := range 300 {
		addEntry(t, low, []string{"file", fmt.Sprintf("d%d/e/f%d", i%20, i), "content"})
	}
	m := mountOver(t, nil, low)
	treeOf(t, m.mnt)
	for i := range 40 {
		writePath(t, m.path(fmt.Sprintf("d%d/e/new", i%20)), "n")
		must(t, unix.Unlink(m.path(fmt.Sprintf("d%d/e/f%d", i%20, i))))
	}
	r := openFD(t, m.path("r"), unix.O_RDONLY)
	writePath(t, m.path("r"), "2")
	writePath(t, m.path("link1"), "2")
	must(t, unix.Rename(m.path("d1"), m.path("d1moved")))
	g := openFD(t, m.path("gone"), unix.O_RDWR)
	must(t, unix.Unlink(m.path("gone")))
	g.writeAt("still", 0)
	if m.Status().Nodes < 300 {
		t.Errorf("only %d nodes in use", m.Status().Nodes)
	}
	r.close()
	g.close()
	m.wantForgotten()
	m.wantNoneKept()
	if got := readPath(t, m.path("d1moved/e/f61")); got != "content" {
		t.Errorf("after that: %q", got)
	}
}

// A successor that the kernel never looks up goes with the node it succeeded.
func TestForgetUnseenSuccessor(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file a 1"))
	r := openFD(t, m.path("a"), unix.O_RDONLY)
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", r.fd), unix.O_RDWR, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	r.close()
	m.wantForgotten()
}

// wantNoneKept finds what still points to forgotten nodes. A node leaves its
// parent a little after it leaves the table.
func (m *mounted) wantNoneKept() {
	m.t.Helper()
	var children, hard int
	if eventually(func() bool {
		m.root.mu.RLock()
		children = len(m.root.dir.children)
		m.root.mu.RUnlock()
		m.hard.mu.Lock()
		hard = len(m.hard.nodes)
		m.hard.mu.Unlock()
		return children+hard == 0
	}) {
		return
	}
	m.t.Errorf("%d children are kept in the root, %d hard-linked nodes", children, hard)
}

func countOpenFDs(t testing.TB) int {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(ents)
}

// The daemon's descriptors do not grow with the tree, and none is left after
// Close.
func TestDescriptors(t *testing.T) {
	for _, how := range []string{PassthroughAuto, PassthroughOff} {
		t.Run(how, func(t *testing.T) { descriptors(t, how) })
	}
}

func descriptors(t *testing.T, passthrough string) {
	low := layer(t)
	for i := range 400 {
		addEntry(t, low, []string{"file", fmt.Sprintf("d%d/e%d/f", i, i), "content"})
	}
	before := countOpenFDs(t)
	m := mountOver(t, func(c *Config) { c.FDCache, c.Passthrough = 64, passthrough }, low)
	for i := range 400 {
		p := m.path(fmt.Sprintf("d%d/e%d", i, i))
		if got := readPath(t, p+"/f"); got != "content" {
			t.Fatalf("%s: %q", p, got)
		}
		writePath(t, p+"/f", "new")
		writePath(t, p+"/g", "new")
		must(t, unix.Unlink(p+"/f"))
	}
	if !eventually(func() bool { return countOpenFDs(t) <= before+64+40 }) { // the last releases are on their way
		t.Errorf("%d descriptors while mounted, %d before, with 64 for directories", countOpenFDs(t), before)
	}
	if s := m.Status(); s.DirFDs > 64+8 {
		t.Errorf("%d directories open, the bound is 64", s.DirFDs)
	}
	m.unmount()
	if n := countOpenFDs(t); n > before {
		t.Errorf("%d descriptors after Close, %d before Open", n, before)
	}
}

// A mount that fails leaves no descriptor either.
func TestDescriptorsOfFailedOpen(t *testing.T) {
	needRoot(t)
	low := layer(t, "file a 1")
	cfg := mountDirs(t, low)
	cfg.Lowers = append(cfg.Lowers, cfg.Work+"/none")
	before := countOpenFDs(t)
	for range 5 {
		if fs, err := Open(cfg); err == nil {
			_ = fs.Close()
			t.Fatal("opened")
		}
	}
	cfg.Lowers = cfg.Lowers[:1]
	cfg.Mountpoint += "/none"
	for range 5 {
		fs, err := Open(cfg)
		if err != nil {
			break
		}
		if err := fs.Mount(); err == nil {
			t.Fatal("mounted")
		}
		must(t, fs.Close())
	}
	if n := countOpenFDs(t); n > before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}
