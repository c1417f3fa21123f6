// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// blankAll blanks the secret of every file f, hideNames hides names.
func blankAll() *rulePolicy {
	return &rulePolicy{file: func(q FileQuery) FileAnswer {
		if q.Name != "f" {
			return FileAnswer{}
		}
		return FileAnswer{Plan: blankPlan(q.Size, secretRanges()), Rule: "blank"}
	}}
}

func hideNames(names ...string) *rulePolicy {
	return &rulePolicy{name: func(q NameQuery) NameAnswer {
		for _, n := range names {
			if q.Name == n {
				return NameAnswer{Hide: true}
			}
		}
		return NameAnswer{}
	}}
}

func prependAll(s string) *rulePolicy {
	return &rulePolicy{file: func(q FileQuery) FileAnswer {
		if q.Layer == 0 || q.Name != "f" {
			return FileAnswer{}
		}
		return FileAnswer{Plan: prependPlan(q.Size, []byte(s))}
	}}
}

// A new policy shows at once: in open descriptors, mappings and the kernel's
// pages, where the daemon serves the file; and at every new open.
func TestSetPolicyBlank(t *testing.T) {
	for _, mode := range ioModes {
		for _, first := range []Policy{nil, &rulePolicy{}} {
			t.Run(fmt.Sprintf("%s/%v", mode.name, first != nil), func(t *testing.T) {
				m := secretMount(t, first, mode.change)
				f := openFD(t, m.path("f"), unix.O_RDONLY)
				mapped := mapFile(t, f, len(secretContent()), false)
				wantSame(t, "at first", f.content(), secretContent())
				ino := statOf(t, m.path("f")).Ino
				blank := blankAll()
				must(t, m.SetPolicy(blank))
				served := mode.name != "passthrough"
				if served {
					wantSame(t, "the open descriptor", f.content(), blankedSecret())
					must(t, unix.Madvise(mapped, unix.MADV_POPULATE_READ))
					wantSame(t, "the mapping", string(mapped), blankedSecret())
				} else {
					wantSame(t, "a passed-through descriptor", f.content(), secretContent())
				}
				g := openFD(t, m.path("f"), unix.O_RDONLY)
				wantSame(t, "a new open", g.content(), blankedSecret())
				if st := statOf(t, m.path("f")); st.Ino != ino || st.Size != int64(len(secretContent())) {
					t.Errorf("inode %d, was %d; size %d", st.Ino, ino, st.Size)
				}
				if got, err := tryRead(fmt.Sprintf("/proc/self/fd/%d", f.fd)); err != unix.ESTALE && (err != nil || got != blankedSecret()) {
					t.Errorf("reopened by descriptor: %v", err)
				}
				must(t, m.SetPolicy(nil))
				wantSame(t, "a new open without a policy", readPath(t, m.path("f")), secretContent())
				if got, err := g.tryContent(); err != nil || got != secretContent() {
					t.Errorf("the second descriptor without a policy: %v", err)
				}
				closeUnder(m.mnt)
				m.unmount()
				blank.wantEnded(t, "blank")
				if p, ok := first.(*rulePolicy); ok {
					p.wantEnded(t, "the first")
				}
			})
		}
	}
}

// The same for a file in upper, and when the policy's answers change: a reader
// that is passed through does not let others see more than they are to.
func TestSetPolicyUpper(t *testing.T) {
	for _, mode := range ioModes {
		for _, how := range []string{"SetPolicy", "epoch"} {
			t.Run(mode.name+"/"+how, func(t *testing.T) {
				var blank atomic.Bool
				p := &rulePolicy{file: func(q FileQuery) FileAnswer {
					if !blank.Load() {
						return FileAnswer{}
					}
					return FileAnswer{Plan: blankPlan(q.Size, secretRanges())}
				}}
				m := upperSecret(t, p, mode.change)
				f := openFD(t, m.path("f"), unix.O_RDONLY)
				wantSame(t, "at first", f.content(), secretContent())
				if how == "SetPolicy" {
					must(t, m.SetPolicy(blankAll()))
				} else {
					blank.Store(true)
					p.epoch.Add(1)
					time.Sleep(4 * policyPoll)
				}
				wantSame(t, "a new open", readPath(t, m.path("f")), blankedSecret())
				w := openFD(t, m.path("f"), unix.O_RDWR)
				wantSame(t, "a new open for writing", w.content(), blankedSecret())
				w.writeAt("W", 0)
				wantSame(t, "after a write", readPath(t, m.path("f")), "W"+blankedSecret()[1:])
			})
		}
	}
}

