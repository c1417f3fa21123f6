// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A planTest is a plan in use over a file of its own, without a mount.
type planTest struct {
	*planFile
	fd int
}

func (p *planTest) self(t testing.TB) int { t.Helper(); return p.fd }

// tempFile is an open file with a content, in memory.
func tempFile(t testing.TB, content string) int {
	t.Helper()
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	if n, err := unix.Pwrite(fd, []byte(content), 0); err != nil || n != len(content) {
		t.Fatalf("memfd: %d, %v", n, err)
	}
	return fd
}

// planOver puts a plan over a lower file that holds content.
func planOver(t testing.TB, p *Plan, content string) *planTest {
	return planAt(t, p, content, 1)
}

func planAt(t testing.TB, p *Plan, content string, layer int) *planTest {
	t.Helper()
	f, err := policyFS(silentPolicy{}).openPlan(FileQuery{Place: "/f", Layer: layer, Size: int64(len(content))}, p, nil)
	must(t, err)
	return &planTest{planFile: f, fd: tempFile(t, content)}
}

// silentPolicy says nothing.
type silentPolicy struct{ OnlyNames }

func (silentPolicy) Name(NameQuery) NameAnswer { return NameAnswer{} }

func (silentPolicy) File(FileQuery) FileAnswer { return FileAnswer{} }

// planWindows is a plan of windows that follow each other.
func planWindows(size int64, wins ...Window) *Plan {
	return &Plan{Size: size, Window: func(off int64) (Window, error) {
		for _, w := range wins {
			if len(w.Extents) == 0 || off < w.end() {
				return w.from(off), nil
			}
		}
		return Window{}, nil
	}}
}

func (p *planTest) read(t testing.TB, off int64, n int) (string, error) {
	t.Helper()
	buf := make([]byte, n)
	for i := range buf {
		buf[i] = '#' // what is not filled shows
	}
	got, err := p.readAt(buf, off, selfFile{fd: p.fd})
	return string(buf[:got]), err
}

func (p *planTest) wantRead(t testing.TB, off int64, n int, want string) {
	t.Helper()
	if got, err := p.read(t, off, n); err != nil || got != want {
		t.Errorf("%d bytes from %d: %q, %v; want %q", n, off, got, err, want)
	}
}

func (p *planTest) wantWrong(t testing.TB, off int64, n int, wrongs uint64, words string) {
	t.Helper()
	got, err := p.read(t, off, n)
	var w *wrongError
	if !errors.As(err, &w) || toErrno(err) != syscall.EIO {
		t.Errorf("%d bytes from %d: %q, %v; want EIO for a wrong answer", n, off, got, err)
	} else if !strings.Contains(err.Error(), words) {
		t.Errorf("%q does not say %q", err, words)
	}
	if c := p.fs.count.wrong.Load(); c != wrongs {
		t.Errorf("%d wrong answers counted, want %d", c, wrongs)
	}
}

func TestPlanReads(t *testing.T) {
	part := tempFile(t, "PARTBYTES")
	p := &Plan{Size: 26, Parts: []Part{{Name: "the part", FD: part}},
		Serve: func(b []byte, off int64) error {
			for i := range b {
				b[i] = byte('a' + (off+int64(i))%26)
			}
			return nil
		},
		Window: func(off int64) (Window, error) {
			return Window{Data: []byte("xxINLINE"), Extents: []Extent{extFrom(Self, 0, 5, 5), extZero(5, 3),
				extInline(8, 6, 2), extServer(14, 4), extFrom(PartBacking(0), 18, 5, 4), extFrom(Self, 23, 3, 0)}}.from(off), nil
		}}
	f := planOver(t, p, "0123456789")
	defer f.close()
	const want = "56789\x00\x00\x00INLINEopqrBYTES012"
	for off := range int64(30) {
		for n := range 30 {
			from, to := min(off, 26), min(off+int64(n), 26)
			f.wantRead(t, off, n, want[from:to])
		}
	}
}

