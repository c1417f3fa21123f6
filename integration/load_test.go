// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	loadTime    = 20 * time.Second // when PLYFS_LOAD_TIME is not set
	loadWorkers = 12
	loadFDs     = 5000 // the daemon holds fewer descriptors, whatever the tree
)

// TestLoad lets many threads work in the same directories. No call may give an
// error that a plain directory would not; afterwards rm -rf leaves nothing,
// and the daemon holds no more descriptors than before.
func TestLoad(t *testing.T) {
	d := loadTime
	if s := os.Getenv("PLYFS_LOAD_TIME"); s != "" {
		var err error
		d, err = time.ParseDuration(s)
		must(t, err)
	}
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{lowers: loadFixture(), options: []string{"io=" + mode}})
		before := 0
		if u.pid != 0 {
			before = countFDs(t, u.pid)
		}
		l := &load{union: u}
		l.run(d / 2)
		t.Logf("%d operations", l.ops.Load())
		l.removeAll()
		if u.pid != 0 {
			l.checkForgotten(before)
		}
		u.remount()
		wantNames(t, u.mp)
	})
}

// checkForgotten expects that the daemon forgets what was removed when the
// kernel has forgotten it, and that its descriptors are those of a bounded
// cache of directories.
func (l *load) checkForgotten(before int) {
	l.Helper()
	const slack, nodes = 256, 16
	st := l.status()
	for end := time.Now().Add(patience); st.Nodes > nodes && time.Now().Before(end); {
		os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0)
		time.Sleep(100 * time.Millisecond)
		st = l.status()
	}
	if st.Nodes > nodes {
		l.Errorf("the daemon keeps %d nodes after all is removed", st.Nodes)
	}
	if n := countFDs(l, l.pid); n > before+slack {
		l.Errorf("the daemon holds %d descriptors after all is removed, %d before", n, before)
	}
}

// loadFixture is three layers that share four directories.
func loadFixture() [][]string {
	var ls [][]string
	for i := range 3 {
		var l []string
		for d := range 4 {
			for f := range 30 {
				l = append(l, fmt.Sprintf("d%d/n%d=#%d", d, f+i*10, 100*f), fmt.Sprintf("d%d/sub%d/x%d-%d=1", d, f%5, i, f))
			}
		}
		ls = append(ls, l)
	}
	return ls
}

// load is the work of TestLoad.
type load struct {
	*union
	ops     atomic.Int64
	stopped atomic.Bool
}

// run works for the time with all workers.
func (l *load) run(d time.Duration) {
	var wg sync.WaitGroup
	for w := range loadWorkers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for !l.stopped.Load() && !l.Failed() {
				l.step(r)
			}
		}()
	}
	end := time.Now().Add(d)
	for last, at := int64(-1), time.Now(); time.Now().Before(end) && !l.Failed(); time.Sleep(100 * time.Millisecond) {
		if n := l.ops.Load(); n != last {
			last, at = n, time.Now()
		} else if time.Since(at) > 2*patience {
			l.Errorf("nothing moves for %v: a deadlock", 2*patience)
			l.destroy()
		}
		l.watchFDs()
	}
	l.stopped.Store(true)
	wg.Wait()
}

// watchFDs expects that the daemon's descriptors stay under the bound.
func (l *load) watchFDs() {
	if l.pid == 0 {
		return
	}
	if n := countFDs(l, l.pid); n > loadFDs {
		l.Errorf("the daemon holds %d descriptors, the bound is %d", n, loadFDs)
	}
}

// name is a random one of few names.
func (l *load) name(r *rand.Rand) string {
	d := fmt.Sprintf("d%d", r.IntN(4))
	if r.IntN(3) == 0 {
		d = filepath.Join(d, fmt.Sprintf("sub%d", r.IntN(6)))
	}
	return l.path(d, fmt.Sprintf("n%d", r.IntN(50)))
}

// Errors that others' work in the same directories explains, by kind.
var (
	gone  = []error{unix.ENOENT, unix.ENOTDIR}
	taken = append([]error{unix.EEXIST, unix.EISDIR, unix.ENOTEMPTY}, gone...)
)

// step makes one random operation.
func (l *load) step(r *rand.Rand) {
	a, b := l.name(r), l.name(r)
	var err error
	var what string
	allowed := taken
	switch r.IntN(12) {
	case 0, 1:
		what, err = "write", os.WriteFile(a, pattern(r.IntN(5000), 1), 0o644)
	case 2:
		what, err = "append", withFile(a, os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("x"); return err })
	case 3:
		_, err = os.ReadFile(a)
		what = "read"
	case 4:
		what, err = "unlink", unix.Unlink(a)
	case 5:
		what, err = "mkdir", unix.Mkdir(a, 0o755)
	case 6:
		what, err = "rmdir", unix.Rmdir(a)
	case 7:
		what, err, allowed = "rename", unix.Rename(a, b), append([]error{unix.EINVAL}, taken...)
	case 8:
		what, err = "exchange", unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		allowed = append([]error{unix.EINVAL}, gone...)
	case 9:
		what, err, allowed = "link", unix.Link(a, b), append([]error{unix.EPERM}, taken...)
	case 10:
		_, err = os.ReadDir(filepath.Dir(a))
		what, allowed = "readdir", gone
	case 11:
		what, err, allowed = "chmod", unix.Chmod(a, 0o700), gone
	}
	l.ops.Add(1)
	if err != nil && !slices.ContainsFunc(allowed, func(w error) bool { return errors.Is(err, w) }) && !l.stopped.Load() {
		l.Errorf("%s %s: %v", what, a, err)
	}
}

// removeAll is rm -rf of all there is.
func (l *load) removeAll() {
	l.Helper()
	for _, n := range names(l, l.mp) {
		if out, err := exec.Command("rm", "-rf", l.path(n)).CombinedOutput(); err != nil {
			l.Errorf("rm -rf %s: %v: %s", n, err, out)
			l.explainLeft(n)
		}
	}
	wantNames(l, l.mp)
}

// explainLeft logs what rm -rf could not remove, as the mount, the upper
// directory and plyfs itself see it.
func (l *load) explainLeft(name string) {
	l.Helper()
	walk(l.mp, name, func(p string) error {
		up, err := readNames(filepath.Join(l.upper, p))
		l.Logf("left: %s; upper has there %q (%v)", p, up, err)
		if l.sut == sutPlyfs {
			out, _ := plyfs("explain", l.path(p))
			l.Log(out)
		}
		return nil
	})
}

// TestLoadDescriptors walks a large tree: the daemon's descriptors do not grow
// with it.
func TestLoadDescriptors(t *testing.T) {
	requirePlyfs(t, "descriptors of a daemon")
	dir := tempDir(t)
	for i := range 3 {
		for j := range 3000 {
			must(t, os.MkdirAll(fmt.Sprintf("%s/l%d/%02d/%04d", dir, i, j%50, j), 0o755))
		}
	}
	u := newMount(t, mountOpts{dir: dir, lowerDirs: []string{dir + "/l0", dir + "/l1", dir + "/l2"}, noLowerCheck: true})
	n := 0
	must(t, walk(u.mp, ".", func(string) error { n++; return nil }))
	if n < 3000 {
		t.Fatalf("%d directories", n)
	}
	if fds := countFDs(t, u.pid); fds > loadFDs {
		t.Errorf("%d descriptors after a walk of %d directories in 3 layers", fds, n)
	}
}
