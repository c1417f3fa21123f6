// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
				waitFor(t, "the partial files are known", patience, func() bool { return u.partialStatus().Files == len(files) })
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
	looks, lefts := 0, []int64{size}
	waitFor(t, "completion in the background", 2*patience, func() bool {
		p := u.partialStatus()
		looks++
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
	if len(lefts) < 4 && looks > 8 { // else it was hardly looked at meanwhile
		t.Error("it went in one go")
	}
	for i := 2; i < len(lefts); i++ { // the first is about as much
		if lefts[i] > lefts[i-1] {
			t.Errorf("bytes left grow from %d to %d", lefts[i-1], lefts[i])
		}
	}
	waitFor(t, "the mark is taken away", patience, func() bool {
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