// Windows as small as a byte, asked for in any order, overlapping each other.
func TestPlanWindowsInAnyOrder(t *testing.T) {
	content := make([]byte, 4096)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(rnd.Uint32())
	}
	for _, width := range []int64{1, 3, 64, 1000, 5000} {
		var asked atomic.Int64
		p := &Plan{Size: 4096, Window: func(off int64) (Window, error) {
			asked.Add(1)
			var w Window
			for at := off; at < min(4096, off+width); at++ { // one extent for each byte
				w.Extents = append(w.Extents, extSelf(at, 1))
			}
			return w, nil
		}}
		f := planOver(t, p, string(content))
		for range 300 {
			off := rnd.Int64N(4100)
			n := rnd.IntN(200)
			f.wantRead(t, off, n, string(content[min(off, 4096):min(off+int64(n), 4096)]))
		}
		f.wantRead(t, 0, 5000, string(content))
		once := asked.Load()
		f.wantRead(t, 0, 5000, string(content))
		if again := asked.Load(); again != once {
			t.Errorf("width %d: asked %d times more about what was known", width, again-once)
		}
		f.close()
	}
}

// The windows that are kept take bounded memory, however many there are.
func TestPlanWindowMemory(t *testing.T) {
	const size = 1 << 40
	data := bytes.Repeat([]byte("x"), 4096)
	p := &Plan{Size: size, Window: func(off int64) (Window, error) {
		return Window{Data: data, Extents: []Extent{extInline(off, 4096, 0)}}, nil
	}}
	f := planOver(t, p, "")
	defer f.close()
	rnd := rand.New(rand.NewPCG(3, 4))
	most := 0
	for i := range 5000 {
		off := rnd.Int64N(size>>12) << 12
		f.wantRead(t, off, 3, "xxx")
		if f.bytes > windowBytes {
			t.Fatalf("%d bytes of windows after %d reads, the bound is %d", f.bytes, i, windowBytes)
		}
		sum := 0
		most = max(most, len(f.wins))
		for _, w := range f.wins {
			sum += 48*len(w.Extents) + len(w.Data) + 64
		}
		if sum != f.bytes {
			t.Fatalf("%d bytes are counted as %d", sum, f.bytes)
		}
		if !slices.IsSortedFunc(f.wins, func(a, b Window) int { return int(a.Extents[0].Off>>12 - b.Extents[0].Off>>12) }) {
			t.Fatal("the windows are out of order")
		}
	}
	if most < 100 {
		t.Errorf("at most %d windows are kept, which is hardly a cache", most)
	}
}

// What a plan needs and is not there is EIO, counted, and names the file.
func TestPlanShortBacking(t *testing.T) {
	part := tempFile(t, "0123456789")
	p := planWindows(20, Window{Extents: []Extent{extFrom(PartBacking(0), 0, 10, 0)}},
		Window{Extents: []Extent{extFrom(PartBacking(0), 10, 10, 5)}})
	p.Parts = []Part{{Name: "the part", FD: part}}
	f := planOver(t, p, "")
	defer f.close()
	f.wantRead(t, 0, 10, "0123456789")
	f.wantWrong(t, 5, 10, 1, "ends at 10") // though its first half is fine
	must(t, unix.Ftruncate(part, 4))       // the window is checked already
	f.wantRead(t, 0, 4, "0123")
	f.wantWrong(t, 0, 5, 2, "the part has become shorter")
	must(t, unix.Ftruncate(part, 100)) // grown: the plan is as before
	f.wantRead(t, 0, 10, "0123\x00\x00\x00\x00\x00\x00")
	f.wantRead(t, 0, 30, "0123"+strings.Repeat("\x00", 16))
	f.wantRead(t, 20, 30, "")
}

// The node's own file too: a lower file that changes under the mount is none
// of the mount's doing, but must not show as zeros.
func TestPlanOwnFileShrinks(t *testing.T) {
	f := planOver(t, planWindows(10, Window{Extents: []Extent{extFrom(Self, 0, 10, 0)}}), "0123456789")
	defer f.close()
	f.wantRead(t, 0, 10, "0123456789")
	must(t, unix.Ftruncate(f.fd, 4))
	f.wantWrong(t, 0, 10, 1, "the file itself has become shorter")
}

