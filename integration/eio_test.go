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

	"golang.org/x/sys/unix"
)

// extents are the places of a file on its disk.
func extents(t testing.TB, path string) [][2]int64 {
	t.Helper()
	var out [][2]int64
	// "   0:        0..     127:      34816..     34943:    128: ..."
	for _, line := range strings.Split(run(t, "", "filefrag", "-v", "-b1", path), "\n") {
		var n, l1, l2, p1, p2 int64
		line = strings.NewReplacer(":", " ", "..", " ").Replace(line)
		if _, err := fmt.Sscan(line, &n, &l1, &l2, &p1, &p2); err == nil {
			out = append(out, [2]int64{p1, p2 - p1 + 1})
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no place on its disk", path)
	}
	return out
}

// syncOf is fsync of a path.
func syncOf(path string) error { return withFile(path, os.O_RDONLY, (*os.File).Sync) }

// dropCaches has the machine read from the disk again.
func dropCaches(t testing.TB) {
	t.Helper()
	unix.Sync()
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
}

// toldAtUnmount unmounts after a failed write, of which the first umount
// tells; the next one goes on.
func (u *union) toldAtUnmount() {
	u.Helper()
	if out, err := plyfs("umount", u.mp); err == nil || !strings.Contains(out, "could not be made durable") {
		u.Errorf("umount does not tell of the failed write: %v, %s", err, out)
	}
	u.unmount()
}

// TestEIOLower: what cannot be read of a lower layer is EIO to the reader and
// to the writer who needs a copy, and leaves no half copy.
func TestEIOLower(t *testing.T) {
	requirePlyfs(t, "an upper elsewhere")
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			d := newFaultDev(t, fstype, 304, "")
			lower := makeTree(t, filepath.Join(d.mp, "lower"), []string{"f=#300000", "dir/g=#5000"})
			u := newMount(t, mountOpts{lowerDirs: []string{lower}, noLowerCheck: true})
			u.allowEIO = true
			data := readFile(u.path("f"))
			names(t, u.path("dir"))
			dropCaches(t)
			for _, e := range extents(t, filepath.Join(lower, "f")) {
				d.failRange("read", e[0], e[1])
			}
			if _, err := os.ReadFile(u.path("f")); err == nil {
				t.Error("a file was read from a disk that fails")
			} else {
				wantErrno(t, "reading", err, unix.EIO)
			}
			err := withFile(u.path("f"), os.O_RDWR, func(f *os.File) error {
				if _, err := f.WriteAt([]byte("changed"), 10); err != nil {
					return err
				}
				_, err := f.ReadAt(make([]byte, 200_000), 100)
				return err
			})
			wantErrno(t, "writing, and reading all", err, unix.EIO)
			d.heal()
			dropCaches(t)
			got := readFile(u.path("f"))
			if want := data[:10] + "changed" + data[17:]; got != data && got != want {
				t.Errorf("the file has %d bytes, neither those of before nor with the change", len(got))
			}
			must(t, os.WriteFile(u.path("dir/g"), []byte("new"), 0o644))
			u.remount()
			if again := readFile(u.path("f")); again != got {
				t.Error("after the next mount the file is another")
			}
			wantFile(t, u.path("dir/g"), "new")
			u.unmount()
		})
	}
}

// TestEIOFsync: what could not be written is told by fsync, to everybody who
// asks and again each time, until the content is given up.
func TestEIOFsync(t *testing.T) {
	requirePlyfs(t, "a daemon that syncs")
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			d := newFaultDev(t, fstype, 304, "")
			u := newMount(t, mountOpts{lowers: [][]string{{"f=lower", "g=lower"}}, upperDir: d.mp})
			u.allowEIO = true
			must(t, os.WriteFile(u.path("f"), pattern(100_000, 1), 0o644))
			must(t, syncOf(u.path("f")))
			f, err := os.OpenFile(u.path("f"), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			other, err := os.Open(u.path("f"))
			must(t, err)
			defer other.Close()
			d.failRange("write", extents(t, filepath.Join(u.upper, "f"))[0][0], 4096)
			_, err = f.WriteAt(pattern(4096, 2), 0)
			must(t, err)
			wantErrno(t, "fsync", f.Sync(), unix.EIO)
			d.heal()
			wantErrno(t, "another's fsync", other.Sync(), unix.EIO)
			wantErrno(t, "fsync once more", f.Sync(), unix.EIO)
			wantErrno(t, "fdatasync", unix.Fdatasync(int(f.Fd())), unix.EIO)
			must(t, os.WriteFile(u.path("g"), []byte("other"), 0o644))
			must(t, syncOf(u.path("g"))) // other files are none the worse
			must(t, f.Truncate(0))
			_, err = f.WriteAt(pattern(4096, 3), 0)
			must(t, err)
			must(t, f.Sync())
			f.Close()
			other.Close()
			u.toldAtUnmount()
			u.mount()
			wantFile(t, u.path("f"), string(pattern(4096, 3)))
			u.unmount()
		})
	}
}

