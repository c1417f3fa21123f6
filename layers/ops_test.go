// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNodes(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		defer unix.Umask(unix.Umask(0))
		root := upper(t, dir, 16).Root()
		must(t, root.Mkdir("d", 0o1777))
		must(t, root.Mknod("fifo", unix.S_IFIFO|0o640, 0))
		must(t, root.Mknod("chr", unix.S_IFCHR|0o600, unix.Mkdev(1, 3)))
		must(t, root.Symlink("/nowhere/at/all", "link"))
		write(t, root, "file", "content")
		must(t, root.Link("file", root.Child("d"), "hard"))
		must(t, root.Link("link", root, "link2"))
		if st := stat(t, root, "d"); st.Mode != unix.S_IFDIR|0o1777 {
			t.Errorf("directory mode %o", st.Mode)
		}
		if st := stat(t, root, "chr"); st.Mode != unix.S_IFCHR|0o600 || st.Rdev != unix.Mkdev(1, 3) {
			t.Errorf("device %o %d", st.Mode, st.Rdev)
		}
		if st := stat(t, root.Child("d"), "hard"); st.Nlink != 2 || st.Ino != stat(t, root, "file").Ino {
			t.Errorf("hard link %+v", st)
		}
		if st := stat(t, root, "link2"); st.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Error("a link to a link was made to something else")
		}
		target, err := root.Readlink("link2")
		if err != nil || target != "/nowhere/at/all" {
			t.Errorf("target %q %v", target, err)
		}
		wantErr(t, root.Unlink("d"), unix.EISDIR)
		wantErr(t, root.Rmdir("d"), unix.ENOTEMPTY)
		wantErr(t, root.Rmdir("file"), unix.ENOTDIR)
		must(t, root.Rename("file", root.Child("d"), "file", 0))
		must(t, root.Child("d").Fsync())
		wantErr(t, root.Rename("link", root, "link2", unix.RENAME_NOREPLACE), unix.EEXIST)
		must(t, root.Child("d").Unlink("hard"))
		must(t, root.Child("d").Unlink("file"))
		must(t, root.Rmdir("d"))
		var fs unix.Statfs_t
		must(t, root.Statfs(&fs))
		if fs.Bsize == 0 {
			t.Error("statfs told nothing")
		}
	})
}

func TestLongTargets(t *testing.T) {
	root := upper(t, t.TempDir(), 16).Root()
	for _, n := range []int{1, 255, 256, 257, 1024, 4000} {
		want := strings.Repeat("t", n)
		err := root.Symlink(want, "l")
		if err == unix.ENAMETOOLONG && n >= 1024 {
			continue // than xfs takes
		}
		must(t, err)
		if got, err := root.Readlink("l"); err != nil || got != want {
			t.Errorf("%d: %d bytes, %v", n, len(got), err)
		}
		must(t, root.Unlink("l"))
	}
	write(t, root, "f", "")
	_, err := root.Readlink("f")
	wantErr(t, err, unix.EINVAL)
}

func TestBadNames(t *testing.T) {
	root := upper(t, t.TempDir(), 16).Root()
	write(t, root, "f", "")
	var st unix.Stat_t
	for _, name := range []string{".", "..", "a/b", "/", "f/", "a\x00b"} {
		wantErr(t, root.Stat(name, &st), unix.EINVAL)
		_, err := root.Open(name, unix.O_RDONLY, 0)
		wantErr(t, err, unix.EINVAL)
		wantErr(t, root.Mkdir(name, 0), unix.EINVAL)
		wantErr(t, root.Unlink(name), unix.EINVAL)
		wantErr(t, root.Rename("f", root, name, 0), unix.EINVAL)
		wantErr(t, root.Link("f", root, name), unix.EINVAL)
		wantErr(t, root.Setxattr(name, "user.x", nil, 0), unix.EINVAL)
	}
	for _, err := range []error{root.Mkdir("", 0), root.Unlink(""), root.Rmdir(""), root.Symlink("x", ""),
		root.Mknod("", 0, 0), root.Link("", root, "x"), root.Rename("", root, "x", 0), root.Rename("f", root, "", 0)} {
		wantErr(t, err, unix.EINVAL)
	}
	wantErr(t, root.Stat(strings.Repeat("n", 256), &st), unix.ENAMETOOLONG)
	wantErr(t, root.Setxattr(strings.Repeat("n", 300), "user.x", nil, 0), unix.ENAMETOOLONG)
	write(t, root, strings.Repeat("n", 255), "fits")
}

// Attributes of the directory itself, a file and a symbolic link, by name and
// by descriptor; never of what the link points to.
func TestAttributes(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		root := upper(t, dir, 16).Root()
		must(t, root.Mkdir("d", 0o755))
		write(t, root, "victim", "")
		must(t, root.Symlink("victim", "link"))
		before := stat(t, root, "victim")
		ts := [2]unix.Timespec{{Sec: 1, Nsec: 2}, {Nsec: unix.UTIME_OMIT}}
		for _, x := range []struct {
			d    *Dir
			name string
		}{{root.Child("d"), ""}, {root, "d"}, {root, "file"}, {root, "link"}} {
			if x.name == "file" {
				write(t, root, "file", "")
			}
			was := stat(t, x.d, x.name)
			must(t, x.d.Chown(x.name, 1234, -1))
			must(t, x.d.Utimens(x.name, ts))
			err := x.d.Chmod(x.name, 0o711)
			if x.name == "link" {
				wantErr(t, err, unix.EOPNOTSUPP)
			} else {
				must(t, err)
			}
			st := stat(t, x.d, x.name)
			if st.Uid != 1234 || st.Gid != was.Gid || st.Atim != ts[0] || st.Mtim != was.Mtim {
				t.Errorf("%q: %+v", x.name, st)
			}
			if x.name != "link" && st.Mode&0o7777 != 0o711 {
				t.Errorf("%q: mode %o", x.name, st.Mode)
			}
		}
		if after := stat(t, root, "victim"); after != before {
			t.Errorf("the link's target changed: %+v, was %+v", after, before)
		}
	})
}

