// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// byShell runs a program of the mount. Not as a child of the test's own: the
// runtime waits for the exec with all that could serve it.
func byShell(path string) error { return exec.Command("sh", "-c", path+"; exit $?").Run() }

// The policy is told what an answer is for: a copy-up, and a file that was
// copied through a plan, also after a remount.
func TestPlanMountedQueries(t *testing.T) {
	var mu sync.Mutex
	var asked []FileQuery
	policy := func() *rulePolicy {
		return &rulePolicy{file: func(q FileQuery) FileAnswer {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, q)
			if q.Name != "f" {
				return FileAnswer{}
			}
			return FileAnswer{Plan: blankPlan(q.Size, secretRanges())}
		}}
	}
	saw := func(what string, want bool, match func(FileQuery) bool) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		got := false
		for _, q := range asked {
			got = got || match(q)
		}
		if got != want {
			t.Errorf("%s: asked %v, want %v", what, got, want)
		}
	}
	m := secretMount(t, policy(), nil)
	readPath(t, m.path("f"))
	readPath(t, m.path("other"))
	saw("a read", true, func(q FileQuery) bool {
		return q.Place == "/f" && q.Layer == 1 && q.Data != nil && !q.Write && !q.AttrOnly
	})
	saw("the size", true, func(q FileQuery) bool { return q.Place == "/f" && q.AttrOnly })
	saw("a copy-up", false, func(q FileQuery) bool { return q.CopyUp || q.Copied || q.Write || q.Layer != 1 })
	for _, n := range []string{"f", "other"} {
		openFD(t, m.path(n), unix.O_RDWR).close()
	}
	check := func() {
		t.Helper()
		saw("a write", true, func(q FileQuery) bool { return q.Name == "f" && q.Write && q.Layer == 0 && q.Copied })
		saw("a copy without a plan", true, func(q FileQuery) bool { return q.Name == "other" && q.Write && q.Layer == 0 && !q.Copied })
		saw("a copy without a plan, as one with", false, func(q FileQuery) bool { return q.Name == "other" && q.Copied })
		saw("a copy with a plan, as one without", false, func(q FileQuery) bool { return q.Name == "f" && q.Layer == 0 && !q.Copied })
		saw("wrong layers", false, func(q FileQuery) bool { return q.Layers != 2 || (q.Layer == 0) != (q.Holders == 1) })
	}
	saw("a copy-up", true, func(q FileQuery) bool { return q.Name == "f" && q.CopyUp && q.Layer == 1 && q.Caller == Nobody })
	check()
	asked = nil
	m = m.remount(func(c *Config) { c.Policy = policy() })
	for _, n := range []string{"f", "other"} {
		openFD(t, m.path(n), unix.O_RDWR).close()
	}
	check()
}

// Programs run through a plan, and beside it.
func TestPlanMountedExec(t *testing.T) {
	bin, err := os.ReadFile("/bin/true")
	must(t, err)
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			low := layer(t, "file script exit 7", "file true")
			must(t, os.WriteFile(low+"/true", bin, 0o755))
			must(t, os.Chmod(low+"/true", 0o755))
			must(t, os.Chmod(low+"/script", 0o755))
			m := mountOver(t, func(c *Config) {
				mode.change(c)
				c.Policy = &TablePolicy{Prepend: map[string][]byte{"script": []byte("#!/bin/sh\n")},
					Blank: map[string][]Range{"true": {{int64(len(bin)) - 1, 1}}}}
			}, low)
			if err := byShell(m.path("true")); err != nil {
				t.Errorf("a binary with a plan: %v", err)
			}
			var ee *exec.ExitError
			if err := byShell(m.path("script")); !errors.As(err, &ee) || ee.ExitCode() != 7 {
				t.Errorf("a script with a prepended line: %v", err)
			}
		})
	}
}