// Hidden at once, shown again at once; who stands in a hidden directory stands
// nowhere.
func TestSetPolicyHide(t *testing.T) {
	for _, first := range []Policy{nil, &rulePolicy{}} {
		t.Run(fmt.Sprint(first != nil), func(t *testing.T) {
			m := mountOver(t, func(c *Config) { c.Policy = first }, layer(t, "file a 1", "file d/b 2", "file d/e/c 3", "file stays 4"))
			wantNames(t, m.mnt, "a", "d", "stays")
			wantNames(t, m.path("d"), "b", "e")
			for _, p := range []string{"a", "d/b", "d/e/c", "stays"} {
				readPath(t, m.path(p))
			}
			d := openFD(t, m.path("d"), unix.O_RDONLY|unix.O_DIRECTORY)
			e := openFD(t, m.path("d/e"), unix.O_PATH)
			c := openFD(t, m.path("d/e/c"), unix.O_RDONLY)
			for range 3 {
				must(t, m.SetPolicy(hideNames("a", "d")))
				wantNames(t, m.mnt, "stays")
				var st unix.Stat_t
				for _, p := range []string{"a", "d", "d/b", "d/e/c"} {
					wantErrno(t, "stat "+p, unix.Lstat(m.path(p), &st), unix.ENOENT)
					_, err := tryRead(m.path(p))
					wantErrno(t, "open "+p, err, unix.ENOENT)
				}
				wantStanding(t, m, d, e)
				wantContent(t, "a file that was open", c, "3")
				m.within("a change of a file in a hidden directory", func() {
					if err := unix.Fchmod(c.fd, 0o600); err != nil && err != unix.ESTALE {
						t.Errorf("fchmod: %v", err)
					}
				})
				must(t, m.SetPolicy(&rulePolicy{}))
				wantNames(t, m.mnt, "a", "d", "stays")
				wantNames(t, m.path("d"), "b", "e")
				wantSame(t, "shown again", readPath(t, m.path("d/e/c")), "3")
			}
			must(t, m.SetPolicy(hideNames("d")))
			must(t, m.SetPolicy(nil))
			wantStanding(t, m, d, e)
			wantSame(t, "shown without a policy", readPath(t, m.path("d/e/c")), "3")
			writePath(t, m.path("d/e/new"), "new")
			wantNames(t, m.path("d/e"), "c", "new")
		})
	}
}

// wantStanding: nothing is found or made from a directory that was hidden.
func wantStanding(t *testing.T, m *mounted, d, e *testFD) {
	t.Helper()
	m.within("who stands in a hidden directory", func() {
		var st unix.Stat_t
		wantErrno(t, "a lookup", unix.Fstatat(d.fd, "b", &st, 0), unix.ESTALE)
		wantErrno(t, "a lookup below", unix.Fstatat(e.fd, "c", &st, 0), unix.ESTALE)
		_, err := unix.Openat(e.fd, "c", unix.O_RDONLY, 0)
		wantErrno(t, "an open", err, unix.ESTALE)
		_, err = unix.Openat(d.fd, "new", unix.O_CREAT|unix.O_WRONLY, 0o600)
		wantErrno(t, "a create", err, unix.ESTALE)
		wantErrno(t, "mkdir", unix.Mkdirat(e.fd, "new", 0o755), unix.ESTALE)
		wantErrno(t, "unlink", unix.Unlinkat(d.fd, "b", 0), unix.ESTALE)
		wantErrno(t, "rename", unix.Renameat(d.fd, "b", d.fd, "b2"), unix.ESTALE)
		_, _ = unix.Seek(d.fd, 0, 0)
		if n, err := unix.Getdents(d.fd, make([]byte, 4096)); err == nil && n > 0 {
			t.Errorf("a listing of %d bytes", n)
		}
	})
}