// Wrong windows count each time: none is kept.
func TestPlanWrongWindows(t *testing.T) {
	var w Window
	f := planOver(t, &Plan{Size: 10, Window: func(int64) (Window, error) { return w, nil }}, "0123456789")
	defer f.close()
	f.wantWrong(t, 0, 1, 1, "no extent")
	w.Extents = []Extent{extSelf(1, 5)}
	f.wantWrong(t, 0, 1, 2, "a gap")
	w.Extents = []Extent{extFrom(LayerBacking(1), 0, 5, 0)}
	f.wantWrong(t, 0, 1, 3, "no backing file 1")
	w.Extents = []Extent{extFrom(PartBacking(0), 0, 5, 0)}
	f.wantWrong(t, 0, 1, 4, "0 parts")
	w.Extents = []Extent{extFrom(-5, 0, 5, 0)}
	f.wantWrong(t, 0, 1, 5, "no backing file -5")
	w.Extents = []Extent{extServer(0, 5)}
	f.wantWrong(t, 0, 1, 6, "nobody serves")
	w.Extents = []Extent{extSelf(0, 10)}
	f.wantRead(t, 0, 10, "0123456789")
}

// An error of the policy is passed on, a panic is EIO, and neither leaves the
// plan locked.
func TestPlanErrorsAndPanics(t *testing.T) {
	var do func() error
	p := &Plan{Size: 10, Serve: func([]byte, int64) error { return do() }}
	serving := false
	p.Window = func(int64) (Window, error) {
		if serving {
			return Window{Extents: []Extent{extServer(0, 10)}}, nil
		}
		return Window{}, do()
	}
	f := planOver(t, p, "0123456789")
	defer f.close()
	for range 2 { // the windows, then what is served
		do = func() error { return unix.EACCES }
		_, err := f.read(t, 0, 5)
		wantErrno(t, "an error", err, unix.EACCES)
		do = func() error { return errors.New("in words") }
		_, err = f.read(t, 0, 5)
		wantErrno(t, "words", err, unix.EIO)
		do = func() error { panic("the policy is wrong") }
		_, err = f.read(t, 0, 5)
		wantErrno(t, "a panic", err, unix.EIO)
		serving = true
	}
	if n := f.fs.count.panics.Load(); n != 2 {
		t.Errorf("%d panics counted, want 2", n)
	}
	do = func() error { return nil }
	f.wantRead(t, 0, 3, "\x23\x23\x23")
}

func TestOpenPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		layer int
		size  int64
		want  syscall.Errno
	}{{1, 0, 0}, {1, 10, 0}, {1, math.MaxInt64, 0}, {1, -1, unix.EIO}, {1, math.MinInt64, unix.EIO},
		{0, 5, 0}, {0, 4, unix.EIO}, {0, 6, unix.EIO}, {0, -1, unix.EIO}} {
		fs := policyFS(silentPolicy{})
		released := 0
		f, err := fs.openPlan(FileQuery{Layer: c.layer, Size: 5}, &Plan{Size: c.size, Release: func() { released++ }}, nil)
		wantErrno(t, fmt.Sprintf("%+v", c), err, c.want)
		if wrong := fs.count.wrong.Load() == 1; wrong != (err != nil) || (released == 1) != (err != nil) {
			t.Errorf("%+v: wrong %v, released %d", c, wrong, released)
		}
		f.close()
		if released != 1 {
			t.Errorf("%+v: released %d times", c, released)
		}
	}
}

// A file in upper is blanked where it lies: it may grow and shrink under the
// plan.
func TestPlanInPlace(t *testing.T) {
	f := planAt(t, blankPlan(10, []Range{{2, 3}}), "0123456789", 0)
	defer f.close()
	f.wantRead(t, 0, 20, "01\x00\x00\x0056789")
	_, err := unix.Pwrite(f.fd, []byte("abcde"), 8)
	must(t, err)
	f.wantRead(t, 0, 20, "01\x00\x00\x00567abcde")
	f.wantRead(t, 11, 20, "de")
	f.wantRead(t, 13, 20, "")
	for size, want := range map[int64]string{12: "01\x00\x00\x00567abcd", 7: "01\x00\x00\x0056", 4: "01\x00\x00", 2: "01", 1: "0", 0: ""} {
		g := planAt(t, blankPlan(10, []Range{{2, 3}}), "01234567abcde"[:10], 0)
		_, err := unix.Pwrite(g.fd, []byte("abcde"), 8)
		must(t, err)
		must(t, unix.Ftruncate(g.fd, size))
		g.wantRead(t, 0, 20, want)
		g.wantRead(t, 3, 20, want[min(3, len(want)):])
		if n := g.fs.count.wrong.Load(); n != 0 {
			t.Errorf("cut to %d: %d wrong answers", size, n)
		}
		g.close()
	}
}

