// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// inPart has all but the smallest files copied up in part, and none completed.
func inPart(c *Config) { c.CopyUp, c.CompleteRate = CopyUpPartial, -1 }

// partLower is a layer with a file "f" of random bytes, none of them zero.
func partLower(t *testing.T, size int) (low string, data []byte) {
	t.Helper()
	low = layer(t, "file other 1")
	r := rand.New(rand.NewPCG(uint64(size), 4))
	data = make([]byte, size)
	for i := range data {
		data[i] = byte(1 + r.IntN(255))
	}
	must(t, os.WriteFile(low+"/f", data, 0o644))
	return low, data
}

func wantBytes(t testing.TB, what, path string, want []byte) {
	t.Helper()
	got := []byte(readPath(t, path))
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d bytes, want %d; they differ from byte %d on", what, len(got), len(want), at)
}

// blocksOf is st_blocks.
func blocksOf(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Blocks
}

func originOfUpper(t testing.TB, path string) originMark {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(path, xattrOrigin, buf)
	must(t, err)
	m, err := decodeOrigin(buf[:n])
	must(t, err)
	return m
}

// The first write costs the blocks that it touches, and shows, with all the
// rest, at once, after a remount, under another name, and when completed.
func TestPartialFirstWrite(t *testing.T) {
	low, want := partLower(t, 4<<20+777)
	m := mountOver(t, inPart, low)
	f := openFD(t, m.path("f"), unix.O_RDWR)
	for _, off := range []int64{0, 4095, 100_000, 4 << 20, 4<<20 + 770} {
		f.writeAt("changed", off)
		copy(want[off:], "changed")
	}
	wantBytes(t, "after the writes", m.path("f"), want)
	f.close()
	if n := blocksOf(t, m.upper+"/f"); n == 0 || n > 8*8 {
		t.Errorf("five small writes cost %d blocks of 512 bytes", n)
	}
	if mark := originOfUpper(t, m.upper+"/f"); !mark.partial || mark.cut || mark.limit != int64(len(want)) || mark.path != "" {
		t.Errorf("mark %+v", mark)
	}
	must(t, unix.Rename(m.path("f"), m.path("g")))
	if mark := originOfUpper(t, m.upper+"/g"); mark.path != "/f" {
		t.Errorf("mark %+v after the rename", mark)
	}
	m = m.remount(inPart)
	wantBytes(t, "after a remount", m.path("g"), want)
	if s := m.Status(); s.Requests["READ"] == 0 || s.Partial.Files != 1 || s.Partial.BytesLeft < 4_000_000 {
		t.Errorf("requests %v, %+v", s.Requests, s.Partial)
	}
	var last CompletionProgress
	must(t, m.CompletePath("/", func(p CompletionProgress) error { last = p; return nil }))
	if last.Files != 1 || last.FilesDone != 1 || last.BytesDone != last.Bytes || last.Bytes < 4_000_000 {
		t.Errorf("%+v", last)
	}
	wantBytes(t, "completed, in upper", m.upper+"/g", want)
	if mark := originOfUpper(t, m.upper+"/g"); mark.partial {
		t.Errorf("mark %+v after the completion", mark)
	}
	m.waitReleased("g")
	before := m.Status().Opens.Passthrough
	wantBytes(t, "completed", m.path("g"), want)
	if m.Status().Opens.Passthrough != before+1 {
		t.Error("a completed file is not passed through")
	}
}

// What is done to the inode alone copies no data, and the kernel goes on
// reading the lower file; a writer then finds all bytes, and those who read
// before him are not written under.
func TestPartialMetadataAlone(t *testing.T) {
	low, want := partLower(t, 2<<20)
	m := mountOver(t, inPart, low)
	must(t, unix.Chmod(m.path("f"), 0o600))
	must(t, unix.Setxattr(m.path("f"), "user.x", []byte("y"), 0))
	must(t, unix.Link(m.path("f"), m.path("g")))
	if n := blocksOf(t, m.upper+"/f"); n > 8 {
		t.Errorf("%d blocks in upper", n)
	}
	if n := blocksOf(t, m.path("g")); n < 4096 {
		t.Errorf("%d blocks are shown", n)
	}
	r := openFD(t, m.path("g"), unix.O_RDONLY)
	if got := r.content(); got != string(want) {
		t.Error("reads something else")
	}
	if s := m.Status(); s.Requests["READ"] != 0 || s.Partial.MetadataOnly != 1 {
		t.Errorf("requests %v, %+v", s.Requests, s.Partial)
	}
	old := string(want)
	w := openFD(t, m.path("f"), unix.O_RDWR)
	w.writeAt("new", 5)
	copy(want[5:], "new")
	wantBytes(t, "by the other name", m.path("g"), want)
	wantContent(t, "who read before", r, old)
	wantBytes(t, "lower", low+"/f", []byte(old))
}

