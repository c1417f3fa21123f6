// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallFS is a file system that fills up soon.
type smallFS struct {
	name, fstype string
	size         int64    // MiB
	mkfs         []string // more arguments
	inodes       bool     // it is inodes that run out
}

var smallFSs = []smallFS{
	{name: "ext4", fstype: "ext4", size: 64, mkfs: []string{"-b", "4096", "-m", "0"}},
	{name: "ext4 out of inodes", fstype: "ext4", size: 64, mkfs: []string{"-b", "4096", "-m", "0", "-N", "512"}, inodes: true},
	{name: "xfs", fstype: "xfs", size: 304},
	{name: "btrfs", fstype: "btrfs", size: 128},
}

// make makes and mounts it.
func (s smallFS) make(t testing.TB) string {
	t.Helper()
	requireRoot(t)
	mkfs, err := exec.LookPath("mkfs." + s.fstype)
	if err != nil {
		t.Skipf("mkfs.%s is not installed", s.fstype)
	}
	dir := tempDir(t)
	mp := makeTree(t, filepath.Join(dir, "fs"), nil)
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, s.size<<20))
	run(t, "", mkfs, append(append([]string{"-q"}, s.mkfs...), image)...)
	run(t, "", "mount", "-o", "loop", image, mp)
	t.Cleanup(func() {
		if err := unmountSoon(mp); err != nil {
			t.Errorf("unmounting the %s of the test: %v", s.fstype, err)
			unix.Unmount(mp, unix.MNT_DETACH)
		}
	})
	return mp
}

// noRoom says whether an error says that there is no space.
func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// fill fills the file system that dir is on, from outside of the mount or
// from within, until nothing fits any more.
func (s smallFS) fill(t testing.TB, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	if s.inodes {
		for i := 0; ; i++ {
			if err := unix.Mknod(filepath.Join(dir, fmt.Sprint(i)), unix.S_IFREG|0o644, 0); noRoom(err) {
				return
			} else if err != nil && err != unix.EEXIST {
				t.Fatal(err)
			}
		}
	}
	block := bytes.Repeat([]byte("full"), 64<<10)
	for size := len(block); size >= 4; {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint("f", size)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if noRoom(err) {
			return
		}
		must(t, err)
		for err == nil {
			_, err = f.Write(block[:size])
		}
		f.Close()
		if !noRoom(err) {
			t.Fatal(err)
		}
		size /= 8
	}
}

// A fuller works on a mount on a full disk and on a plain copy with room.
type fuller struct {
	*killer
	refused int // how many operations there was no room for
}

// next chooses an operation.
func (f *fuller) next() killOp {
	p := f.of("file")
	file := func(name string, flags int, fn func(*os.File) error) killOp {
		return killOp{name + " " + p, func(r string) error { return withFile(filepath.Join(r, p), flags, fn) }}
	}
	n := f.Int64N(40_000)
	switch f.IntN(18) {
	case 0, 1:
		data := pattern(int(n)+1, n)
		return file(fmt.Sprintf("append %d", len(data)), os.O_WRONLY|os.O_APPEND, func(o *os.File) error {
			st, err := o.Stat()
			if err != nil {
				return err
			}
			if _, err := o.Write(data); err != nil {
				// Half of it may have fit, as anywhere: not what is compared.
				return errors.Join(err, o.Truncate(st.Size()))
			}
			return nil
		})
	case 2:
		return file("fsync", os.O_RDWR, (*os.File).Sync)
	case 3:
		return file(fmt.Sprintf("truncate %d", n), os.O_WRONLY, func(o *os.File) error { return o.Truncate(n) })
	case 4:
		value := pattern(800, n)
		name := pick(f.gen, []string{"user.a", "user.b"})
		return killOp{"setxattr " + p, func(r string) error { return unix.Lsetxattr(filepath.Join(r, p), name, value, 0) }}
	case 5:
		b := f.fresh()
		return killOp{"symlink " + b, func(r string) error { return unix.Symlink("target", filepath.Join(r, b)) }}
	case 6:
		a, b := f.of("file"), f.of("dir")
		return killOp{"exchange " + a + " " + b, func(r string) error {
			return unix.Renameat2(unix.AT_FDCWD, filepath.Join(r, a), unix.AT_FDCWD, filepath.Join(r, b), unix.RENAME_EXCHANGE)
		}}
	case 7:
		a, b := f.of("dir"), f.fresh()
		return killOp{"rename directory " + a + " " + b, func(r string) error { return unix.Rename(filepath.Join(r, a), filepath.Join(r, b)) }}
	}
	return f.killer.next()
}

// work does n operations. Each is done, or there was no room and nothing is.
func (f *fuller) work(n int, full bool) {
	f.Helper()
	for i := range n {
		f.see(f.model)
		op := f.next()
		if strings.Contains(op.name, "filler") {
			continue
		}
		err := op.run(f.mp)
		if noRoom(err) && full {
			f.refused++
			f.compare(fmt.Sprintf("operation %d, %s, for which there was no room", i, op.name))
			continue
		}
		if merr := op.run(f.model); outcome("", merr) != outcome("", err) {
			f.Errorf("operation %d, %s: %v, on a plain copy %v", i, op.name, err, merr)
		}
		if f.Failed() {
			f.FailNow()
		}
	}
	f.compare("the operations")
}

