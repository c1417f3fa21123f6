// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deadLine is what plyfs mount says of a dead mount that it has cleaned up.
const deadLine = "found a dead plyfs mount, whose daemon had ended without unmounting; cleaned it up"

// countMounts counts the mounts on a mount point.
func countMounts(t testing.TB, mp string) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for _, l := range strings.Split(string(b), "\n") {
		if w := strings.Fields(l); len(w) > 4 && w[4] == mp {
			n++
		}
	}
	return n
}

// again mounts by the command and expects it to say text in one line, and one
// mount to be there.
func (u *union) again(text string, cmd *exec.Cmd) {
	u.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), text) || strings.Count(string(out), "\n") != 1 {
		u.Fatalf("mounting again: %v, %q; want one line with %q", err, out, text)
	}
	if n := countMounts(u, u.mp); n != 1 {
		u.Fatalf("%d mounts at the mount point, want 1", n)
	}
	u.mounted = true
	u.pid = u.status().PID
	u.baseFDs = regularFDs(u.pid)
	wantFile(u, u.path("new"), "new")
	wantGone(u, u.path("gone"))
}

// mountCommand is plyfs mount.
func (u *union) mountCommand(more ...string) *exec.Cmd {
	return exec.Command(plyfsBin, append(append([]string{"mount"}, more...), "-o", u.optionString(), u.mp)...)
}

// newDead is a mount with some changes whose daemon has been killed.
func newDead(t testing.TB) *union {
	requirePlyfs(t, "a daemon to kill")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=lower", "gone=lower", "dir/g=lower"}}})
	must(t, os.WriteFile(u.path("new"), []byte("new"), 0o644))
	must(t, os.Remove(u.path("gone")))
	u.kill9()
	return u
}

// TestRemount: a dead mount is replaced by the same command, which says so,
// on standard error and in the log.
func TestRemount(t *testing.T) {
	u := newDead(t)
	log := filepath.Join(tempDir(t), "log")
	u.again(deadLine, u.mountCommand("--log-file", log))
	b, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(b), deadLine) {
		t.Errorf("the log has %q, %v", b, err)
	}
	// A live one stays as it is, and is refused.
	if out, err := u.mountCommand().CombinedOutput(); err == nil || strings.Contains(string(out), "dead") {
		t.Errorf("a mount over the live one: %v, %s", err, out)
	}
	wantFile(t, u.path("new"), "new")
	u.kill9()
	// So does one that does not answer.
	u.again(deadLine, u.mountCommand())
	must(t, unix.Kill(u.pid, unix.SIGSTOP))
	out, err := u.mountCommand().CombinedOutput()
	must(t, unix.Kill(u.pid, unix.SIGCONT))
	if err == nil || !strings.Contains(string(out), "does not answer") {
		t.Errorf("a mount over one whose daemon is stopped: %v, %s", err, out)
	}
	wantFile(t, u.path("new"), "new")
}

// TestRemountStacked: several dead mounts on top of each other.
func TestRemountStacked(t *testing.T) {
	u := newDead(t)
	for range 2 {
		o := exec.Command(plyfsBin, "mount", "-o", "lowerdir="+escape(u.lowers[0]), u.mp)
		// The command would clean up: put the dead one out of its sight.
		aside := makeTree(t, filepath.Join(tempDir(t), "aside"), nil)
		o.Args[len(o.Args)-1] = aside
		if out, err := o.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		st, err := readStatus(aside)
		must(t, err)
		must(t, unix.Mount(aside, u.mp, "", unix.MS_BIND, ""))
		must(t, unix.Unmount(aside, 0))
		must(t, unix.Kill(st.PID, unix.SIGKILL))
		for alive(st.PID) {
			time.Sleep(time.Millisecond)
		}
	}
	if n := countMounts(t, u.mp); n != 3 {
		t.Fatalf("%d mounts on the mount point, want 3", n)
	}
	u.again("found 3 dead plyfs mounts, whose daemons had ended without unmounting; cleaned them up", u.mountCommand())
}

// TestRemountForeign: what is not a dead mount of ours is never unmounted.
func TestRemountForeign(t *testing.T) {
	u := newDead(t)
	must(t, unix.Mount("none", u.mp, "tmpfs", 0, ""))
	must(t, os.WriteFile(u.path("mine"), []byte("mine"), 0o644))
	out, err := u.mountCommand().CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Errorf("mounting over a tmpfs: %v, %s", err, out)
	}
	u.pid = u.status().PID
	wantFile(t, u.path("new"), "new")
	u.unmount()
	wantFile(t, u.path("mine"), "mine")
	must(t, unix.Unmount(u.mp, 0))
	u.again(deadLine, u.mountCommand())
}

