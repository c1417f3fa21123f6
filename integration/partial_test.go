// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fewBlocks is more than what a file takes of which a block was written.
const fewBlocks = 64 << 10

// writeAt writes at an offset of a file in the mount.
func (u *union) writeAt(p string, off int64, s string) {
	u.Helper()
	must(u, withFile(u.path(p), os.O_RDWR, func(f *os.File) error {
		_, err := f.WriteAt([]byte(s), off)
		return err
	}))
}

// largeContent is content that repeats itself, but not in blocks: pattern takes
// long for as much.
func largeContent(size int) []byte {
	return bytes.Repeat(pattern(1<<20+777, 5), size>>20+1)[:size]
}

// partialMount mounts layers on a file system of the type: one lower file "f"
// of the size.
func partialMount(t *testing.T, fs string, mkfs []string, size int, options ...string) (*union, []byte) {
	t.Helper()
	requirePartial(t)
	dir := newFS(t, fs, 900, mkfs...)
	content := largeContent(size)
	l := makeTree(t, dir+"/l", nil)
	must(t, os.WriteFile(l+"/f", content, 0o644))
	return newMount(t, mountOpts{lowerDirs: []string{l}, upperDir: makeTree(t, dir+"/rw", nil), options: partialOptions(options...)}), content
}

// wantContent expects the contents of a file in the mount.
func (u *union) wantContent(p string, want []byte) {
	u.Helper()
	got, err := readAll(u.path(p), 0)
	must(u, err)
	if d := firstDifference(want, got); d != "" {
		u.Errorf("%s: %s", p, d)
	}
}

// TestPartialFirstWrite: the first write to a large lower file costs a block.
func TestPartialFirstWrite(t *testing.T) {
	for _, c := range []struct {
		name, fs string
		mkfs     []string
		size     int
	}{
		{"ext4", "ext4", nil, 256 << 20},
		{"ext4-1k", "ext4", []string{"-b", "1024"}, 16 << 20},
		{"xfs without reflink", "xfs", []string{"-m", "reflink=0"}, 16 << 20},
		{"tmpfs", "tmpfs", nil, 16 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, content := partialMount(t, c.fs, c.mkfs, c.size, neverComplete)
			at := c.size/2 + 777
			start := time.Now()
			u.writeAt("f", int64(at), "!")
			t.Logf("the first write took %v", time.Since(start))
			content[at] = '!'
			if n := usage(t, u.upper); n >= fewBlocks {
				t.Errorf("upper takes %d KiB", n>>10)
			}
			m := u.wantPartial("f")
			if m.limit != int64(c.size) || m.path != "" {
				t.Errorf("the mark says limit %d, lower path %q", m.limit, m.path)
			}
			if st := lstat(t, u.lowers[0]+"/f"); m.ino != st.Ino {
				t.Errorf("the mark says inode %d, it is %d", m.ino, st.Ino)
			}
			u.wantContent("f", content)
			if p := u.partialStatus(); p.Files != 1 || p.BytesLeft < int64(c.size)-fewBlocks || p.BytesLeft > int64(c.size) {
				t.Errorf("status: %+v", p)
			}
			if _, err := os.Lstat(u.work + "/plyfs/partial"); err != nil {
				t.Errorf("nothing tells that upper holds partial files: %v", err)
			}
			u.remount()
			u.wantContent("f", content)
			u.wantPartial("f")
		})
	}
}

// partialStatus is what the tests read of a status about partial files.
type partialStatus struct {
	Why          string `json:"why"`
	Files        int    `json:"files"`
	BytesLeft    int64  `json:"bytes_left"`
	MetadataOnly int    `json:"metadata_only"`
	Unsynced     int    `json:"unsynced"`
	Rate         int64  `json:"rate"`
	Completed    uint64 `json:"completed"`
}

func (u *union) partialStatus() partialStatus {
	u.Helper()
	var st struct {
		Partial *partialStatus `json:"partial"`
	}
	u.statusInto(&st)
	if st.Partial == nil {
		u.Fatal("status says nothing of partial files")
	}
	return *st.Partial
}

