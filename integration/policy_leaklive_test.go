// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPolicyLeakUnlinked: a file without a name stays redacted for those who
// hold it by a descriptor, one of O_PATH included.
func TestPolicyLeakUnlinked(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := newSecret(t, option, "lower", "copied", "path")
		must(t, os.Chmod(s.path("secret/copied"), 0o600))
		for _, name := range []string{"lower", "copied"} {
			f, err := os.Open(s.path("secret", name))
			must(t, err)
			must(t, os.Remove(s.path("secret", name)))
			must(t, s.checkOpen(name+", unlinked", f))
			s.wantBlankFD(name+", unlinked, reopened", int(f.Fd()))
			f.Close()
		}
		fd, err := unix.Open(s.path("secret/path"), unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, os.Remove(s.path("secret/path")))
		s.wantBlankFD("O_PATH, unlinked", fd)
		// Another file of the name does not make it another.
		must(t, os.WriteFile(s.path("open/path"), []byte("x"), 0o644))
		must(t, os.Rename(s.path("open/path"), s.path("secret/path")))
		s.wantBlankFD("O_PATH, replaced", fd)
		s.wantNotOnDisk("after unlink")
	})
}

// wantBlankFD reopens a descriptor, for reading and for writing; it may be
// refused, as that of a file without a name.
func (s *secret) wantBlankFD(what string, fd int) {
	s.Helper()
	for _, flags := range []int{os.O_RDONLY, os.O_RDWR} {
		err := withFile("/proc/self/fd/"+itoa(fd), flags, func(f *os.File) error { return s.checkOpen(what, f) })
		if err != nil && !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.ENOENT) {
			s.Errorf("%s: %v", what, err)
		}
	}
}

// TestPolicyLeakAppended: what is written into the range of an open file, or
// makes the file reach into the range, is shown to no other reader.
func TestPolicyLeakAppended(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := newSecret(t, option)
		short := secretBytes(s.marker)[:secretOff-10]
		must(t, os.WriteFile(s.path("secret/new"), short, 0o644))
		must(t, withFile(s.path("secret/new"), os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
			_, err := f.Write(secretBytes(s.marker)[secretOff-10:])
			return err
		}))
		s.wantBlankFile("secret/new")
		s.readAllWays("secret/new")
		must(t, os.Rename(s.path("secret/new"), s.path("open/new")))
		s.readAllWays("open/new")
	})
}

// TestPolicyLeakOverlay: kernel overlayfs on top of the mount shows what the
// mount shows, and copies up no more.
func TestPolicyLeakOverlay(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := prepareSecret(t, "a", "b")
		s.opts.options = []string{option, "policy=" + s.policy, "max_stack_depth=1"}
		s.mount()
		top := newMount(t, mountOpts{sut: sutOverlay, lowerDirs: []string{s.mp}, noLowerCheck: true})
		for _, name := range []string{"a", "b"} {
			b, err := os.ReadFile(top.path("secret", name))
			must(t, err)
			s.wantBlank("overlayfs on top, "+name, b)
		}
		must(t, os.Chmod(top.path("secret/a"), 0o600))
		b, err := os.ReadFile(top.path("secret/a"))
		must(t, err)
		s.wantBlank("copied up by overlayfs", b)
		if f := filesWith(t, s.marker[:16], top.upper, top.work); len(f) > 0 {
			t.Errorf("THE SECRET IS IN %q", f)
		}
		top.unmount()
	})
}

// TestPolicyLeakReadOnly reads in every way in a mount without upper.
func TestPolicyLeakReadOnly(t *testing.T) {
	requirePlyfs(t, "policies")
	s := prepareSecret(t, "a")
	s.upper, s.work = "", ""
	s.opts.options = []string{"policy=" + s.policy}
	s.mount()
	for _, w := range readWays {
		if strings.HasSuffix(w.name, "inside the mount") {
			continue // there is no upper
		}
		got, err := w.read(s, s.path("secret/a"))
		switch {
		case err == nil:
			s.wantBlank(w.name, got)
		case !isOneOf(err, w.refused) && !errors.Is(err, errNotTried):
			t.Errorf("%s: %v", w.name, err)
		}
	}
}

