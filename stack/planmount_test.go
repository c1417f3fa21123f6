// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A rulePolicy is a policy out of functions that can be changed under way. It
// counts what it is asked and gives, and whether it is asked after its end.
type rulePolicy struct {
	scope func(string) Scope
	name  func(NameQuery) NameAnswer
	file  func(FileQuery) FileAnswer
	attr  func(AttrQuery) AttrAnswer
	data  func(DataQuery) DataAnswer
	epoch atomic.Uint64

	closed, late, plans, released atomic.Int64
}

func (p *rulePolicy) asked() {
	if p.closed.Load() > 0 {
		p.late.Add(1)
	}
}

func (p *rulePolicy) Scope(place string) Scope {
	p.asked()
	if p.scope != nil {
		return p.scope(place)
	}
	return Scope{Names: p.name != nil, Files: p.file != nil, Attrs: p.attr != nil, Below: true}
}

func (p *rulePolicy) Name(q NameQuery) NameAnswer {
	p.asked()
	if p.name == nil {
		return NameAnswer{}
	}
	return p.name(q)
}

func (p *rulePolicy) File(q FileQuery) FileAnswer {
	p.asked()
	if p.file == nil {
		return FileAnswer{}
	}
	a := p.file(q)
	if a.Plan != nil {
		plan := *a.Plan
		p.plans.Add(1)
		plan.Release = func() { p.released.Add(1) }
		a.Plan = &plan
	}
	return a
}

func (p *rulePolicy) Attr(q AttrQuery) AttrAnswer {
	p.asked()
	if p.attr == nil {
		return AttrAnswer{}
	}
	return p.attr(q)
}

func (p *rulePolicy) Data(q DataQuery) DataAnswer {
	p.asked()
	if p.data == nil {
		return DataAnswer{}
	}
	return p.data(q)
}

func (p *rulePolicy) Epoch() uint64 { p.asked(); return p.epoch.Load() }
func (p *rulePolicy) Close()        { p.closed.Add(1) }

// wantEnded: closed once, every plan released once, and not asked any more.
func (p *rulePolicy) wantEnded(t testing.TB, what string) {
	t.Helper()
	if c, l := p.closed.Load(), p.late.Load(); c != 1 || l != 0 {
		t.Errorf("%s: closed %d times, asked %d times after that", what, c, l)
	}
	if g, r := p.plans.Load(), p.released.Load(); g != r {
		t.Errorf("%s: %d plans were given, %d released", what, g, r)
	}
}

// secret must be found nowhere that a plan blanks it.
const secret = "TOP-SECRET-MARKER-0x5eed"

// Where the secret is in secretContent, and what is blanked of it: over the
// boundary of a page.
const (
	secretAt   = 4096 - 10
	secretFrom = secretAt - 3
	secretLen  = int64(len(secret)) + 7
)

// secretContent is a file with a secret in it.
func secretContent() string {
	b := make([]byte, 20000)
	for i := range b {
		b[i] = byte('a' + i%23)
	}
	copy(b[secretAt:], secret)
	return string(b)
}

// blanked is what a file shows with a range blanked.
func blanked(s string, off, n int64) string {
	b := []byte(s)
	clear(b[min(off, int64(len(b))):min(off+n, int64(len(b)))])
	return string(b)
}

func blankedSecret() string { return blanked(secretContent(), secretFrom, secretLen) }

// secretRanges are the ranges of a TablePolicy that hide the secret.
func secretRanges() []Range { return []Range{{secretFrom, secretLen}} }

// blankAt blanks the secret of the files at places.
func blankAt(places ...string) *rulePolicy {
	return &rulePolicy{file: func(q FileQuery) FileAnswer {
		for _, p := range places {
			if q.Place == p || strings.HasPrefix(q.Place, p+"/") {
				return FileAnswer{Plan: blankPlan(q.Size, secretRanges()), Rule: "blank"}
			}
		}
		return FileAnswer{}
	}, scope: func(place string) Scope {
		var s Scope
		for _, p := range places {
			s.Files = s.Files || place == p || strings.HasPrefix(place, p+"/")
			s.Below = s.Below || place == "/" || strings.HasPrefix(p, place+"/")
		}
		return s
	}}
}

// noSecret looks for the secret in every file below directories.
func noSecret(t testing.TB, what string, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(secret[:10])) {
				t.Errorf("%s: the secret is in %s", what, path)
			}
			return err
		})
		must(t, err)
	}
}

// ioModes are the ways in which files are served.
var ioModes = []struct {
	name   string
	change func(*Config)
}{
	{"passthrough", func(c *Config) { c.IO = IOPassthrough }},
	{"coherent", func(c *Config) { c.IO = IOCoherent }},
	{"server", func(c *Config) { c.Passthrough = PassthroughOff }},
}