// What a copy-up writes is what reading shows, and nothing else.
func TestPlanCopy(t *testing.T) {
	part := tempFile(t, strings.Repeat("P", 3<<20))
	const size = 5 << 20
	p := &Plan{Size: size, Parts: []Part{{FD: part}}, Window: func(off int64) (Window, error) {
		w := Window{Data: []byte("in"), Extents: []Extent{extSelf(0, 4), extZero(4, 1<<20-4),
			extFrom(PartBacking(0), 1<<20, 3<<20, 0), extInline(4<<20, 2, 0), extZero(4<<20+2, 1<<20-2)}}.from(off)
		w.Extents = w.Extents[:1] // one at a time
		return w, nil
	}}
	f := planOver(t, p, "self, of which more is secret")
	defer f.close()
	if _, err := f.read(t, 1<<20+7, 5); err != nil { // the windows begin elsewhere now
		t.Fatal(err)
	}
	dst := tempFile(t, "")
	n, err := f.copyTo(dst, selfFile{fd: f.fd})
	if err != nil || n != size {
		t.Fatalf("copied %d, %v", n, err)
	}
	got := make([]byte, size+1)
	k, err := preadFull(dst, got, 0)
	must(t, err)
	want, err := f.read(t, 0, size)
	must(t, err)
	if string(got[:k]) != want {
		t.Error("the copy is not what reading shows")
	}
	if bytes.Contains(got[:k], []byte("secret")) {
		t.Error("the copy holds what the plan does not show")
	}
	must(t, unix.Ftruncate(part, 1<<20))
	if n, err := f.copyTo(tempFile(t, ""), selfFile{fd: f.fd}); toErr(err) != unix.EIO {
		t.Errorf("a copy from a part that shrank: %d, %v", n, err)
	}
	if n, err := f.copyTo(tempFile(t, ""), selfFile{fd: -1}); err == nil {
		t.Errorf("a copy from no file: %d", n)
	}
}

// identity and tag: what is the same plan, and what is not.
func TestPlanIdentityAndTag(t *testing.T) {
	part, other := tempFile(t, "0123456789"), tempFile(t, "0123456789")
	one := func(size int64, ext ...Extent) *Plan {
		p := planWindows(size, Window{Data: []byte("abcdefghij"), Extents: ext})
		p.Serve = func([]byte, int64) error { return nil }
		p.Parts = []Part{{FD: part}, {FD: other}}
		return p
	}
	seen := map[uint64]string{}
	for _, c := range []struct {
		name string
		plan *Plan
		from Backing
		same bool
		tag  bool // it has one
	}{
		{"itself", one(10, extSelf(0, 10)), Self, true, true},
		{"a part", one(10, extFrom(PartBacking(0), 0, 10, 0)), PartBacking(0), true, true},
		{"another part", one(10, extFrom(PartBacking(1), 0, 10, 0)), PartBacking(1), true, true},
		{"less of itself", one(9, extSelf(0, 9)), Self, false, true},
		{"moved", one(9, extFrom(Self, 0, 9, 1)), 0, false, true},
		{"zeros", one(10, extZero(0, 10)), 0, false, true},
		{"two halves", one(10, extSelf(0, 5), extSelf(5, 5)), 0, false, true},
		{"nothing", one(0), Self, false, true},
		{"inline", one(10, extInline(0, 10, 0)), 0, false, true},
		{"inline, less", one(5, extInline(0, 5, 0)), 0, false, true},
		{"inline, others", one(5, extInline(0, 5, 1)), 0, false, true},
		{"served", one(10, extServer(0, 10)), 0, false, false},
	} {
		f := planOver(t, c.plan, "0123456789")
		from, same, err := f.identity()
		if err != nil || same != c.same || same && from != c.from {
			t.Errorf("%s: %v, %v, %v", c.name, from, same, err)
		}
		tag, err := f.tag()
		must(t, err)
		if again, err := f.tag(); err != nil || again != tag {
			t.Errorf("%s: tag %x, then %x, %v", c.name, tag, again, err)
		}
		if (tag != 0) != c.tag || tag == plainTag {
			t.Errorf("%s: tag %x", c.name, tag)
		}
		if twin := seen[tag]; tag != 0 && twin != "" {
			t.Errorf("%s has the tag of %s", c.name, twin)
		}
		seen[tag] = c.name
		f.close()
	}
}

