// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// byUser is a policy that goes by who asks.
func byUser(name func(q NameQuery) NameAnswer, file func(q FileQuery) FileAnswer) *rulePolicy {
	return &rulePolicy{name: name, file: file, scope: func(string) Scope {
		return Scope{Names: name != nil, NamesByCaller: name != nil, Files: file != nil, FilesByCaller: file != nil,
			Below: true, BelowByCaller: true}
	}}
}

const (
	userA = 1001
	userB = 1002
)

// twoVersions shows f from layer 1 to A and from layer 2 to everybody else,
// hides "hidden" and "hiddendir" from B, and from all "never".
func twoVersions() *rulePolicy {
	return byUser(func(q NameQuery) NameAnswer {
		switch {
		case q.Name == "never", strings.HasPrefix(q.Name, "hidden") && q.Caller.UID == userB:
			return NameAnswer{Hide: true}
		case q.Name == "f" && !q.Listing && q.Holders>>2&1 == 1 && q.Caller.UID != userA:
			return NameAnswer{Layer: 2}
		}
		return NameAnswer{}
	}, nil)
}

func twoUsers(t *testing.T, mode func(*Config), lines ...string) (m *mounted, a, b *user) {
	t.Helper()
	one := append([]string{"file w/f ONE", "file w/hidden h", "file w/hiddendir/x x", "file w/never n", "file w/same s"}, lines...)
	low := layer(t, one...)
	must(t, os.Chmod(low+"/w", 0o777))
	must(t, os.Chmod(low+"/w/f", 0o666))
	low2 := layer(t, "file w/f second")
	must(t, os.Chmod(low2+"/w/f", 0o666))
	m = mountOver(t, func(c *Config) { mode(c); c.Policy = twoVersions() }, low, low2)
	return m, m.asUser(userA), m.asUser(userB)
}

func eachMode(t *testing.T, fn func(t *testing.T, mode func(*Config))) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) { fn(t, mode.change) })
	}
}

// Two users see two versions of one name, at the same time.
func TestChooseByCaller(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m, a, b := twoUsers(t, mode)
		f := m.path("w/f")
		var fa, fb int
		for range 20 {
			a.want(f, "ONE")
			b.want(f, "second")
			sa, err := a.stat(f)
			must(t, err)
			sb, err := b.stat(f)
			must(t, err)
			if sa.Ino == sb.Ino || sa.Size != 3 || sb.Size != 6 {
				t.Errorf("inodes %d and %d, sizes %d and %d", sa.Ino, sb.Ino, sa.Size, sb.Size)
			}
		}
		a.do(func() { fa, _ = unix.Open(f, unix.O_RDONLY, 0) })
		b.do(func() { fb, _ = unix.Open(f, unix.O_RDONLY, 0) })
		for range 5 {
			wantContent(t, "A's descriptor", &testFD{t: t, fd: fa}, "ONE")
			wantContent(t, "B's descriptor", &testFD{t: t, fd: fb}, "second")
			a.want(fmt.Sprintf("/proc/self/fd/%d", fa), "ONE")
			b.want(fmt.Sprintf("/proc/self/fd/%d", fb), "second")
		}
		_, _ = unix.Close(fa), unix.Close(fb)
		for range 3 {
			a.wantNames(m.path("w"), "f", "hidden", "hiddendir", "same")
			b.wantNames(m.path("w"), "f", "same")
		}
		b.wantErr("stat of what is hidden", unix.ENOENT, func() error { return unix.Lstat(m.path("w/hidden"), &unix.Stat_t{}) })
		b.wantErr("stat through what is hidden", unix.ENOENT, func() error { return unix.Lstat(m.path("w/hiddendir/x"), &unix.Stat_t{}) })
		a.want(m.path("w/hidden"), "h")
		a.want(m.path("w/hiddendir/x"), "x")
		if m.count.wrong.Load() != 0 {
			t.Errorf("%d wrong answers", m.count.wrong.Load())
		}
	})
}

// All at once, without order.
func TestChooseByCallerAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m, a, b := twoUsers(t, mode)
		f := m.path("w/f")
		until := time.Now().Add(400 * time.Millisecond)
		var wg sync.WaitGroup
		for _, u := range []*user{a, m.asUser(userA), b, m.asUser(userB)} {
			want := map[uint32]string{userA: "ONE", userB: "second"}[u.uid]
			wg.Go(func() {
				u.do(func() {
					for n := 0; n < 5 || time.Now().Before(until); n++ {
						var st unix.Stat_t
						if got, err := tryRead(f); err != nil || got != want {
							t.Errorf("user %d reads %q, %v", u.uid, got, err)
							return
						}
						if err := unix.Lstat(f, &st); err != nil || int(st.Size) != len(want) {
							t.Errorf("user %d: size %d, %v", u.uid, st.Size, err)
							return
						}
						if err := unix.Lstat(m.path("w/hidden"), &st); (err == nil) != (u.uid == userA) {
							t.Errorf("user %d: what is hidden: %v", u.uid, err)
							return
						}
					}
				})
			})
		}
		m.within("the users", wg.Wait)
	})
}