// What a power cut may leave: a file that was cut whose limit had not been
// lowered yet, and one of which the file system has lost the size.
func TestPartialAfterACut(t *testing.T) {
	low, want := partLower(t, 1<<20)
	m := mountOver(t, inPart, low)
	must(t, unix.Chmod(m.path("f"), 0o600))
	mark := originOfUpper(t, m.upper+"/f")
	closeUnder(m.mnt)
	m.unmount()

	must(t, os.Truncate(m.upper+"/f", 0))
	m = m.remount(inPart)
	wantBytes(t, "whose size was lost", m.path("f"), want)

	mark.cut = true
	m.unmount()
	must(t, unix.Setxattr(m.upper+"/f", xattrOrigin, mark.encode(), 0))
	must(t, os.Truncate(m.upper+"/f", 10_001))
	m = m.remount(inPart)
	wantBytes(t, "which was cut", m.path("f"), want[:10_001])
	must(t, os.Truncate(m.path("f"), 50_000))
	clear(want[10_001:])
	wantBytes(t, "cut and grown", m.path("f"), want[:50_000])
	if mark := originOfUpper(t, m.upper+"/f"); mark.limit != 10_001 || !mark.cut {
		t.Errorf("it grew with the mark %+v", mark)
	}
	m = m.remount(inPart)
	wantBytes(t, "remounted", m.path("f"), want[:50_000])
}

// Without its lower file a partial file is EIO where it needs it, in words in
// the log, and never zeros; what is in upper can be read.
func TestPartialLowerIsMissing(t *testing.T) {
	low, _ := partLower(t, 1<<20)
	m := mountOver(t, inPart, low)
	f := openFD(t, m.path("f"), unix.O_RDWR)
	f.writeAt(strings.Repeat("x", 8192), 8192)
	f.close()
	closeUnder(m.mnt)
	m.unmount()
	must(t, os.Rename(low+"/f", low+"/elsewhere"))
	must(t, os.WriteFile(low+"/f", make([]byte, 1<<20), 0o644))
	m = m.remount(inPart)
	f = openFD(t, m.path("f"), unix.O_RDONLY)
	buf := make([]byte, 4096)
	// Past the read-ahead, which asks for what is missing too.
	must(t, unix.Fadvise(f.fd, 0, 0, unix.FADV_RANDOM))
	if n, err := unix.Pread(f.fd, buf, 0); err != unix.EIO {
		t.Errorf("read %d bytes, %v, want EIO", n, err)
	}
	if n, err := unix.Pread(f.fd, buf, 8192); err != nil || string(buf[:n]) != strings.Repeat("x", 4096) {
		t.Errorf("what upper has: %d bytes, %v", n, err)
	}
	if log := m.log.String(); !strings.Contains(log, `lower file \"/f\"`) {
		t.Errorf("the log says nothing of it:\n%s", log)
	}
	if err := m.CompletePath("f", func(CompletionProgress) error { return nil }); toErrno(err) != unix.EIO {
		t.Errorf("completing it: %v", err)
	}
}

