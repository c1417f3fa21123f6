// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A cutDisk is a file system in an image whose power can be cut. There are two
// ways to do that:
//
//   - ext4 and xfs have an ioctl that shuts the file system down without
//     writing its log: what is in memory alone is lost, and the next mount
//     replays the log.
//   - btrfs has none (the one of Linux 6.19 is experimental). So its image lies
//     on a second file system, an ext4 in an image of its own, and that one is
//     shut down. For btrfs it is a disk with a write cache that has lost its
//     power: what was flushed is there, of the rest any part. This works for every
//     file system, and is asked for by "-disk" behind the name.
//
// btrfs is mounted with notreelog. Without it the control finds renamed files
// under both names, and on Linux 6.18 a replay of the log that fails takes the
// kernel down (mount returns 1, which is a BUG in vfs_get_tree).
//
// On the second way a few random parts of the cache are written out before the
// cut, as a disk does that writes in an order of its own.
type cutDisk struct {
	testing.TB
	fstype   string
	outer    *cutDisk // the file system that the image lies on, to be cut
	template string   // an image with the layers
	image    string
	mp       string
	mounted  bool
}

// cutSizes are the sizes of images, in MiB.
var cutSizes = map[string]int64{"ext4": 256, "ext4-1k": 256, "xfs": 320, "btrfs": 320, "outer": 512}

// newCutDisk makes a disk, on which build makes what is there before each
// first round.
func newCutDisk(t testing.TB, name string, build func(root string)) *cutDisk {
	t.Helper()
	requireRoot(t)
	fstype, byDisk := strings.CutSuffix(name, "-disk")
	if fstype == "btrfs" {
		byDisk = true
	}
	d := bareCutDisk(t, fstype)
	t.Cleanup(d.destroy)
	if byDisk {
		d.outer = bareCutDisk(t, "outer")
		t.Cleanup(d.destroy) // before its directory goes
		d.outer.mkfs(d.outer.image)
		d.outer.mount()
		d.image = filepath.Join(d.outer.mp, "image")
	}
	d.mkfs(d.template)
	d.mountImage(d.template)
	build(d.mp)
	d.unmount()
	return d
}

func bareCutDisk(t testing.TB, fstype string) *cutDisk {
	t.Helper()
	dir := tempDir(t)
	mp := makeTree(t, dir+"/fs", nil)
	return &cutDisk{TB: t, fstype: fstype, template: dir + "/template", image: dir + "/image", mp: mp}
}

// mkfs makes an empty file system in a file.
func (d *cutDisk) mkfs(image string) {
	d.Helper()
	fstype, args := d.fstype, []string{"-q"}
	switch d.fstype {
	case "ext4", "outer":
		fstype, args = "ext4", []string{"-q", "-b", "4096"}
	case "ext4-1k":
		fstype, args = "ext4", []string{"-q", "-b", "1024"}
	}
	mkfs, err := exec.LookPath("mkfs." + fstype)
	if err != nil {
		d.Skipf("mkfs.%s is not installed", fstype)
	}
	must(d, os.WriteFile(image, nil, 0o600))
	must(d, os.Truncate(image, cutSizes[d.fstype]<<20))
	run(d, "", mkfs, append(args, image)...)
}

// fresh replaces the image by the template.
func (d *cutDisk) fresh() {
	d.Helper()
	d.unmount()
	run(d, "", "cp", "--sparse=always", d.template, d.image)
	if d.outer != nil {
		must(d, syncfs(d.outer.mp))
	}
	d.mount()
}

func (d *cutDisk) mount() { d.Helper(); d.mountImage(d.image) }

// mountImage mounts; after a cut that replays the log.
func (d *cutDisk) mountImage(image string) {
	d.Helper()
	options := "loop"
	if d.fstype == "btrfs" {
		options += ",notreelog"
	}
	for i := 0; ; i++ {
		out, err := exec.Command("mount", "-o", options, image, d.mp).CombinedOutput()
		if err == nil {
			break
		}
		if i == 20 || !strings.Contains(string(out), "loop device") { // else somebody else has just taken it
			d.Fatalf("mounting the %s of the test: %v\n%s", d.fstype, err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	d.mounted = true
}

// unmount unmounts and leaves the device to nobody, so that the next mount
// reads everything anew.
func (d *cutDisk) unmount() {
	d.Helper()
	if !d.mounted {
		return
	}
	if err := unmountSoon(d.mp); err != nil {
		d.Fatalf("unmounting the %s of the test: %v", d.fstype, err)
	}
	d.mounted = false
}

// unmountSoon unmounts what others may use for a moment longer.
func unmountSoon(mp string) error {
	err := unix.Unmount(mp, 0)
	for end := time.Now().Add(patience); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
		time.Sleep(25 * time.Millisecond)
		err = unix.Unmount(mp, 0)
	}
	return err
}

// cut cuts the power. Everything in use on the disk fails from then on.
func (d *cutDisk) cut(rng *rand.Rand) {
	if d.outer != nil {
		d.writeOut(rng)
		d.outer.shutdown()
		return
	}
	d.shutdown()
}

// shutdown is EXT4_IOC_SHUTDOWN or XFS_IOC_GOINGDOWN, which are the same.
func (d *cutDisk) shutdown() {
	const goingDown, noLogFlush = 0x8004587d, 2
	fd, err := unix.Open(d.mp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		how := uint32(noLogFlush)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), goingDown, uintptr(unsafe.Pointer(&how))); e != 0 {
			err = e
		}
		unix.Close(fd)
	}
	if err != nil {
		d.Errorf("shutting the %s down: %v", d.fstype, err)
	}
}

// writeOut writes random parts of the disk's cache.
func (d *cutDisk) writeOut(rng *rand.Rand) {
	fd, err := unix.Open(d.image, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		d.Errorf("opening the image: %v", err)
		return
	}
	defer unix.Close(fd)
	for range rng.IntN(6) {
		off := rng.Int64N(cutSizes[d.fstype] << 20)
		how := unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		if err := unix.SyncFileRange(fd, off, 1+rng.Int64N(16<<20), how); err != nil {
			d.Errorf("writing a part of the image out: %v", err)
		}
	}
}

// recover brings the disk back after a cut, as a machine does that starts
// again. Nothing may use it any more.
func (d *cutDisk) recover() {
	d.Helper()
	d.unmount()
	if d.outer != nil {
		d.outer.unmount()
		d.outer.mount()
	}
	d.mount()
}

// destroy ends the mounts, whatever the test left.
func (d *cutDisk) destroy() {
	for _, x := range []*cutDisk{d, d.outer} {
		if x == nil || !x.mounted {
			continue
		}
		if unmountSoon(x.mp) != nil {
			d.Errorf("%s is still in use at the end of the test", x.mp)
			unix.Unmount(x.mp, unix.MNT_DETACH)
		}
		x.mounted = false
	}
}

// sync makes the whole file system durable, as sync(2) does for each.
func (d *cutDisk) sync() error {
	return syncfs(d.mp)
}

func syncfs(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}