// TestPartialMetadata: what changes only attributes or names copies no data.
func TestPartialMetadata(t *testing.T) {
	changes := []struct {
		name string
		do   func(p string) error
	}{
		{"chmod", func(p string) error { return os.Chmod(p, 0o600) }},
		{"chown", func(p string) error { return os.Chown(p, 1000, 1000) }},
		{"utimens", func(p string) error { return os.Chtimes(p, fixtureTime, fixtureTime) }},
		{"setxattr", func(p string) error { return unix.Setxattr(p, "user.x", []byte("v"), 0) }},
		{"link", func(p string) error { return os.Link(p, p+".link") }},
		{"rename", func(p string) error { return os.Rename(p, filepath.Dir(p)+"/renamed") }},
		{"open for writing", func(p string) error { return withFile(p, os.O_RDWR, func(*os.File) error { return nil }) }},
	}
	for _, fs := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		t.Run(fs, func(t *testing.T) {
			requirePartial(t)
			content := pattern(3<<20, 5)
			dir := newFS(t, fs, 900)
			l := makeTree(t, dir+"/l", nil)
			for _, c := range changes {
				must(t, os.Mkdir(l+"/"+c.name, 0o755))
				must(t, os.WriteFile(l+"/"+c.name+"/f", content, 0o644))
			}
			u := newMount(t, mountOpts{lowerDirs: []string{l}, upperDir: makeTree(t, dir+"/rw", nil), options: partialOptions(copyUpPartial, neverComplete)})
			for _, c := range changes {
				if err := c.do(u.path(c.name, "f")); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			}
			look := func(when string) {
				for _, c := range changes {
					for _, n := range names(t, u.path(c.name)) {
						p := c.name + "/" + n
						u.wantContent(p, content)
						if reflink := fs == "xfs" || fs == "btrfs"; reflink && c.name == "open for writing" {
							continue // it shares all blocks
						}
						if got := takes(t, filepath.Join(u.upper, p)); got >= fewBlocks {
							t.Errorf("%s: %s takes %d KiB in upper", when, p, got>>10)
						}
						m := u.wantPartial(p)
						if known := c.name == "link" || c.name == "rename"; known && m.path != "/"+c.name+"/f" {
							t.Errorf("%s: the mark of %s says that the lower file is %q", when, p, m.path)
						}
					}
				}
			}
			look("after the changes")
			u.remount()
			look("after a remount")
			must(t, os.Rename(u.path("chmod"), u.path("moved")))
			u.wantContent("moved/f", content)
			u.remount()
			u.wantContent("moved/f", content)
			u.complete()
			u.wantWhole("moved/f", content)
			u.wantWhole("rename/renamed", content)
			u.wantWhole("link/f.link", content)
		})
	}
}

// TestPartialSmall: files up to the threshold are whole after the first write,
// and their mark goes when they have been synced.
func TestPartialSmall(t *testing.T) {
	for _, c := range []struct {
		size      int
		threshold string
		whole     bool
	}{
		{100_000, "", true}, {1 << 20, "", true}, {1<<20 + 1, "", false},
		{8192, "8K", true}, {8193, "8K", false},
	} {
		t.Run(fmt.Sprintf("%d of %s", c.size, c.threshold), func(t *testing.T) {
			options := []string{neverComplete}
			if c.threshold != "" {
				options = append(options, "copyup_threshold="+c.threshold)
			}
			u, content := partialMount(t, "ext4", nil, c.size, options...)
			copy(content[5000:], "changed")
			u.writeAt("f", 5000, "changed")
			got, err := readAll(u.upper+"/f", 0)
			must(t, err)
			if bytes.Equal(got, content) != c.whole {
				t.Fatalf("a file of %d bytes has its contents in upper: %v", c.size, !c.whole)
			}
			must(t, withFile(u.path("f"), os.O_RDWR, (*os.File).Sync))
			if c.whole {
				waitFor(t, "the mark is taken away", 20*time.Second, func() bool {
					m, ok := readOrigin(t, u.upper+"/f")
					return !ok || m.version == 1
				})
				u.wantWhole("f", content)
			} else {
				u.wantPartial("f")
			}
			u.remount()
			u.wantContent("f", content)
		})
	}
}