// A plan that is another layer's file from end to end is passed through, and
// everything asked of the daemon besides reads is about that file too.
func TestPlanMountedWholeOther(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			a, b := layer(t, "file f"), layer(t, "file f")
			must(t, os.WriteFile(a+"/f", []byte(secretContent()), 0o644))
			const want = "the version that everybody may see"
			must(t, os.WriteFile(b+"/f", []byte(want), 0o644))
			must(t, os.Truncate(b+"/f", 1<<20)) // a hole
			p := &rulePolicy{file: func(q FileQuery) FileAnswer {
				if q.Layer == 0 {
					return FileAnswer{}
				}
				if q.Holders != 1<<1|1<<2 || q.Layers != 3 {
					t.Errorf("held by %b of %d", q.Holders, q.Layers)
				}
				return FileAnswer{Plan: planWindows(1<<20, Window{Extents: []Extent{extFrom(LayerBacking(2), 0, 1<<20, 0)}}), Rule: "second"}
			}}
			m := mountOver(t, func(c *Config) { mode.change(c); c.Policy = p }, a, b)
			view := want + strings.Repeat("\x00", 1<<20-len(want))
			f := openFD(t, m.path("f"), unix.O_RDONLY)
			wantListedSize(t, m, "f", 1<<20)
			for name, read := range waysToRead {
				got, err := read(t, m, f, len(view))
				must(t, err)
				wantSame(t, name, got, view)
			}
			if at, err := unix.Seek(f.fd, 0, unix.SEEK_END); err != nil || at != 1<<20 {
				t.Errorf("SEEK_END: %d, %v", at, err)
			}
			if at, err := unix.Seek(f.fd, 100000, unix.SEEK_HOLE); err != nil || at < 100000 || at > 1<<20 {
				t.Errorf("SEEK_HOLE: %d, %v", at, err)
			}
			if s := m.Status().Opens; mode.name == "passthrough" && s.Server != 0 {
				t.Errorf("not passed through: %+v", s)
			}
			openFD(t, m.path("f"), unix.O_RDWR).writeAt("W", 0)
			wantSame(t, "the copy", readPath(t, m.path("f")), "W"+view[1:])
			wantSame(t, "the old reader", f.content()[1:], view[1:])
			noSecret(t, "after the copy-up", m.upper, m.work)
			closeUnder(m.mnt)
			m.unmount()
			p.wantEnded(t, "the policy")
		})
	}
}

// A part that becomes another file, without a word, shows at the next open,
// though the old one may still be registered.
func TestPlanMountedPartChanges(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			var part atomic.Int64
			one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
			writePath(t, one, "first part")
			writePath(t, two, "other part")
			part.Store(int64(openFD(t, one, unix.O_RDONLY).fd))
			p := &rulePolicy{file: func(q FileQuery) FileAnswer {
				pl := planWindows(10, Window{Extents: []Extent{extFrom(PartBacking(0), 0, 10, 0)}})
				pl.Parts = []Part{{Name: "part", FD: int(part.Load())}}
				return FileAnswer{Plan: pl}
			}}
			m := mountOver(t, func(c *Config) { mode.change(c); c.Policy = p }, layer(t, "file f 0123456789", "file g 0123456789"))
			wantSame(t, "at first", readPath(t, m.path("f")), "first part")
			m.waitReleased("f")
			held := openFD(t, m.path("g"), unix.O_RDONLY)
			wantContent(t, "held at first", held, "first part")
			part.Store(int64(openFD(t, two, unix.O_RDONLY).fd))
			wantSame(t, "after a change", readPath(t, m.path("f")), "other part")
			wantSame(t, "after a change, while one is open", readPath(t, m.path("g")), "other part")
		})
	}
}

// Plans of a lower file that is removed, or reached by another of its links,
// still find the other layers' versions of its path, and of no other path.
func TestPlanMountedVersionsOfLinks(t *testing.T) {
	a := layer(t, "file d/a AAAA", "link d/a e/b")
	b := layer(t, "file d/a aaaa", "file e/a xxxx", "file e/b bbbb", "file d/b yyyy")
	p := &rulePolicy{file: func(q FileQuery) FileAnswer {
		if q.Layer == 0 || q.Holders>>2&1 == 0 {
			return FileAnswer{}
		}
		return FileAnswer{Plan: planWindows(4, Window{Extents: []Extent{extFrom(LayerBacking(2), 0, 2, 0), extFrom(LayerBacking(2), 2, 2, 2)}})}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, a, b)
	wantSame(t, "d/a", readPath(t, m.path("d/a")), "aaaa")
	m.waitReleased("d/a")
	readPath(t, m.path("e/b")) // the node has two names now
	must(t, unix.Unlink(m.path("d/a")))
	if got := readPath(t, m.path("e/b")); got != "bbbb" && got != "aaaa" {
		t.Errorf("e/b shows %q, which no layer holds under its path", got)
	}
}

// What was opened before its removal is served on, and reopened by descriptor
// as the policy says.
func TestPlanMountedRemoved(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			m := secretMount(t, blankAt("/f", "/d"), mode.change)
			for _, up := range []bool{false, true} {
				name := map[bool]string{false: "f", true: "d/f"}[up]
				if up {
					must(t, unix.Chmod(m.path(name), 0o600))
				}
				f := openFD(t, m.path(name), unix.O_RDONLY)
				path := openFD(t, m.path(name), unix.O_PATH)
				f2 := openFD(t, m.path(name), unix.O_RDONLY)
				f2.close()
				must(t, unix.Unlink(m.path(name)))
				wantContent(t, "held", f, blankedSecret())
				for _, fd := range []*testFD{f, path} {
					got, err := tryRead(fmt.Sprintf("/proc/self/fd/%d", fd.fd))
					must(t, err)
					wantSame(t, "reopened", got, blankedSecret())
				}
				f.close()
				time.Sleep(20 * time.Millisecond) // the release comes later
				got, err := tryRead(fmt.Sprintf("/proc/self/fd/%d", path.fd))
				must(t, err)
				wantSame(t, "reopened by the last descriptor", got, blankedSecret())
				w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", path.fd), unix.O_RDWR, 0)
				must(t, err)
				wantContent(t, "reopened for writing", &testFD{t: t, fd: w}, blankedSecret())
				_ = unix.Close(w)
			}
			noSecret(t, "after all", m.upper, m.work)
		})
	}
}