// TestPolicyLeakClone: copy-up on a file system that shares extents shares
// none of a redacted file's, and does share those of others.
func TestPolicyLeakClone(t *testing.T) {
	requirePlyfs(t, "policies")
	fs := newFS(t, "xfs", 320)
	t.Setenv("PLYFS_TMP", fs)
	for _, m := range policyModes {
		t.Run(m.name, func(t *testing.T) {
			s := newSecret(t, m.option, "a", "b")
			s.readAllWays("secret/a")
			must(t, os.Chmod(s.path("secret/a"), 0o600))
			must(t, os.Rename(s.path("secret/b"), s.path("open/b")))
			must(t, os.Chmod(s.path("open/other"), 0o600))
			s.wantBlankFile("secret/a")
			s.wantBlankFile("open/b")
			s.wantNotOnDisk("after copy-up")
			s.readAllWays("open/b")
		})
	}
}

// TestPolicyLeakCached: a file that the kernel has in its page cache, or open,
// when the policy comes.
func TestPolicyLeakCached(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprintf("held=%v", held), func(t *testing.T) {
				s := prepareSecret(t, "a")
				s.opts.options = []string{option}
				s.mount()
				got, err := os.ReadFile(s.path("secret/a"))
				must(t, err)
				wantBytes(t, "before the policy", got, secretBytes(s.marker))
				if held {
					s.checkHeld(option)
					return
				}
				s.setPolicy(s.policy)
				s.readAllWays("secret/a")
				s.clearPolicy()
				wantFile(t, s.path("secret/a"), string(secretBytes(s.marker)))
			})
		}
	})
}

// checkHeld holds a descriptor and a mapping when the policy comes. If the
// daemon serves them they follow; if the kernel does, only new ones do.
func (s *secret) checkHeld(option string) {
	s.Helper()
	f, err := os.Open(s.path("secret/a"))
	must(s, err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, secretSize, unix.PROT_READ, unix.MAP_SHARED)
	must(s, err)
	defer unix.Munmap(m)
	if !bytes.Contains(m, []byte(s.marker)) {
		s.Fatal("the mapping does not show the file as it is without a policy")
	}
	s.setPolicy(s.policy)
	s.readAllWays("secret/a")
	if option == "io="+ioPassthrough {
		if s.policyRetired() == 0 {
			s.Error("no node was retired by the policy")
		}
	} else {
		must(s, s.checkOpen("a held descriptor", f))
		s.wantBlank("a held mapping", m)
		s.wantBlankFD("a held descriptor, reopened", int(f.Fd()))
	}
	s.wantBlankFD("reopened", int(f.Fd()))
	s.readAllWays("secret/a")
	must(s, os.Chmod(s.path("secret/a"), 0o600))
	s.wantBlankFile("secret/a")
	s.wantNotOnDisk("after a copy-up with an old descriptor open")
}

// policyRetired counts the nodes that a policy retired.
func (u *union) policyRetired() uint64 {
	u.Helper()
	var st struct {
		Opens struct {
			PolicyRetired uint64 `json:"policy_retired"`
		} `json:"opens"`
	}
	u.statusInto(&st)
	return st.Opens.PolicyRetired
}

// The file of the hammer: two halves, of which the policies hide one each.
const (
	hammerHalf = 64 << 10
	hammerPage = 4096
)

// hammer is readers in a loop while the policy changes.
type hammer struct {
	*secret
	raw   []byte
	hides [2]string // policy files
	// turn counts: odd while a policy is being set; else turn/2 is the
	// number of sets that are done.
	turn  atomic.Int64
	reads atomic.Int64
	exact atomic.Int64
	once  sync.Once
}

// hidden tells whether a policy hides a page.
func hidden(policy, page int) bool { return page*hammerPage/hammerHalf == policy }

// TestPolicyLeakHammer alternates two policies under readers. Each page read
// is one of the two views of it, and once a policy is set no read by a new
// open shows what it hides.
func TestPolicyLeakHammer(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		h := newHammer(t, option)
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for _, read := range hammerReads {
			readers.Add(1)
			go func() {
				defer readers.Done()
				h.loop(stop, read)
			}()
		}
		for i := range 30 {
			h.turn.Add(1)
			h.setPolicy(h.hides[(i+1)%2])
			h.turn.Add(1)
			h.checkAll((i + 1) % 2)
			time.Sleep(10 * time.Millisecond)
		}
		close(stop)
		readers.Wait()
		t.Logf("%d pages read, %d of them while no policy was being set", h.reads.Load(), h.exact.Load())
		if h.exact.Load() < 100 {
			t.Errorf("only %d pages were read between two changes", h.exact.Load())
		}
	})
}