// TestEIOJournal: a record that is not on the disk is never said to be. The
// journal stops, tells so, and the next mount goes on with what is there.
func TestEIOJournal(t *testing.T) {
	requirePlyfs(t, "a journal")
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			d := newFaultDev(t, fstype, 304, "")
			u := newMount(t, mountOpts{lowers: [][]string{{"dir/a=lower", "dir/b=lower", "dir/c=lower"}}, upperDir: d.mp})
			u.allowEIO = true
			must(t, os.Chmod(u.path("dir"), 0o700))
			must(t, os.Remove(u.path("dir/a")))
			must(t, syncOf(u.path("dir")))
			for _, log := range []string{"journal.log", "journal.alt"} {
				for _, e := range extents(t, filepath.Join(u.work, "plyfs", log)) {
					d.failRange("write", e[0], e[1])
				}
			}
			must(t, os.Remove(u.path("dir/b")))
			wantErrno(t, "fsync of the directory", syncOf(u.path("dir")), unix.EIO)
			d.heal()
			wantErrno(t, "fsync once more", syncOf(u.path("dir")), unix.EIO)
			wantErrno(t, "removing a lower file", os.Remove(u.path("dir/c")), unix.EIO)
			wantNames(t, u.path("dir"), "c")
			wantFile(t, u.path("dir/c"), "lower")
			st := u.status()
			if st.Journal.Error == "" || len(st.LastErrors) == 0 {
				t.Errorf("status tells nothing: %+v, %q", st.Journal, st.LastErrors)
			}
			if out, err := plyfs("umount", u.mp); err == nil || !strings.Contains(out, "--lazy") {
				t.Errorf("umount: %v, %s", err, out)
			}
			u.kill9()
			u.mount()
			got := names(t, u.path("dir"))
			if s := strings.Join(got, " "); s != "c" && s != "b c" {
				t.Errorf("after the next mount: %q", got)
			}
			must(t, os.Remove(u.path("dir/c")))
			u.toldAtUnmount() // nobody has been told by the file system itself
			u.mount()
			wantGone(t, u.path("dir/c"))
			wantGone(t, u.path("dir/a"))
			u.unmount()
		})
	}
}

// TestEIOUpper: the disk of upper dies in the middle of the work, and its file
// system goes read-only (ext4 with errors=remount-ro) or shuts down (xfs,
// btrfs). What had been synced is there when the disk is back; every other
// file is the old or the new one.
func TestEIOUpper(t *testing.T) {
	requirePlyfs(t, "a journal")
	for _, fs := range [][2]string{{"ext4", "errors=remount-ro"}, {"xfs", "rw"}, {"btrfs", "rw"}} {
		t.Run(fs[0], func(t *testing.T) {
			d := newFaultDev(t, fs[0], 304, fs[1])
			var lower []string
			for i := range 40 {
				lower = append(lower, fmt.Sprintf("dir/f%02d=#30000", i), fmt.Sprintf("dir/gone%02d=lower", i))
			}
			u := newMount(t, mountOpts{lowers: [][]string{append(lower, "d1/x=1", "d2/y=2")}, upperDir: d.mp})
			u.allowEIO = true
			old := readFile(u.path("dir/f30"))
			changed := bytes.Repeat([]byte("changed!"), 5000)
			must(t, os.WriteFile(u.path("dir/f00"), changed, 0o644))
			must(t, syncOf(u.path("dir/f00")))
			must(t, os.Remove(u.path("dir/gone00")))
			must(t, u.rename2("d1", "d3", 0))
			must(t, syncOf(u.path("dir")))
			must(t, syncOf(u.path()))
			d.fail("write", 3, -1)
			d.fail("flush", 0, -1)
			told := false
			for i := 1; i < 40; i++ {
				name := u.path(fmt.Sprintf("dir/f%02d", i))
				err := os.WriteFile(name, changed, 0o644)
				if err == nil {
					err = syncOf(name)
					if err == nil {
						t.Errorf("fsync of file %d succeeds on a dead disk", i)
					}
				}
				told = told || err != nil
				os.Remove(u.path(fmt.Sprintf("dir/gone%02d", i)))
			}
			if !told {
				t.Error("nobody was told that the disk is dead")
			}
			st := u.status()
			if len(st.LastErrors) == 0 || st.Panics != 0 {
				t.Errorf("status: %q, %d panics", st.LastErrors, st.Panics)
			}
			if fs[0] == "ext4" { // the others refuse reading, too
				wantFile(t, u.path("dir/f00"), string(changed))
			}
			if out, err := plyfs("umount", "--lazy", u.mp); err != nil {
				t.Errorf("umount --lazy: %v, %s", err, out)
			}
			waitFor(t, "the daemon ends", patience, func() bool { return !alive(u.pid) })
			u.mounted, u.pid = false, 0
			d.unmount()
			d.heal()
			d.mount(fs[1])
			u.mount()
			wantFile(t, u.path("dir/f00"), string(changed))
			wantGone(t, u.path("dir/gone00"))
			wantNames(t, u.mp, "d2", "d3", "dir")
			wantFile(t, u.path("d3/x"), "1")
			for i := 1; i < 40; i++ {
				name := u.path(fmt.Sprintf("dir/f%02d", i))
				switch got := readFile(name); got {
				case old, string(changed), "": // O_TRUNC is an operation of its own
				default:
					t.Errorf("%s is half: %d bytes", name, len(got))
				}
			}
			u.unmount()
			u.mount()
			must(t, os.RemoveAll(u.path("dir")))
			u.unmount()
		})
	}
}
