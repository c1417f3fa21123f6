// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A user is a thread with file-system ids of its own.
type user struct {
	t    testing.TB
	uid  uint32
	work chan func()
}

// asUser starts a user, for whom the way to the mount is opened.
func (m *mounted) asUser(uid uint32) *user {
	m.t.Helper()
	for d := filepath.Dir(m.mnt); strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		must(m.t, os.Chmod(d, 0o755))
	}
	u := &user{t: m.t, uid: uid, work: make(chan func())}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with it
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(uid), 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
		if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0); uint32(now) != uid {
			started <- fmt.Errorf("fsuid %d instead of %d", now, uid)
			return
		}
		started <- nil
		for fn := range u.work {
			fn()
		}
	}()
	must(m.t, <-started)
	m.t.Cleanup(func() { close(u.work) })
	return u
}

// do runs fn as the user.
func (u *user) do(fn func()) {
	done := make(chan struct{})
	u.work <- func() { defer close(done); fn() }
	<-done
}

func (u *user) read(path string) (s string, err error) {
	u.do(func() { s, err = tryRead(path) })
	return s, err
}

func (u *user) want(path, want string) {
	u.t.Helper()
	if got, err := u.read(path); err != nil || got != want {
		u.t.Errorf("user %d reads %.40q, %v in %s; want %.40q", u.uid, got, err, path, want)
	}
}

func (u *user) stat(path string) (st unix.Stat_t, err error) {
	u.do(func() { err = unix.Lstat(path, &st) })
	return st, err
}

func (u *user) wantErr(what string, want syscall.Errno, fn func() error) {
	u.t.Helper()
	var err error
	u.do(func() { err = fn() })
	wantErrno(u.t, fmt.Sprintf("user %d: %s", u.uid, what), err, want)
}

func (u *user) wantNames(dir string, want ...string) {
	u.t.Helper()
	var got []string
	u.do(func() {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Getdents(fd, buf)
			if n <= 0 || err != nil {
				return
			}
			_, _, got = unix.ParseDirent(buf[:n], -1, got)
		}
	})
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		u.t.Errorf("user %d sees %q in %s, want %q", u.uid, got, dir, want)
	}
}

// threeLayers hold a name in every combination of layers that is of interest.
func threeLayers(t *testing.T) []string {
	return []string{
		layer(t, "file f one", "file only1 one", "file d/a 1a", "file d/one 1", "dir mixed/x", "file low13 one", "file up one"),
		layer(t, "file f two", "file only2 two", "file d/a 2a", "file d/two 2", "file mixed two", "file e/x 2"),
		layer(t, "file f three", "file d/a 3a", "file d/three 3", "file low13 three", "file e/y 3", "file mixed/y 3"),
	}
}

// chooseMount is a mount of three lower layers and something in upper.
func chooseMount(t *testing.T, p Policy) *mounted {
	t.Helper()
	return mountOver(t, func(c *Config) {
		must(t, os.WriteFile(c.Upper+"/up", []byte("upper"), 0o644))
		c.Policy = p
	}, threeLayers(t)...)
}

