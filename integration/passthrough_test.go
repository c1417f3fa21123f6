// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// largeFile is the size of the file that passthrough is measured with.
const largeFile = 256 << 20

// TestPassthroughNoReads: reading a large lower file brings no READ to the
// daemon, in a writable mount and in a read-only one.
func TestPassthroughNoReads(t *testing.T) {
	requirePlyfs(t, "a daemon that could be asked to read")
	dir := tempDir(t)
	l := makeTree(t, dir+"/l", nil)
	must(t, withFile(l+"/large", os.O_RDWR|os.O_CREATE, func(f *os.File) error {
		block := pattern(1<<20, 7)
		for range largeFile >> 20 {
			if _, err := f.Write(block); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, ro := range []bool{false, true} {
		name := map[bool]string{false: "writable", true: "readonly"}[ro]
		t.Run(name, func(t *testing.T) {
			u := newMount(t, mountOpts{dir: makeTree(t, filepath.Join(dir, name), nil), lowerDirs: []string{l}, readOnly: ro, noLowerCheck: true})
			f, err := os.Open(u.path("large"))
			must(t, err)
			n, err := io.Copy(io.Discard, onlyReader{f})
			must(t, err)
			f.Close()
			st := u.status()
			if n != largeFile || st.Requests["READ"] != 0 || st.Opens.Passthrough == 0 {
				t.Errorf("%d bytes read, %d READ requests, %d passthrough opens, refusals %v",
					n, st.Requests["READ"], st.Opens.Passthrough, st.Opens.Refusals)
			}
		})
	}
}

// onlyReader hides everything but Read, so that io.Copy really reads.
type onlyReader struct{ io.Reader }

// TestPassthroughNeverWritesLower is the trap: a reader holds a descriptor
// that is passed through to the lower file; a writer comes; what it writes
// must land in upper and never in the lower file.
func TestPassthroughNeverWritesLower(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		for name, write := range map[string]func(t *testing.T, path string){
			"write": func(t *testing.T, p string) {
				must(t, withFile(p, os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 100); return err }))
			},
			"write only": func(t *testing.T, p string) {
				must(t, withFile(p, os.O_WRONLY, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 100); return err }))
			},
			"mmap": func(t *testing.T, p string) {
				must(t, withFile(p, os.O_RDWR, func(f *os.File) error {
					m, err := unix.Mmap(int(f.Fd()), 0, 10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
					if err != nil {
						return err
					}
					copy(m[100:], "WRITTEN")
					return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
				}))
			},
			"proc self fd": func(t *testing.T, p string) {
				r, err := os.Open(p)
				must(t, err)
				defer r.Close()
				err = withFile("/proc/self/fd/"+itoa(int(r.Fd())), os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 100); return err })
				if mode == ioPassthrough {
					// A known difference: while the lower file is held open
					// the kernel cannot be given another, and such a path
					// has no name to look up again.
					wantErrno(t, "open for writing by descriptor", err, unix.ESTALE)
					err = withFile(p, os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 100); return err })
				}
				must(t, err)
			},
			"hard link": func(t *testing.T, p string) {
				must(t, os.Link(p, p+"2"))
				must(t, withFile(p+"2", os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 100); return err }))
			},
			"after truncate by path": func(t *testing.T, p string) {
				must(t, os.Truncate(p, 20000))
				must(t, os.Truncate(p, 10000))
				must(t, withFile(p, os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 100); return err }))
			},
			"after chmod": func(t *testing.T, p string) {
				must(t, os.Chmod(p, 0o600))
				must(t, withFile(p, os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 100); return err }))
			},
			"after rename": func(t *testing.T, p string) {
				must(t, unix.Rename(p, p+"3"))
				must(t, withFile(p+"3", os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 100); return err }))
				must(t, unix.Rename(p+"3", p))
			},
		} {
			t.Run(name, func(t *testing.T) {
				u := newMount(t, mountOpts{lowers: [][]string{{"d/f=#10000"}}, options: []string{"io=" + mode}})
				old := holdReader(t, u.path("d/f"), mode)
				write(t, u.path("d/f"))
				want := pattern(10000, 10000)
				copy(want[100:], "WRITTEN")
				wantFile(t, u.path("d/f"), string(want))
				wantFile(t, filepath.Join(u.lowers[0], "d/f"), string(pattern(10000, 10000)))
				wantFile(t, filepath.Join(u.upper, "d/f"), string(want))
				old(want)
				u.remount()
				wantFile(t, u.path("d/f"), string(want))
			})
		}
	})
}

