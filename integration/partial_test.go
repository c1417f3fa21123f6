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
				waitFor(t, "the mark is taken away", patience, func() bool {
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
