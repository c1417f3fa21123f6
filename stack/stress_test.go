// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stressTime is how long the stress runs in each I/O mode.
const stressTime = 2500 * time.Millisecond

// Many threads in the same few directories, with reports and syncs between
// them: no errno that a plain directory would not give, nothing torn, nothing
// left afterwards.
func TestStress(t *testing.T) {
	for _, io := range []string{IOPassthrough, IOCoherent} {
		t.Run(io, func(t *testing.T) { stress(t, io) })
	}
}

func stress(t *testing.T, mode string) {
	low := layer(t)
	for i := range 60 {
		addEntry(t, low, []string{"file", fmt.Sprintf("d%d/f%d", i%4, i%12), stressContent(i)})
	}
	addEntry(t, low, []string{"link", "d0/f0", "d1/hard"})
	m := mountOver(t, func(c *Config) { c.IO = mode }, low, layer(t, "file d0/f20 "+stressContent(1), "file d1/s/x "+stressContent(2)))
	s := &stresser{m: m, until: time.Now().Add(stressTime)}
	var wg sync.WaitGroup
	for i := range 8 {
		rnd := rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			for time.Now().Before(s.until) && !t.Failed() {
				s.step(rnd)
			}
		})
	}
	wg.Go(func() {
		for time.Now().Before(s.until) {
			s.report()
		}
	})
	m.within("the stress", wg.Wait)
	t.Logf("%d operations, status %+v, %+v", s.ops.Load(), m.Status().Opens, m.Status().CopyUps)
	m.within("rm -rf", func() {
		for _, n := range names(t, m.mnt) {
			if err := os.RemoveAll(m.path(n)); err != nil {
				t.Errorf("rm -rf %s: %v", n, err)
			}
		}
		wantNames(t, m.mnt)
	})
	if st := m.Status(); len(st.LastErrors) > 0 || st.Errors["EIO"] > 0 {
		t.Errorf("errors %v, %q", st.Errors, st.LastErrors)
	}
	m.wantForgotten()
	m = m.remount(nil)
	wantNames(t, m.mnt)
}

// stressContent is what files hold: one character, many times, so that a torn
// copy shows.
func stressContent(i int) string {
	b := make([]byte, 4096)
	for k := range b {
		b[k] = byte('a' + i%26)
	}
	return string(b)
}

type stresser struct {
	m     *mounted
	until time.Time
	ops   atomic.Int64
}

// allowed are the errnos that others' changes may cause in a plain directory.
var allowed = map[syscall.Errno]bool{unix.ENOENT: true, unix.EEXIST: true, unix.ENOTEMPTY: true, unix.EISDIR: true,
	unix.ENOTDIR: true, unix.EINVAL: true}

func (s *stresser) check(what string, err error) {
	s.ops.Add(1)
	if err != nil && !allowed[toErr(err)] {
		s.m.t.Errorf("%s: %v", what, err)
	}
}

func (s *stresser) step(rnd *rand.Rand) {
	name := func() string { return s.m.path(fmt.Sprintf("d%d/f%d", rnd.IntN(4), rnd.IntN(14))) }
	dir := func() string { return s.m.path(fmt.Sprintf("d%d/s%d", rnd.IntN(4), rnd.IntN(3))) }
	a, b := name(), name()
	switch rnd.IntN(14) {
	case 0, 1:
		s.check("write "+a, tryWrite(a, stressContent(rnd.IntN(26))))
	case 2, 3, 4:
		s.check("read "+a, s.readWhole(a))
	case 5:
		s.check("unlink "+a, unix.Unlink(a))
	case 6:
		s.check("rename "+a+" "+b, unix.Rename(a, b))
	case 7:
		s.check("link "+a+" "+b, unix.Link(a, b))
	case 8:
		s.check("exchange "+a+" "+b, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
	case 9:
		s.check("mkdir", unix.Mkdir(dir(), 0o755))
	case 10:
		s.check("rmdir", unix.Rmdir(dir()))
	case 11:
		s.check("rename of a directory", unix.Rename(dir(), dir()))
	case 12:
		ents, err := os.ReadDir(s.m.path(fmt.Sprintf("d%d", rnd.IntN(4))))
		s.check("readdir", err)
		seen := map[string]bool{}
		for _, e := range ents {
			if seen[e.Name()] && e.Name() == "hard" { // nobody changes it
				s.m.t.Errorf("%s is listed twice", e.Name())
			}
			seen[e.Name()] = true
		}
	case 13:
		s.check("chmod "+a, unix.Chmod(a, 0o600|rnd.Uint32N(0o100)))
	}
}

// readWhole fails if a file holds anything but one write: it may be empty, or
// short, while another thread rewrites it.
func (s *stresser) readWhole(path string) error {
	c, err := tryRead(path)
	if err != nil || len(c) == 0 {
		return err
	}
	for i := range c {
		if c[i] < 'a' || c[i] > 'z' {
			s.m.t.Errorf("%s holds a foreign byte %#x at %d", path, c[i], i)
			break
		}
	}
	return nil
}

// report runs what a control socket would ask for.
func (s *stresser) report() {
	t := s.m.t
	if st := s.m.Status(); st.Panics > 0 {
		t.Errorf("%d panics", st.Panics)
	}
	if _, err := s.m.Explain("d1/hard"); err != nil {
		s.check("explain", err)
	}
	if err := s.m.Changes(func(byte, string) error { return nil }); err != nil {
		s.check("changes", err)
	}
	s.check("dump", s.m.DumpJournal(io.Discard))
	s.check("sync", s.m.Sync())
	time.Sleep(20 * time.Millisecond)
}

// One copy-up, though many ask.
func TestOneCopyUpForMany(t *testing.T) {
	low := layer(t)
	must(t, os.WriteFile(low+"/big", make([]byte, 8<<20), 0o644))
	m := mountOver(t, nil, low)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			fd, err := unix.Open(m.path("big"), unix.O_WRONLY, 0)
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			defer unix.Close(fd)
			if _, err := unix.Pwrite(fd, []byte{byte('0' + i)}, int64(i)); err != nil {
				t.Errorf("write: %v", err)
			}
		})
	}
	wg.Wait()
	if s := m.Status(); s.CopyUps.Files != 1 || s.CopyUps.Failed != 0 {
		t.Errorf("copy-ups %+v", s.CopyUps)
	}
	if got := readPath(t, m.path("big")); got[:8] != "01234567" {
		t.Errorf("it begins with %q", got[:8])
	}
}

