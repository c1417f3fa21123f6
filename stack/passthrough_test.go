// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	oldContent = "the lower content, which nobody may change\n"
	newContent = "THE UPPER content, which nobody may change\n"
)

// lowerFileTest is a mount over one lower file, hard-linked or not, whose
// lower side must never change.
type lowerFileTest struct {
	*mounted
	low string
	was unix.Stat_t
}

func overLowerFile(t *testing.T, io string, lines ...string) *lowerFileTest {
	low := layer(t, append([]string{"file f"}, lines...)...)
	must(t, os.WriteFile(low+"/f", []byte(oldContent), 0o644))
	x := &lowerFileTest{low: low, was: statOf(t, low+"/f")}
	x.mounted = mountOver(t, func(c *Config) { c.IO = io }, low)
	t.Cleanup(func() { x.wantLowerUnchanged() })
	return x
}

// wantLowerUnchanged looks at the lower file both where it is and through the
// layer's clone.
func (x *lowerFileTest) wantLowerUnchanged() {
	x.t.Helper()
	b, err := os.ReadFile(x.low + "/f")
	if err != nil || string(b) != oldContent {
		x.t.Errorf("the lower file holds %q, %v", b, err)
	}
	now := statOf(x.t, x.low+"/f")
	if now.Mtim != x.was.Mtim || now.Ctim != x.was.Ctim || now.Size != x.was.Size || now.Mode != x.was.Mode || now.Nlink != x.was.Nlink {
		x.t.Errorf("the lower inode changed: %+v, was %+v", now, x.was)
	}
	if x.closed {
		return
	}
	clone := x.layers[1].Root()
	fd, err := clone.Open("f", unix.O_RDONLY, 0)
	if err != nil {
		x.t.Errorf("through the clone: %v", err)
		return
	}
	f := &testFD{t: x.t, fd: fd, path: "clone/f"}
	if got := f.content(); got != oldContent {
		x.t.Errorf("through the clone: %q", got)
	}
	f.close()
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC} {
		if fd, err := clone.Open("f", flags, 0); err != unix.EROFS {
			x.t.Errorf("the clone can be opened for writing: %d, %v", fd, err)
			_ = unix.Close(fd)
		}
	}
}

func wantContent(t testing.TB, what string, f *testFD, want string) {
	t.Helper()
	if got := f.content(); got != want {
		t.Errorf("%s reads %q, want %q", what, got, want)
	}
}