// Sizes change at once too.
func TestSetPolicySize(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			m := secretMount(t, nil, mode.change)
			n := int64(len(secretContent()))
			f := openFD(t, m.path("f"), unix.O_RDONLY)
			wantSame(t, "at first", f.content(), secretContent())
			for _, pre := range []string{"#prepended\n", "", strings.Repeat("long", 3000), "#"} {
				must(t, m.SetPolicy(prependAll(pre)))
				want := pre + secretContent()
				if st := statOf(t, m.path("f")); st.Size != int64(len(want)) {
					t.Errorf("size %d, want %d", st.Size, len(want))
				}
				g := openFD(t, m.path("f"), unix.O_RDONLY)
				wantSame(t, "a new open", g.content(), want)
				if pre != "" {
					wantNoHoles(t, g, int64(len(want)))
				}
				if mode.name != "passthrough" {
					wantSame(t, "the old descriptor", f.content(), want)
				}
				g.release()
			}
			must(t, m.SetPolicy(nil))
			if st := statOf(t, m.path("f")); st.Size != n {
				t.Errorf("size %d, want %d", st.Size, n)
			}
		})
	}
}

// Seeking in a descriptor goes by the size that the new policy shows, also
// before anything has asked for it.
func TestSetPolicySeek(t *testing.T) {
	m := secretMount(t, prependAll("a line\n"), nil)
	f := openFD(t, m.path("f"), unix.O_RDONLY)
	wantNoHoles(t, f, int64(len(secretContent()))+7)
	must(t, m.SetPolicy(prependAll("another line\n")))
	if at, err := unix.Seek(f.fd, 0, unix.SEEK_HOLE); err != nil || at != int64(len(secretContent()))+13 {
		t.Errorf("SEEK_HOLE: %d, %v", at, err)
	}
}

// Twenty swaps under readers: each read of a page is of one view or the other,
// and after the last swap all is of the last one. No policy is asked after its
// Close, each is closed once, every plan released once.
func TestSetPolicyUnderReaders(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			before := countOpenFDs(t)
			first := &rulePolicy{}
			m := secretMount(t, first, mode.change)
			views := map[string]bool{secretContent()[:4096]: true, blankedSecret()[:4096]: true}
			var stop atomic.Bool
			var reads, opens atomic.Int64
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					buf := make([]byte, 4096)
					for !stop.Load() {
						fd, err := unix.Open(m.path("f"), unix.O_RDONLY, 0)
						opens.Add(1)
						if err != nil {
							if err != unix.ESTALE && err != unix.ENOENT {
								t.Errorf("open: %v", err)
							}
							continue
						}
						for range 5 {
							n, err := unix.Pread(fd, buf, 0)
							reads.Add(1)
							if err != nil && err != unix.ESTALE || err == nil && !views[string(buf[:n])] {
								t.Errorf("a read is of neither view: %d, %v", n, err)
							}
						}
						_ = unix.Close(fd)
						if i == 0 {
							_, _ = os.ReadDir(m.mnt)
							_ = unix.Lstat(m.path("other"), &unix.Stat_t{})
						}
					}
				})
			}
			all := []*rulePolicy{first}
			m.within("swaps", func() {
				for i := range 20 {
					p := blankAll()
					if i%2 == 1 {
						p = hideNames("other")
					}
					all = append(all, p)
					must(t, m.SetPolicy(p))
					var st unix.Stat_t
					if err := unix.Lstat(m.path("other"), &st); (err == nil) == (i%2 == 1) {
						t.Errorf("swap %d: stat of what may be hidden: %v", i, err)
					}
					got, err := tryRead(m.path("f"))
					want := secretContent()
					if i%2 == 0 {
						want = blankedSecret()
					}
					if err == unix.ESTALE {
						t.Logf("swap %d: ESTALE", i)
					} else if err != nil || got != want {
						t.Errorf("swap %d: the file is of another view, %v", i, err)
					}
				}
				stop.Store(true)
				wg.Wait()
			})
			must(t, m.SetPolicy(nil))
			t.Logf("%d opens, %d reads", opens.Load(), reads.Load())
			m.unmount()
			for i, p := range all {
				p.wantEnded(t, fmt.Sprintf("policy %d", i))
			}
			if n := countOpenFDs(t); n > before {
				t.Errorf("%d descriptors, %d before", n, before)
			}
		})
	}
}

