// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eachIO runs a test in each I/O mode.
func eachIO(t *testing.T, f func(t *testing.T, io string)) {
	for _, io := range []string{ioPassthrough, ioCoherent} {
		if sut == sutOverlay && io == ioCoherent {
			continue
		}
		t.Run(io, func(t *testing.T) { f(t, io) })
	}
}

// TestWriteKinds changes a lower file in each way there is, and compares with
// the same on a plain file.
func TestWriteKinds(t *testing.T) {
	const size = 300_000
	changes := map[string]func(path string) error{
		"O_TRUNC": func(p string) error { return os.WriteFile(p, []byte("short"), 0) },
		"append": func(p string) error {
			return withFile(p, os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
				_, err := f.WriteString("tail")
				return err
			})
		},
		"pwrite": func(p string) error {
			return withFile(p, os.O_RDWR, func(f *os.File) error {
				_, err := f.WriteAt([]byte("middle"), 123_456)
				return err
			})
		},
		"write beyond the end": func(p string) error {
			return withFile(p, os.O_WRONLY, func(f *os.File) error {
				_, err := f.WriteAt([]byte("far"), 2*size)
				return err
			})
		},
		"truncate":      func(p string) error { return os.Truncate(p, 1234) },
		"truncate up":   func(p string) error { return os.Truncate(p, 2*size) },
		"truncate to 0": func(p string) error { return os.Truncate(p, 0) },
		"ftruncate": func(p string) error {
			return withFile(p, os.O_RDWR, func(f *os.File) error { return f.Truncate(99_999) })
		},
		"mmap": func(p string) error {
			return withFile(p, os.O_RDWR, func(f *os.File) error {
				m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if err != nil {
					return err
				}
				copy(m[77_777:], "mapped")
				return unix.Munmap(m)
			})
		},
		"punch hole": func(p string) error {
			return withFile(p, os.O_RDWR, func(f *os.File) error {
				return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 5000, 100_000)
			})
		},
		"zero range": func(p string) error {
			return withFile(p, os.O_RDWR, func(f *os.File) error {
				return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, 5000, 400_000)
			})
		},
		"fallocate": func(p string) error {
			return withFile(p, os.O_RDWR, func(f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, 0, 2*size) })
		},
		"O_DIRECT": func(p string) error {
			return withFile(p, os.O_RDWR|unix.O_DIRECT, func(f *os.File) error {
				m, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
				if err != nil {
					return err
				}
				defer unix.Munmap(m)
				copy(m, bytes.Repeat([]byte("direct"), 1000))
				_, err = f.WriteAt(m, 4096)
				return err
			})
		},
		"copy_file_range": func(p string) error {
			return withFile(p, os.O_RDWR, func(f *os.File) error {
				from, to := int64(0), int64(200_000)
				_, err := unix.CopyFileRange(int(f.Fd()), &from, int(f.Fd()), &to, 50_000, 0)
				return err
			})
		},
	}
	eachIO(t, func(t *testing.T, mode string) {
		for name, change := range changes {
			t.Run(name, func(t *testing.T) {
				u := newMount(t, mountOpts{lowers: [][]string{{fmt.Sprintf("f=#%d {0640 1000:1000}", size)}}, options: []string{"io=" + mode}})
				ref := tempDir(t) + "/f"
				must(t, os.WriteFile(ref, pattern(size, size), 0o640))
				must(t, change(ref))
				must(t, change(u.path("f")))
				want, err := os.ReadFile(ref)
				must(t, err)
				check := func() {
					t.Helper()
					wantFile(t, u.path("f"), string(want))
					st := lstat(t, u.path("f"))
					if st.Size != int64(len(want)) || st.Uid != 1000 || st.Gid != 1000 || st.Mode&0o7777 != 0o640 {
						t.Errorf("size %d, owner %d:%d, mode %o", st.Size, st.Uid, st.Gid, st.Mode)
					}
					if time.Since(time.Unix(st.Mtim.Unix())) > time.Hour {
						t.Error("the modification time is still that of the lower file")
					}
				}
				check()
				u.remount()
				check()
			})
		}
	})
}

// withFile opens a file, calls f and closes it.
func withFile(path string, flags int, f func(*os.File) error) error {
	file, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	return f(file)
}