// Each lower file is opened, changed and moved by several threads at once,
// some of which hold it open: the first writers meet readers that the kernel
// serves by itself.
func TestCopyUpRaces(t *testing.T) {
	for _, mode := range []string{IOPassthrough, IOCoherent} {
		t.Run(mode, func(t *testing.T) { copyUpRaces(t, mode) })
	}
}

func copyUpRaces(t *testing.T, mode string) {
	const files = 150
	low := layer(t)
	for i := range files {
		addEntry(t, low, []string{"file", fmt.Sprintf("d%d/f", i), stressContent(0)})
		if i%3 == 0 {
			addEntry(t, low, []string{"link", fmt.Sprintf("d%d/f", i), fmt.Sprintf("d%d/g", i)})
		}
	}
	m := mountOver(t, func(c *Config) { c.IO = mode }, low)
	stop := make(chan struct{})
	var reports sync.WaitGroup
	reports.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := m.Changes(func(byte, string) error { return nil }); err != nil {
					t.Errorf("changes: %v", err)
				}
			}
		}
	})
	for i := range files {
		f := m.path(fmt.Sprintf("d%d/f", i))
		held, err := unix.Open(f, unix.O_RDONLY, 0)
		must(t, err)
		var wg sync.WaitGroup
		for _, act := range []func() error{
			func() error { return pwriteOnce(f, "b", unix.O_WRONLY) },
			func() error { return pwriteOnce(f, "b", unix.O_RDWR) },
			func() error { return unix.Chmod(f, 0o640) },
			func() error { _, err := tryRead(f); return err },
			func() error { _, err := tryRead(f); return err },
			func() error { var st unix.Stat_t; return unix.Stat(f, &st) },
			func() error { return unix.Truncate(f, 4096) },
		} {
			wg.Go(func() {
				if err := act(); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			})
		}
		m.within("racing opens", wg.Wait)
		want := "b" + stressContent(0)[1:]
		if got := readPath(t, f); got != want {
			t.Errorf("%s holds %q and %d bytes more", f, got[:min(len(got), 4)], len(got)-4)
		}
		if i%3 == 0 {
			if got := readPath(t, m.path(fmt.Sprintf("d%d/g", i))); got != want {
				t.Errorf("its other name holds %q", got[:min(len(got), 4)])
			}
		}
		old, err := (&testFD{fd: held}).tryContent()
		must(t, err)
		if mode == IOPassthrough && old != stressContent(0) {
			t.Errorf("the old reader of %s sees a change", f)
		}
		if mode == IOCoherent && old != want {
			t.Errorf("the old reader of %s does not see the change", f)
		}
		_ = unix.Close(held)
		if b, err := os.ReadFile(fmt.Sprintf("%s/d%d/f", low, i)); err != nil || string(b) != stressContent(0) {
			t.Fatalf("the lower file %d changed: %v", i, err)
		}
	}
	close(stop)
	reports.Wait()
	s := m.Status()
	if s.CopyUps.Files != files || s.CopyUps.Failed != 0 {
		t.Errorf("copy-ups %+v, want %d", s.CopyUps, files)
	}
	if mode == IOPassthrough && s.Opens.Retired != files || mode == IOCoherent && s.Opens.Retired != 0 {
		t.Errorf("opens %+v", s.Opens)
	}
	m.wantForgotten()
}

func pwriteOnce(path, content string, flags int) error {
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Pwrite(fd, []byte(content), 0)
	return err
}
