// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree makes width directories of width directories and returns all of them
// with their inode numbers.
func tree(t *testing.T, l *Layer, width int) (dirs []*Dir, inos map[*Dir]uint64) {
	t.Helper()
	inos = map[*Dir]uint64{}
	add := func(parent *Dir, name string) *Dir {
		must(t, parent.Mkdir(name, 0o755))
		d := parent.Child(name)
		dirs = append(dirs, d)
		inos[d] = stat(t, d, "").Ino
		return d
	}
	for i := range width {
		top := add(l.Root(), fmt.Sprintf("top%d", i))
		for j := range width {
			add(top, fmt.Sprintf("sub%d", j))
		}
	}
	return dirs, inos
}

func TestCacheIsBounded(t *testing.T) {
	l := upper(t, t.TempDir(), 8)
	dirs, _ := tree(t, l, 6)
	base := openFDs(t)
	for range 5 {
		for _, d := range dirs {
			stat(t, d, "")
			if n := l.cache.Len(); n > 8 {
				t.Fatalf("%d descriptors, bound is 8", n)
			}
		}
	}
	if n := openFDs(t); n > base+8 {
		t.Errorf("%d descriptors in the process, %d before", n, base)
	}
}

func TestCacheKeepsPinned(t *testing.T) {
	l := upper(t, t.TempDir(), 4)
	dirs, inos := tree(t, l, 4)
	fds := map[*Dir]int{}
	for _, d := range dirs {
		fd, err := d.Acquire()
		must(t, err)
		fds[d] = fd
	}
	for d, fd := range fds {
		if id, err := identify(fd); err != nil || id.ino != inos[d] {
			t.Errorf("a pinned descriptor was closed: %v %v", id, err)
		}
		d.Release()
	}
	stat(t, dirs[0], "")
	must(t, l.Root().Mkdir("new", 0o755))
	stat(t, l.Root().Child("new"), "")
	if n := l.cache.Len(); n > 4 {
		t.Errorf("%d descriptors after the pins ended, bound is 4", n)
	}
}

func TestForgetPinned(t *testing.T) {
	l := upper(t, t.TempDir(), 4)
	must(t, l.Root().Mkdir("a", 0o755))
	a := l.Root().Child("a")
	fd, err := a.Acquire()
	must(t, err)
	a.Forget()
	if _, err := identify(fd); err != nil {
		t.Errorf("closed while pinned: %v", err)
	}
	a.Release()
	if l.cache.Len() != 0 {
		t.Error("not closed at the last Release")
	}
	stat(t, a, "") // opens anew
}

// Directories are used, moved, exchanged and forgotten at once through a cache
// far too small: nobody ever gets an error or another directory's descriptor.
func TestCacheConcurrency(t *testing.T) {
	const max, workers = 5, 6
	l := upper(t, t.TempDir(), max)
	dirs, inos := tree(t, l, 5)
	var wg sync.WaitGroup
	deadline := time.Now().Add(700 * time.Millisecond)
	run := func(work func(r *rand.Rand) error) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for time.Now().Before(deadline) {
				if err := work(r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range workers {
		run(func(r *rand.Rand) error {
			d := dirs[r.IntN(len(dirs))]
			fd, err := d.Acquire()
			if err != nil {
				return fmt.Errorf("%s: %w", d.Path(), err)
			}
			defer d.Release()
			id, err := identify(fd)
			if err == nil && id.ino != inos[d] {
				err = fmt.Errorf("%s: inode %d, want %d", d.Path(), id.ino, inos[d])
			}
			return err
		})
	}
	run(func(r *rand.Rand) error { // a top directory moves about
		d := dirs[0]
		return d.RenameTo(l.Root(), fmt.Sprintf("moved%d", r.IntN(3)), 0, nil)
	})
	run(func(r *rand.Rand) error { // two subdirectories change places
		parent, name := dirs[14].location()
		return dirs[8].RenameTo(parent, name, unix.RENAME_EXCHANGE, dirs[14])
	})
	run(func(r *rand.Rand) error { dirs[r.IntN(len(dirs))].Forget(); return nil })
	run(func(r *rand.Rand) error {
		if n := l.cache.Len(); n > max+2*workers+8 {
			return fmt.Errorf("%d descriptors", n)
		}
		return nil
	})
	wg.Wait()
}

// location is where a directory is now; right as long as nobody moves it.
func (d *Dir) location() (parent *Dir, name string) {
	d.layer.topo.RLock()
	defer d.layer.topo.RUnlock()
	return d.parent, d.name
}

func BenchmarkAcquireHit(b *testing.B) {
	l := upper(b, b.TempDir(), 4)
	must(b, l.Root().Mkdir("a", 0o755))
	a := l.Root().Child("a")
	stat(b, a, "")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Acquire(); err != nil {
			b.Fatal(err)
		}
		a.Release()
	}
}

func BenchmarkStat(b *testing.B) {
	l := upper(b, b.TempDir(), 4)
	write(b, l.Root(), "file", "x")
	var st unix.Stat_t
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Root().Stat("file", &st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetxattrUnset(b *testing.B) {
	l := upper(b, b.TempDir(), 4)
	write(b, l.Root(), "file", "x")
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Root().Getxattr("file", "trusted.overlay.opaque", buf); err != unix.ENODATA {
			b.Fatal(err)
		}
	}
}