// Completion changes nothing that the mount shows: not the times, and not the
// capabilities, which the kernel takes from a file that is written to.
func TestPartialCompletionIsUnseen(t *testing.T) {
	low, want := partLower(t, 600_000)
	capability := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	must(t, unix.Setxattr(low+"/f", xattrCapability, capability, 0))
	past := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	must(t, os.Chtimes(low+"/f", past, past))
	m := mountOver(t, inPart, low)
	must(t, unix.Chmod(m.path("f"), 0o4755))
	must(t, m.CompletePath("f", func(CompletionProgress) error { return nil }))
	wantBytes(t, "in upper", m.upper+"/f", want)
	var st unix.Stat_t
	must(t, unix.Lstat(m.upper+"/f", &st))
	if got := time.Unix(st.Mtim.Unix()); !got.Equal(past) || st.Mode&07777 != 0o4755 {
		t.Errorf("mode %o, modified at %v", st.Mode, got)
	}
	buf := make([]byte, 64)
	if n, err := unix.Lgetxattr(m.upper+"/f", xattrCapability, buf); err != nil || !bytes.Equal(buf[:n], capability) {
		t.Errorf("capabilities % x, %v", buf[:max(n, 0)], err)
	}
}

// A small file is whole after its first write, but carries the mark until upper
// has been synced.
func TestPartialMarkOfSmallFiles(t *testing.T) {
	low, want := partLower(t, 10_000)
	m := mountOver(t, still, low)
	f := openFD(t, m.path("f"), unix.O_WRONLY|unix.O_APPEND)
	f.writeAt("!", 0) // at the end
	want = append(want, '!')
	if mark := originOfUpper(t, m.upper+"/f"); !mark.partial || mark.limit != 10_000 {
		t.Errorf("mark %+v before a sync", mark)
	}
	wantBytes(t, "in upper", m.upper+"/f", want)
	must(t, m.Sync())
	if mark := originOfUpper(t, m.upper+"/f"); mark.partial {
		t.Errorf("mark %+v after a sync", mark)
	}
	f.close()
	if s := m.Status(); s.Opens.Server != 0 || s.Partial.Unsynced != 0 {
		t.Errorf("opens %+v, %+v", s.Opens, s.Partial)
	}
}

// A policy's plan over an upper file that is copied up in part.
func TestPartialUnderAPolicy(t *testing.T) {
	low, want := partLower(t, 300_000)
	m := mountOver(t, inPart, low)
	f := openFD(t, m.path("f"), unix.O_RDWR)
	f.writeAt("seen", 100_000)
	copy(want[100_000:], "seen")
	f.close()
	m = m.remount(func(c *Config) {
		inPart(c)
		c.Policy = &TablePolicy{Blank: map[string][]Range{"f": {{Off: 50_000, Len: 100_000}}}}
	})
	clear(want[50_000:150_000])
	wantBytes(t, "blanked", m.path("f"), want)
}

