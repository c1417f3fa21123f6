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
		for end := time.Now().Add(patience); ; {
			// (mountinfo.Mounted would wait for an answer of the mount.)
			table, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(d.mp))
			must(t, err)
			if len(table) != 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("it is not mounted after %v", patience)
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

// controlScript runs a script with a mount namespace and a /run of its own, $plyfs,
// $mp, options $layers with an upper and $low without.
func controlScript(t *testing.T, script string) (string, error) {
	t.Helper()
	requirePlyfs(t, "plyfs status")
	d := newCLIDirs(t)
	const head = `plyfs=$1 mp=$2 low=lowerdir=$3 layers=lowerdir=$3,upperdir=$4,workdir=$5
mount -t tmpfs tmpfs /run && mkdir -m 700 /run/plyfs || exit 2
`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", head+script, "sh", plyfsBin, d.mp, d.low, d.upper, d.work)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestControlStale asks a mount for its status before it listens, while the
// socket of a killed daemon lies where its own will be.
func TestControlStale(t *testing.T) {
	out, err := controlScript(t, `
"$plyfs" mount -f -o "$layers" "$mp" & killed=$!
until test -e "$mp/f"; do :; done
ls /run/plyfs/*.sock && kill -9 $killed && umount -l "$mp" || exit 10
wait $killed
flock /run/plyfs sh -c 'touch /run/locked; sleep 1' &
until test -e /run/locked; do :; done
"$plyfs" mount -f -o "$layers" "$mp" &
until grep -q " $mp " /proc/self/mountinfo; do :; done
"$plyfs" status "$mp" || exit 11
umount "$mp" && wait`)
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestControlLocked: a process that keeps the lock of the control sockets does
// not keep the mount from answering, only without a socket.
func TestControlLocked(t *testing.T) {
	out, err := controlScript(t, `
flock /run/plyfs sh -c 'touch /run/locked; exec sleep 100' &
until test -e /run/locked; do :; done
"$plyfs" mount -o "$low" "$mp" && cat "$mp/f" && "$plyfs" umount "$mp"`)
	if err != nil || !strings.Contains(out, "no control socket") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestControlCovered mounts over the directories of the control sockets and of
// the log: the daemon must not keep its own mount busy, nor wait for itself.
func TestControlCovered(t *testing.T) {
	out, err := controlScript(t, `
"$plyfs" mount -o "$layers" /run && test -e /run/f || exit 10
"$plyfs" status /run && exit 11
"$plyfs" umount /run || exit 12
"$plyfs" mount -o "$low" / && "$plyfs" status / && "$plyfs" explain /f && "$plyfs" umount / || exit 13
"$plyfs" mount -o "$low" /proc && exit 14
exit 0`)
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, want := range []string{"its mount lies over its control socket", "mount point   /\n", "/proc: cannot be mounted over"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q: %s", want, out)
		}
	}
}