// The version of one user, once written to, is the one that all see.
func TestChooseByCallerWrites(t *testing.T) {
	for _, writer := range []uint32{userA, userB} {
		eachMode(t, func(t *testing.T, mode func(*Config)) {
			m, a, b := twoUsers(t, mode)
			f := m.path("w/f")
			var held []*testFD
			for _, u := range []*user{a, b} {
				u.do(func() { held = append(held, openFD(t, f, unix.O_RDONLY)) })
			}
			u, was := a, "ONE"
			if writer == userB {
				u, was = b, "second"
			}
			u.do(func() { appendTo(t, f, "+") })
			a.want(f, was+"+")
			b.want(f, was+"+")
			sa, _ := a.stat(f)
			sb, _ := b.stat(f)
			if sa.Ino != sb.Ino {
				t.Errorf("inodes %d and %d", sa.Ino, sb.Ino)
			}
			for i, want := range []string{"ONE", "second"} {
				if got := held[i].content(); got != want && got != was+"+" {
					t.Errorf("a held descriptor of %q shows %q", want, got)
				}
			}
			b.do(func() { appendTo(t, f, "-") })
			a.want(f, was+"+-")
			a.wantNames(m.path("w"), "f", "hidden", "hiddendir", "same")
		})
	}
}

func appendTo(t testing.TB, path, s string) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		t.Errorf("open for writing: %v", err)
		return
	}
	if _, err := unix.Write(fd, []byte(s)); err != nil {
		t.Error(err)
	}
	_ = unix.Close(fd)
}

// Both write at once: one version wins, no write is lost, nobody gets an
// error.
func TestChooseByCallerBothWrite(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		for range 10 {
			m, a, b := twoUsers(t, mode)
			f := m.path("w/f")
			a.want(f, "ONE")
			b.want(f, "second")
			var wg sync.WaitGroup
			for _, u := range []*user{a, b} {
				wg.Go(func() { u.do(func() { appendTo(t, f, fmt.Sprint(u.uid)) }) })
			}
			m.within("two writers", wg.Wait)
			got := readPath(t, f)
			for _, w := range []string{"1001", "1002"} {
				if !strings.Contains(got, w) {
					t.Errorf("what %s wrote is lost: %q", w, got)
				}
			}
			m.unmount()
		}
	})
}