// holdReader opens and maps a lower file for reading. The function it returns
// checks what the old reader sees after a change, in each mode, and lets go.
func holdReader(t *testing.T, path, mode string) func(changed []byte) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, 10000, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	before := bytes.Clone(m)
	return func(changed []byte) {
		t.Helper()
		b := make([]byte, len(before))
		_, err := f.ReadAt(b, 0)
		must(t, err)
		switch {
		case sut == sutOverlay:
			if !bytes.Equal(b, changed) {
				t.Error("read of an old descriptor does not follow the copy-up")
			}
		case mode == ioPassthrough:
			if !bytes.Equal(b, before) || !bytes.Equal(m, before) {
				t.Error("an old descriptor or mapping does not keep the lower contents")
			}
		default:
			if !bytes.Equal(b, changed) || !bytes.Equal(m, changed) {
				t.Error("an old descriptor or mapping does not see the change")
			}
		}
		must(t, unix.Munmap(m))
		f.Close()
	}
}

// TestPassthroughOvertaken: status counts the handles that a copy-up overtook.
func TestPassthroughOvertaken(t *testing.T) {
	requirePlyfs(t, "a count of overtaken handles")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}, options: []string{"io=" + ioPassthrough}})
	r, err := os.Open(u.path("f"))
	must(t, err)
	defer r.Close()
	must(t, os.WriteFile(u.path("f"), []byte("22"), 0))
	if n := u.status().Opens.Overtaken; n != 1 {
		t.Errorf("status counts %d overtaken handles, want 1", n)
	}
	wantFile(t, u.path("f"), "22")
}

// TestPassthroughReadersAndWriters opens and closes readers and writers of one
// lower file in all orders: no open may fail, all that come after the copy-up
// see one file.
func TestPassthroughReadersAndWriters(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{lowers: [][]string{{"f=#10000"}}, options: []string{"io=" + mode}})
		var readers []*os.File
		for i := range 20 {
			r, err := os.Open(u.path("f"))
			must(t, err)
			readers = append(readers, r)
			if i%3 == 1 {
				must(t, withFile(u.path("f"), os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte{byte(i)}, int64(i)); return err }))
			}
			if i%5 == 4 {
				readers[i-3].Close()
			}
		}
		last, err := os.ReadFile(u.path("f"))
		must(t, err)
		for i, r := range readers[2:] { // opened after the first write
			b := make([]byte, 10000)
			if _, err := r.ReadAt(b, 0); err != nil {
				if i+2 == 1 || i+2 == 6 || i+2 == 11 || i+2 == 16 {
					continue // closed
				}
				t.Errorf("reader %d: %v", i+2, err)
			} else if !bytes.Equal(b, last) {
				t.Errorf("reader %d, opened after the copy-up, sees another file", i+2)
			}
			r.Close()
		}
		readers[0].Close()
		readers[1].Close()
	})
}

// TestPassthroughLowerIsReadOnly: status says that each lower layer is reached
// through a read-only clone of its mount.
func TestPassthroughLowerIsReadOnly(t *testing.T) {
	requirePlyfs(t, "private clones of the lower mounts")
	u := newMount(t, mountOpts{lowers: [][]string{{"a=1"}, {"b=2"}}})
	n := 0
	for _, l := range u.status().Layers {
		if l.Role == "lower" {
			n++
			if !l.ReadOnly || !l.Passthrough {
				t.Errorf("layer %s: read-only clone %v, passthrough %v (%s)", l.Path, l.ReadOnly, l.Passthrough, l.Why)
			}
		}
	}
	if n != 2 {
		t.Errorf("status shows %d lower layers, want 2", n)
	}
}