// compare compares the mount with the model.
func (f *fuller) compare(after string) {
	f.Helper()
	ignore := func(p, field string) bool { return field == "mtime" || strings.HasPrefix(p, "filler") }
	got := mustDump(f, f.mp, dumpOptions{})
	for p := range got {
		if strings.HasPrefix(p, "filler") {
			delete(got, p)
		}
	}
	if diff := diffTrees(mustDump(f, f.model, dumpOptions{}), got, ignore); len(diff) > 0 {
		f.Fatalf("after %s:\n  %s", after, strings.Join(diff[:min(len(diff), 20)], "\n  "))
	}
}

// longer is by how much a test does more than in an ordinary run.
func longer(t testing.TB, variable string) int {
	if s := os.Getenv(variable); s != "" {
		return max(1, mustAtoi(t, s))
	}
	return 1
}

// TestFull works on a mount whose upper, and with it the journal, is on a
// full disk, filled from within and from outside. Each operation is done
// whole, or fails with ENOSPC and changes nothing; when there is space again
// the mount goes on, and the next mount shows the same.
func TestFull(t *testing.T) {
	requirePlyfs(t, "a journal")
	for _, s := range smallFSs {
		t.Run(s.name, func(t *testing.T) {
			seed := time.Now().UnixNano() % 1_000_000_000
			if e := os.Getenv("PLYFS_SEED"); e != "" && e != "random" {
				seed = int64(mustAtoi(t, e))
			}
			t.Logf("PLYFS_SEED=%d", seed)
			more := longer(t, "PLYFS_FULL")
			dir := s.make(t)
			u := newMount(t, mountOpts{lowers: killFixture(), upperDir: dir})
			model := filepath.Join(tempDir(t), "model")
			run(t, "", "cp", "-a", u.mp, model)
			u.allowFull = true
			f := &fuller{killer: &killer{union: u, model: model, gen: newGen(seed)}}
			f.work(15*more, false)
			for round, filler := range []string{u.path("filler"), filepath.Join(dir, "filler")} {
				s.fill(t, filler)
				f.work(50*more, true)
				if f.refused == 0 {
					t.Error("there was room for everything")
				}
				s.fill(t, filler)
				f.remount() // a mount on a full disk is how space is made
				f.compare("mounting again on the full disk")
				f.work(20*more, true)
				must(t, os.RemoveAll(filler))
				// What was freed can be used again when the file system has committed it.
				must(t, withFile(dir, os.O_RDONLY, func(o *os.File) error { return unix.Syncfs(int(o.Fd())) }))
				f.work(20*more, false)
				t.Logf("round %d: no room for %d operations", round, f.refused)
				f.refused = 0
			}
			f.remount()
			f.compare("mounting again")
			f.work(15*more, false)
		})
	}
}

// TestFullRemove: on a full disk files of lower layers can be removed, and the
// names stay away.
func TestFullRemove(t *testing.T) {
	requirePlyfs(t, "a journal")
	for _, s := range smallFSs {
		t.Run(s.name, func(t *testing.T) {
			dir := s.make(t)
			var lower []string
			const files = 3000
			for i := range files {
				lower = append(lower, fmt.Sprintf("dir/file-with-a-name-of-some-length-%d=x", i))
			}
			u := newMount(t, mountOpts{lowers: [][]string{append(lower, "dir/sub/a=x")}, upperDir: dir})
			must(t, os.Chmod(u.path("dir"), 0o700))
			time.Sleep(6 * time.Second) // the journal is folded once
			s.fill(t, filepath.Join(dir, "filler"))
			for i := range files {
				if err := os.Remove(u.path(fmt.Sprintf("dir/file-with-a-name-of-some-length-%d", i))); err != nil {
					t.Fatalf("removing file %d of %d: %v", i, files, err)
				}
				if i == files/2 {
					time.Sleep(6 * time.Second)
				}
			}
			wantNames(t, u.path("dir"), "sub")
			u.remount()
			wantNames(t, u.path("dir"), "sub")
			u.kill9()
			u.mount()
			wantNames(t, u.path("dir"), "sub")
			must(t, os.RemoveAll(filepath.Join(dir, "filler")))
			must(t, os.RemoveAll(u.path("dir")))
			wantNames(t, u.mp)
		})
	}
}

// TestFullMountCOW: where not even an attribute that stays as it is can be
// written, a mount comes about all the same, and what fills the disk can be
// removed through it.
func TestFullMountCOW(t *testing.T) {
	requirePlyfs(t, "a journal")
	s := smallFS{name: "btrfs of mixed blocks", fstype: "btrfs", size: 64, mkfs: []string{"-M"}}
	dir := s.make(t)
	u := newMount(t, mountOpts{lowers: [][]string{{"f=lower", "gone=lower"}}, upperDir: dir})
	must(t, os.Remove(u.path("gone")))
	s.fill(t, u.path("filler"))
	for _, again := range []func(){u.remount, func() { u.kill9(); u.mount() }} {
		again()
		wantNames(t, u.mp, "f", "filler")
	}
	must(t, os.RemoveAll(u.path("filler")))
	u.unmount()
	runCheck(t, exitClean, u.layersOf()...)
}
