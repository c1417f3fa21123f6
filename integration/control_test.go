// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// TestControlAtOnce asks a mount for its status from the moment on at which it
// is in the mount table.
func TestControlAtOnce(t *testing.T) {
	requirePlyfs(t, "plyfs status")
	d := newCLIDirs(t)
	for range 20 {
		cmd := exec.Command(plyfsBin, "mount", "-f", "-o", "lowerdir="+d.low+",upperdir="+d.upper+",workdir="+d.work, d.mp)
		must(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill() })
		for end := time.Now().Add(10 * time.Second); ; {
			// (mountinfo.Mounted would wait for an answer of the mount.)
			table, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(d.mp))
			must(t, err)
			if len(table) != 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it is not mounted after 10 s")
			}
		}
		out, err := plyfs("status", d.mp)
		if err != nil {
			t.Errorf("status: %v: %s", err, out)
		}
		must(t, unix.Unmount(d.mp, unix.MNT_DETACH))
		must(t, cmd.Wait())
	}
}

// TestControlCovered mounts over the directories of the control sockets and of
// the log: the daemon must not keep its own mount busy, nor wait for itself.
func TestControlCovered(t *testing.T) {
	requirePlyfs(t, "plyfs status")
	d := newCLIDirs(t)
	const script = `set -e
plyfs=$1 layers=$2
"$plyfs" mount -o "$layers" /run
test -e /run/f
"$plyfs" umount /run
"$plyfs" mount -o "$layers" /
"$plyfs" status /
"$plyfs" explain /f
"$plyfs" umount /`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
		plyfsBin, "lowerdir="+d.low+",upperdir="+d.upper+",workdir="+d.work)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "mount point   /\n") {
		t.Errorf("%v: %s", err, out)
	}
}
