// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// podman drives an engine whose storage is a directory of the test's and whose
// containers plyfs mounts.
type podman struct {
	testing.TB
	dir string // storage, configuration and work of the test
	env []string
}

// requirePodman skips the test where there is no engine.
func requirePodman(t *testing.T) {
	t.Helper()
	requireRoot(t)
	if sut != sutPlyfs {
		t.Skip("a test of plyfs as a mount program")
	}
	for _, tool := range []string{"podman", "crun", "ldd", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

// newPodman configures an engine of its own, and expects at the end that it
// leaves neither mounts nor daemons.
func newPodman(t *testing.T) *podman {
	t.Helper()
	p := &podman{TB: t, dir: tempDir(t)}
	conf := map[string]string{
		"storage.conf": fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n[storage.options.overlay]\nmount_program = %q\n",
			p.dir+"/graph", p.dir+"/run", plyfsBin),
		"containers.conf": fmt.Sprintf("[containers]\ncgroups = \"disabled\"\nnetns = \"none\"\nseccomp_profile = \"unconfined\"\nlog_driver = \"k8s-file\"\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n"+
			"[engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\ntmp_dir = %q\n[network]\nnetwork_backend = \"netavark\"\n", p.dir+"/tmp"),
		"registries.conf": "unqualified-search-registries = []\n",
	}
	for name, text := range conf {
		must(t, os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644))
	}
	p.env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+p.dir+"/storage.conf", "CONTAINERS_CONF="+p.dir+"/containers.conf",
		"CONTAINERS_REGISTRIES_CONF="+p.dir+"/registries.conf", "REGISTRIES_CONFIG_PATH="+p.dir+"/registries.conf", "LC_ALL=C")
	t.Cleanup(p.finish)
	return p
}

// do calls podman and returns its standard output.
func (p *podman) do(args ...string) string {
	p.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.Fatalf("podman %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (p *podman) try(args ...string) (string, error) {
	cmd := exec.Command("podman", args...)
	cmd.Env, cmd.Dir = p.env, p.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

// finish removes all that the engine has, and looks for what it left.
func (p *podman) finish() {
	if _, err := p.try("rm", "--all", "--force", "--time=0"); err != nil {
		p.Error(err)
	}
	if _, err := p.try("rmi", "--all", "--force"); err != nil {
		p.Error(err)
	}
	if left := p.mounts(); len(left) > 0 {
		p.Errorf("left mounted: %q", left)
		for _, m := range left {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
	}
	_ = unix.Unmount(p.dir+"/graph/overlay", unix.MNT_DETACH) // the engine mounts it over itself
	if out, err := plyfs("status", "--json"); err == nil && strings.Contains(out, p.dir) {
		p.Errorf("daemons are left: %s", out)
	}
	checkRaces(p.TB)
}

// mounts lists the mounts of plyfs in the engine's storage.
func (p *podman) mounts() (list []string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(p.TB, err)
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], p.dir) && strings.Contains(line, " fuse.plyfs ") {
			list = append(list, f[4])
		}
	}
	return list
}

// imageTools are what the image has to run scripts with.
var imageTools = []string{"sh", "cat", "chmod", "cp", "dd", "ln", "mkdir", "mkfifo", "mv", "rm", "sleep", "touch", "truncate"}

// image makes a root file system of tools of this machine and of the lines of
// a fixture, below data, imports it under a name, and returns a plain copy.
func (p *podman) image(name string, lines []string) string {
	p.Helper()
	root := makeTree(p.TB, filepath.Join(p.dir, "root"), []string{"proc/", "sys/", "dev/", "etc/", "run/", "tmp/ {1777}"})
	makeTree(p.TB, root+"/data", lines)
	must(p.TB, unix.Setxattr(root+"/data/ping", "security.capability", netRaw, 0))
	library := regexp.MustCompile(`/\S+`)
	for _, tool := range imageTools {
		path, err := exec.LookPath(tool)
		must(p.TB, err)
		out, err := exec.Command("ldd", path).Output()
		must(p.TB, err)
		p.copyIn(path, root+"/bin/"+tool)
		for _, lib := range library.FindAllString(string(out), -1) {
			p.copyIn(lib, root+lib)
		}
	}
	tar := filepath.Join(p.dir, name+".tar")
	run(p.TB, "", "tar", "-C", root, "--xattrs", "--xattrs-include=*", "-cf", tar, ".")
	p.do("import", "--quiet", tar, name)
	plain := makeTree(p.TB, filepath.Join(p.dir, "plain"), nil)
	run(p.TB, "", "tar", "-C", plain, "--xattrs", "--xattrs-include=*", "-xf", tar)
	return plain
}

// copyIn copies a program or library that is not there yet.
func (p *podman) copyIn(from, to string) {
	p.Helper()
	if _, err := os.Stat(to); err == nil {
		return
	}
	must(p.TB, os.MkdirAll(filepath.Dir(to), 0o755))
	b, err := os.ReadFile(from)
	must(p.TB, err)
	must(p.TB, os.WriteFile(to, b, 0o755))
}

// both runs a script in data of a running container and of the plain copy.
func (p *podman) both(container, plain, script string) {
	p.Helper()
	p.do("exec", "--workdir=/data", container, "sh", "-ec", script)
	run(p.TB, plain+"/data", "sh", "-ec", script)
}

// wantTree compares data in a container with the plain copy.
func (p *podman) wantTree(what, container, plain string) {
	p.Helper()
	got := mustDump(p.TB, p.do("mount", container)+"/data", dumpOptions{})
	p.do("umount", container)
	ignore := func(_, field string) bool { return field == "mtime" } // layers need not keep fractions of a second
	for _, d := range diffTrees(mustDump(p.TB, plain+"/data", dumpOptions{}), got, ignore) {
		p.Errorf("%s: %s", what, d)
	}
}