// secretMount mounts one file f with a secret, and d/f, under a policy, in a
// way of serving.
func secretMount(t testing.TB, p Policy, change func(*Config), lines ...string) *mounted {
	t.Helper()
	low := layer(t, append([]string{"file f", "file d/f", "file other other"}, lines...)...)
	must(t, os.WriteFile(low+"/f", []byte(secretContent()), 0o644))
	must(t, os.WriteFile(low+"/d/f", []byte(secretContent()), 0o644))
	return mountOver(t, func(c *Config) {
		c.Policy = p
		if change != nil {
			change(c)
		}
	}, low)
}

// planViews are the plans of TablePolicy, and what they make of the content.
var planViews = []struct {
	name   string
	policy func() Policy
	view   func() string
}{
	{"blank", func() Policy { return &TablePolicy{Blank: map[string][]Range{"f": secretRanges()}} }, blankedSecret},
	{"prepend", func() Policy { return &TablePolicy{Prepend: map[string][]byte{"f": []byte("#!/bin/sh\n")}} },
		func() string { return "#!/bin/sh\n" + secretContent() }},
	{"blank by place", func() Policy { return blankAt("/f", "/d/f") }, blankedSecret},
}

func eachView(t *testing.T, fn func(t *testing.T, m *mounted, view string)) {
	for _, mode := range ioModes {
		for _, v := range planViews {
			t.Run(mode.name+"/"+v.name, func(t *testing.T) {
				fn(t, secretMount(t, v.policy(), mode.change), v.view())
			})
		}
	}
}

// Every way of reading shows the plan and nothing else.
func TestPlanMountedReads(t *testing.T) {
	eachView(t, func(t *testing.T, m *mounted, view string) {
		wantListedSize(t, m, "f", int64(len(view)))
		f := openFD(t, m.path("f"), unix.O_RDONLY)
		wantContent(t, "the file", f, view)
		wantPreads(t, f, view)
		for name, read := range waysToRead {
			got, err := read(t, m, f, len(view))
			if err != nil || got != view {
				i := 0
				for i < min(len(got), len(view)) && got[i] == view[i] {
					i++
				}
				t.Errorf("%s: %d bytes, want %d, they differ at %d; %v", name, len(got), len(view), i, err)
			}
		}
		wantNoHoles(t, f, int64(len(view)))
		out := openFD(t, m.path("out"), unix.O_RDWR|unix.O_CREAT)
		if err := unix.IoctlFileClone(out.fd, f.fd); err == nil {
			t.Error("FICLONE succeeds")
		}
		outside := openFD(t, t.TempDir()+"/clone", unix.O_RDWR|unix.O_CREAT)
		if err := unix.IoctlFileClone(outside.fd, f.fd); err == nil {
			t.Error("FICLONE to outside succeeds")
		}
		wantContent(t, "a refused clone", out, "")
		wantContent(t, "a refused clone outside", outside, "")
		if n := m.count.wrong.Load(); n != 0 {
			t.Errorf("%d wrong answers", n)
		}
	})
}

// wantListedSize looks at the size as a listing with attributes shows it,
// before anything else asks for it.
func wantListedSize(t *testing.T, m *mounted, rel string, want int64) {
	t.Helper()
	names(t, filepath.Dir(m.path(rel)))
	if st := statOf(t, m.path(rel)); st.Size != want {
		t.Errorf("%s: size %d, want %d", rel, st.Size, want)
	}
	var stx unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, m.path(rel), 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stx))
	if int64(stx.Size) != want {
		t.Errorf("%s: statx size %d, want %d", rel, stx.Size, want)
	}
}

// wantPreads reads around every boundary that there may be.
func wantPreads(t *testing.T, f *testFD, view string) {
	t.Helper()
	size := int64(len(view))
	for _, off := range []int64{0, 1, 9, 10, 11, secretFrom - 1, secretFrom, secretAt, 4095, 4096, secretFrom + secretLen - 1,
		secretFrom + secretLen, secretFrom + secretLen + 1, size - 1, size, size + 1, size + 5000, 1 << 40} {
		for _, n := range []int{0, 1, 2, 100, 4096, 5000, 30000} {
			buf := make([]byte, n)
			got, err := unix.Pread(f.fd, buf, off)
			want := view[min(off, size):min(off+int64(n), size)]
			if err != nil || string(buf[:got]) != want {
				t.Errorf("pread of %d at %d: %d bytes, %v; want %d", n, off, got, err, len(want))
			}
		}
	}
}

// wantNoHoles: where a backing file has holes is not shown.
func wantNoHoles(t *testing.T, f *testFD, size int64) {
	t.Helper()
	for _, off := range []int64{0, 1, 5000, size - 1} {
		if at, err := unix.Seek(f.fd, off, unix.SEEK_DATA); err != nil || at != off {
			t.Errorf("SEEK_DATA from %d: %d, %v", off, at, err)
		}
		if at, err := unix.Seek(f.fd, off, unix.SEEK_HOLE); err != nil || at != size {
			t.Errorf("SEEK_HOLE from %d: %d, %v; want %d", off, at, err, size)
		}
	}
	for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
		if at, err := unix.Seek(f.fd, size, whence); err != unix.ENXIO {
			t.Errorf("seek %d at the end: %d, %v", whence, at, err)
		}
	}
	if at, err := unix.Seek(f.fd, 0, unix.SEEK_END); err != nil || at != size {
		t.Errorf("SEEK_END: %d, %v; want %d", at, err, size)
	}
}