func newHammer(t *testing.T, option string) *hammer {
	h := &hammer{secret: prepareSecret(t)}
	for len(h.raw) < 2*hammerHalf {
		h.raw = append(h.raw, h.marker...)
	}
	h.raw = h.raw[:2*hammerHalf]
	must(t, os.WriteFile(filepath.Join(h.lowers[0], "secret/hammer"), h.raw, 0o644))
	h.before = nil // just changed
	for i := range h.hides {
		h.hides[i] = writePolicy(t, h.dir, fmt.Sprintf("hide%d.yaml", i),
			fmt.Sprintf("- {path: /secret, name: half%d, program: redact, ranges: [%d+%d]}\n", i, i*hammerHalf, hammerHalf))
	}
	h.opts.options = []string{option, "policy=" + h.hides[0]}
	h.mount()
	return h
}

// A hammerRead reads a page. A copy from a
// mapping is no single read: the page may be taken away in the middle of it.
type hammerRead struct {
	name   string
	mapped bool
	read   func(f *os.File, m []byte, path string, page int, b []byte) error
}

var hammerReads = []hammerRead{
	{"new open", false, func(_ *os.File, _ []byte, path string, page int, b []byte) error {
		return withFile(path, os.O_RDONLY, func(f *os.File) error { _, err := f.ReadAt(b, int64(page*hammerPage)); return err })
	}},
	{"new open, mapped", true, func(_ *os.File, _ []byte, path string, page int, b []byte) error {
		return withFile(path, os.O_RDONLY, func(f *os.File) error {
			m, err := unix.Mmap(int(f.Fd()), int64(page*hammerPage), hammerPage, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			copy(b, m)
			return unix.Munmap(m)
		})
	}},
	{"held descriptor", false, func(f *os.File, _ []byte, _ string, page int, b []byte) error {
		_, err := f.ReadAt(b, int64(page*hammerPage))
		return err
	}},
	{"held mapping", true, func(_ *os.File, m []byte, _ string, page int, b []byte) error {
		copy(b, m[page*hammerPage:])
		return nil
	}},
}

// loop reads pages until it is told to stop.
func (h *hammer) loop(stop <-chan struct{}, how hammerRead) {
	path := h.path("secret/hammer")
	f, err := os.Open(path)
	if err != nil {
		h.fail("%v", err)
		return
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 2*hammerHalf, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		h.fail("%v", err)
		return
	}
	defer unix.Munmap(m)
	b := make([]byte, hammerPage)
	for {
		select {
		case <-stop:
			return
		default:
		}
		page := rand.IntN(2 * hammerHalf / hammerPage)
		before := h.turn.Load()
		if err := how.read(f, m, path, page, b); err != nil {
			h.fail("%s: page %d: %v", how.name, page, err)
			return
		}
		h.judge(how, page, b, before, h.turn.Load())
	}
}

// judge looks at a page that was read between two counts of turns.
func (h *hammer) judge(how hammerRead, page int, b []byte, before, after int64) {
	h.reads.Add(1)
	between := before == after && before%2 == 0
	raw := bytes.Equal(b, h.raw[page*hammerPage:][:hammerPage])
	if !raw && !bytes.Equal(b, make([]byte, hammerPage)) && (between || !how.mapped) {
		h.fail("%s: page %d is neither of its two views: %.60q", how.name, page, b)
		return
	}
	if !between {
		return
	}
	h.exact.Add(1)
	if want := !hidden(int(before/2%2), page); raw != want {
		h.fail("%s: page %d, %d policies after the first: shown raw %v, want %v", how.name, page, before/2, raw, want)
	}
}

// fail reports the first failure of the readers alone.
func (h *hammer) fail(format string, args ...any) {
	h.once.Do(func() { h.Errorf(format, args...) })
}

// checkAll reads the file by a new open, when a policy has just been set.
func (h *hammer) checkAll(policy int) {
	h.Helper()
	b, err := os.ReadFile(h.path("secret/hammer"))
	if err != nil {
		h.Errorf("reading: %v", err)
		return
	}
	want := bytes.Clone(h.raw)
	clear(want[policy*hammerHalf : (policy+1)*hammerHalf])
	wantBytes(h, fmt.Sprintf("by policy %d", policy), b, want)
}