// Where a written block makes others data too, copies are whole, and status says
// why: a tmpfs of huge pages.
func TestPartialNeedsExactHoles(t *testing.T) {
	needRoot(t)
	low, want := partLower(t, 3<<20)
	rw := t.TempDir()
	if err := unix.Mount("none", rw, "tmpfs", 0, "huge=within_size"); err != nil {
		t.Skipf("this kernel has no huge pages for tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(rw, unix.MNT_DETACH) })
	mkdir(t, rw+"/u")
	mkdir(t, rw+"/w")
	m := mountOver(t, func(c *Config) { inPart(c); c.Upper, c.Work = rw+"/u", rw+"/w" }, low)
	must(t, unix.Chmod(m.path("f"), 0o600))
	wantBytes(t, "in upper, copied whole", m.upper+"/f", want)
	if mark := originOfUpper(t, m.upper+"/f"); mark.partial {
		t.Errorf("mark %+v", mark)
	}
	how := m.Status().CopyUps.How
	if why := m.Status().Partial.Why; !strings.Contains(why, "huge=within_size") ||
		how[layers.CopiedByKernel]+how[layers.CopiedByReflink]+how[layers.CopiedByHand] != 1 {
		t.Errorf("%q, %v", why, how)
	}
	m.unmount() // before the file system below goes
}

// In the background files become whole at a bounded rate.
func TestPartialBackgroundCompletion(t *testing.T) {
	low, want := partLower(t, 3<<20)
	rw := tmpfs(t) // of which more than a tenth is free
	mkdir(t, rw+"/u")
	mkdir(t, rw+"/w")
	m := mountOver(t, func(c *Config) {
		c.Upper, c.Work, c.CopyUp, c.CompleteRate = rw+"/u", rw+"/w", CopyUpPartial, 1<<20
	}, low)
	begin := time.Now()
	f := openFD(t, m.path("f"), unix.O_RDWR)
	f.writeAt("x", 1)
	want[1] = 'x'
	if !eventually(func() bool {
		wantBytes(t, "meanwhile", m.path("f"), want)
		return m.Status().Partial.Completed > 0
	}) {
		t.Fatalf("not completed: %+v", m.Status().Partial)
	}
	if took := time.Since(begin); took < completeDelay+2*time.Second {
		t.Errorf("3 MiB at 1 MiB a second were there after %v", took)
	}
	f.close()
	wantBytes(t, "in upper", m.upper+"/f", want)
	m.unmount() // before the file system below goes
}

// The sizes at which blocks, limits and ends of files meet.
func TestPartialEdges(t *testing.T) {
	for _, size := range []int{1, 4095, 4096, 4097, 8191, 8192, 12_345} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			low, want := partLower(t, size)
			m := mountOver(t, inPart, low)
			check := func(what string) {
				t.Helper()
				wantBytes(t, what, m.path("f"), want)
			}
			must(t, os.Truncate(m.path("f"), int64(size+5000)))
			want = append(want, make([]byte, 5000)...)
			check("grown")
			f := openFD(t, m.path("f"), unix.O_RDWR)
			f.writeAt("z", int64(size))
			want[size] = 'z'
			check("written behind the old end")
			must(t, os.Truncate(m.path("f"), int64(size/2)))
			want = want[:size/2]
			check("cut")
			must(t, os.Truncate(m.path("f"), int64(size)))
			want = append(want, make([]byte, size-size/2)...)
			check("grown again")
			must(t, unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(size/4+1)))
			clear(want[:min(len(want), size/4+1)])
			check("punched")
			must(t, unix.Fallocate(f.fd, 0, 0, int64(size+100)))
			want = append(want, make([]byte, 100)...)
			check("allocated")
			m = m.remount(inPart)
			check("remounted")
		})
	}
}

// Blocks that are set aside and not written are no data, also when a page of
// them is in the cache: those of a preallocation, and those that a power cut
// left.
func TestPartialUnwrittenBlocks(t *testing.T) {
	low, want := partLower(t, 400_000)
	m := mountOver(t, inPart, low)
	f := openFD(t, m.path("f"), unix.O_RDWR)
	f.writeAt("x", 0)
	want[0] = 'x'
	must(t, unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, 50_000, 70_001))
	warm := func() {
		up := openFD(t, m.upper+"/f", unix.O_RDONLY)
		must(t, unix.Fsync(up.fd))
		must(t, unix.Fadvise(up.fd, 0, 0, unix.FADV_DONTNEED))
		_ = up.content()
		up.close()
	}
	warm()
	wantBytes(t, "preallocated", m.path("f"), want)
	f.close()
	closeUnder(m.mnt)
	m.unmount()
	up := openFD(t, m.upper+"/f", unix.O_RDWR)
	must(t, unix.Fallocate(up.fd, 0, 200_000, 100_000))
	up.close()
	warm()
	m = m.remount(inPart)
	wantBytes(t, "as after a power cut", m.path("f"), want)
	must(t, m.CompletePath("f", func(CompletionProgress) error { return nil }))
	wantBytes(t, "completed", m.upper+"/f", want)
}

// Sync waits for what was stored through a mapping of a file that the daemon
// serves.
func TestPartialSyncOfAMapping(t *testing.T) {
	low, want := partLower(t, 100_000)
	m := mountOver(t, inPart, low)
	f := openFD(t, m.path("f"), unix.O_RDWR)
	b := mapFile(t, f, len(want), true)
	copy(b[50_000:], "stored")
	copy(want[50_000:], "stored")
	must(t, m.Sync())
	up := openFD(t, m.upper+"/f", unix.O_RDONLY)
	got := make([]byte, 6)
	if n, err := unix.Pread(up.fd, got, 50_000); err != nil || string(got[:n]) != "stored" {
		t.Errorf("upper has %q, %v", got, err)
	}
	wantBytes(t, "through the mount", m.path("f"), want)
}