// waysToRead are ways to read a whole file.
var waysToRead = map[string]func(t *testing.T, m *mounted, f *testFD, size int) (string, error){
	"O_DIRECT": readDirect,
	"mmap private": func(t *testing.T, _ *mounted, f *testFD, n int) (string, error) {
		return readMapped(t, f, n, unix.MAP_PRIVATE)
	},
	"mmap shared": func(t *testing.T, _ *mounted, f *testFD, n int) (string, error) {
		return readMapped(t, f, n, unix.MAP_SHARED)
	},
	"splice": readSpliced,
	"sendfile": func(t *testing.T, _ *mounted, f *testFD, _ int) (string, error) {
		return readInto(t, t.TempDir()+"/sent", func(dst int) (int, error) {
			off := int64(0)
			return untilEnd(func() (int, error) { return unix.Sendfile(dst, f.fd, &off, 1<<20) })
		})
	},
	"copy_file_range": func(t *testing.T, m *mounted, f *testFD, _ int) (string, error) {
		return readInto(t, m.path("copied"), func(dst int) (int, error) {
			off := int64(0)
			return untilEnd(func() (int, error) { return unix.CopyFileRange(f.fd, &off, dst, nil, 1<<20, 0) })
		})
	},
	"copy_file_range, bytes to a copy outside": func(t *testing.T, _ *mounted, f *testFD, n int) (string, error) {
		return readInto(t, t.TempDir()+"/copied", func(dst int) (int, error) {
			off := int64(0)
			k, err := untilEnd(func() (int, error) { return unix.CopyFileRange(f.fd, &off, dst, nil, 1<<20, 0) })
			if err == unix.EXDEV { // as between any two kinds of file systems
				off = 0
				return untilEnd(func() (int, error) { return unix.Sendfile(dst, f.fd, &off, 1<<20) })
			}
			return k, err
		})
	},
	"by descriptor": func(t *testing.T, _ *mounted, f *testFD, _ int) (string, error) {
		return tryRead(fmt.Sprintf("/proc/self/fd/%d", f.fd))
	},
	"another open": func(t *testing.T, _ *mounted, f *testFD, _ int) (string, error) { return tryRead(f.path) },
	"cat": func(t *testing.T, _ *mounted, f *testFD, _ int) (string, error) {
		out, err := exec.Command("cat", f.path).Output()
		return string(out), err
	},
	"readv": func(t *testing.T, _ *mounted, f *testFD, n int) (string, error) {
		a, b := make([]byte, secretAt+5), make([]byte, n)
		k, err := unix.Preadv(f.fd, [][]byte{a, b}, 0)
		return string(append(a, b...)[:k]), err
	},
}

// untilEnd calls fn until it gives no more.
func untilEnd(fn func() (int, error)) (sum int, err error) {
	for {
		n, err := fn()
		if n <= 0 || err != nil {
			return sum, err
		}
		sum += n
	}
}

// readInto is what fn writes into a new file.
func readInto(t *testing.T, path string, fn func(dst int) (int, error)) (string, error) {
	t.Helper()
	dst := openFD(t, path, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC)
	defer dst.release()
	n, err := fn(dst.fd)
	if err != nil {
		return "", err
	}
	s := dst.content()
	if n != len(s) {
		t.Errorf("%d bytes are said to be copied, %d are there", n, len(s))
	}
	return s, nil
}