// netRaw is the file capability cap_net_raw+ep (struct vfs_cap_data, revision 2).
var netRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// TestPodman takes an image through an engine that mounts by plyfs: a container
// changes it, is stopped and started, is committed, and a container of what was
// committed changes that again. What they show is compared with a plain copy.
func TestPodman(t *testing.T) {
	if os.Getenv(podmanInside) == "" {
		enterPodman(t)
		return
	}
	p := newPodman(t)
	plain := p.image("base", []string{
		"big=#5000000", "cut=#2000000", "dir/a=1 {0640 1000:1000}", "dir/sub/b=2", "gone/x/y=3", "ren/deep/c=4", "ren/d=5",
		"links/one=linked", "links/two => links/one", "links/three => links/one", "link -> dir", "dangling -> nowhere",
		"fifo {fifo 0622}", "null {chr:1:3}", "attr=6 {user.note=hello}", "ping=#5000 {0755}", "old=7", "stays=8",
	})
	p.do("run", "--detach", "--name=one", "base", "sleep", "1000000")
	p.both("one", plain, `
		printf more >>big; printf middle | dd of=big bs=1 seek=2000001 conv=notrunc 2>/dev/null; truncate -s 1500000 cut
		chmod 0600 dir/a; rm -r dir/sub; echo file >dir/sub
		rm -r gone; mkdir gone; echo new >gone/z
		mv ren renamed; rm renamed/deep/c; echo more >renamed/deep/d; mkdir ren
		echo more >>links/one; rm links/three; ln links/two links/four
		rm link; ln -s big link; mkfifo -m 0640 dir/fifo; mv ping pong; chmod 0711 pong; rm old`)
	p.wantTree("changed", "one", plain)
	var changes []string
	for line := range strings.Lines(p.do("diff", "one")) {
		if strings.Contains(line, "/data") {
			changes = append(changes, strings.TrimSpace(line))
		}
	}
	slices.Sort(changes)
	if got := strings.Join(changes, "\n"); got != podmanChanges {
		t.Errorf("the changes are\n%s\nwant\n%s", got, podmanChanges)
	}
	p.do("stop", "--time=0", "one")
	p.wantTree("stopped", "one", plain)
	p.do("start", "one")
	p.wantTree("started again", "one", plain)
	p.do("commit", "--quiet", "--pause=false", "one", "changed")
	p.do("run", "--detach", "--name=two", "changed", "sleep", "1000000")
	p.wantTree("of the new image", "two", plain)
	p.both("two", plain, `
		rm -r renamed/deep; rm -r gone; mkdir gone; mv dir ren/dir; printf again >>big
		rm links/one; echo four >>links/four; mv pong ping; echo old >old; rm dangling`)
	p.wantTree("of the new image, changed", "two", plain)
	p.do("stop", "--time=0", "two")
	p.do("commit", "--quiet", "two", "again")
	p.do("save", "--quiet", "--output="+p.dir+"/saved.tar", "again")
	p.do("rm", "--force", "--time=0", "one", "two")
	p.do("rmi", "--force", "again", "changed", "base")
	if left := p.mounts(); len(left) > 0 {
		t.Errorf("still mounted: %q", left)
	}
	p.do("load", "--quiet", "--input="+p.dir+"/saved.tar")
	p.do("create", "--rm", "--name=three", "again", "sh", "-ec", "cat /data/old; rm /data/old") // --rm: volatile
	p.wantTree("of the loaded image", "three", plain)
	must(t, os.WriteFile(p.dir+"/in", []byte("copied in"), 0o644))
	p.do("cp", p.dir+"/in", "three:/data/old")
	if out := p.do("start", "--attach", "three"); out != "copied in" {
		t.Errorf("a container that is mounted again says %q", out)
	}
	volume := makeTree(t, filepath.Join(p.dir, "volume"), []string{"a=1", "b=2"})
	if out := p.do("run", "--rm", "--volume="+volume+":/data:O", "again", "sh", "-ec", "rm /data/a; cat /data/b; echo >/data/c"); out != "2" {
		t.Errorf("in a volume with an overlay: %q", out)
	}
	wantNames(t, volume, "a", "b")
}

// podmanInside is set in the environment of the process that does the test.
const podmanInside = "PLYFS_TEST_PODMAN"

// enterPodman runs the test in a mount namespace of its own, where control
// groups are of version 2 alone: the runtime refuses a mixture.
func enterPodman(t *testing.T) {
	t.Helper()
	requirePodman(t)
	const script = `umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$0" -test.run='^TestPodman$'`
	cmd := exec.Command("unshare", "--mount", "--propagation=private", "sh", "-c", script, os.Args[0])
	cmd.Env = append(os.Environ(), podmanInside+"=1", "PLYFS_BIN="+plyfsBin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// podmanChanges are what the engine finds by comparing trees.
const podmanChanges = `A /data/dir/fifo
A /data/gone/z
A /data/links/four
A /data/pong
A /data/renamed
A /data/renamed/d
A /data/renamed/deep
A /data/renamed/deep/d
C /data
C /data/big
C /data/cut
C /data/dir
C /data/dir/a
C /data/dir/sub
C /data/gone
C /data/link
C /data/links
C /data/links/one
C /data/links/two
C /data/ren
D /data/gone/x
D /data/links/three
D /data/old
D /data/ping
D /data/ren/d
D /data/ren/deep`
