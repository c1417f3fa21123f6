// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// defaultKills is the number of kills when PLYFS_KILLS is not set.
const defaultKills = 60

// TestKill kills the daemon with SIGKILL at random moments of a workload, and
// expects that the next mount, by the same command, shows every operation that
// had returned, and the one that was under way either done or not done.
func TestKill(t *testing.T) {
	requirePlyfs(t, "a daemon to kill")
	kills := defaultKills
	if s := os.Getenv("PLYFS_KILLS"); s != "" {
		kills = mustAtoi(t, s)
	}
	seed := time.Now().UnixNano() % 1_000_000_000
	if s := os.Getenv("PLYFS_SEED"); s != "" && s != "random" {
		seed = int64(mustAtoi(t, s))
	}
	t.Logf("PLYFS_SEED=%d", seed)
	u := newMount(t, mountOpts{lowers: killFixture()})
	model := filepath.Join(tempDir(t), "model")
	run(t, "", "cp", "-a", u.mp, model)
	k := &killer{union: u, model: model, gen: newGen(seed)}
	for i := range kills {
		k.round(i, time.Duration(k.IntN(150))*time.Millisecond)
		if t.Failed() {
			return
		}
	}
}

// killFixture is two layers with some of everything.
func killFixture() [][]string {
	var top, bottom []string
	for _, d := range genNames {
		for _, n := range genNames {
			bottom = append(bottom, fmt.Sprintf("%s/%s/f=#3000", d, n), fmt.Sprintf("%s/%s/g=bottom", d, n))
			top = append(top, fmt.Sprintf("%s/%s/g=top", d, n))
		}
	}
	return [][]string{top, append(bottom, "h1=linked", "h2 => h1", "a/h3 => h1")}
}

// killer runs operations on a mount and, once they have returned, on a plain
// copy: the model of what must be there.
type killer struct {
	*union
	*gen
	model string
}

// round works until the kill, mounts again and compares.
func (k *killer) round(i int, wait time.Duration) {
	pid := k.pid
	go func() {
		time.Sleep(wait)
		unix.Kill(pid, unix.SIGKILL)
	}()
	under := k.work()
	k.awaitDeath()
	k.mount() // the same command, over the dead mount
	got := mustDump(k, k.mp, dumpOptions{})
	k.settle(i, under, got)
}

// settle compares the mount with the model without and with the operation
// that was under way, and brings the model to what is there.
func (k *killer) settle(i int, under killOp, got treeDump) {
	k.Helper()
	ignore := func(_, field string) bool { return field == "mtime" }
	without := diffTrees(mustDump(k, k.model, dumpOptions{}), got, ignore)
	if len(without) == 0 {
		return
	}
	under.run(k.model)
	with := diffTrees(mustDump(k, k.model, dumpOptions{}), got, ignore)
	if len(with) == 0 {
		return
	}
	k.Errorf("kill %d, in %s: neither as before it:\n  %s\nnor as after it:\n  %s", i, under.name,
		strings.Join(without[:min(len(without), 20)], "\n  "), strings.Join(with[:min(len(with), 20)], "\n  "))
}

// killOp is an operation of the workload, atomic for a crash.
type killOp struct {
	name string
	run  func(root string) error
}

// work runs operations until the daemon does not answer and returns the one
// that was under way.
func (k *killer) work() killOp {
	for {
		k.see(k.model)
		op := k.next()
		err := op.run(k.mp)
		if dead(err) {
			return op
		}
		if merr := op.run(k.model); outcome("", merr) != outcome("", err) {
			k.Fatalf("%s: %v, on a plain copy %v", op.name, err, merr)
		}
	}
}

// dead says whether the error is that of a mount without a daemon.
func dead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EIO)
}