func readDirect(t *testing.T, m *mounted, f *testFD, size int) (string, error) {
	d, err := unix.Open(f.path, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(d)
	buf, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	defer func() { must(t, unix.Munmap(buf)) }()
	var out []byte
	for {
		n, err := unix.Pread(d, buf, int64(len(out)))
		if n <= 0 || err != nil {
			return string(out), err
		}
		out = append(out, buf[:n]...)
	}
}

func readMapped(t *testing.T, f *testFD, size, how int) (string, error) {
	b, err := unix.Mmap(f.fd, 0, size, unix.PROT_READ, how)
	if err != nil {
		return "", err
	}
	defer func() { must(t, unix.Munmap(b)) }()
	must(t, unix.Madvise(b, unix.MADV_POPULATE_READ))
	return string(b), nil
}

func readSpliced(t *testing.T, m *mounted, f *testFD, size int) (string, error) {
	var p [2]int
	must(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	var out []byte
	off := int64(0)
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Splice(f.fd, &off, p[1], nil, 16<<10, 0)
		if n <= 0 || err != nil {
			return string(out), err
		}
		for n > 0 {
			k, err := unix.Read(p[0], buf)
			if err != nil {
				return "", err
			}
			out = append(out, buf[:k]...)
			n -= int64(k)
		}
	}
}

// copyUps are the ways to have a file copied up; each gives back what the view
// has become.
var copyUps = map[string]func(t *testing.T, m *mounted, view string) (name, want string){
	"O_RDWR": func(t *testing.T, m *mounted, view string) (string, string) {
		w := openFD(t, m.path("f"), unix.O_RDWR)
		wantContent(t, "the writer", w, view)
		w.writeAt("WRITTEN", 7)
		return "f", view[:7] + "WRITTEN" + view[14:]
	},
	"O_WRONLY": func(t *testing.T, m *mounted, view string) (string, string) {
		openFD(t, m.path("f"), unix.O_WRONLY).writeAt("WRITTEN", 7)
		return "f", view[:7] + "WRITTEN" + view[14:]
	},
	"O_APPEND": func(t *testing.T, m *mounted, view string) (string, string) {
		w := openFD(t, m.path("f"), unix.O_WRONLY|unix.O_APPEND)
		_, err := unix.Write(w.fd, []byte("more"))
		must(t, err)
		return "f", view + "more"
	},
	"O_TRUNC": func(t *testing.T, m *mounted, view string) (string, string) {
		writePath(t, m.path("f"), "new")
		return "f", "new"
	},
	"O_TRUNC read only": func(t *testing.T, m *mounted, view string) (string, string) {
		openFD(t, m.path("f"), unix.O_RDONLY|unix.O_TRUNC).close()
		return "f", ""
	},
	"truncate": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Truncate(m.path("f"), 6000))
		return "f", view[:6000]
	},
	"truncate into the secret": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Truncate(m.path("f"), secretAt+5))
		return "f", view[:secretAt+5]
	},
	"grow": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Truncate(m.path("f"), 50000))
		return "f", view + strings.Repeat("\x00", 50000-len(view))
	},
	"chmod": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Chmod(m.path("f"), 0o640))
		return "f", view
	},
	"utimens": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.UtimesNano(m.path("f"), []unix.Timespec{{Sec: 5}, {Sec: 6}}))
		return "f", view
	},
	"setxattr": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Setxattr(m.path("f"), "user.x", []byte("1"), 0))
		return "f", view
	},
	"link": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Link(m.path("f"), m.path("d/g")))
		return "d/g", view
	},
	"rename": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Rename(m.path("f"), m.path("d/g")))
		return "d/g", view
	},
	"fchmod of a reader": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Fchmod(openFD(t, m.path("f"), unix.O_RDONLY).fd, 0o600))
		return "f", view
	},
	"mmap shared": func(t *testing.T, m *mounted, view string) (string, string) {
		w := openFD(t, m.path("f"), unix.O_RDWR)
		b := mapFile(t, w, 8192, true)
		copy(b[100:], "MAPPED")
		must(t, unix.Msync(b, unix.MS_SYNC))
		return "f", view[:100] + "MAPPED" + view[106:]
	},
}

// A copy-up copies what the plan shows. The secret reaches neither upper nor
// the work directory; readers of before go on; nothing is prepended twice.
func TestPlanMountedCopyUp(t *testing.T) {
	for how, do := range copyUps {
		t.Run(how, func(t *testing.T) {
			eachView(t, func(t *testing.T, m *mounted, view string) { planCopyUp(t, m, view, do) })
		})
	}
}

func planCopyUp(t *testing.T, m *mounted, view string, do func(*testing.T, *mounted, string) (string, string)) {
	ino := statOf(t, m.path("f")).Ino
	old := openFD(t, m.path("f"), unix.O_RDONLY)
	wantContent(t, "the old reader at first", old, view)
	name, want := do(t, m, view)
	wantSame(t, "the file", readPath(t, m.path(name)), want)
	st := statOf(t, m.path(name))
	if st.Size != int64(len(want)) || st.Ino != ino {
		t.Errorf("size %d, want %d; inode %d, was %d", st.Size, len(want), st.Ino, ino)
	}
	if got := old.content(); got != view && got != want {
		t.Errorf("the old reader sees neither the old view nor the new: %d bytes", len(got))
	}
	b, err := os.ReadFile(m.upper + "/" + name)
	must(t, err)
	if !strings.Contains(view, secret) {
		noSecret(t, "after the copy-up", m.upper, m.work)
	} else if string(b) != want {
		t.Errorf("upper holds %d bytes, want %d", len(b), len(want))
	}
	if n := m.count.wrong.Load(); n != 0 {
		t.Errorf("%d wrong answers", n)
	}
	closeUnder(m.mnt)
	m.waitReleased(name)
	wantSame(t, "the file once all have closed it", readPath(t, m.path(name)), want)
}

// wantSame compares long contents without printing them.
func wantSame(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s: %d bytes, want %d, different from byte %d on: %.40q, want %.40q", what, len(got), len(want), i, got[i:], want[i:])
}

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

// upperSecret makes a file with a secret in upper, before the mount.
func upperSecret(t *testing.T, p Policy, change func(*Config)) *mounted {
	t.Helper()
	return mountOver(t, func(c *Config) {
		must(t, os.WriteFile(c.Upper+"/f", []byte(secretContent()), 0o644))
		c.Policy = p
		change(c)
	}, layer(t, "file other 1"))
}

