// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// upperAndWork makes both directories in dir.
func upperAndWork(t *testing.T, dir string) (up, work *Dir) {
	t.Helper()
	for _, name := range []string{"upper", "work"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	return upper(t, dir+"/upper", 8).Root(), upper(t, dir+"/work", 8).Root()
}

func TestProbeUpper(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		up, work := upperAndWork(t, dir)
		caps, err := ProbeUpper(up, work)
		must(t, err)
		for _, p := range capProbes {
			if has, why := *p.cap(&caps), caps.Why[p.name]; has == (why != "") {
				t.Errorf("%s: %v, reason %q", p.name, has, why)
			}
			must := p.name != "Reflink" || strings.HasSuffix(t.Name(), "/xfs")
			if has := *p.cap(&caps); has != must && !strings.HasSuffix(t.Name(), "/temp") {
				t.Errorf("%s: %v (%s)", p.name, has, caps.Why[p.name])
			}
		}
		for _, d := range []*Dir{up, work} {
			must(t, d.List(func(name []byte, _ uint64, _ uint8) error {
				t.Errorf("left behind: %s in %s", name, d.Path())
				return nil
			}))
		}
	})
}

// An overlay lacks much of what an upper layer is asked for, and it is told why.
func TestProbeOnOverlay(t *testing.T) {
	needRoot(t)
	dir := tmpfs(t) // without reflinks
	for _, sub := range []string{"l", "u", "w"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	mount(t, "overlay", dir+"/mnt", "overlay", "lowerdir="+dir+"/l,upperdir="+dir+"/u,workdir="+dir+"/w")
	up, work := upperAndWork(t, dir+"/mnt")
	caps, err := ProbeUpper(up, work)
	must(t, err)
	if caps.RenameWhiteout || !strings.Contains(caps.Why["RenameWhiteout"], "RENAME_WHITEOUT") {
		t.Errorf("RenameWhiteout %v (%s)", caps.RenameWhiteout, caps.Why["RenameWhiteout"])
	}
	if caps.Reflink || caps.Why["Reflink"] == "" {
		t.Errorf("Reflink %v (%s)", caps.Reflink, caps.Why["Reflink"])
	}
}

func TestProbeRefuses(t *testing.T) {
	needRoot(t)
	a, b := tmpfs(t), tmpfs(t)
	c := NewCache(4)
	open := func(dir string) *Dir {
		l, err := OpenUpper(dir, c)
		must(t, err)
		t.Cleanup(func() { must(t, l.Close()) })
		return l.Root()
	}
	_, err := ProbeUpper(open(a), open(b))
	if err == nil || !strings.Contains(err.Error(), "one mount") {
		t.Errorf("two mounts: %v", err)
	}
	must(t, unix.Mount("", a, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = ProbeUpper(open(a), open(a))
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("read-only: %v", err)
	}
}

func TestSameMount(t *testing.T) {
	needRoot(t)
	dir := tmpfs(t)
	up, work := upperAndWork(t, dir)
	if same, err := SameMount(up, work); err != nil || !same {
		t.Errorf("one mount: %v %v", same, err)
	}
	bind := t.TempDir()
	must(t, unix.Mount(dir, bind, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(bind, unix.MNT_DETACH)) })
	if same, err := SameMount(up, upper(t, bind+"/work", 4).Root()); err != nil || same {
		t.Errorf("a bind mount of it: %v %v", same, err)
	}
}

func TestInside(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, sub := range []string{"a/b/c", "ab", "mnt"} {
		must(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	must(t, os.Symlink(dir+"/a/b", dir+"/link"))
	must(t, unix.Mount(dir+"/a", dir+"/mnt", "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir+"/mnt", unix.MNT_DETACH)) })
	before := openFDs(t)
	for _, x := range []struct {
		child, parent string
		want          bool
	}{
		{"/a/b/c", "/a", true}, {"/a", "/a", true}, {"/a", "/a/b", false},
		{"/ab", "/a", false}, {"/link/c", "/a", true}, {"/a/b/c", "/link", true},
		{"/mnt/b", "/a", true}, {"/a/b", "/mnt", true}, {"/a/b", "", true},
	} {
		got, err := Inside(dir+x.child, dir+x.parent)
		if err != nil || got != x.want {
			t.Errorf("%s in %s: %v %v", x.child, x.parent, got, err)
		}
	}
	if got, err := Inside(dir, "/"); err != nil || !got {
		t.Errorf("in the root: %v %v", got, err)
	}
	if _, err := Inside(dir+"/none", dir); err == nil {
		t.Error("no error for a missing directory")
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestLocks(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	up, low := upper(t, dir, 4).Root(), lower(t, dir).Root()
	lock := func(f func(*Dir) (*Lock, error), d *Dir) *Lock {
		t.Helper()
		k, err := f(d)
		must(t, err)
		return k
	}
	refused := func(f func(*Dir) (*Lock, error), d *Dir) {
		t.Helper()
		_, err := f(d)
		if err == nil || !strings.Contains(err.Error(), dir+" is in use by another live plyfs mount") {
			t.Errorf("%v", err)
		}
	}
	a := lock(LockLower, low)
	b := lock(LockLower, low)
	refused(LockUpper, up)
	must(t, a.Close())
	must(t, a.Close())
	refused(LockUpper, up)
	must(t, b.Close())
	a = lock(LockUpper, up)
	refused(LockUpper, up)
	refused(LockLower, low)
	// Another process sees it, and a program that is started does not keep it.
	if err := exec.Command("flock", "-n", dir, "true").Run(); err == nil {
		t.Error("another process got the lock")
	}
	sleep := exec.Command("sleep", "60")
	must(t, sleep.Start())
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	must(t, a.Close())
	must(t, lock(LockUpper, up).Close())
}