// The fallback for kernels before 6.6.
func TestChmodByProc(t *testing.T) {
	root := upper(t, t.TempDir(), 16).Root()
	write(t, root, "f", "")
	must(t, root.Symlink("f", "link"))
	fd, err := root.Acquire()
	must(t, err)
	defer root.Release()
	must(t, chmodByProc(fd, "f", 0o604))
	if st := stat(t, root, "f"); st.Mode&0o7777 != 0o604 {
		t.Errorf("mode %o", st.Mode)
	}
	wantErr(t, chmodByProc(fd, "link", 0o600), unix.EOPNOTSUPP)
	must(t, chmodByProc(fd, "", 0o711))
	if st := stat(t, root, ""); st.Mode&0o7777 != 0o711 {
		t.Errorf("mode of the directory %o", st.Mode)
	}
}

func TestDescriptorOperations(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		root := upper(t, dir, 16).Root()
		write(t, root, "f", "content")
		must(t, root.Symlink("f", "link"))
		for _, flags := range []int{unix.O_PATH, unix.O_RDONLY} {
			fd, err := root.Open("f", flags, 0)
			must(t, err)
			f := FD(fd)
			must(t, f.Chmod(0o640))
			must(t, f.Chown(5, 6))
			must(t, f.Utimens([2]unix.Timespec{{Sec: 7}, {Sec: 8}}))
			must(t, f.LinkTo(root, "second"))
			must(t, root.Unlink("second"))
			var st unix.Stat_t
			must(t, f.Stat(&st))
			if st.Mode&0o7777 != 0o640 || st.Uid != 5 || st.Gid != 6 || st.Atim.Sec != 7 || st.Mtim.Sec != 8 {
				t.Errorf("%+v", st)
			}
			again, err := f.Reopen(unix.O_RDWR)
			must(t, err)
			unix.Close(again)
			unix.Close(fd)
		}
		fd, err := root.Open("link", unix.O_PATH, 0)
		must(t, err)
		defer unix.Close(fd)
		if target, err := FD(fd).Readlink(); err != nil || target != "f" {
			t.Errorf("target %q %v", target, err)
		}
		must(t, FD(fd).Chown(9, 9))
		if st := stat(t, root, "f"); st.Uid == 9 {
			t.Error("chown followed the link")
		}
		wantErr(t, FD(fd).Chmod(0o600), unix.EOPNOTSUPP)
		_, err = FD(fd).Reopen(unix.O_RDONLY)
		wantErr(t, err, unix.ELOOP)
	})
}

func TestUnlinkedDescriptor(t *testing.T) {
	root := upper(t, t.TempDir(), 16).Root()
	write(t, root, "f", "content")
	fd, err := root.Open("f", unix.O_PATH, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, root.Unlink("f"))
	again, err := FD(fd).Reopen(unix.O_RDWR)
	must(t, err)
	unix.Close(again)
	wantErr(t, FD(fd).LinkTo(root, "back"), unix.ENOENT)
	must(t, FD(fd).Chmod(0o600))
}

func TestTmpfileGetsName(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		root := upper(t, dir, 16).Root()
		fd, err := root.Tmpfile(unix.O_RDWR, 0o600)
		must(t, err)
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("named later"))
		must(t, err)
		must(t, FD(fd).LinkTo(root, "name"))
		if got := read(t, root, "name"); got != "named later" {
			t.Errorf("content %q", got)
		}
		wantErr(t, FD(fd).LinkTo(root, "name"), unix.EEXIST)
	})
}

func TestList(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		root := upper(t, dir, 16).Root()
		want := map[string]uint64{}
		for i := range 2500 { // more than one buffer of names
			name := fmt.Sprintf("%s%d", strings.Repeat("x", i%40), i)
			must(t, root.Mknod(name, unix.S_IFREG|0o600, 0))
			want[name] = stat(t, root, name).Ino
		}
		must(t, root.Mkdir("zdir", 0o700))
		types := map[string]uint8{}
		must(t, root.List(func(name []byte, ino uint64, typ uint8) error {
			types[string(name)] = typ
			if w, ok := want[string(name)]; ok && w != ino {
				t.Errorf("%s: inode %d, want %d", name, ino, w)
			}
			return nil
		}))
		for name := range want {
			if types[name] != unix.DT_REG {
				t.Fatalf("%s: type %d", name, types[name])
			}
		}
		if types["zdir"] != unix.DT_DIR || types["."] != 0 || types[".."] != 0 {
			t.Errorf("zdir %d, . %d, .. %d", types["zdir"], types["."], types[".."])
		}
		n := 0
		err := root.List(func([]byte, uint64, uint8) error { n++; return unix.ENOSPC })
		wantErr(t, err, unix.ENOSPC)
		if n != 1 {
			t.Errorf("%d entries after an error", n)
		}
	})
}

func TestListBadBuffer(t *testing.T) {
	buf := make([]byte, 40)
	buf[16] = 60 // a record longer than the buffer
	err := eachEntry(buf, func([]byte, uint64, uint8) error { return nil })
	wantErr(t, err, unix.EIO)
	buf[16] = 0 // one that would never end
	err = eachEntry(buf, func([]byte, uint64, uint8) error { return nil })
	wantErr(t, err, unix.EIO)
}
