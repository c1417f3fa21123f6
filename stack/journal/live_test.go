// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tmpfs mounts a small file system for a test.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("mounting a tmpfs needs CAP_SYS_ADMIN")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestFullDisk(t *testing.T) {
	fs := tmpfs(t, "4m")
	dir := filepath.Join(fs, "plyfs")
	j := open(t, dir, quiet)
	ballast := filepath.Join(fs, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	name := func(i int) string { return fmt.Sprintf("%05d", i) + strings.Repeat("x", 200) }
	n := 0
	var crashed string
	for folded := 0; ; folded++ {
		var err error
		for ; err == nil; n++ {
			err = j.Apply(Cover(1, name(n)), Cover(2, name(n)))
		}
		n-- // the last one failed
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make space") {
			t.Fatalf("Apply on a full disk: %v", err)
		}
		must(t, j.Sync())
		crashed = copyDir(t, dir)
		// A fold needs space, too, for which there is a reserve. When that is used
		// up it fails, and everything is still there.
		if err := j.fold(); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("fold on a full disk: %v", err)
		}
		if folded == 0 {
			t.Error("no fold on the full disk")
		}
		break
	}
	want := func(j *Journal, n int) {
		t.Helper()
		for d := DirID(1); d <= 2; d++ {
			got, err := j.LoadDir(d)
			must(t, err)
			if _, ok := got[name(n-1)]; len(got) != n || !ok {
				t.Fatalf("directory %d has %d names, want %d", d, len(got), n)
			}
		}
	}
	want(j, n)
	if s := j.Stats(); s.Failed || s.LastErr == nil {
		t.Errorf("Stats = %+v", s)
	}
	must(t, os.Remove(ballast))
	must(t, j.Apply(Cover(1, name(n)), Cover(2, name(n))))
	n++
	want(j, n)
	must(t, j.fold())
	must(t, j.fold())
	must(t, j.Close())
	want(open(t, dir, quiet), n)
	want(open(t, crashed, quiet), n-1)
}