// The old policy is not closed while somebody asks it.
func TestSetPolicyWaitsForQuestions(t *testing.T) {
	asked, answer := make(chan struct{}, 16), make(chan struct{})
	var armed atomic.Bool
	p := &rulePolicy{}
	p.name = func(q NameQuery) NameAnswer {
		if q.Listing && q.Name == "a" && armed.CompareAndSwap(true, false) {
			asked <- struct{}{}
			<-answer
			p.asked() // still in use
		}
		return NameAnswer{}
	}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file a 1"))
	armed.Store(true)
	listed, set := make(chan struct{}), make(chan error, 1)
	go func() {
		_, _ = os.ReadDir(m.mnt)
		close(listed)
	}()
	<-asked
	go func() { set <- m.SetPolicy(nil) }()
	time.Sleep(100 * time.Millisecond)
	if p.closed.Load() != 0 {
		t.Error("closed while it is asked")
	}
	close(answer)
	must(t, <-set)
	<-listed
	p.wantEnded(t, "the policy")
}

// By caller on a mount that began without a policy: refused, and all is as it
// was.
func TestSetPolicyByCallerRefused(t *testing.T) {
	m := secretMount(t, nil, nil)
	readPath(t, m.path("f"))
	blank := blankAll()
	must(t, m.SetPolicy(blank))
	p := twoVersions()
	err := m.SetPolicy(p)
	var e *Error
	if !errors.As(err, &e) || e.Kind != KindUsage || e.Mend == "" {
		t.Errorf("%v", err)
	}
	p.wantEnded(t, "the refused one")
	if blank.closed.Load() != 0 {
		t.Error("the one in force is closed")
	}
	wantSame(t, "the file", readPath(t, m.path("f")), blankedSecret())
	if s := m.Status(); s.Policy == nil || s.Policy.Generation != 1 {
		t.Errorf("%+v", s.Policy)
	}
	must(t, m.SetPolicy(nil))
	if s := m.Status(); s.Policy != nil {
		t.Errorf("%+v", s.Policy)
	}
	must(t, m.SetPolicy(blankAll()))
	if s := m.Status(); s.Policy == nil || s.Policy.Generation < 2 {
		t.Errorf("%+v", s.Policy)
	}
}

// ... but not on one that began with a policy: there two users see their
// versions from the moment on.
func TestSetPolicyByCaller(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m, a, b := twoUsers(t, mode)
		a.want(m.path("w/f"), "ONE")
		b.want(m.path("w/f"), "second")
		must(t, m.SetPolicy(&rulePolicy{}))
		for _, u := range []*user{a, b} {
			u.want(m.path("w/f"), "ONE")
			u.wantNames(m.path("w"), "f", "hidden", "hiddendir", "never", "same")
			u.want(m.path("w/hiddendir/x"), "x")
		}
		must(t, m.SetPolicy(twoVersions()))
		for range 3 {
			a.want(m.path("w/f"), "ONE")
			b.want(m.path("w/f"), "second")
			a.wantNames(m.path("w"), "f", "hidden", "hiddendir", "same")
			b.wantNames(m.path("w"), "f", "same")
			b.wantErr("what is hidden", unix.ENOENT, func() error { return unix.Lstat(m.path("w/hiddendir/x"), &unix.Stat_t{}) })
		}
		must(t, m.SetPolicy(nil))
		for _, u := range []*user{b, a} {
			u.want(m.path("w/f"), "ONE")
			u.wantNames(m.path("w"), "f", "hidden", "hiddendir", "never", "same")
		}
	})
}

