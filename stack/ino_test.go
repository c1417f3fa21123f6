// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func newInoMap() *inoMap {
	m := new(inoMap)
	m.init()
	return m
}

func TestInoMapFirstDeviceKeepsItsNumbers(t *testing.T) {
	m := newInoMap()
	for _, ino := range []uint64{1, 2, 1<<48 - 1} {
		if got := m.get(42, ino); got != ino {
			t.Errorf("inode %d of the first device is shown as %d", ino, got)
		}
	}
	if got, want := m.get(43, 5), uint64(1<<48|5); got != want {
		t.Errorf("inode 5 of the second device is shown as %#x, want %#x", got, want)
	}
}

func TestInoMapOverflow(t *testing.T) {
	m := newInoMap()
	m.get(1, 1)
	m.get(2, 1)
	// These would be taken for each other's, if they were merely combined.
	odd := []inoKey{{1, 1<<48 | 1}, {1, 1 << 63}, {2, 1 << 48}, {2, 1<<63 | 1}, {3, 1<<64 - 1}, {1, 1<<63 | 1}}
	seen := map[uint64]inoKey{m.get(1, 1): {1, 1}, m.get(2, 1): {2, 1}}
	for _, k := range odd {
		n := m.get(k.dev, k.ino)
		if n&inoExtra == 0 {
			t.Errorf("%v is shown as %#x, without bit 63", k, n)
		}
		if other, dup := seen[n]; dup {
			t.Errorf("%v and %v are both %#x", k, other, n)
		}
		seen[n] = k
		if again := m.get(k.dev, k.ino); again != n {
			t.Errorf("%v was %#x and is %#x", k, n, again)
		}
	}
}

func TestInoMapManyDevices(t *testing.T) {
	m := newInoMap()
	seen := make(map[uint64]uint64, 1<<15+10)
	for dev := range uint64(1<<15 + 10) {
		n := m.get(dev, 77)
		if other, dup := seen[n]; dup {
			t.Fatalf("devices %d and %d share %#x", dev, other, n)
		}
		seen[n] = dev
	}
}

func TestInoMapUniqueAndStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newInoMap()
		forward, back := map[inoKey]uint64{}, map[uint64]inoKey{}
		ino := rapid.OneOf(rapid.Uint64Range(1, 8), rapid.Uint64(), rapid.Uint64Range(1<<48-2, 1<<48+2), rapid.Uint64Range(1<<63-1, 1<<63+8))
		for range rapid.IntRange(1, 60).Draw(t, "n") {
			k := inoKey{rapid.Uint64Range(0, 4).Draw(t, "dev"), ino.Draw(t, "ino")}
			n := m.get(k.dev, k.ino)
			if was, ok := forward[k]; ok && was != n {
				t.Fatalf("%v was %#x and is %#x", k, was, n)
			}
			if other, ok := back[n]; ok && other != k {
				t.Fatalf("%v and %v are both %#x", k, other, n)
			}
			forward[k], back[n] = n, k
		}
	})
}

func TestInoMapConcurrent(t *testing.T) {
	m := newInoMap()
	const threads = 8
	got := make([][]uint64, threads)
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			for dev := range uint64(50) {
				got[i] = append(got[i], m.get(dev, 3), m.get(dev, 1<<50))
			}
		})
	}
	wg.Wait()
	seen := map[uint64]int{}
	for k, n := range got[0] {
		if other, dup := seen[n]; dup {
			t.Errorf("requests %d and %d share %#x", k, other, n)
		}
		seen[n] = k
		for i := range threads {
			if got[i][k] != n {
				t.Errorf("thread %d got %#x, thread 0 %#x", i, got[i][k], n)
			}
		}
	}
}

// One space of numbers over layers on different file systems, equal in stat
// and readdir, and kept over copy-up.
func TestInoOverFileSystems(t *testing.T) {
	needRoot(t)
	shm := tmpfs(t)
	low1, low2 := layer(t, "file a 1", "file b 2"), shm
	for _, f := range []string{"c", "d", "e"} {
		addEntry(t, shm, []string{"file", f, f})
	}
	m := mountOver(t, nil, low1, low2)
	before := map[string]uint64{}
	seen := map[uint64]string{}
	for _, e := range dirents(t, m.mnt) {
		st := statOf(t, m.path(e.name))
		if e.name == "." || e.name == ".." {
			continue
		}
		if st.Ino != e.ino {
			t.Errorf("%s: d_ino %#x, st_ino %#x", e.name, e.ino, st.Ino)
		}
		if other, dup := seen[st.Ino]; dup {
			t.Errorf("%s and %s are both %#x", e.name, other, st.Ino)
		}
		seen[st.Ino], before[e.name] = e.name, st.Ino
	}
	if len(before) != 5 {
		t.Fatalf("listed %v", before)
	}
	for name := range before {
		must(t, unixChmod(m.path(name), 0o600))
	}
	check := func() {
		for name, ino := range before {
			if st := statOf(t, m.path(name)); st.Ino != ino {
				t.Errorf("%s was %#x and is %#x after its copy-up", name, ino, st.Ino)
			}
		}
	}
	check()
	m = m.remount(nil)
	check()
}

// TestInoMapHandles: numbers made of file handles are apart from all others,
// and from equal ones of another file system.
func TestInoMapHandles(t *testing.T) {
	m := newInoMap()
	m.get(1, 1)
	m.get(2, 1)
	a := uint64(inoHandle | 5)
	if got := m.get(1, a); got != a {
		t.Errorf("%#x of the first device is shown as %#x", a, got)
	}
	b := m.get(2, a)
	if b == a || b&inoHandle != inoHandle || b != m.get(2, a) {
		t.Errorf("%#x of the second device is shown as %#x, then %#x", a, b, m.get(2, a))
	}
	if n := m.get(2, 1<<60); n&inoHandle != inoExtra {
		t.Errorf("a number that does not fit is shown as %#x", n)
	}
}