// TestPartialWhole: copyup=whole leaves nothing in lower, whatever is changed.
func TestPartialWhole(t *testing.T) {
	u, content := partialMount(t, "ext4", nil, 3<<20, copyUpWhole, neverComplete)
	must(t, os.Chmod(u.path("f"), 0o600))
	got, err := readAll(u.upper+"/f", 0)
	must(t, err)
	if d := firstDifference(content, got); d != "" {
		t.Errorf("a chmod with copyup=whole: %s", d)
	}
}

// TestPartialCompleteCommand: `plyfs complete` makes a file whole, or all below a
// directory; it changes nothing that can be seen, and the file is passed
// through again.
func TestPartialCompleteCommand(t *testing.T) {
	u, content := partialMount(t, "ext4", nil, 20<<20, copyUpPartial, neverComplete)
	u.writeAt("f", 10<<20, "changed")
	copy(content[10<<20:], "changed")
	before := lstat(t, u.path("f"))
	if n := u.readsOf("f", content); n == 0 {
		t.Error("the daemon was not asked for a partial file: this test sees nothing")
	}
	u.complete("f")
	u.wantWhole("f", content)
	after := lstat(t, u.path("f"))
	if after.Mtim != before.Mtim || after.Atim.Sec < before.Atim.Sec || after.Ino != before.Ino || after.Size != before.Size || after.Mode != before.Mode {
		t.Errorf("completion has changed the file: %+v, before %+v", after, before)
	}
	if n := u.readsOf("f", content); n != 0 {
		t.Errorf("%d READ requests for a whole file", n)
	}
	if p := u.partialStatus(); p.Files != 0 || p.BytesLeft != 0 {
		t.Errorf("status: %+v", p)
	}
	u.writeAt("f", 0, "again")
	copy(content, "again")
	u.remount()
	u.wantWhole("f", content)
	u.wantContent("f", content)
}

// readsOf reads a file anew and tells how often the daemon was asked.
func (u *union) readsOf(p string, want []byte) uint64 {
	u.Helper()
	must(u, withFile(u.path(p), os.O_RDONLY, func(f *os.File) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }))
	before := u.status().Requests["READ"]
	u.wantContent(p, want)
	return u.status().Requests["READ"] - before
}

// TestPartialCompleteAll completes all that is below a directory, and not what
// lies elsewhere.
func TestPartialCompleteAll(t *testing.T) {
	requirePartial(t)
	const size = 2 << 20
	file := func(p string) string { return fmt.Sprintf("%s=#%d", p, size) }
	u := newMount(t, mountOpts{lowers: [][]string{{file("a/1"), file("a/b/2"), file("c/3"), file("c/untouched"), "link/4 => c/3"}},
		options: partialOptions(copyUpPartial, neverComplete)})
	for _, p := range []string{"a/1", "a/b/2", "c/3"} {
		u.writeAt(p, 5, "changed")
	}
	must(t, os.Chmod(u.path("a/b/2"), 0o600))
	want := pattern(size, size)
	copy(want[5:], "changed")
	u.complete("a")
	u.wantWhole("a/1", want)
	u.wantWhole("a/b/2", want)
	u.wantPartial("c/3")
	u.complete()
	u.wantWhole("c/3", want)
	wantGone(t, filepath.Join(u.upper, "c/untouched"))
	u.wantContent("link/4", want)
	if p := u.partialStatus(); p.Files != 0 || p.MetadataOnly != 0 || p.BytesLeft != 0 {
		t.Errorf("status: %+v", p)
	}
	if out, err := plyfs("complete", u.path("nothing")); err == nil {
		t.Errorf("completing what is not there succeeds: %s", out)
	}
}