// TestRemountDeadForeign: a dead mount of another FUSE file system is left to
// its owner.
func TestRemountDeadForeign(t *testing.T) {
	requirePlyfs(t, "a command of its own")
	u := prepare(t, mountOpts{lowers: [][]string{{"f=lower"}}})
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	err = unix.Mount("other", u.mp, "fuse.other", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev))
	unix.Close(dev) // and nobody serves it
	must(t, err)
	defer unix.Unmount(u.mp, unix.MNT_DETACH)
	out, err := u.mountCommand().CombinedOutput()
	if err == nil || !strings.Contains(string(out), u.mp+": the mount point cannot be used") {
		t.Errorf("%v: %s", err, out)
	}
	if n := countMounts(t, u.mp); n != 1 {
		t.Errorf("%d mounts on the mount point, want the one that was there", n)
	}
}

// TestRemountUsed: processes that still use the dead mount, by their working
// directory, an open file or a mapping, are in nobody's way.
func TestRemountUsed(t *testing.T) {
	u := newDead(t)
	u.again(deadLine, u.mountCommand())
	script := `exec 3<f 4<>new 5<dir; echo ready; read x; cat <&3; pwd; echo done`
	holder := exec.Command("sh", "-c", script)
	holder.Dir = u.path("dir")
	holder.Args[2] = "cd ..; " + script
	in, err := holder.StdinPipe()
	must(t, err)
	out, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	lines := bufio.NewReader(out)
	if l, err := lines.ReadString('\n'); l != "ready\n" {
		t.Fatalf("the holder says %q, %v", l, err)
	}
	u.kill9()
	u.again(deadLine, u.mountCommand())
	must(t, os.WriteFile(u.path("f"), []byte("changed"), 0o644))
	fmt.Fprintln(in, "go on")
	holder.Wait()
	wantFile(t, u.path("f"), "changed")
	u.unmount()
	u.mount()
}

// TestRemountFromInside: the command is given in the dead mount itself, with
// relative paths.
func TestRemountFromInside(t *testing.T) {
	u := newDead(t)
	rel := func(p string) string {
		r, err := filepath.Rel(u.path("dir"), p)
		must(t, err)
		return r
	}
	u.again(deadLine, u.mountCommand())
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", rel(u.lowers[0]), rel(u.upper), rel(u.work))
	for _, form := range []string{"mount -f", "mount"} {
		sh := exec.Command("sh", "-c", `kill -9 $2; while grep -qs "^State:.[^ZX]" /proc/$2/status; do sleep 0.01; done; exec "$0" `+form+` -o "$1" ..`, plyfsBin, options, fmt.Sprint(u.pid))
		sh.Dir = u.path("dir")
		if form == "mount" {
			u.again(deadLine, sh)
			continue
		}
		said, err := os.Create(filepath.Join(tempDir(t), "said"))
		must(t, err)
		defer said.Close()
		sh.Stderr = said
		old := u.pid
		must(t, sh.Start())
		go sh.Wait() // or it would be a zombie when it is killed
		waitFor(t, "it mounts", patience, func() bool {
			return !alive(old) && strings.Contains(readFile(said.Name()), "msg=mounted")
		})
		wantFile(t, u.path("new"), "new")
		if text := readFile(said.Name()); !strings.Contains(text, deadLine) {
			t.Errorf("plyfs %s says %q", form, text)
		}
		u.pid = u.status().PID
	}
}

// TestRemountByMount: mount(8), which looks at the mount point before it calls
// the helper, with options on its command line and from fstab.
func TestRemountByMount(t *testing.T) {
	u := newDead(t)
	const helper = "/sbin/mount.fuse.plyfs"
	if err := os.Rename(helper, helper+".kept"); err == nil { // one that is installed
		t.Cleanup(func() { must(t, os.Rename(helper+".kept", helper)) })
	}
	must(t, os.Symlink(plyfsBin, helper))
	defer os.Remove(helper)
	u.again(deadLine, exec.Command("mount", "-t", "fuse.plyfs", "-o", u.optionString(), "source", u.mp))
	u.kill9()
	fstab := filepath.Join(tempDir(t), "fstab")
	must(t, os.WriteFile(fstab, []byte("source "+u.mp+" fuse.plyfs "+u.optionString()+",noauto 0 0\n"), 0o644))
	u.again(deadLine, exec.Command("mount", "-T", fstab, u.mp))
}