// The trap of FUSE passthrough: the kernel opens the registered file with the
// user's own flags, so an id of the lower file given to a writer would write
// the lower layer.
func TestPassthroughNeverWritesLower(t *testing.T) {
	ways := map[string]func(t *testing.T, x *lowerFileTest, r *testFD){
		"write": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			openFD(t, x.path("f"), unix.O_WRONLY).writeAt(newContent[:10], 0)
		},
		"read and write": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			w := openFD(t, x.path("f"), unix.O_RDWR)
			wantContent(t, "the writer at first", w, oldContent)
			w.writeAt(newContent[:10], 0)
			wantContent(t, "the writer", w, newContent)
		},
		"append": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			w := openFD(t, x.path("f"), unix.O_WRONLY|unix.O_APPEND)
			if _, err := unix.Write(w.fd, []byte("more")); err != nil {
				t.Fatal(err)
			}
			if got := readPath(t, x.path("f")); got != oldContent+"more" {
				t.Errorf("appended: %q", got)
			}
			must(t, unix.Truncate(x.path("f"), int64(len(oldContent))))
			w.close()
			openFD(t, x.path("f"), unix.O_RDWR).writeAt(newContent[:10], 0)
		},
		"O_TRUNC": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			writePath(t, x.path("f"), newContent)
		},
		"truncate by path": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			must(t, unix.Truncate(x.path("f"), 4))
			if got := readPath(t, x.path("f")); got != oldContent[:4] {
				t.Errorf("truncated: %q", got)
			}
			must(t, unix.Truncate(x.path("f"), 0))
			writePath(t, x.path("f"), newContent)
		},
		"by another hard link": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			openFD(t, x.path("d/g"), unix.O_WRONLY).writeAt(newContent[:10], 0)
			if got := readPath(t, x.path("d/g")); got != newContent {
				t.Errorf("the other name holds %q", got)
			}
			a, b := statOf(t, x.path("f")), statOf(t, x.path("d/g"))
			if a.Ino != b.Ino || a.Nlink != 2 || b.Nlink != 2 {
				t.Errorf("the names are inodes %d, %d with %d, %d links", a.Ino, b.Ino, a.Nlink, b.Nlink)
			}
		},
		"mmap": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			w := openFD(t, x.path("f"), unix.O_RDWR)
			b := mapFile(t, w, len(oldContent), true)
			copy(b, newContent[:10])
			must(t, unix.Msync(b, unix.MS_SYNC))
			wantContent(t, "the mapped file", w, newContent)
		},
		"several writers": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			a, b := openFD(t, x.path("f"), unix.O_RDWR), openFD(t, x.path("f"), unix.O_WRONLY)
			a.writeAt(newContent[:4], 0)
			b.writeAt(newContent[4:10], 4)
			wantContent(t, "a writer", a, newContent)
		},
		"rename over it, then write": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			writePath(t, x.path("tmp"), newContent)
			must(t, unix.Rename(x.path("tmp"), x.path("f")))
		},
		"chmod, then write": func(t *testing.T, x *lowerFileTest, _ *testFD) {
			must(t, unix.Chmod(x.path("f"), 0o600))
			if got := statOf(t, x.path("f")).Mode & 0o777; got != 0o600 {
				t.Errorf("mode %#o", got)
			}
			openFD(t, x.path("f"), unix.O_RDWR).writeAt(newContent[:10], 0)
		},
	}
	for name, write := range ways {
		for _, links := range []bool{false, true} {
			if name == "by another hard link" && !links {
				continue
			}
			t.Run(fmt.Sprintf("%s/links=%v", name, links), func(t *testing.T) {
				var more []string
				if links {
					more = []string{"link f d/g"}
				}
				x := overLowerFile(t, IOPassthrough, more...)
				ino := statOf(t, x.path("f")).Ino
				r := openFD(t, x.path("f"), unix.O_RDONLY)
				wantContent(t, "the old reader at first", r, oldContent)
				write(t, x, r)
				wantContent(t, "the old reader", r, oldContent)
				wantContent(t, "a new reader", openFD(t, x.path("f"), unix.O_RDONLY), newContent)
				x.wantLowerUnchanged()
				if now := statOf(t, x.path("f")).Ino; now != ino && name != "rename over it, then write" {
					t.Errorf("st_ino was %d and is %d", ino, now)
				}
				if s := x.Status(); name != "rename over it, then write" && (s.Opens.Retired != 1 || s.Opens.Overtaken == 0) {
					t.Errorf("opens: %+v", s.Opens)
				}
				m := x.remount(nil)
				if got := readPath(t, m.path("f")); got != newContent {
					t.Errorf("after a remount: %q", got)
				}
			})
		}
	}
}

// mapFile maps a file shared, with its pages there: a page fault later on
// might need the server while this thread keeps the scheduler waiting.
func mapFile(t testing.TB, f *testFD, size int, write bool) []byte {
	t.Helper()
	prot, advice := unix.PROT_READ, unix.MADV_POPULATE_READ
	if write {
		prot, advice = prot|unix.PROT_WRITE, unix.MADV_POPULATE_WRITE
	}
	b, err := unix.Mmap(f.fd, 0, size, prot, unix.MAP_SHARED)
	must(t, err)
	f.maps = append(f.maps, b)
	must(t, unix.Madvise(b, advice))
	return b
}

// A mapping of a reader keeps the lower pages.
func TestPassthroughOldMapping(t *testing.T) {
	x := overLowerFile(t, IOPassthrough)
	r := openFD(t, x.path("f"), unix.O_RDONLY)
	b := mapFile(t, r, len(oldContent), false)
	r.close()
	openFD(t, x.path("f"), unix.O_RDWR).writeAt(newContent, 0)
	if string(b) != oldContent {
		t.Errorf("the old mapping shows %q", b)
	}
	nb := mapFile(t, openFD(t, x.path("f"), unix.O_RDONLY), len(oldContent), false)
	if string(nb) != newContent {
		t.Errorf("a new mapping shows %q", nb)
	}
}

// /proc/self/fd: for reading it shows what the descriptor shows; for writing
// it must in no case come to the lower file.
func TestPassthroughReopenByDescriptor(t *testing.T) {
	x := overLowerFile(t, IOPassthrough)
	r := openFD(t, x.path("f"), unix.O_RDONLY)
	self := fmt.Sprintf("/proc/self/fd/%d", r.fd)
	wantContent(t, "reopened before", openFD(t, self, unix.O_RDONLY), oldContent)
	openFD(t, x.path("f"), unix.O_RDWR).writeAt(newContent, 0)
	again, err := tryRead(self)
	if err != nil {
		t.Errorf("reopening for reading: %v", err)
	} else if again != oldContent && again != newContent {
		t.Errorf("reopened: %q", again)
	}
	fd, err := unix.Open(self, unix.O_RDWR, 0)
	if err == nil {
		w := &testFD{t: t, fd: fd, path: self}
		w.writeAt("x", 0)
		w.close()
	} else if err != unix.ESTALE {
		t.Errorf("reopening for writing: %v", err)
	}
	x.wantLowerUnchanged()
	wantContent(t, "the old reader", r, oldContent)
}