// A file in upper is blanked where it lies; writes go through to it.
func TestPlanInPlaceMounted(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			m := upperSecret(t, blankAt("/f"), mode.change)
			view := blankedSecret()
			r := openFD(t, m.path("f"), unix.O_RDONLY)
			w := openFD(t, m.path("f"), unix.O_RDWR)
			for name, read := range waysToRead {
				got, err := read(t, m, r, len(view))
				must(t, err)
				wantSame(t, name, got, view)
			}
			w.writeAt("WRITTEN", 100)
			view = view[:100] + "WRITTEN" + view[107:]
			wantSame(t, "after a write", w.content(), view)
			w.writeAt("WRITTEN", secretAt) // to what is blanked: it stays blank
			wantSame(t, "after a write to what is blanked", readPath(t, m.path("f")), view)
			_, err := unix.Write(openFD(t, m.path("f"), unix.O_WRONLY|unix.O_APPEND).fd, []byte("more"))
			must(t, err)
			view += "more"
			wantSame(t, "after an append, an old reader", r.content(), view)
			wantSame(t, "after an append", readPath(t, m.path("f")), view)
			wantNoHoles(t, r, int64(len(view)))
			if err := unix.Fallocate(w.fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096); err != unix.EOPNOTSUPP {
				t.Errorf("collapse: %v", err)
			}
			if err := unix.Fallocate(w.fd, unix.FALLOC_FL_INSERT_RANGE, 0, 4096); err != unix.EOPNOTSUPP {
				t.Errorf("insert: %v", err)
			}
			wantSame(t, "after refused shifts", readPath(t, m.path("f")), view)
			for _, size := range []int64{30000, secretAt + 5, 100, 0, 9000} {
				must(t, unix.Ftruncate(w.fd, size))
				view = view[:min(int64(len(view)), size)] + strings.Repeat("\x00", int(max(0, size-int64(len(view)))))
				wantSame(t, fmt.Sprintf("cut to %d, a reader", size), r.content(), view)
				wantSame(t, fmt.Sprintf("cut to %d", size), readPath(t, m.path("f")), view)
			}
			if n := m.count.wrong.Load(); n != 0 {
				t.Errorf("%d wrong answers", n)
			}
			b, err := os.ReadFile(m.upper + "/f")
			must(t, err)
			wantSame(t, "upper", string(b), view)
		})
	}
}