// next chooses an operation.
func (k *killer) next() killOp {
	a, b := k.gen.path(), k.fresh()
	switch k.IntN(9) {
	case 0:
		return killOp{"unlink " + a, func(r string) error { return unix.Unlink(filepath.Join(r, a)) }}
	case 1:
		return killOp{"rmdir " + a, func(r string) error { return unix.Rmdir(filepath.Join(r, a)) }}
	case 2, 3:
		return killOp{"rename " + a + " " + b, func(r string) error { return unix.Rename(filepath.Join(r, a), filepath.Join(r, b)) }}
	case 4:
		return killOp{"exchange " + a + " " + b, func(r string) error {
			return unix.Renameat2(unix.AT_FDCWD, filepath.Join(r, a), unix.AT_FDCWD, filepath.Join(r, b), unix.RENAME_EXCHANGE)
		}}
	case 5:
		return killOp{"mkdir " + a, func(r string) error { return unix.Mkdir(filepath.Join(r, a), 0o755) }}
	case 6:
		mode := pick(k.gen, []uint32{0o600, 0o644, 0o755})
		return killOp{"chmod " + a, func(r string) error { return unix.Chmod(filepath.Join(r, a), mode) }}
	case 7:
		return killOp{"link " + a + " " + b, func(r string) error { return unix.Link(filepath.Join(r, a), filepath.Join(r, b)) }}
	}
	n := k.Int64N(100)
	return killOp{"mknod " + b + fmt.Sprint(n), func(r string) error {
		return unix.Mknod(filepath.Join(r, b), unix.S_IFREG|0o644, 0)
	}}
}

// TestKillFsync writes files and syncs them before the kill: what was synced
// is whole, what was written and not synced is there as far as the daemon had
// taken it, and a file replaced by rename is the old or the new one.
func TestKillFsync(t *testing.T) {
	requirePlyfs(t, "a daemon to kill")
	u := newMount(t, mountOpts{lowers: [][]string{{"synced=#100000", "replaced=old", "dir/f=1"}}})
	for i := range 5 {
		data := pattern(50_000+rand.IntN(100_000), int64(i))
		must(t, withFile(u.path("synced"), os.O_WRONLY|os.O_TRUNC, func(f *os.File) error {
			if _, err := f.Write(data); err != nil {
				return err
			}
			return f.Sync()
		}))
		must(t, os.WriteFile(u.path("replaced.new"), data, 0o644))
		must(t, u.rename2("replaced.new", "replaced", 0))
		must(t, u.rename2("dir", "dir2", 0))
		must(t, u.rename2("dir2", "dir", 0))
		u.kill9()
		if _, err := os.Lstat(u.path("synced")); !dead(err) {
			t.Errorf("a mount without a daemon answers %v", err)
		}
		u.mount()
		wantFile(t, u.path("synced"), string(data))
		wantFile(t, u.path("replaced"), string(data))
		wantFile(t, u.path("dir/f"), "1")
		wantNames(t, u.mp, "dir", "replaced", "synced")
	}
}

// TestKillCopyUp kills during copy-ups of a large file: it is the lower file
// or the changed one, never half of it.
func TestKillCopyUp(t *testing.T) {
	requirePlyfs(t, "a daemon to kill")
	const size = 20_000_000
	u := newMount(t, mountOpts{lowers: [][]string{{fmt.Sprintf("a=#%d", size), fmt.Sprintf("b=#%d", size), fmt.Sprintf("c=#%d", size)}}})
	for _, name := range []string{"a", "b", "c"} {
		pid := u.pid
		go func() {
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			unix.Kill(pid, unix.SIGKILL)
		}()
		withFile(u.path(name), os.O_RDWR, func(f *os.File) error {
			_, err := f.WriteAt([]byte("changed"), 1000)
			return err
		})
		u.awaitDeath()
		u.mount()
		got, err := os.ReadFile(u.path(name))
		must(t, err)
		want := pattern(size, size)
		if string(got[1000:1007]) == "changed" {
			copy(want[1000:], "changed")
		}
		if string(got) != string(want) {
			t.Errorf("%s is neither the lower file nor the changed one (%d bytes)", name, len(got))
		}
	}
}