// What one user removes is gone for both; what is hidden is in the way.
func TestChooseByCallerNames(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m, a, b := twoUsers(t, mode)
		w := m.path("w")
		b.wantErr("create over what is hidden", unix.EEXIST, func() error {
			_, err := unix.Open(w+"/hidden", unix.O_CREAT|unix.O_WRONLY, 0o600)
			return err
		})
		b.wantErr("create what is hidden anew", unix.EEXIST, func() error {
			_, err := unix.Open(w+"/hidden", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
			return err
		})
		b.wantErr("mkdir", unix.EEXIST, func() error { return unix.Mkdir(w+"/hidden", 0o755) })
		b.wantErr("mkdir of a directory", unix.EEXIST, func() error { return unix.Mkdir(w+"/hiddendir", 0o755) })
		b.wantErr("symlink", unix.EEXIST, func() error { return unix.Symlink("x", w+"/hidden") })
		b.wantErr("mknod", unix.EEXIST, func() error { return unix.Mknod(w+"/hidden", unix.S_IFIFO|0o600, 0) })
		b.wantErr("link", unix.EEXIST, func() error {
			if err := unix.Close(mustOpen(t, w+"/mine", unix.O_CREAT|unix.O_WRONLY)); err != nil {
				return err
			}
			return unix.Link(w+"/mine", w+"/hidden")
		})
		b.wantErr("rename over it", unix.EEXIST, func() error { return unix.Rename(w+"/mine", w+"/hidden") })
		b.wantErr("exchange with it", unix.ENOENT, func() error {
			return unix.Renameat2(unix.AT_FDCWD, w+"/mine", unix.AT_FDCWD, w+"/hidden", unix.RENAME_EXCHANGE)
		})
		b.wantErr("rename of it", unix.ENOENT, func() error { return unix.Rename(w+"/hidden", w+"/stolen") })
		b.wantErr("unlink of it", unix.ENOENT, func() error { return unix.Unlink(w + "/hidden") })
		b.wantErr("rmdir of it", unix.ENOENT, func() error { return unix.Rmdir(w + "/hiddendir") })
		a.want(w+"/hidden", "h")
		a.want(w+"/hiddendir/x", "x")
		a.do(func() { must(t, unix.Unlink(w+"/f")) })
		for _, u := range []*user{a, b, a, b} {
			u.wantErr("what the other one removed", unix.ENOENT, func() error { return unix.Lstat(w+"/f", &unix.Stat_t{}) })
		}
		a.wantNames(w, "hidden", "hiddendir", "mine", "same")
		b.wantNames(w, "mine", "same")
		b.do(func() { must(t, unix.Close(mustOpen(t, w+"/f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY))) })
		if st, err := a.stat(w + "/f"); err != nil || st.Uid != userB {
			t.Errorf("what the other one made: owner %d, %v", st.Uid, err)
		}
		if n := m.count.wrong.Load(); n != 0 {
			t.Errorf("%d wrong answers", n)
		}
	})
}

func mustOpen(t testing.TB, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Errorf("open %s: %v", path, err)
	}
	return fd
}

// A rename of a chosen version takes that one; the other has gone with it.
func TestChooseByCallerRename(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m, a, b := twoUsers(t, mode)
		w := m.path("w")
		a.want(w+"/f", "ONE")
		b.do(func() { must(t, unix.Rename(w+"/f", w+"/g")) })
		a.want(w+"/g", "second")
		b.want(w+"/g", "second")
		for _, u := range []*user{a, b} {
			u.wantErr("the old name", unix.ENOENT, func() error { return unix.Lstat(w+"/f", &unix.Stat_t{}) })
		}
		m = m.remount(func(c *Config) { mode(c); c.Policy = twoVersions() })
		wantNames(t, m.path("w"), "g", "hidden", "hiddendir", "same")
	})
}

// A directory whose entries are hidden is not empty, also from within.
func TestChooseHiddenIsNotEmpty(t *testing.T) {
	for _, up := range []bool{false, true} {
		m := mountOver(t, func(c *Config) { c.Policy = &TablePolicy{Hide: map[string]bool{"x": true}} }, layer(t, "file d/x 1", "dir other"))
		if up {
			must(t, unix.Chmod(m.path("d"), 0o700))
		}
		wantNames(t, m.path("d"))
		wantErrno(t, "rmdir", unix.Rmdir(m.path("d")), unix.ENOTEMPTY)
		wantErrno(t, "rename over it", unix.Rename(m.path("other"), m.path("d")), unix.ENOTEMPTY)
		must(t, m.SetPolicy(nil))
		wantNames(t, m.path("d"), "x")
		wantSame(t, "what was hidden", readPath(t, m.path("d/x")), "1")
	}
}

// The kernel keeps no negative entry of what is hidden: the policy is asked
// each time, and can come to another answer without a word.
func TestChooseHiddenIsNotKept(t *testing.T) {
	var hide atomic.Bool
	hide.Store(true)
	p := &rulePolicy{name: func(q NameQuery) NameAnswer { return NameAnswer{Hide: q.Name == "a" && hide.Load()} }}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file a 1", "file b 1"))
	for range 3 {
		_, err := tryRead(m.path("a"))
		wantErrno(t, "hidden", err, unix.ENOENT)
	}
	hide.Store(false)
	wantSame(t, "shown", readPath(t, m.path("a")), "1")
	hide.Store(true)
	_, err := tryRead(m.path("a"))
	wantErrno(t, "an open, hidden again", err, unix.ENOENT)
	_, err = tryRead(m.path("nothing"))
	wantErrno(t, "what there never was", err, unix.ENOENT)
	if n := leastOf3(func() int64 {
		before := m.Status().Requests["LOOKUP"]
		for range 20 {
			_, _ = tryRead(m.path("nothing"))
		}
		return int64(m.Status().Requests["LOOKUP"] - before)
	}); n != 0 {
		t.Errorf("%d lookups more of what no layer holds", n)
	}
}

// A real process of another user, with all that a new program does.
func TestChooseByCallerProcess(t *testing.T) {
	m, _, _ := twoUsers(t, ioModes[0].change)
	for uid, want := range map[uint32]string{userA: "ONE", userB: "second", 0: "second"} {
		cmd := exec.Command("cat", m.path("w/f"))
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("user %d: %q, %v", uid, out, err)
		}
	}
}
