// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A cutImage is a file system in a file, whose power can be cut.
type cutImage struct {
	image string
	dir   string // where it is mounted
	// noXattrs: mounts take it for one that has no xattrs.
	noXattrs bool
}

// newCutImage makes a file system of a type (ext4, xfs) and mounts it until
// the test ends.
func newCutImage(t testing.TB, fstype string, mib int64) *cutImage {
	t.Helper()
	needRoot(t)
	mkfs, err := exec.LookPath("mkfs." + fstype)
	if err != nil {
		t.Skipf("mkfs.%s is not installed", fstype)
	}
	base := t.TempDir()
	i := &cutImage{image: base + "/image", dir: base + "/fs"}
	// In memory: its syncs are many.
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(base, unix.MNT_DETACH) })
	mkdir(t, i.dir)
	must(t, os.WriteFile(i.image, nil, 0o600))
	must(t, os.Truncate(i.image, mib<<20))
	if out, err := exec.Command(mkfs, "-q", i.image).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
	i.mount(t)
	t.Cleanup(func() { i.unmount(t) })
	return i
}

func (i *cutImage) mount(t testing.TB) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", i.image, i.dir).CombinedOutput(); err != nil {
		t.Fatalf("mounting the image: %v\n%s", err, out)
	}
}

func (i *cutImage) unmount(t testing.TB) {
	t.Helper()
	var err error
	// A killed process lets its mounts go a moment later.
	eventually(func() bool { err = unix.Unmount(i.dir, 0); return err != unix.EBUSY })
	if err != nil {
		t.Errorf("unmounting the image: %v", err)
		_ = unix.Unmount(i.dir, unix.MNT_DETACH)
	}
}

// powerUp mounts the image anew after its power was cut: its log is replayed.
// A process that is about to end, or a mount namespace that another one made
// meanwhile, can keep the dead file system for a while.
func (i *cutImage) powerUp(t testing.TB) {
	t.Helper()
	var err error
	for range 1000 {
		i.unmount(t)
		i.mount(t)
		probe := i.dir + "/probe"
		if err = unix.Mkdir(probe, 0o700); err == nil {
			must(t, unix.Rmdir(probe))
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("somebody keeps the file system that was shut down: %v", err)
}

// sync makes all of the image durable.
func (i *cutImage) sync(t testing.TB) {
	t.Helper()
	must(t, syncFS(i.dir))
}

// syncFS makes the file system of a directory durable.
func syncFS(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

// A cutWay is how a mount ends at a cut point.
type cutWay string

const (
	// cutKill is kill -9 of the daemon.
	cutKill cutWay = "kill"
	// cutNothing is a power cut before anything that was not synced explicitly
	// reached the disk.
	cutNothing cutWay = "power, nothing synced"
	// cutNames is a power cut right after somebody else's fsync: the file
	// system's log with all names, owners and xattrs is on the disk, written
	// data that it had not got round to is not.
	cutNames cutWay = "power, names synced"
	// cutAll is a power cut at which all steps so far are durable.
	cutAll cutWay = "power, all synced"
)

var cutWays = []cutWay{cutKill, cutNothing, cutNames, cutAll}

// exact tells whether all that was done before the cut is there after it.
func (w cutWay) exact() bool { return w == cutKill || w == cutAll }

// The ioctl that cuts a file system off: EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN.
const (
	iocShutdown   = 0x8004587d
	shutdownNoLog = 2 // *_GOING_FLAGS_NOLOGFLUSH: what is not on the disk stays off it
)

// cutPower ends the life of the file system of a directory.
func cutPower(dir string, w cutWay) error {
	switch w {
	case cutAll:
		if err := syncFS(dir); err != nil {
			return err
		}
	case cutNames:
		if err := fsyncNew(filepath.Join(dir, "other-"+strconv.Itoa(os.Getpid()))); err != nil {
			return err
		}
	case cutKill:
		return nil
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags := uint32(shutdownNoLog)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), iocShutdown, uintptr(unsafe.Pointer(&flags))); e != 0 {
		return fmt.Errorf("shutting down %s: %w", dir, e)
	}
	return nil
}

// fsyncNew makes a file and syncs it.
func fsyncNew(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		return err
	}
	return unix.Fsync(fd)
}

// TestCutPower proves the test's own tool: what was synced stays, what was not
// goes, and names go ahead of data.
func TestCutPower(t *testing.T) {
	want := map[cutWay]map[string]bool{
		cutNothing: {"synced": true, "not": false, "data": false},
		cutNames:   {"synced": true, "not": true, "data": false},
		cutAll:     {"synced": true, "not": true, "data": true},
	}
	forCutImages(t, func(t *testing.T, i *cutImage) {
		for _, w := range slices.Sorted(maps.Keys(want)) {
			var wrong []string
			for range 3 { // somebody may sync all file systems of the machine meanwhile
				if wrong = i.tryCut(t, w, want[w]); len(wrong) == 0 {
					break
				}
			}
			for _, s := range wrong {
				t.Error(s)
			}
		}
	})
}

// tryCut makes three files, cuts the power, and tells which of them are there
// though they should not, or not there.
func (i *cutImage) tryCut(t *testing.T, w cutWay, want map[string]bool) (wrong []string) {
	t.Helper()
	must(t, tryWrite(i.dir+"/synced", "1"))
	i.sync(t)
	must(t, unix.Mknod(i.dir+"/not", unix.S_IFREG|0o600, 0))
	must(t, tryWrite(i.dir+"/data", "1"))
	must(t, cutPower(i.dir, w))
	i.powerUp(t)
	for name, there := range want {
		got, err := tryRead(i.dir + "/" + name)
		if has := err == nil && (name == "not" || got == "1"); has != there {
			wrong = append(wrong, fmt.Sprintf("%s: %s is there: %v (%q, %v), want %v", w, name, has, got, err, there))
		}
		_ = unix.Unlink(i.dir + "/" + name)
	}
	return wrong
}

// forCutImages runs a test on an image of each file system that can be shut
// down.
func forCutImages(t *testing.T, test func(*testing.T, *cutImage)) {
	for _, f := range []struct {
		fstype string
		mib    int64
	}{{"ext4", 128}, {"xfs", 300}} {
		t.Run(f.fstype, func(t *testing.T) { test(t, newCutImage(t, f.fstype, f.mib)) })
	}
}