// TestWriteSeek finds data and holes where they are, in lower files and after
// a copy-up.
func TestWriteSeek(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		dir := tempDir(t)
		l := makeTree(t, dir+"/l", nil)
		must(t, withFile(l+"/sparse", os.O_RDWR|os.O_CREATE, func(f *os.File) error {
			if _, err := f.WriteAt(pattern(8192, 1), 1<<20); err != nil {
				return err
			}
			return f.Truncate(4 << 20)
		}))
		u := newMount(t, mountOpts{dir: dir, lowerDirs: []string{l}, options: []string{"io=" + mode}})
		const slack = 1 << 20 // kernel overlayfs copies up in pieces of 1 MiB
		check := func(when string) {
			t.Helper()
			f, err := os.Open(u.path("sparse"))
			must(t, err)
			defer f.Close()
			for _, c := range []struct {
				off, want int64
				whence    int
			}{{0, 1 << 20, unix.SEEK_DATA}, {0, 0, unix.SEEK_HOLE}, {1 << 20, 1<<20 + 8192, unix.SEEK_HOLE}} {
				got, err := unix.Seek(int(f.Fd()), c.off, c.whence)
				if err != nil || got < c.want || got > c.want+slack {
					t.Errorf("%s: seek(%d, %d): got %d, %v, want %d", when, c.off, c.whence, got, err, c.want)
				}
			}
			_, err = unix.Seek(int(f.Fd()), 2<<20, unix.SEEK_DATA)
			wantErrno(t, when+": SEEK_DATA behind the data", err, unix.ENXIO)
		}
		check("lower")
		must(t, os.Chmod(u.path("sparse"), 0o600))
		check("copied up")
		var st unix.Stat_t
		must(t, unix.Stat(u.path("sparse"), &st))
		if st.Blocks*512 > 1<<20 {
			t.Errorf("the copy takes %d KiB: its holes are filled", st.Blocks/2)
		}
	})
}

// TestWriteSync syncs files, directories and the file system.
func TestWriteSync(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/f=lower", "g=lower"}}})
	must(t, withFile(u.path("d/f"), os.O_RDWR, func(f *os.File) error {
		if _, err := f.WriteString("upper"); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		return f.Sync()
	}))
	must(t, os.Remove(u.path("g")))
	for _, d := range []string{".", "d"} {
		must(t, withFile(u.path(d), os.O_RDONLY, func(f *os.File) error { return f.Sync() }))
	}
	must(t, withFile(u.mp, os.O_RDONLY, func(f *os.File) error { return unix.Syncfs(int(f.Fd())) }))
}

// TestWriteThroughTwoDescriptors: what one descriptor writes another reads,
// by read and by mapping, at once.
func TestWriteThroughTwoDescriptors(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{lowers: [][]string{{"f=#100000"}}, options: []string{"io=" + mode}})
		w, err := os.OpenFile(u.path("f"), os.O_RDWR, 0)
		must(t, err)
		defer w.Close()
		r, err := os.Open(u.path("f"))
		must(t, err)
		defer r.Close()
		m, err := unix.Mmap(int(r.Fd()), 0, 100_000, unix.PROT_READ, unix.MAP_SHARED)
		must(t, err)
		defer unix.Munmap(m)
		for i := range 100 {
			want := []byte(fmt.Sprintf("round %03d", i))
			_, err := w.WriteAt(want, int64(i)*997)
			must(t, err)
			got := make([]byte, len(want))
			_, err = r.ReadAt(got, int64(i)*997)
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Fatalf("read %q, want %q", got, want)
			}
			if !bytes.Equal(m[i*997:i*997+len(want)], want) {
				t.Fatalf("mapped %q, want %q", m[i*997:i*997+len(want)], want)
			}
		}
	})
}

// TestWriteAppendParallel: appends by many descriptors do not overwrite each
// other.
func TestWriteAppendParallel(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"log=start\n"}}})
	const writers, lines = 4, 200
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			errs <- withFile(u.path("log"), os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
				for i := range lines {
					if _, err := fmt.Fprintf(f, "writer %d line %03d\n", w, i); err != nil {
						return err
					}
				}
				return nil
			})
		}()
	}
	for range writers {
		must(t, <-errs)
	}
	b, err := os.ReadFile(u.path("log"))
	must(t, err)
	if want := 6 + writers*lines*len("writer 0 line 000\n"); len(b) != want {
		t.Errorf("%d bytes, want %d", len(b), want)
	}
}

// TestWriteTmpfile makes files without a name, and gives one to some.
func TestWriteTmpfile(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/f=1"}}})
	fd, err := unix.Open(u.path("d"), unix.O_TMPFILE|unix.O_RDWR, 0o640)
	must(t, err)
	f := os.NewFile(uintptr(fd), "tmpfile")
	defer f.Close()
	_, err = io.WriteString(f, "hello")
	must(t, err)
	wantNames(t, u.path("d"), "f")
	must(t, unix.Linkat(fd, "", unix.AT_FDCWD, u.path("d/named"), unix.AT_EMPTY_PATH))
	wantFile(t, u.path("d/named"), "hello")
	if st := lstat(t, u.path("d/named")); st.Nlink != 1 || st.Mode&0o7777 != 0o640 {
		t.Errorf("nlink %d, mode %o", st.Nlink, st.Mode)
	}
}