// The choice of a layer, what it shows, and where it is wrong.
func TestChooseLayer(t *testing.T) {
	for _, c := range []struct {
		name  string
		a     NameAnswer
		want  string
		err   syscall.Errno
		mask  uint64
		wrong bool
	}{
		{"f", NameAnswer{}, "one", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 1}, "one", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 2}, "two", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 3}, "three", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 4}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Layer: -1}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Layer: 63}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Layer: 1 << 40}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Skip: 0b0010}, "two", 0, 0b1110, false},
		{"f", NameAnswer{Skip: 0b0110}, "three", 0, 0b1110, false},
		{"f", NameAnswer{Skip: 0b0100}, "one", 0, 0b1110, false},
		{"f", NameAnswer{Skip: 0b1110}, "", unix.ENOENT, 0b1110, false},
		{"f", NameAnswer{Skip: ^uint64(0)}, "", unix.ENOENT, 0b1110, false},
		{"f", NameAnswer{Skip: 1}, "one", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 2, Skip: 0b0010}, "two", 0, 0b1110, false},
		{"f", NameAnswer{Layer: 2, Skip: 0b0100}, "", unix.EIO, 0b1110, true},
		{"f", NameAnswer{Hide: true, Layer: 2}, "", unix.ENOENT, 0b1110, false},
		{"low13", NameAnswer{Layer: 3}, "three", 0, 0b1010, false},
		{"low13", NameAnswer{Layer: 2}, "", unix.EIO, 0b1010, true},
		{"only2", NameAnswer{Layer: 2}, "two", 0, 0b0100, false},
		{"only2", NameAnswer{Skip: 0b0100}, "", unix.ENOENT, 0b0100, false},
		{"up", NameAnswer{Layer: 1}, "upper", 0, 0b0011, false},
		{"up", NameAnswer{Skip: 0b0011}, "upper", 0, 0b0011, false},
		{"up", NameAnswer{Hide: true}, "", unix.ENOENT, 0b0011, false},
	} {
		what := fmt.Sprintf("%s by %+v", c.name, c.a)
		p := &rulePolicy{name: func(q NameQuery) NameAnswer {
			if q.Name != c.name || q.Listing {
				return NameAnswer{}
			}
			if q.Holders|1 != c.mask|1 || q.Layers != 4 || q.Place != "/"+c.name {
				t.Errorf("%s: asked %+v", what, q)
			}
			return c.a
		}}
		m := chooseMount(t, p)
		got, err := tryRead(m.path(c.name))
		if got != c.want || toErr(err) != c.err {
			t.Errorf("%s: %q, %v; want %q, %v", what, got, err, c.want, c.err)
		}
		if (m.count.wrong.Load() > 0) != c.wrong {
			t.Errorf("%s: %d wrong answers", what, m.count.wrong.Load())
		}
		if err == nil {
			if st := statOf(t, m.path(c.name)); st.Size != int64(len(c.want)) {
				t.Errorf("%s: size %d", what, st.Size)
			}
			openFD(t, m.path(c.name), unix.O_RDWR|unix.O_APPEND).close()
			wantSame(t, what+", copied up", readPath(t, m.path(c.name)), c.want)
			must(t, unix.Unlink(m.path(c.name)))
			_, err := tryRead(m.path(c.name))
			wantErrno(t, what+", removed", err, unix.ENOENT)
		}
		m.unmount()
		p.wantEnded(t, what)
	}
}

// Directories are merged from the layers that are left.
func TestChooseDirectory(t *testing.T) {
	for _, c := range []struct {
		name  string
		a     NameAnswer
		names []string
		a0    string // what d/a holds then
		err   syscall.Errno
	}{
		{"d", NameAnswer{}, []string{"a", "one", "two", "three"}, "1a", 0},
		{"d", NameAnswer{Skip: 0b0010}, []string{"a", "two", "three"}, "2a", 0},
		{"d", NameAnswer{Skip: 0b0100}, []string{"a", "one", "three"}, "1a", 0},
		{"d", NameAnswer{Layer: 2}, []string{"a", "two", "three"}, "2a", 0},
		{"d", NameAnswer{Layer: 3}, []string{"a", "three"}, "3a", 0},
		{"d", NameAnswer{Skip: 0b1110}, nil, "", unix.ENOENT},
		{"d", NameAnswer{Layer: 9}, nil, "", unix.EIO},
		{"e", NameAnswer{Layer: 3}, []string{"y"}, "", 0},
		{"e", NameAnswer{Layer: 1}, nil, "", unix.EIO},
		{"mixed", NameAnswer{}, []string{"x"}, "", 0},
		{"mixed", NameAnswer{Skip: 0b0110}, nil, "", 0},
	} {
		what := fmt.Sprintf("%s by %+v", c.name, c.a)
		m := chooseMount(t, &rulePolicy{name: func(q NameQuery) NameAnswer {
			if q.Name != c.name || q.Listing || q.Holders == 1 {
				return NameAnswer{}
			}
			return c.a
		}})
		ents, err := os.ReadDir(m.path(c.name))
		var got []string
		for _, e := range ents {
			got = append(got, e.Name())
		}
		slices.Sort(c.names)
		if toErr(err) != c.err || c.names != nil && !slices.Equal(got, c.names) {
			t.Errorf("%s: %q, %v; want %q", what, got, err, c.names)
		}
		if c.a0 != "" {
			wantSame(t, what+": a", readPath(t, m.path("d/a")), c.a0)
			writePath(t, m.path("d/new"), "new") // copies the directory up: it stays what it is
			wantNames(t, m.path("d"), append(c.names, "new")...)
			must(t, os.RemoveAll(m.path("d")))
			must(t, unix.Mkdir(m.path("d"), 0o755))
			wantNames(t, m.path("d"))
		}
		m.unmount()
	}
}