// A wrong answer in the middle of a file is EIO there and nowhere else.
func TestPlanMountedWrongInTheMiddle(t *testing.T) {
	const size = 8 << 20
	p := &rulePolicy{file: func(q FileQuery) FileAnswer {
		return FileAnswer{Plan: &Plan{Size: size, Window: func(off int64) (Window, error) {
			if off>>20 == 6 {
				return Window{Extents: []Extent{extZero(off+1, 1)}}, nil
			}
			return Window{Extents: []Extent{extZero(off, 1<<20-off&(1<<20-1))}}, nil
		}}}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f x", "file g y"))
	_, err := unix.Open(m.path("f"), unix.O_RDONLY, 0) // few windows: all are looked at for the tag
	wantErrno(t, "open", err, unix.EIO)
	if m.count.wrong.Load() == 0 {
		t.Error("not counted")
	}
	if st := statOf(t, m.path("f")); st.Size != size {
		t.Errorf("size %d", st.Size)
	}
	p.file = nil
}

// A part that shrinks under open readers: EIO, counted; no zeros, no crash.
func TestPlanMountedShrinkingPart(t *testing.T) {
	part := tempFile(t, strings.Repeat("x", 1<<20))
	p := &rulePolicy{file: func(q FileQuery) FileAnswer {
		pl := planWindows(1<<20+1, Window{Extents: []Extent{extFrom(PartBacking(0), 0, 1<<20, 0), extZero(1<<20, 1)}})
		pl.Parts = []Part{{Name: "the part", FD: part}}
		return FileAnswer{Plan: pl}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f x"))
	f := openFD(t, m.path("f"), unix.O_RDONLY)
	must(t, unix.Ftruncate(part, 8192))
	buf := make([]byte, 4096)
	n, err := unix.Pread(f.fd, buf, 0)
	if err == nil && string(buf[:n]) != strings.Repeat("x", n) {
		t.Error("what is left of it is wrong")
	}
	_, err = unix.Pread(f.fd, buf, 512<<10)
	wantErrno(t, "a read of what is gone", err, unix.EIO)
	if m.count.wrong.Load() == 0 {
		t.Error("not counted")
	}
	err = unix.Chmod(m.path("f"), 0o600)
	wantErrno(t, "a copy-up of it", err, unix.EIO)
	wantEmptyWork(t, m)
	must(t, unix.Ftruncate(part, 1<<20))
	n, err = unix.Pread(f.fd, buf, 512<<10)
	if err != nil || n != 4096 {
		t.Errorf("once it is back: %d, %v", n, err)
	}
}

// wantEmptyWork: nothing but the shared whiteout is left under way.
func wantEmptyWork(t *testing.T, m *mounted) {
	t.Helper()
	for _, n := range names(t, m.work+"/plyfs/tmp") {
		if n != sharedWhiteout {
			t.Errorf("%s is left in the work directory", n)
		}
	}
}

// Where the bytes lie is not told: FIEMAP and FIBMAP of the backing file would
// say where the secret is on the disk.
func TestPlanMountedNoMaps(t *testing.T) {
	m := secretMount(t, blankAt("/f"), nil)
	f := openFD(t, m.path("f"), unix.O_RDONLY)
	if err := ioctlAt(f.fd, 0xc020660b, make([]byte, 4096)); err == nil {
		t.Error("FS_IOC_FIEMAP succeeds")
	}
	block := []byte{1, 0, 0, 0}
	if err := ioctlAt(f.fd, 1, block); err == nil && !bytes.Equal(block, make([]byte, 4)) {
		t.Errorf("FIBMAP: %v", block)
	}
}
