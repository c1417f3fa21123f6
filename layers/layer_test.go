// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLowerIsReadOnly(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("lower"), 0o644))
		l := lower(t, dir)
		if !l.ReadOnly || l.CloneErr != nil {
			t.Fatalf("not cloned: %v", l.CloneErr)
		}
		root := l.Root()
		if got := read(t, root, "file"); got != "lower" {
			t.Errorf("content %q", got)
		}
		_, err := root.Open("file", unix.O_WRONLY, 0)
		wantErr(t, err, unix.EROFS)
		wantErr(t, root.Mkdir("new", 0o755), unix.EROFS)
		wantErr(t, root.Unlink("file"), unix.EROFS)
		wantErr(t, root.Chmod("file", 0), unix.EROFS)
		wantErr(t, root.Setxattr("file", "trusted.x", []byte("y"), 0), unix.EROFS)
		// Passthrough's way: a descriptor opened for reading or by O_PATH,
		// opened again for writing.
		for _, flags := range []int{unix.O_RDONLY, unix.O_PATH} {
			fd, err := root.Open("file", flags, 0)
			must(t, err)
			_, err = FD(fd).Reopen(unix.O_RDWR)
			unix.Close(fd)
			wantErr(t, err, unix.EROFS)
		}
		// And the user's own mount is as writable as before.
		must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("still mine"), 0o644))
	})
}

func TestLowerDoesNotSeeSubmounts(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	must(t, os.WriteFile(filepath.Join(sub, "covered"), nil, 0o644))
	mount(t, "tmpfs", sub, "tmpfs", "")
	must(t, os.WriteFile(filepath.Join(sub, "mounted"), nil, 0o644))
	l := lower(t, dir)
	d := l.Root().Child("sub")
	stat(t, d, "covered")
	var st unix.Stat_t
	wantErr(t, d.Stat("mounted", &st), unix.ENOENT)
}

func TestLowerOutlivesUnmount(t *testing.T) {
	needRoot(t)
	mnt := filepath.Join(t.TempDir(), "m")
	must(t, os.Mkdir(mnt, 0o755))
	must(t, unix.Mount("tmpfs", mnt, "tmpfs", 0, ""))
	must(t, os.WriteFile(filepath.Join(mnt, "f"), []byte("here"), 0o644))
	l := lower(t, mnt)
	must(t, unix.Unmount(mnt, 0))
	if got := read(t, l.Root(), "f"); got != "here" {
		t.Errorf("content %q", got)
	}
}

func TestLayerFacts(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		l := lower(t, dir)
		var st unix.Stat_t
		must(t, unix.Stat(dir, &st))
		if l.Index != 1 || l.Dev != st.Dev || l.RootIno != st.Ino {
			t.Errorf("index %d device %d inode %d", l.Index, l.Dev, l.RootIno)
		}
		want := filepath.Base(t.Name())
		if want != "temp" && (l.FSType != want || l.Depth != 0 || l.DepthWhy != want) {
			t.Errorf("type %s, depth %d (%s), want %s", l.FSType, l.Depth, l.DepthWhy, want)
		}
		if (want == "ext4" || want == "xfs") && len(l.FSUUID) != 36 {
			t.Errorf("uuid %q", l.FSUUID)
		}
	})
}

// Without the right to clone a mount the layer is reached directly, and says so.
func TestLowerThatCannotBeCloned(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("lower"), 0o644))
	before := openFDs(t)
	c := NewCache(4)
	l, err := withoutSysAdmin(func() (*Layer, error) { return OpenLower(dir, 1, c) })
	must(t, err)
	if l.ReadOnly || !errors.Is(l.CloneErr, unix.EPERM) {
		t.Errorf("read-only %v, %v", l.ReadOnly, l.CloneErr)
	}
	if got := read(t, l.Root(), "file"); got != "lower" {
		t.Errorf("content %q", got)
	}
	must(t, l.Close())
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// withoutSysAdmin calls f on a thread of its own that lacks CAP_SYS_ADMIN.
func withoutSysAdmin(f func() (*Layer, error)) (l *Layer, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends here
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err = unix.Capget(&h, &caps[0]); err != nil {
			return
		}
		caps[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
		if err = unix.Capset(&h, &caps[0]); err != nil {
			return
		}
		l, err = f()
	}()
	<-done
	return l, err
}

// A directory on a mount that is in no mount table still gets an answer.
func TestLowerOnDetachedMount(t *testing.T) {
	needRoot(t)
	outer := lower(t, overlay(t, tmpfs(t)))
	fd, err := outer.Root().Acquire()
	must(t, err)
	defer outer.Root().Release()
	l := lower(t, procPath(fd))
	if l.FSType != "overlay" || l.Depth != 1 || !strings.Contains(l.DepthWhy, "assumed") {
		t.Errorf("%s, depth %d (%s)", l.FSType, l.Depth, l.DepthWhy)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	before := openFDs(t)
	c := NewCache(4)
	for _, name := range []string{"none", "file"} {
		if _, err := OpenLower(filepath.Join(dir, name), 1, c); err == nil {
			t.Errorf("lower %s: no error", name)
		}
		if _, err := OpenUpper(filepath.Join(dir, name), c); err == nil {
			t.Errorf("upper %s: no error", name)
		}
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