// A backing file that changes has another tag; the same one is told by what it
// is, not by its number among the parts.
func TestPlanTagOfFiles(t *testing.T) {
	a, b := tempFile(t, "0123456789"), tempFile(t, "0123456789")
	tagOf := func(fd int) uint64 {
		p := planWindows(5, Window{Extents: []Extent{extFrom(PartBacking(0), 0, 5, 0)}})
		p.Parts = []Part{{FD: fd}}
		f := planOver(t, p, "")
		defer f.close()
		tag, err := f.tag()
		must(t, err)
		return tag
	}
	first := tagOf(a)
	if tagOf(a) != first {
		t.Error("the same file has another tag")
	}
	if tagOf(b) == first {
		t.Error("another file has the same tag")
	}
	must(t, unix.Ftruncate(a, 9))
	if tagOf(a) == first {
		t.Error("a changed file has the same tag")
	}
}

// A plan with too many windows to look at has no tag, and looking at it ends.
func TestPlanTagOfMany(t *testing.T) {
	asked := 0
	p := &Plan{Size: math.MaxInt64, Window: func(off int64) (Window, error) {
		asked++
		return Window{Extents: []Extent{extZero(off, 1)}}, nil
	}}
	f := planOver(t, p, "")
	defer f.close()
	if tag, err := f.tag(); err != nil || tag != 0 || asked > wholeWindows {
		t.Errorf("tag %x, %v after %d windows", tag, err, asked)
	}
	if list, more, err := f.extents(10); err != nil || !more || len(list) != 10 {
		t.Errorf("%d extents, more %v, %v", len(list), more, err)
	}
}

// Readers of one plan at a time, with windows coming and going.
func TestPlanConcurrentReaders(t *testing.T) {
	const size = 1 << 20
	content := make([]byte, size)
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range content {
		content[i] = byte(rnd.Uint32())
	}
	part := tempFile(t, string(content))
	p := &Plan{Size: size, Parts: []Part{{FD: part}}, Window: func(off int64) (Window, error) {
		n := min(64, size-off)
		w := Window{Data: make([]byte, 4096), Extents: []Extent{extFrom(PartBacking(0), off, n, off)}}
		if off/64%3 == 0 {
			w.Extents[0] = extSelf(off, n)
		}
		return w, nil
	}}
	f := planOver(t, p, string(content))
	defer f.close()
	var wg sync.WaitGroup
	for i := range 8 {
		rnd := rand.New(rand.NewPCG(uint64(i), 7))
		wg.Go(func() {
			buf := make([]byte, 2000)
			for range 300 {
				off := rnd.Int64N(size)
				n, err := f.readAt(buf, off, selfFile{fd: f.fd})
				if err != nil || !bytes.Equal(buf[:n], content[off:min(off+2000, size)]) {
					t.Errorf("%d bytes from %d are wrong: %v", n, off, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if f.bytes > windowBytes {
		t.Errorf("%d bytes of windows", f.bytes)
	}
}

// Parts are the policy's: they are not closed with the plan. Release comes
// once.
func TestPlanCloses(t *testing.T) {
	part := tempFile(t, "0123456789")
	released := 0
	p := planWindows(5, Window{Extents: []Extent{extFrom(PartBacking(0), 0, 5, 0)}})
	p.Parts, p.Release = []Part{{FD: part}}, func() { released++ }
	f := planOver(t, p, "")
	f.wantRead(t, 0, 5, "01234")
	f.close()
	if released != 1 {
		t.Errorf("released %d times", released)
	}
	var st unix.Stat_t
	must(t, unix.Fstat(part, &st))
	var none *planFile
	none.close()
	var noPlan *Plan
	noPlan.release()
	if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d", part)); err != nil {
		t.Error(err)
	}
}