// TestRemountSockets: the control socket of a killed daemon goes with the next
// mount, and status tells the dead from the living.
func TestRemountSockets(t *testing.T) {
	u := newDead(t)
	if out, err := plyfs("status", u.mp); err == nil || !strings.Contains(out, "dead") {
		t.Errorf("status of a dead mount: %v, %s", err, out)
	}
	dead := deadSockets(t)
	if len(dead) == 0 {
		t.Fatal("the killed daemon has left no control socket: this test proves nothing")
	}
	u.again(deadLine, u.mountCommand())
	left := slices.DeleteFunc(deadSockets(t), func(s string) bool { return !slices.Contains(dead, s) })
	if len(left) != 0 {
		t.Errorf("control sockets of dead daemons are left: %q", left)
	}
}

// deadSockets are the control sockets of this machine that nobody listens on.
func deadSockets(t testing.TB) (dead []string) {
	t.Helper()
	all, err := filepath.Glob("/run/plyfs/*.sock*")
	must(t, err)
	for _, s := range all {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		if unix.Connect(fd, &unix.SockaddrUnix{Name: s}) == unix.ECONNREFUSED {
			dead = append(dead, s)
		}
		unix.Close(fd)
	}
	return dead
}

// TestKillMounting kills the daemon, or all of the command, in the middle of a
// mount, of a first one and of a later one: the next one works, and shows what
// was there.
func TestKillMounting(t *testing.T) {
	requirePlyfs(t, "a daemon to kill")
	var took time.Duration
	for i := range 40 {
		u := prepare(t, mountOpts{lowers: [][]string{{"f=lower", "gone=lower", "h=linked", "h2 => h"}}})
		first := i%2 == 0
		if !first {
			u.mount()
			must(t, os.WriteFile(u.path("new"), []byte("new"), 0o644))
			must(t, os.Remove(u.path("gone")))
			must(t, os.WriteFile(u.path("h"), []byte("changed"), 0o644))
			u.kill9()
		}
		cmd := u.mountCommand()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		start := time.Now()
		must(t, cmd.Start())
		if i > 1 {
			time.Sleep(time.Duration(rand.Int64N(int64(took) * 5 / 4)))
			for _, pid := range family(t, u.mp) {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
		cmd.Wait()
		took = max(took, time.Since(start))
		u.settleDown()
		u.mount()
		if first {
			wantNames(t, u.mp, "f", "gone", "h", "h2")
		} else {
			wantNames(t, u.mp, "f", "h", "h2", "new")
			wantFile(t, u.path("h2"), "changed")
		}
		if n := countMounts(t, u.mp); n != 1 {
			t.Errorf("%d mounts at the mount point, want 1", n)
		}
		u.unmount()
		if t.Failed() {
			return
		}
	}
}

// family lists the processes that have a text in their command line.
func family(t testing.TB, text string) (pids []int) {
	t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		b, _ := os.ReadFile(l)
		pid := mustAtoi(t, filepath.Base(filepath.Dir(l)))
		if strings.Contains(string(b), text) && strings.HasPrefix(string(b), plyfsBin) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// settleDown waits for the end of all processes of a mount.
func (u *union) settleDown() {
	u.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		left := family(u, u.mp)
		living := false
		for _, pid := range left {
			unix.Kill(pid, unix.SIGKILL)
			living = living || alive(pid)
		}
		if !living {
			return
		}
	}
	u.Fatal("killed processes do not end")
}

// TestKillUnmounting kills the daemon in the middle of an unmount.
func TestKillUnmounting(t *testing.T) {
	requirePlyfs(t, "a daemon to kill")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=lower", "dir/g=lower", "h=linked", "h2 => h"}}})
	for i := range 25 {
		name := fmt.Sprintf("new%d", i)
		must(t, os.WriteFile(u.path(name), []byte(name), 0o644))
		if i > 0 {
			must(t, os.Remove(u.path(fmt.Sprintf("new%d", i-1))))
		}
		must(t, u.rename2("dir", "dir2", 0))
		must(t, u.rename2("dir2", "dir", 0))
		if i == 3 {
			must(t, os.Remove(u.path("h2")))
		}
		pid := u.pid
		done := make(chan bool)
		go func() {
			time.Sleep(time.Duration(rand.IntN(12_000)) * time.Microsecond)
			unix.Kill(pid, unix.SIGKILL)
			close(done)
		}()
		plyfs("umount", u.mp)
		if i%2 == 0 {
			unix.Kill(pid, unix.SIGKILL) // at the very end
		}
		if i%3 != 0 {
			<-done
		}
		u.mount() // at once: the daemon may still be ending
		<-done
		if n := countMounts(t, u.mp); n != 1 {
			t.Errorf("%d mounts at the mount point, want 1", n)
		}
		want := []string{"dir", "f", "h", "h2", name}
		if i >= 3 {
			want = []string{"dir", "f", "h", name}
		}
		wantNames(t, u.mp, want...)
		wantFile(t, u.path("dir/g"), "lower")
		wantFile(t, u.path(name), name)
	}
}

// readFile is what a file holds, if it can be read.
func readFile(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}