// TestPartialStatusAfterMount: a mount knows the partial files that an earlier one
// left, before anybody looks at them, also if it completes none by itself.
func TestPartialStatusAfterMount(t *testing.T) {
	for _, rate := range []string{"complete_rate=0", "complete_rate=1K"} {
		t.Run(rate, func(t *testing.T) {
			const size = 3 << 20
			lower := []string{fmt.Sprintf("d/e/f1=#%d", size), fmt.Sprintf("d/e/f2=#%d", size), fmt.Sprintf("g=#%d", size)}
			u := newMount(t, mountOpts{lowers: [][]string{lower}, upperDir: newFS(t, "ext4", 64), options: []string{"copyup=partial", rate}})
			files := []string{"d/e/f1", "d/e/f2", "g"}
			for _, f := range files {
				u.writeAt(f, 5, "changed")
			}
			before := u.partialStatus()
			for range 2 {
				u.remount()
				waitFor(t, "the partial files are known", 10*time.Second, func() bool { return u.partialStatus().Files == len(files) })
				if p := u.partialStatus(); rate == "complete_rate=0" && p.BytesLeft != before.BytesLeft {
					t.Errorf("%d bytes are left after the mount, %d before", p.BytesLeft, before.BytesLeft)
				}
				must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
			}
			must(t, os.Remove(u.path("g")))
			u.complete()
			if p := u.partialStatus(); p.Files != 0 || p.BytesLeft != 0 {
				t.Errorf("when all are whole or removed: %+v", p)
			}
		})
	}
}

// TestPartialBackground: without being asked plyfs completes files, at the rate
// that the options name.
func TestPartialBackground(t *testing.T) {
	const size, rate = 24 << 20, 6 << 20
	u, content := partialMount(t, "ext4", nil, size, fmt.Sprintf("complete_rate=%d", rate))
	start := time.Now()
	u.writeAt("f", size/2, "changed")
	copy(content[size/2:], "changed")
	if p := u.partialStatus(); p.Files != 1 || p.Rate != rate {
		t.Errorf("status after the first write: %+v", p)
	}
	lefts := []int64{size}
	waitFor(t, "completion in the background", 60*time.Second, func() bool {
		p := u.partialStatus()
		if p.BytesLeft != lefts[len(lefts)-1] {
			lefts = append(lefts, p.BytesLeft)
		}
		u.wantSome(content)
		return p.Files == 0
	})
	took := time.Since(start)
	t.Logf("%v, bytes left in between: %d", took, lefts)
	if least := time.Second * size / rate * 6 / 10; took < least {
		t.Errorf("it took %v: faster than %d bytes a second", took, rate)
	}
	if len(lefts) < 4 {
		t.Error("it went in one go")
	}
	for i := 2; i < len(lefts); i++ { // the first is about as much
		if lefts[i] > lefts[i-1] {
			t.Errorf("bytes left grow from %d to %d", lefts[i-1], lefts[i])
		}
	}
	waitFor(t, "the mark is taken away", 20*time.Second, func() bool {
		m, ok := readOrigin(t, u.upper+"/f")
		return !ok || m.version == 1
	})
	u.wantWhole("f", content)
	u.wantContent("f", content)
	if p := u.partialStatus(); p.Completed != 1 || p.BytesLeft != 0 {
		t.Errorf("status in the end: %+v", p)
	}
}

// wantSome reads some pieces of the file "f" anew.
func (u *union) wantSome(content []byte) {
	u.Helper()
	must(u, withFile(u.path("f"), os.O_RDONLY, func(f *os.File) error {
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
		for off := 0; off < len(content); off += len(content) / 7 {
			b := make([]byte, min(10_000, len(content)-off))
			if _, err := f.ReadAt(b, int64(off)); err != nil {
				return err
			}
			if d := firstDifference(content[off:off+len(b)], b); d != "" {
				u.Errorf("at %d: %s", off, d)
			}
		}
		return nil
	}))
}

// TestPartialNeverInBackground: complete_rate=0 leaves files as they are.
func TestPartialNeverInBackground(t *testing.T) {
	u, content := partialMount(t, "ext4", nil, 4<<20, neverComplete)
	u.writeAt("f", 0, "changed")
	copy(content, "changed")
	time.Sleep(3 * time.Second)
	if n := takes(t, u.upper+"/f"); n >= fewBlocks {
		t.Errorf("%d KiB were copied", n>>10)
	}
	u.wantContent("f", content) // status knows of files that the kernel knows of
	if p := u.partialStatus(); p.Files != 1 || p.Rate != 0 || p.Completed != 0 {
		t.Errorf("status: %+v", p)
	}
}