// Anything but blanking of a file in upper is a wrong answer.
func TestPlanInPlaceRefused(t *testing.T) {
	part := tempFile(t, secretContent())
	n := int64(len(secretContent()))
	for name, plan := range map[string]*Plan{
		"prepend":  prependPlan(n, []byte("x")),
		"shorter":  blankPlan(n-1, nil),
		"part":     {Size: n, Parts: []Part{{FD: part}}, Window: planWindows(n, Window{Extents: []Extent{extFrom(PartBacking(0), 0, n, 0)}}).Window},
		"layer":    planWindows(n, Window{Extents: []Extent{extFrom(LayerBacking(1), 0, n, 0)}}),
		"moved":    planWindows(n, Window{Extents: []Extent{extFrom(Self, 0, n-1, 1), extZero(n-1, 1)}}),
		"inline":   planWindows(n, Window{Data: []byte("x"), Extents: []Extent{extInline(0, 1, 0), extSelf(1, n-1)}}),
		"too long": planWindows(n, Window{Extents: []Extent{extSelf(0, n+1)}}),
	} {
		t.Run(name, func(t *testing.T) {
			p := &rulePolicy{file: func(q FileQuery) FileAnswer {
				if q.Name != "f" {
					return FileAnswer{}
				}
				return FileAnswer{Plan: plan}
			}}
			m := upperSecret(t, p, ioModes[0].change)
			for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
				before := m.count.wrong.Load()
				_, err := unix.Open(m.path("f"), flags, 0)
				wantErrno(t, "open", err, unix.EIO)
				if m.count.wrong.Load() == before {
					t.Error("not counted")
				}
			}
			if st := statOf(t, m.path("f")); st.Size != n {
				t.Errorf("size %d", st.Size)
			}
			m.unmount()
			p.wantEnded(t, "the policy")
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

// panicAt panics in one kind of question while it is armed.
type panicAt struct {
	rulePolicy
	where atomic.Pointer[string]
}

func (p *panicAt) at(where string) {
	if w := p.where.Load(); w != nil && *w == where {
		panic("the policy is wrong in " + where)
	}
}

func (p *panicAt) Scope(place string) Scope {
	p.at("Scope")
	return Scope{Names: true, Files: true, Attrs: true, Reads: strings.HasSuffix(place, "asked"), Writes: strings.HasSuffix(place, "asked")}
}
func (p *panicAt) Name(NameQuery) NameAnswer { p.at("Name"); return NameAnswer{} }
func (p *panicAt) Attr(AttrQuery) AttrAnswer { p.at("Attr"); return AttrAnswer{} }
func (p *panicAt) Data(DataQuery) DataAnswer { p.at("Data"); return DataAnswer{} }
func (p *panicAt) Epoch() uint64             { p.at("Epoch"); return p.rulePolicy.Epoch() }
func (p *panicAt) Close()                    { p.rulePolicy.Close(); p.at("Close") }
func (p *panicAt) File(q FileQuery) FileAnswer {
	p.at("File")
	if q.Layer == 0 || q.Name == "asked" {
		return FileAnswer{}
	}
	return FileAnswer{Plan: &Plan{Size: 10, Release: func() { p.at("Release") },
		Serve: func(b []byte, _ int64) error { p.at("Serve"); return serveOffsets(b, 0) },
		Window: func(off int64) (Window, error) {
			p.at("Window")
			return Window{Extents: []Extent{extServer(off, 10-off)}}, nil
		}}}
}

// A panic, wherever the policy is asked, is EIO for who asked, and leaves no
// lock, no plan and no daemon behind.
func TestPlanMountedPanics(t *testing.T) {
	for _, where := range []string{"Scope", "Name", "File", "Window", "Serve", "Attr", "Data", "Release", "Epoch"} {
		t.Run(where, func(t *testing.T) {
			p := &panicAt{}
			m := mountOver(t, func(c *Config) { c.Policy = p; c.Passthrough = PassthroughOff },
				layer(t, "file f 0123456789", "file asked 0123456789", "file d/g 1"))
			all := func() (failed bool) {
				for _, err := range []error{
					func() error { _, err := tryRead(m.path("f")); return err }(),
					func() error { _, err := tryRead(m.path("asked")); return err }(),
					func() error { var st unix.Stat_t; return unix.Stat(m.path("d/g"), &st) }(),
					func() error { _, err := os.ReadDir(m.path("d")); return err }(),
				} {
					if err != nil && toErr(err) != unix.EIO {
						t.Errorf("%v", err)
					}
					failed = failed || err != nil
				}
				return failed
			}
			if where == "Serve" || where == "Window" || where == "Data" || where == "File" || where == "Release" {
				if all() {
					t.Error("it fails before the panics")
				}
			}
			p.where.Store(&where)
			m.within(10*time.Second, "requests that panic", func() {
				failed := all()
				must(t, errOf(m.Explain("f")))
				_ = m.Status()
				m.RefreshPolicy()
				if !failed && where != "Release" && where != "Epoch" && where != "Name" {
					t.Error("no request failed")
				}
			})
			if where == "Epoch" {
				time.Sleep(3 * policyPoll)
			}
			none := ""
			p.where.Store(&none)
			if m.wantPanics = m.Status().Panics; m.wantPanics == 0 && where != "Name" {
				t.Error("no panic was counted")
			}
			m.within(10*time.Second, "requests after the panics", func() {
				m.RefreshPolicy()
				if all() {
					t.Error("it fails after the panics")
				}
				must(t, unix.Chmod(m.path("f"), 0o600))
				must(t, m.SetPolicy(nil))
				if all() {
					t.Error("it fails without the policy")
				}
			})
			m.wantPanics = m.Status().Panics
		})
	}
}

func errOf(_ any, err error) error {
	if toErr(err) == unix.EIO {
		return nil
	}
	return err
}

// SetPolicy asks too, outside any request: neither policy may end the daemon.
func TestSetPolicyPanics(t *testing.T) {
	for _, where := range []string{"Scope", "Name", "File", "Close"} {
		t.Run(where, func(t *testing.T) {
			p, q := &panicAt{}, &panicAt{}
			m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789", "file d/g 1"))
			f := openFD(t, m.path("f"), unix.O_RDONLY)
			readPath(t, m.path("d/g"))
			p.where.Store(&where)
			q.where.Store(&where)
			m.within(10*time.Second, "SetPolicy with panics", func() {
				_ = m.SetPolicy(q)
				_ = m.SetPolicy(nil)
			})
			wantContent(t, "the open file", f, "0123456789")
			wantSame(t, "the file", readPath(t, m.path("d/g")), "1")
			m.wantPanics = m.Status().Panics
		})
	}
}

// dataScope asks about reads and writes.
func dataScope(string) Scope { return Scope{Files: true, Reads: true, Writes: true} }

// The policy is asked about each read of the daemon: it may refuse it, answer
// it itself, or look at what was read.
func TestDataReads(t *testing.T) {
	var mu sync.Mutex
	answer := func(DataQuery) DataAnswer { return DataAnswer{} }
	set := func(fn func(DataQuery) DataAnswer) {
		mu.Lock()
		defer mu.Unlock()
		answer = fn
	}
	p := &rulePolicy{scope: dataScope, data: func(q DataQuery) DataAnswer {
		mu.Lock()
		defer mu.Unlock()
		return answer(q)
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789", "file g 0123456789"))
	part := tempFile(t, "ABCDEFGHIJ")
	window := func(w Window, parts ...Part) func(DataQuery) DataAnswer {
		return func(q DataQuery) DataAnswer {
			if q.After != 0 {
				return DataAnswer{}
			}
			return DataAnswer{Window: &w, Parts: parts}
		}
	}
	for _, c := range []struct {
		name  string
		do    func(DataQuery) DataAnswer
		want  string
		err   syscall.Errno
		wrong bool
	}{
		{"nothing", func(DataQuery) DataAnswer { return DataAnswer{} }, "0123456789", 0, false},
		{"an error", func(DataQuery) DataAnswer { return DataAnswer{Errno: unix.EACCES} }, "", unix.EACCES, false},
		{"no errno", func(DataQuery) DataAnswer { return DataAnswer{Errno: 600} }, "", unix.EIO, true},
		{"a window", window(Window{Data: []byte("inl"), Extents: []Extent{extInline(0, 3, 0), extZero(3, 1), extSelf(4, 6)}}),
			"inl\x00456789", 0, false},
		{"a part", window(Window{Extents: []Extent{extFrom(PartBacking(0), 0, 10, 0)}}, Part{FD: part}), "ABCDEFGHIJ", 0, false},
		{"too short", window(Window{Extents: []Extent{extSelf(0, 9)}}), "", unix.EIO, true},
		{"too long", window(Window{Extents: []Extent{extSelf(0, 10), extZero(10, 1)}}), "", unix.EIO, true},
		{"a gap", window(Window{Extents: []Extent{extSelf(0, 3), extSelf(4, 6)}}), "", unix.EIO, true},
		{"no such part", window(Window{Extents: []Extent{extFrom(PartBacking(1), 0, 10, 0)}}, Part{FD: part}), "", unix.EIO, true},
		{"no such layer", window(Window{Extents: []Extent{extFrom(LayerBacking(1), 0, 10, 0)}}), "", unix.EIO, true},
		{"nobody serves", window(Window{Extents: []Extent{extServer(0, 10)}}), "", unix.EIO, true},
		{"no extents", window(Window{}), "", unix.EIO, true},
		{"an error after", func(q DataQuery) DataAnswer {
			if q.After == 3 && string(q.Data) == "0123456789" {
				return DataAnswer{Errno: unix.EPERM}
			}
			return DataAnswer{Again: 3}
		}, "", unix.EPERM, false},
		{"a change after", func(q DataQuery) DataAnswer {
			if q.After == 7 {
				copy(q.Data[2:], "changed")
			}
			return DataAnswer{Again: 7}
		}, "01changed9", 0, false},
	} {
		set(c.do)
		wrong := m.count.wrong.Load()
		got, err := tryRead(m.path("f"))
		if toErr(err) != c.err || got != c.want {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, got, err, c.want, c.err)
		}
		if (m.count.wrong.Load() > wrong) != c.wrong {
			t.Errorf("%s: %d wrong answers, were %d", c.name, m.count.wrong.Load(), wrong)
		}
		m.waitReleased("f")
		m.RefreshPolicy() // the pages of the last read
	}
	if s := m.Status().Opens; s.Passthrough != 0 {
		t.Errorf("passed through: %+v", s)
	}
}

// ... and about each write, before and, if it likes, after.
func TestDataWrites(t *testing.T) {
	var before, after atomic.Int64
	p := &rulePolicy{scope: dataScope, data: func(q DataQuery) DataAnswer {
		switch {
		case !q.Write:
		case q.After == 5:
			after.Add(1)
			if string(q.Data) == "late" {
				return DataAnswer{Errno: unix.ENOSPC}
			}
		case string(q.Data) == "bad":
			return DataAnswer{Errno: unix.EPERM}
		case string(q.Data) == "wrong":
			return DataAnswer{Errno: 4000}
		default:
			before.Add(1)
			if q.Off != 2 || q.Len != len(q.Data) || q.Caller.PID == 0 {
				t.Errorf("%d bytes at %d by %+v", q.Len, q.Off, q.Caller)
			}
			return DataAnswer{Again: 5}
		}
		return DataAnswer{}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789"))
	w := openFD(t, m.path("f"), unix.O_RDWR)
	w.writeAt("ok", 2)
	for s, want := range map[string]syscall.Errno{"bad": unix.EPERM, "wrong": unix.EIO, "late": unix.ENOSPC} {
		_, err := unix.Pwrite(w.fd, []byte(s), 2)
		wantErrno(t, s, err, want)
	}
	if before.Load() != 2 || after.Load() != 2 {
		t.Errorf("asked %d times before and %d times after", before.Load(), after.Load())
	}
	b, err := os.ReadFile(m.upper + "/f")
	must(t, err)
	wantSame(t, "upper", string(b), "01late6789")
	if m.count.wrong.Load() != 1 {
		t.Errorf("%d wrong answers", m.count.wrong.Load())
	}
}

// A window answers reads of a file in upper that grows while it is open.
func TestDataReadsOfGrowingFile(t *testing.T) {
	p := &rulePolicy{scope: dataScope, data: func(q DataQuery) DataAnswer {
		if q.Write || q.After != 0 {
			return DataAnswer{}
		}
		w := Window{Extents: []Extent{extSelf(q.Off, int64(q.Len))}}
		if q.Off == 0 {
			w.Extents = []Extent{extZero(0, 2), extSelf(2, int64(q.Len)-2)}
		}
		w.Extents = clipExtents(w.Extents, q.Size)
		return DataAnswer{Window: &w}
	}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789"))
	w := openFD(t, m.path("f"), unix.O_RDWR)
	wantSame(t, "at first", w.content(), "\x00\x0023456789")
	w.writeAt(strings.Repeat("x", 9000), 10)
	wantSame(t, "grown", w.content(), "\x00\x0023456789"+strings.Repeat("x", 9000))
	must(t, unix.Ftruncate(w.fd, 5))
	wantSame(t, "cut", w.content(), "\x00\x00234")
}

// clipExtents ends extents at a size.
func clipExtents(all []Extent, size int64) (out []Extent) {
	for _, e := range all {
		if e.Len = min(e.Len, size-e.Off); e.Len > 0 {
			out = append(out, e)
		}
	}
	return out
}

// Attr shows other times and fewer mode bits, and nothing else.
func TestAttrAnswers(t *testing.T) {
	var mu sync.Mutex
	var answer AttrAnswer
	var asked AttrQuery
	p := &rulePolicy{scope: func(place string) Scope { return Scope{Attrs: place == "/f" || place == "/d"} },
		attr: func(q AttrQuery) AttrAnswer {
			mu.Lock()
			defer mu.Unlock()
			if q.Place == "/f" {
				asked = q
			}
			return answer
		}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789", "file d/x 1", "file other 1"))
	must(t, unix.Chmod(m.lowers[0]+"/f", 0o4755))
	was := statOf(t, m.lowers[0]+"/f")
	for _, c := range []struct {
		a     AttrAnswer
		err   syscall.Errno
		mode  uint32
		mtime int64
	}{
		{AttrAnswer{}, 0, 0o4755, was.Mtim.Nano()},
		{AttrAnswer{SetMtime: true}, 0, 0o4755, 0},
		{AttrAnswer{SetMtime: true, Mtime: 1_500_000_000_123_456_789}, 0, 0o4755, 1_500_000_000_123_456_789},
		{AttrAnswer{SetMtime: true, Mtime: -1_500_000_000}, 0, 0o4755, -1_500_000_000},
		{AttrAnswer{Mtime: 5}, 0, 0o4755, was.Mtim.Nano()},
		{AttrAnswer{ClearMode: 0o4022}, 0, 0o755, was.Mtim.Nano()},
		{AttrAnswer{ClearMode: 0o7777}, 0, 0, was.Mtim.Nano()},
		{AttrAnswer{ClearMode: 0o10000}, unix.EIO, 0, 0},
		{AttrAnswer{ClearMode: unix.S_IFREG}, unix.EIO, 0, 0},
		{AttrAnswer{ClearMode: 1 << 31}, unix.EIO, 0, 0},
		{AttrAnswer{Errno: unix.EACCES}, unix.EACCES, 0, 0},
		{AttrAnswer{Errno: 600}, unix.EIO, 0, 0},
	} {
		mu.Lock()
		answer = c.a
		mu.Unlock()
		m.RefreshPolicy()
		var st unix.Stat_t
		err := unix.Stat(m.path("f"), &st)
		wantErrno(t, fmt.Sprintf("%+v", c.a), err, c.err)
		if err != nil {
			continue
		}
		if st.Mode != unix.S_IFREG|c.mode || st.Mtim.Nano() != c.mtime || st.Size != 10 || st.Ino != was.Ino {
			t.Errorf("%+v: mode %o, want %o; mtime %d, want %d; size %d", c.a, st.Mode, c.mode, st.Mtim.Nano(), c.mtime, st.Size)
		}
	}
	mu.Lock()
	if asked.Layer != 1 || asked.Mode != was.Mode || asked.Size != 10 || asked.Mtime != was.Mtim.Nano() || asked.Ino == 0 {
		t.Errorf("asked %+v", asked)
	}
	mu.Unlock()
	if n := m.count.wrong.Load(); n == 0 {
		t.Error("wrong answers are not counted")
	}
	mu.Lock()
	answer = AttrAnswer{ClearMode: 0o055}
	mu.Unlock()
	m.RefreshPolicy()
	if st := statOf(t, m.path("d")); st.Mode&0o777 != 0o700 {
		t.Errorf("a directory: mode %o", st.Mode)
	}
	if st := statOf(t, m.path("other")); st.Mode&0o777 != 0o644 {
		t.Errorf("another file: mode %o", st.Mode)
	}
}

// ioctlAt is ioctl with a buffer.
func ioctlAt(fd int, cmd uint, b []byte) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&b[0])))
	if e != 0 {
		return e
	}
	return nil
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
