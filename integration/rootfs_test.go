// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRootFS is the real job: the root file system of this machine as the
// lower layer, a scratch file system above it, a chroot into the mount; there
// a package is installed and another removed, a program compiled, a
// repository cloned; after a remount all is found as it was left, and the
// base is proved untouched.
func TestRootFS(t *testing.T) {
	requireRoot(t)
	for _, tool := range []string{"dpkg", "dpkg-deb", "gcc", "git", "unshare", "chroot"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	proof := proveUntouched(t, "/usr/bin", "/etc", "/var/lib/dpkg")
	scratch := newFS(t, "ext4", 2048)
	u := newMount(t, mountOpts{lowerDirs: []string{"/"}, upperDir: scratch, at: makeTree(t, scratch+"/mnt", nil), noLowerCheck: true})
	deb := buildPackage(t)
	victim := installedPackage(t)
	chroot(t, u.mp, "cat > /root/demo.deb", deb)
	chroot(t, u.mp, "dpkg -i /root/demo.deb && dpkg --remove --force-depends "+victim, nil)
	chroot(t, u.mp, compileScript, nil)
	chroot(t, u.mp, gitScript, nil)
	check := func() treeDump {
		t.Helper()
		checkRoot(t, u, victim)
		d := treeDump{}
		for _, p := range []string{"etc", "root/clone", "root/src", "var/lib/dpkg", "usr/share/plyfs-demo"} {
			for k, v := range mustDump(t, u.path(p), dumpOptions{}) {
				d[filepath.Join(p, k)] = v
			}
		}
		return d
	}
	before := check()
	u.remount()
	for _, d := range diffTrees(before, check(), nil) {
		t.Errorf("after the remount: %s", d)
	}
	proof()
}

// proveUntouched remembers directories of the root file system, and returns
// the function that compares them.
func proveUntouched(t *testing.T, dirs ...string) func() {
	before := map[string]treeDump{}
	for _, d := range dirs {
		before[d] = mustDump(t, d, dumpOptions{inode: true, dirNlink: true})
	}
	return func() {
		t.Helper()
		for _, d := range dirs {
			for _, diff := range diffTrees(before[d], mustDump(t, d, dumpOptions{inode: true, dirNlink: true}), nil) {
				t.Errorf("THE BASE CHANGED: %s: %s", d, diff)
			}
		}
	}
}

// chroot runs a script in the mount, with /proc and /dev, in a mount namespace
// of its own.
func chroot(t *testing.T, root, script string, stdin []byte) string {
	t.Helper()
	enter := `mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" sh -ec "$1"`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", enter, root, script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org"}
	if stdin != nil {
		cmd.Stdin = strings.NewReader(string(stdin))
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in the chroot: %s: %v\n%s", script, err, out)
	}
	return string(out)
}

// buildPackage builds a Debian package with files, a configuration file and
// scripts.
func buildPackage(t *testing.T) []byte {
	t.Helper()
	dir := makeTree(t, filepath.Join(tempDir(t), "pkg"), []string{
		"DEBIAN/conffiles=/etc/plyfs-demo.conf\n",
		"DEBIAN/postinst=#!/bin/sh\nset -e\nmkdir -p /var/lib/plyfs-demo\ndate >/var/lib/plyfs-demo/installed\nchown 1000:1000 /var/lib/plyfs-demo\n {0755}",
		"etc/plyfs-demo.conf=demo\n",
		"usr/bin/plyfs-demo=#!/bin/sh\necho demo runs\n {0755}",
		"usr/share/plyfs-demo/data=#200000", "usr/share/plyfs-demo/link -> data",
	})
	control := "Package: plyfs-demo\nVersion: 1.0\nArchitecture: all\nMaintainer: plyfs <plyfs@example.org>\nDescription: a package for a test\n"
	must(t, os.WriteFile(dir+"/DEBIAN/control", []byte(control), 0o644))
	deb := dir + ".deb"
	run(t, "", "dpkg-deb", "--root-owner-group", "--build", dir, deb)
	b, err := os.ReadFile(deb)
	must(t, err)
	return b
}

// installedPackage chooses a small installed package to remove.
func installedPackage(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"acl", "attr", "tree", "less", "bzip2", "nano", "xz-utils", "file", "diffutils"} {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status}", p).Output()
		if err == nil && string(out) == "installed" {
			return p
		}
	}
	t.Skip("none of the packages to remove is installed")
	return ""
}

const compileScript = `
cat >/root/hello.c <<'EOC'
#include <stdio.h>
int main(void) { puts("compiled in the mount"); return 0; }
EOC
gcc -O2 -o /usr/local/bin/plyfs-hello /root/hello.c
plyfs-hello || /usr/local/bin/plyfs-hello
`

const gitScript = `
mkdir /root/src && cd /root/src && git init -q
for i in $(seq 300); do mkdir -p d$((i % 20)); seq $i > d$((i % 20))/f$i; done
git add . && git commit -q -m one
git clone -q /root/src /root/clone && cd /root/clone
test -z "$(git status --porcelain)"
git fsck --strict
echo changed >> d1/f1 && git mv d2 moved && git rm -q -r d3
git add -A && git commit -q -m two
test -z "$(git status --porcelain)"
git gc -q
echo dirty >> d4/f4
`

// checkRoot expects the work of the scripts.
func checkRoot(t *testing.T, u *union, victim string) {
	t.Helper()
	out := chroot(t, u.mp, "plyfs-demo; /usr/local/bin/plyfs-hello; dpkg --verify plyfs-demo; dpkg --audit; git -C /root/clone status --porcelain; git -C /root/clone fsck", nil)
	if out != "demo runs\ncompiled in the mount\n M d4/f4\n" {
		t.Errorf("in the chroot: %q", out)
	}
	for pkg, want := range map[string]bool{"plyfs-demo": true, victim: false} {
		state := chroot(t, u.mp, "dpkg-query -W -f '${db:Status-Status}' "+pkg+" || true", nil)
		if (state == "installed") != want {
			t.Errorf("%s is %q in the mount", pkg, state)
		}
	}
	for _, f := range filesOf(t, victim) {
		if _, err := os.Lstat(u.path(f)); err == nil {
			t.Errorf("%s of the removed package is still in the mount", f)
		}
		if _, err := os.Lstat(f); err != nil {
			t.Errorf("THE BASE CHANGED: %v", err)
		}
	}
}

// filesOf are the programs of an installed package.
func filesOf(t *testing.T, pkg string) []string {
	t.Helper()
	var fs []string
	for _, f := range strings.Fields(run(t, "", "dpkg", "-L", pkg)) {
		if strings.HasPrefix(f, "/usr/bin/") || strings.HasPrefix(f, "/bin/") {
			fs = append(fs, f)
		}
	}
	return fs
}