// A directory in place of a hard-linked file is a directory in every way.
func TestChooseDirectoryUnderLinkedFile(t *testing.T) {
	m := mountOver(t, func(c *Config) { c.Policy = &TablePolicy{Layer: map[string]int{"n": 2}} },
		layer(t, "file n 1", "link n other"), layer(t, "file n/x 2"))
	wantNames(t, m.path("n"), "x")
	must(t, unix.Unlink(m.path("n/x")))
	must(t, unix.Rmdir(m.path("n")))
	if st := statOf(t, m.path("other")); st.Nlink != 2 {
		t.Errorf("%d links", st.Nlink)
	}
}

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
					for time.Now().Before(until) {
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
		m.within(30*time.Second, "the users", wg.Wait)
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
			m.within(20*time.Second, "two writers", wg.Wait)
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
	before := m.Status().Requests["LOOKUP"]
	for range 20 {
		_, _ = tryRead(m.path("nothing"))
	}
	if n := m.Status().Requests["LOOKUP"]; n != before {
		t.Errorf("%d lookups more of what no layer holds", n-before)
	}
}

// NoCache and TTL.
func TestChooseTTL(t *testing.T) {
	var asked atomic.Int64
	var answer atomic.Pointer[NameAnswer]
	answer.Store(&NameAnswer{})
	p := &rulePolicy{name: func(q NameQuery) NameAnswer {
		if q.Name == "a" && !q.Listing {
			asked.Add(1)
			return *answer.Load()
		}
		return NameAnswer{}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file a 1"), layer(t, "file a 22"))
	stats := func(n int) int64 {
		before := asked.Load()
		for range n {
			statOf(t, m.path("a"))
		}
		return asked.Load() - before
	}
	stats(1)
	if n := stats(20); n != 0 {
		t.Errorf("asked %d times about what may be kept", n)
	}
	answer.Store(&NameAnswer{NoCache: true})
	m.RefreshPolicy()
	if n := stats(20); n < 20 {
		t.Errorf("asked %d times about what may not be kept", n)
	}
	answer.Store(&NameAnswer{Layer: 2, NoCache: true})
	if st := statOf(t, m.path("a")); st.Size != 2 {
		t.Errorf("the next answer is not followed: size %d", st.Size)
	}
	answer.Store(&NameAnswer{TTL: 200 * time.Millisecond})
	m.RefreshPolicy()
	stats(1)
	time.Sleep(300 * time.Millisecond)
	answer.Store(&NameAnswer{Layer: 2, TTL: time.Second})
	if st := statOf(t, m.path("a")); st.Size != 2 {
		t.Errorf("after its time the answer is kept: size %d", st.Size)
	}
}

// Again shows the policy what its choice came to.
func TestChooseAgain(t *testing.T) {
	var after atomic.Pointer[NameQuery]
	p := &rulePolicy{name: func(q NameQuery) NameAnswer {
		switch {
		case q.After == 9:
			after.Store(&q)
			return NameAnswer{Hide: q.Size != 2}
		case q.Name == "a" || q.Name == "b":
			return NameAnswer{Layer: 2, Again: 9}
		}
		return NameAnswer{}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file a 1", "file b 1"), layer(t, "file a 22", "file b 333"))
	wantSame(t, "a", readPath(t, m.path("a")), "22")
	q := after.Load()
	if q == nil || q.Layer != 2 || q.Size != 2 || q.Type != unix.S_IFREG || q.Holders != 0b110 || q.Ino != statOf(t, m.path("a")).Ino {
		t.Errorf("asked %+v", q)
	}
	_, err := tryRead(m.path("b"))
	wantErrno(t, "what it does not like", err, unix.ENOENT)
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

// fileByUser blanks the secret for all but A.
func fileByUser() *rulePolicy {
	return byUser(nil, func(q FileQuery) FileAnswer {
		if q.Caller.UID == userA || q.Name != "f" {
			return FileAnswer{}
		}
		return FileAnswer{Plan: blankPlan(q.Size, secretRanges())}
	})
}

// Two users read one file by two plans at the same time: no bytes cross,
// neither by descriptors nor by the kernel's pages.
func TestFilesByCaller(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m := secretMount(t, fileByUser(), mode)
		a, b := m.asUser(userA), m.asUser(userB)
		f := m.path("f")
		var fa, fb *testFD
		ino := statOf(t, f).Ino
		for range 5 {
			a.do(func() { fa = openFD(t, f, unix.O_RDONLY) })
			wantSame(t, "A's descriptor", fa.content(), secretContent())
			b.do(func() { fb = openFD(t, f, unix.O_RDONLY) })
			mapped := mapFile(t, fb, len(secretContent()), false)
			for range 3 {
				wantSame(t, "A's descriptor", fa.content(), secretContent())
				wantSame(t, "B's descriptor", fb.content(), blankedSecret())
				a.want(f, secretContent())
				b.want(f, blankedSecret())
				must(t, unix.Madvise(mapped, unix.MADV_POPULATE_READ))
				wantSame(t, "B's mapping", string(mapped), blankedSecret())
			}
			if st := statOf(t, f); st.Ino != ino {
				t.Errorf("inode %d, was %d", st.Ino, ino)
			}
			fb.release()
			a.want(f, secretContent())
			fa.release()
			b.want(f, blankedSecret())
		}
		must(t, unix.Chmod(f, 0o644)) // asked for nobody
		noSecret(t, "after a copy-up", m.upper, m.work)
		if n := m.count.wrong.Load(); n != 0 {
			t.Errorf("%d wrong answers", n)
		}
	})
}

// All at once: each user has a node of his own, so that nobody is told ESTALE.
func TestFilesByCallerAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m := secretMount(t, fileByUser(), mode)
		var opens atomic.Int64
		until := time.Now().Add(500 * time.Millisecond)
		var wg sync.WaitGroup
		for _, uid := range []uint32{userA, userB, userA, userB} {
			u := m.asUser(uid)
			want := secretContent()
			if uid == userB {
				want = blankedSecret()
			}
			wg.Go(func() {
				u.do(func() {
					for time.Now().Before(until) {
						got, err := tryRead(m.path("f"))
						opens.Add(1)
						if err != nil || got != want {
							t.Errorf("user %d: %v, the bytes are right: %v", uid, err, got == want)
							return
						}
					}
				})
			})
		}
		m.within(30*time.Second, "the users", wg.Wait)
		if opens.Load() < 8 {
			t.Errorf("only %d opens", opens.Load())
		}
	})
}