// TestPartialHeld: descriptors and mappings of a partial file are right while
// it is completed and after that.
func TestPartialHeld(t *testing.T) {
	for _, mode := range []string{ioPassthrough, ioCoherent} {
		t.Run(mode, func(t *testing.T) {
			const size = 8 << 20
			u, content := partialMount(t, "ext4", nil, size, copyUpPartial, neverComplete, "io="+mode)
			early, err := os.Open(u.path("f"))
			must(t, err)
			defer early.Close()
			lower := bytes.Clone(content)
			fd := openRW(t, u.path("f"))
			m := mapFile(t, fd, size, unix.PROT_READ|unix.PROT_WRITE)
			copy(m[12345:], "mapped")
			_, err = unix.Pwrite(fd, []byte("written"), 5<<20)
			must(t, err)
			copy(content[12345:], "mapped")
			copy(content[5<<20:], "written")
			look := func(when string) {
				t.Helper()
				if d := firstDifference(content, m); d != "" {
					t.Errorf("%s, a mapping: %s", when, d)
				}
				got, err := readFD(fd)
				must(t, err)
				if d := firstDifference(content, got); d != "" {
					t.Errorf("%s, a descriptor: %s", when, d)
				}
				u.wantContent("f", content)
				want := content
				if mode == ioPassthrough {
					want = lower
				}
				got, err = readFD(int(early.Fd()))
				must(t, err)
				if d := firstDifference(want, got); d != "" {
					t.Errorf("%s, a descriptor from before the first write: %s", when, d)
				}
			}
			look("before")
			must(t, unix.Msync(m, unix.MS_SYNC))
			u.complete("f")
			look("after completion")
			u.wantWhole("f", content)
			copy(m[7<<20:], "mapped again")
			_, err = unix.Pwrite(fd, []byte("written again"), 1<<20)
			must(t, err)
			copy(content[7<<20:], "mapped again")
			copy(content[1<<20:], "written again")
			must(t, unix.Msync(m, unix.MS_SYNC))
			look("after more writes")
			u.wantWhole("f", content)
		})
	}
}

// TestPartialLowerGone: a partial file whose lower file is not there at the
// next mount, or is another one, is an I/O error and words in the log; what
// upper has can be read.
func TestPartialLowerGone(t *testing.T) {
	requirePartial(t)
	for _, how := range []struct {
		name   string
		change func(lower string) error
	}{
		{"missing", func(l string) error { return os.Rename(l+"/d/f", l+"/d/elsewhere") }},
		{"another", func(l string) error {
			if err := os.Rename(l+"/d/f", l+"/d/elsewhere"); err != nil {
				return err
			}
			return os.WriteFile(l+"/d/f", pattern(3<<20, 6), 0o644)
		}},
		{"a directory", func(l string) error {
			if err := os.Rename(l+"/d/f", l+"/d/elsewhere"); err != nil {
				return err
			}
			return os.Mkdir(l+"/d/f", 0o755)
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			dir := tempDir(t)
			log := dir + "/log"
			u := newMount(t, mountOpts{dir: dir, lowers: [][]string{{"d/f=#3145728"}}, noLowerCheck: true,
				options: partialOptions(copyUpPartial, neverComplete, "log_file="+log)})
			u.writeAt("d/f", 1<<20, strings.Repeat("w", blockSize))
			u.unmount()
			must(t, how.change(u.lowers[0]))
			u.mount()
			u.allowEIO = true
			f, err := os.Open(u.path("d/f"))
			must(t, err)
			defer f.Close()
			b := make([]byte, blockSize)
			for _, off := range []int64{0, 1<<20 - blockSize, 1<<20 + blockSize, 3<<20 - blockSize} {
				_, err := f.ReadAt(b, off)
				wantErrno(t, fmt.Sprintf("reading at %d", off), err, unix.EIO)
			}
			if _, err := readMapped(u.path("d/f")); err == nil {
				t.Error("a mapping shows something")
			}
			if _, err := readAll(u.path("d/f"), unix.O_DIRECT); err == nil {
				t.Error("O_DIRECT shows something")
			}
			w := openRW(t, u.path("d/f"))
			_, err = unix.Pwrite(w, []byte("half a block"), 2<<20)
			wantErrno(t, "writing half a block", err, unix.EIO)
			if out, err := plyfs("complete", u.path("d/f")); err == nil {
				t.Errorf("completing succeeds: %s", out)
			}
			u.wantPartial("d/f")
			words, err := os.ReadFile(log)
			must(t, err)
			if !bytes.Contains(words, []byte("/d/f")) || !bytes.Contains(words, []byte("lower file")) {
				t.Errorf("the log does not name the lower file:\n%s", words)
			}
			b2, err := readAll(u.upper+"/d/f", 0)
			must(t, err)
			if !bytes.Equal(b2[1<<20:1<<20+blockSize], bytes.Repeat([]byte("w"), blockSize)) {
				t.Error("what had been written is not in upper any more")
			}
		})
	}
}