func TestReadOnlyFileSystem(t *testing.T) {
	fs := tmpfs(t, "4m")
	dir := filepath.Join(fs, "plyfs")
	j := open(t, dir, quiet)
	must(t, j.Apply(Cover(1, "a")))
	must(t, j.Close())
	must(t, unix.Mount("", fs, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if _, err := Open(dir, testMeta(), quiet); !errors.Is(err, ErrReadOnlyFS) || !errors.Is(err, syscall.EROFS) {
		t.Errorf("Open: %v", err)
	}
	if _, err := Open(filepath.Join(fs, "new"), testMeta(), quiet); !errors.Is(err, ErrReadOnlyFS) {
		t.Errorf("Open of a new one: %v", err)
	}
	s, err := OpenReadOnly(dir)
	must(t, err)
	defer s.Close()
	wantNames(t, s, 1, "a")
}

// TestFailedWriteLeavesNoTrace lets the log's file descriptor fail.
func TestFailedWriteLeavesNoTrace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	must(t, j.Apply(Cover(1, "before")))
	good := j.active.f
	readOnly, err := os.Open(good.Name())
	must(t, err)
	j.active.f = readOnly
	if err := j.Apply(Cover(1, "lost")); !errors.Is(err, syscall.EBADF) {
		t.Fatalf("Apply = %v, want EBADF", err)
	}
	j.active.f = good
	must(t, readOnly.Close())
	// Bytes of the failed write may be there: they go before the next frame.
	_, err = good.WriteAt([]byte("torn frame, and longer than the next one"+strings.Repeat(".", 200)), j.active.size)
	must(t, err)
	wantNames(t, j, 1, "before")
	must(t, j.Apply(Cover(1, "after")))
	if fi, err := good.Stat(); err != nil || fi.Size() != j.active.size {
		t.Errorf("log has %d bytes, want %d (%v)", fi.Size(), j.active.size, err)
	}
	wantNames(t, open(t, copyDir(t, dir), quiet), 1, "before", "after")
}

// TestConcurrent runs writers, readers, syncs and folds at once. Each writer owns a
// directory and knows what must be in it at any time.
func TestConcurrent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, Options{FoldInterval: time.Millisecond, FoldBytes: 8 << 10})
	const writers, rounds = 4, 400
	var wg sync.WaitGroup
	var ids sync.Map
	for w := range DirID(writers) {
		wg.Go(func() {
			for i := range rounds {
				if err := writeAndLook(j, w+1, i); err != nil {
					t.Error(err)
					return
				}
				id, err := j.NewDirID()
				if _, twice := ids.LoadOrStore(id, true); err != nil || twice {
					t.Errorf("id %d: %v, twice %v", id, err, twice)
				}
			}
		})
	}
	var stop atomic.Bool
	var others sync.WaitGroup
	others.Go(func() {
		for !stop.Load() {
			j.Stats()
			if err := j.Dump(discard{}); err != nil {
				t.Error(err)
			}
			if _, err := j.LoadLinks(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	stop.Store(true)
	others.Wait()
	waitForFold(t, j)
	if s := j.Stats(); s.LastErr != nil {
		t.Errorf("Stats = %+v", s)
	}
	must(t, j.Close())
	j = open(t, dir, quiet)
	for w := range DirID(writers) {
		wantNames(t, j, w+1, fmt.Sprint(rounds-1), fmt.Sprint(rounds-2))
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// writeAndLook keeps the last two names covered in d.
func writeAndLook(j *Journal, d DirID, i int) error {
	ops := []Op{Cover(d, fmt.Sprint(i)), SetLinks(Origin{uint32(d), uint64(i % 7)}, Links{2, 1})}
	if i >= 2 {
		ops = append(ops, Uncover(d, fmt.Sprint(i-2)))
	}
	if err := j.Apply(ops...); err != nil {
		return err
	}
	names, err := j.LoadDir(d)
	if err != nil {
		return err
	}
	_, now := names[fmt.Sprint(i)]
	if want := min(i+1, 2); len(names) != want || !now {
		return fmt.Errorf("round %d of %d: %v, want %d names", i, d, names, want)
	}
	if i%50 == 0 {
		if err := j.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// TestSyncIsShared: callers that wait for one fdatasync are all served by the next.
func TestSyncIsShared(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "plyfs"), quiet)
	const callers = 16
	var calls, inside atomic.Int32
	gate := make(chan struct{})
	kept := fdatasync
	defer func() { fdatasync = kept }()
	fdatasync = func(l *logFile) error {
		calls.Add(1)
		inside.Add(1)
		<-gate
		return kept(l)
	}
	var wg sync.WaitGroup
	start := func(i int) {
		must(t, j.Apply(Cover(1, fmt.Sprint(i))))
		wg.Go(func() {
			if err := j.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
	start(0)
	for inside.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for i := 1; i < callers; i++ {
		start(i)
	}
	close(gate)
	wg.Wait()
	if n := calls.Load(); n != 2 {
		t.Errorf("%d fdatasyncs for %d callers, want 2", n, callers)
	}
	if must(t, j.Sync()); calls.Load() != 2 || j.Dirty() {
		t.Error("a clean Sync did something")
	}
}

// TestLoadDirDoesNotWaitForAFold holds a fold where its commit would be.
func TestLoadDirDoesNotWaitForAFold(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "plyfs"), quiet)
	must(t, j.Apply(Cover(1, "a")))
	j.foldMu.Lock()
	j.syncMu.Lock()
	tx, err := j.db.Begin(true)
	must(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := j.LoadDir(1)
		if err == nil {
			err = j.Apply(Cover(1, "b"))
		}
		done <- err
	}()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(time.Minute):
		t.Error("LoadDir or Apply waits for a fold")
	}
	must(t, tx.Rollback())
	j.syncMu.Unlock()
	j.foldMu.Unlock()
}

func TestVolatile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	kept := fdatasync
	defer func() { fdatasync = kept }()
	fdatasync = func(*logFile) error { return errors.New("synced") }
	j := open(t, dir, Options{NoSync: true, FoldInterval: -1})
	must(t, j.Apply(Cover(1, "a")))
	if must(t, j.Sync()); j.Dirty() {
		t.Error("a volatile journal is never dirty")
	}
	must(t, j.fold())
	must(t, j.Apply(Cover(1, "b")))
	wantNames(t, open(t, copyDir(t, dir), quiet), 1, "a", "b") // after kill -9
	must(t, j.Close())
	fdatasync = kept
	wantNames(t, open(t, dir, quiet), 1, "a", "b")
}

func TestFolderWorksByTimeAndBySize(t *testing.T) {
	for name, o := range map[string]Options{
		"time": {FoldInterval: 5 * time.Millisecond},
		"size": {FoldInterval: -1, FoldBytes: 100},
	} {
		t.Run(name, func(t *testing.T) {
			j := open(t, filepath.Join(t.TempDir(), "plyfs"), o)
			must(t, j.Apply(Cover(1, strings.Repeat("n", 200))))
			waitForFold(t, j)
			if j.Dirty() {
				t.Error("dirty after a fold")
			}
		})
	}
}

// waitForFold waits for the first fold: it comes in the background, and waits for
// the disk.
func waitForFold(t *testing.T, j *Journal) {
	t.Helper()
	for end := time.Now().Add(time.Minute); j.Stats().Folds == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no fold")
		}
	}
}

func BenchmarkApply(b *testing.B) {
	j := open(b, filepath.Join(b.TempDir(), "plyfs"), Options{})
	names := make([]string, 4096)
	for i := range names {
		names[i] = fmt.Sprintf("some-file-name-%d.txt", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := j.Apply(Cover(DirID(i/4096%1000+1), names[i%4096])); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApplySync(b *testing.B) {
	j := open(b, filepath.Join(b.TempDir(), "plyfs"), quiet)
	for i := 0; b.Loop(); i++ {
		if err := j.Apply(Cover(1, "name")); err != nil {
			b.Fatal(err)
		}
		if err := j.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadDir(b *testing.B) {
	j := open(b, filepath.Join(b.TempDir(), "plyfs"), quiet)
	for d := range DirID(1000) {
		for n := range 10 {
			must(b, j.Apply(Cover(d+1, fmt.Sprint("name", n))))
		}
	}
	must(b, j.fold())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if names, err := j.LoadDir(DirID(i%1000 + 1)); err != nil || len(names) != 10 {
			b.Fatal(len(names), err)
		}
	}
}