// A writer by /proc/self/fd as the one that causes the copy-up.
func TestPassthroughFirstWriterByDescriptor(t *testing.T) {
	x := overLowerFile(t, IOPassthrough)
	r := openFD(t, x.path("f"), unix.O_RDONLY)
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", r.fd), unix.O_RDWR, 0)
	if err == nil {
		w := &testFD{t: t, fd: fd, path: "reopened"}
		w.writeAt(newContent, 0)
		w.close()
		if got := readPath(t, x.path("f")); got != newContent {
			t.Errorf("written by descriptor, read by name: %q", got)
		}
	} else if err != unix.ESTALE {
		t.Errorf("reopening for writing: %v", err)
	}
	wantContent(t, "the reader", r, oldContent)
	x.wantLowerUnchanged()
}

// Readers that come and go while writers do.
func TestPassthroughEveryOrderOfOpens(t *testing.T) {
	for n := range 1 << 5 {
		x := overLowerFile(t, IOPassthrough)
		var readers []*testFD
		wrote := false
		for bit := range 5 {
			if n>>bit&1 == 0 {
				r := openFD(t, x.path("f"), unix.O_RDONLY)
				want := oldContent
				if wrote {
					want = newContent
				}
				wantContent(t, fmt.Sprintf("order %05b, reader %d", n, bit), r, want)
				readers = append(readers, r)
				continue
			}
			w := openFD(t, x.path("f"), unix.O_RDWR)
			w.writeAt(newContent, 0)
			wrote = true
			if bit%2 == 0 {
				w.close()
			}
		}
		for _, r := range readers {
			r.close()
		}
		x.wantLowerUnchanged()
		if wrote {
			if got := readPath(t, x.path("f")); got != newContent {
				t.Errorf("order %05b: %q", n, got)
			}
		}
		closeUnder(x.mnt)
		x.unmount()
	}
}

// Reading a passed-through file brings the daemon no READ.
func TestPassthroughReadsAreTheKernels(t *testing.T) {
	low := layer(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<15) // 512 KiB: copied up whole
	must(t, os.WriteFile(low+"/big", data, 0o644))
	m := mountOver(t, nil, low)
	if got := readPath(t, m.path("big")); got != string(data) {
		t.Error("read something else")
	}
	w := openFD(t, m.path("big"), unix.O_RDWR)
	w.writeAt("up", 1<<18)
	copy(data[1<<18:], "up")
	if got := w.content(); got != string(data) {
		t.Error("read something else after the copy-up")
	}
	s := m.Status()
	if s.Requests["READ"] != 0 || s.Requests["WRITE"] != 0 || s.Opens.Passthrough != 2 || s.Opens.Server != 0 {
		t.Errorf("requests %v, opens %+v", s.Requests, s.Opens)
	}
	if s.CopyUps.Files != 1 || s.CopyUps.Bytes == 0 || s.CopyUps.Failed != 0 {
		t.Errorf("copy-ups %+v", s.CopyUps)
	}
}

// The backing id of a lower file is kept when the last reader closes it. A
// writer that comes later must not get it.
func TestPassthroughWriterAfterClosedReader(t *testing.T) {
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR | unix.O_TRUNC} {
		x := overLowerFile(t, IOPassthrough)
		r := openFD(t, x.path("f"), unix.O_RDONLY)
		wantContent(t, "the reader", r, oldContent)
		r.close()
		x.waitReleased("f")
		w := openFD(t, x.path("f"), flags)
		w.writeAt(newContent, 0)
		w.close()
		if got := readPath(t, x.path("f")); got != newContent {
			t.Errorf("after flags %#x: %q", flags, got)
		}
		if s := x.Status(); s.Opens.Retired != 0 || s.Opens.Overtaken != 0 {
			t.Errorf("a node was retired without need: %+v", s.Opens)
		}
		x.wantLowerUnchanged()
	}
}

// waitReleased waits until the daemon knows that nobody has a file open.
func (m *mounted) waitReleased(rel string) {
	m.t.Helper()
	n, err := m.walk(rel)
	must(m.t, err)
	defer m.Forget(n.id, 1)
	if !eventually(func() bool {
		n.mu.RLock()
		defer n.mu.RUnlock()
		return n.io.opens == 0
	}) {
		m.t.Fatalf("%s is still open", rel)
	}
}