// The mount follows a changed epoch by itself, also right after the policy came
// into force.
func TestEpoch(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			for _, wait := range []time.Duration{0, 3 * policyPoll} {
				var blank, hide atomic.Bool
				p := &rulePolicy{
					file: func(q FileQuery) FileAnswer {
						if q.Name != "f" || !blank.Load() {
							return FileAnswer{Server: true, Why: "the test"}
						}
						return FileAnswer{Server: true, Why: "the test", Plan: blankPlan(q.Size, secretRanges())}
					},
					name: func(q NameQuery) NameAnswer { return NameAnswer{Hide: q.Name == "other" && hide.Load()} },
				}
				m := secretMount(t, &rulePolicy{}, mode.change)
				must(t, m.SetPolicy(p))
				f := openFD(t, m.path("f"), unix.O_RDONLY)
				wantSame(t, "at first", f.content(), secretContent())
				wantNames(t, m.mnt, "d", "f", "other")
				time.Sleep(wait)
				blank.Store(true)
				hide.Store(true)
				p.epoch.Add(1)
				if !eventually(func() bool {
					got, err := f.tryContent()
					return err == nil && got == blankedSecret() && unix.Lstat(m.path("other"), &unix.Stat_t{}) == unix.ENOENT
				}) {
					t.Errorf("after %v: the mount does not follow", wait)
				}
				wantNames(t, m.mnt, "d", "f")
				closeUnder(m.mnt)
				m.unmount()
				p.wantEnded(t, "the policy")
			}
		})
	}
}

// Answers that change without a word hold from the next open on.
func TestAnswersChangeWithoutEpoch(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			var now atomic.Pointer[rulePolicy]
			now.Store(&rulePolicy{})
			p := &rulePolicy{
				file: func(q FileQuery) FileAnswer {
					if f := now.Load().file; f != nil {
						return f(q)
					}
					return FileAnswer{}
				},
				name: func(q NameQuery) NameAnswer { return now.Load().Name(q) },
			}
			m := secretMount(t, p, mode.change)
			for i, step := range []struct {
				p    *rulePolicy
				want string
			}{
				{&rulePolicy{}, secretContent()}, {blankAll(), blankedSecret()}, {prependAll("#line\n"), "#line\n" + secretContent()},
				{prependAll("#other line\n"), "#other line\n" + secretContent()}, {prependAll("#OTHER LINE\n"), "#OTHER LINE\n" + secretContent()},
				{&rulePolicy{}, secretContent()}, {hideNames("f"), ""}, {blankAll(), blankedSecret()},
			} {
				now.Store(step.p)
				got, err := tryRead(m.path("f"))
				if step.want == "" {
					wantErrno(t, "hidden", err, unix.ENOENT)
					continue
				}
				must(t, err)
				wantSame(t, fmt.Sprintf("step %d", i), got, step.want)
				if st := statOf(t, m.path("f")); st.Size != int64(len(step.want)) {
					t.Errorf("step %d: size %d, want %d", i, st.Size, len(step.want))
				}
				if i == 1 {
					m.waitReleased("f")
				}
			}
		})
	}
}

// A copy-up during which the policy is replaced shows the new one.
func TestSetPolicyDuringCopyUp(t *testing.T) {
	entered, goOn := make(chan struct{}, 1), make(chan struct{})
	var once sync.Once
	p := &rulePolicy{file: func(q FileQuery) FileAnswer {
		if q.Layer == 0 {
			return FileAnswer{}
		}
		pl := blankPlan(q.Size, nil)
		pl.Window = func(off int64) (Window, error) {
			if q.CopyUp {
				once.Do(func() {
					entered <- struct{}{}
					<-goOn
				})
			}
			half := max(1, (q.Size-off)/2)
			return Window{Extents: []Extent{extSelf(off, half)}}, nil
		}
		return FileAnswer{Plan: pl}
	}}
	m := secretMount(t, p, nil)
	done := make(chan error, 1)
	go func() { done <- unix.Chmod(m.path("f"), 0o600) }()
	<-entered
	set := make(chan error, 1)
	go func() { set <- m.SetPolicy(blankAll()) }()
	for m.pol().Policy == Policy(p) {
		time.Sleep(time.Millisecond)
	}
	close(goOn)
	m.within("the copy-up", func() {
		must(t, <-done)
		must(t, <-set)
	})
	wantSame(t, "the copy", readPath(t, m.path("f")), blankedSecret())
	noSecret(t, "after the copy-up", m.upper, m.work)
	wantEmptyWork(t, m)
}