// Callers who saw the same share a node. When they are to see different
// things, none of them must see the other's.
func TestFilesByCallerComeApart(t *testing.T) {
	for _, how := range []string{"SetPolicy", "an epoch", "another open"} {
		for _, order := range [][]uint32{{userA, userB}, {userB, userA}} {
			t.Run(fmt.Sprintf("%s/%v", how, order), func(t *testing.T) {
				var apart atomic.Bool
				p := byUser(nil, func(q FileQuery) FileAnswer {
					if q.Name != "f" || apart.Load() && q.Caller.UID == userA {
						return FileAnswer{}
					}
					return FileAnswer{Plan: blankPlan(q.Size, secretRanges())}
				})
				m := secretMount(t, p, nil)
				users := map[uint32]*user{userA: m.asUser(userA), userB: m.asUser(userB)}
				held := map[uint32]*testFD{}
				for _, uid := range order {
					users[uid].do(func() { held[uid] = openFD(t, m.path("f"), unix.O_RDONLY) })
					wantSame(t, "at first", held[uid].content(), blankedSecret())
				}
				apart.Store(true)
				switch how {
				case "SetPolicy":
					must(t, m.SetPolicy(fileByUser()))
				case "an epoch":
					p.epoch.Add(1)
					time.Sleep(4 * policyPoll)
				case "another open":
					for _, uid := range []uint32{order[1], order[0]} {
						_, _ = users[uid].read(m.path("f"))
					}
				}
				if got, err := held[userB].tryContent(); strings.Contains(got, secret) || err != nil && err != unix.ESTALE {
					t.Errorf("B's descriptor: %v; it shows the secret: %v", err, strings.Contains(got, secret))
				}
				users[userB].want(m.path("f"), blankedSecret())
				users[userA].want(m.path("f"), secretContent())
				if got, err := held[userB].tryContent(); strings.Contains(got, secret) || err != nil && err != unix.ESTALE {
					t.Errorf("B's descriptor in the end: %v; it shows the secret: %v", err, strings.Contains(got, secret))
				}
			})
		}
	}
}

// A size that depends on who asks is a wrong answer.
func TestFilesByCallerSize(t *testing.T) {
	m := secretMount(t, byUser(nil, func(q FileQuery) FileAnswer {
		return FileAnswer{Plan: prependPlan(q.Size, []byte("x"))}
	}), nil)
	_, err := tryRead(m.path("f"))
	wantErrno(t, "another size", err, unix.EIO)
	if m.count.wrong.Load() == 0 {
		t.Error("not counted")
	}
}

// Directories cannot be merged differently for different callers.
func TestChooseDirectoryByCaller(t *testing.T) {
	m := mountOver(t, func(c *Config) {
		c.Policy = byUser(func(q NameQuery) NameAnswer {
			if q.Name == "d" && !q.Listing {
				return NameAnswer{Layer: 2}
			}
			return NameAnswer{}
		}, nil)
	}, layer(t, "file d/a 1"), layer(t, "file d/b 1"))
	if _, err := os.ReadDir(m.path("d")); !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
	if m.count.wrong.Load() == 0 {
		t.Error("not counted")
	}
}