// TestPartialReflink: where blocks can be shared a file is whole at once.
func TestPartialReflink(t *testing.T) {
	for _, fs := range []string{"xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			const size = 64 << 20
			u, content := partialMount(t, fs, nil, size, neverComplete)
			var before, after unix.Statfs_t
			// What the lower file takes must not be counted later.
			must(t, withFile(u.upper, os.O_RDONLY, func(f *os.File) error { return unix.Syncfs(int(f.Fd())) }))
			must(t, unix.Statfs(u.upper, &before))
			u.writeAt("f", size/2, "changed")
			copy(content[size/2:], "changed")
			got, err := readAll(u.upper+"/f", 0)
			must(t, err)
			if d := firstDifference(content, got); d != "" {
				t.Errorf("upper is not whole after the first write: %s", d)
			}
			must(t, withFile(u.path("f"), os.O_RDWR, (*os.File).Sync))
			must(t, unix.Statfs(u.upper, &after))
			if used := (int64(before.Bfree) - int64(after.Bfree)) * before.Bsize; used > size/4 {
				t.Errorf("the first write took %d MiB", used>>20)
			}
			u.remount()
			u.wantContent("f", content)
			wantFileBytes(t, u.lowers[0]+"/f", largeContent(size))
		})
	}
}

// wantFileBytes expects the contents of a large file.
func wantFileBytes(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := readAll(path, 0)
	must(t, err)
	if d := firstDifference(want, got); d != "" {
		t.Errorf("%s: %s", path, d)
	}
}

// TestPartialForeignUpper: on a file system of whose holes nothing is known all
// copies are whole, and status tells why.
func TestPartialForeignUpper(t *testing.T) {
	requirePartial(t)
	for name, mount := range map[string]func(t *testing.T, dir string){
		"overlay": func(t *testing.T, dir string) {
			must(t, mountOverlay([]string{dir + "/l"}, dir+"/u", dir+"/w", dir+"/m"))
		},
		"fuse-overlayfs": func(t *testing.T, dir string) {
			requireTool(t, "fuse-overlayfs")
			run(t, dir, "fuse-overlayfs", "-o", "lowerdir=l,upperdir=u,workdir=w", dir+"/m")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			makeTree(t, dir, []string{"l/", "u/", "w/", "m/"})
			mount(t, dir)
			t.Cleanup(func() { unix.Unmount(dir+"/m", unix.MNT_DETACH) })
			u := newMount(t, mountOpts{dir: makeTree(t, dir+"/outer", nil), lowers: [][]string{{"f=#3000000", "g=#3000000"}}, upperDir: dir + "/m",
				options: partialOptions(copyUpPartial, neverComplete)})
			u.writeAt("f", 1_000_000, "changed")
			want := pattern(3_000_000, 3_000_000)
			copy(want[1_000_000:], "changed")
			u.wantWhole("f", want)
			u.wantContent("f", want)
			must(t, os.Chmod(u.path("g"), 0o600))
			u.wantWhole("g", pattern(3_000_000, 3_000_000))
			if p := u.partialStatus(); p.Why == "" || p.Files != 0 {
				t.Errorf("status: %+v", p)
			}
		})
	}
}
