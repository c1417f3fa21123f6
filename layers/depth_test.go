// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func unixMkdirAll(dir, sub string) error { return os.MkdirAll(filepath.Join(dir, sub), 0o755) }

// overlay mounts a read-only overlay of lower and an empty directory.
func overlay(t *testing.T, lower string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/empty", 0o755))
	mount(t, "overlay", dir+"/mnt", "overlay", "lowerdir="+lower+":"+dir+"/empty")
	return dir + "/mnt"
}

func TestDepthOfOverlay(t *testing.T) {
	needRoot(t)
	base := tmpfs(t)
	one := overlay(t, base)
	two := overlay(t, one)
	for _, x := range []struct {
		dir, fstype, why string
		depth            int
	}{
		{base, "tmpfs", "tmpfs", 0},
		{one, "overlay", "overlay on ", 1},
		{two, "overlay", "overlay on overlay on ", 2},
	} {
		l := lower(t, x.dir)
		if l.FSType != x.fstype || l.Depth != x.depth || !strings.HasPrefix(l.DepthWhy, x.why) {
			t.Errorf("%s, depth %d (%s), want %s, %d (%s)", l.FSType, l.Depth, l.DepthWhy, x.fstype, x.depth, x.why)
		}
	}
	// The kernel agrees: nothing more can be stacked on two.
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/empty", 0o755))
	err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+two+":"+dir+"/empty")
	wantErr(t, err, unix.EINVAL)
}

// Paths with everything that is escaped somewhere on their way.
func TestDepthOfEscapedLayers(t *testing.T) {
	needRoot(t)
	odd := filepath.Join(t.TempDir(), `a,b:c d\e#`+"\t\n")
	must(t, os.Mkdir(odd, 0o755))
	stacked := overlay(t, tmpfs(t))
	must(t, unix.Mount(stacked, odd, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(odd, unix.MNT_DETACH)) })
	// In lowerdir the colon and the comma are escaped, and the backslash.
	quoted := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(odd)
	l := lower(t, overlay(t, quoted))
	if l.Depth != 2 {
		t.Errorf("lowerdir: depth %d (%s)", l.Depth, l.DepthWhy)
	}
	l = lower(t, overlayByFD(t, odd))
	if l.Depth != 2 {
		t.Errorf("lowerdir+: depth %d (%s)", l.Depth, l.DepthWhy)
	}
}

// overlayByFD mounts with the new mount API, which takes paths unescaped.
func overlayByFD(t *testing.T, lower string) string {
	t.Helper()
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fs)
	for _, dir := range []string{lower, t.TempDir()} {
		if err := unix.FsconfigSetString(fs, "lowerdir+", dir); err != nil {
			t.Skipf("this kernel has no lowerdir+: %v", err)
		}
	}
	must(t, unix.FsconfigCreate(fs))
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(m)
	dir := t.TempDir()
	must(t, unix.MoveMount(m, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func TestDepthOfRelativeLayers(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, sub := range []string{"a", "b", "mnt"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	cmd := exec.Command("mount", "-t", "overlay", "overlay", "-o", "lowerdir=a:b", dir+"/mnt")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir+"/mnt", unix.MNT_DETACH)) })
	l := lower(t, dir+"/mnt")
	if l.Depth != 1 || !strings.Contains(l.DepthWhy, "relative") {
		t.Errorf("depth %d (%s)", l.Depth, l.DepthWhy)
	}
}

func TestStackDepthOfOtherTypes(t *testing.T) {
	needRoot(t)
	stacked := overlay(t, tmpfs(t))
	plain := tmpfs(t)
	image := plain + "/image"
	must(t, os.WriteFile(image, nil, 0o644))
	defer func() { FuseDepth = nil }()
	FuseDepth = func(mnt string) (int, bool) { return 2, mnt == "/known" }
	for _, x := range []struct {
		m     mountinfo.Info
		depth int
		why   string
	}{
		{mountinfo.Info{FSType: "ecryptfs", Source: plain}, 1, "ecryptfs on tmpfs"},
		{mountinfo.Info{FSType: "ecryptfs", Source: stacked}, 2, "ecryptfs on overlay on tmpfs"},
		{mountinfo.Info{FSType: "ecryptfs", Source: plain + "/none"}, 1, "out of reach"},
		{mountinfo.Info{FSType: "erofs", Source: image}, 1, "erofs on tmpfs"},
		{mountinfo.Info{FSType: "erofs", Source: "/dev/loop0", Major: 7}, 0, "erofs"},
		{mountinfo.Info{FSType: "overlay", VFSOptions: "rw"}, 1, "not known"},
		{mountinfo.Info{FSType: "fuse.plyfs", Mountpoint: "/known"}, 2, "of depth 2"},
		{mountinfo.Info{FSType: "fuse.plyfs", Mountpoint: "/other"}, 1, "assumed"},
		{mountinfo.Info{FSType: "fuse.sshfs", Mountpoint: "/other"}, 0, "fuse.sshfs"},
		{mountinfo.Info{FSType: "fuseblk", Mountpoint: "/known"}, 0, "fuseblk"},
		{mountinfo.Info{FSType: "xfs"}, 0, "xfs"},
	} {
		depth, why := stackDepth(&x.m, 0)
		if depth != x.depth || !strings.Contains(why, x.why) {
			t.Errorf("%+v: %d (%s), want %d (%s)", x.m, depth, why, x.depth, x.why)
		}
	}
}

func TestOverlayLayers(t *testing.T) {
	for options, want := range map[string][]string{
		"rw,lowerdir=/a:/b,upperdir=/u,workdir=/w":            {"/a", "/b", "/u"},
		`rw,lowerdir=/a\134\054b:/c\134:d:/e\040f`:            {"/a,b", "/c:d", "/e f"},
		`ro,lowerdir+=/a\054b,lowerdir+=/c:d,datadir+=/e\134`: {"/a,b", "/c:d", `/e\`},
		"ro,lowerdir=/a:/b::/data":                            {"/a", "/b", "/data"},
		`rw,upperdir=/u\134\054v,index=on`:                    {"/u,v"},
		"rw":                                                  nil,
	} {
		if got := overlayLayers(options); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", options, got, want)
		}
	}
}

// Whatever overlayfs and mountinfo escape comes back as it was.
func TestOverlayLayersRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.StringMatching(`/[a:,\\\n\t #]{1,12}`)
		want := rapid.SliceOfN(path, 1, 4).Draw(t, "paths")
		var lower, options []string
		for _, p := range want {
			lower = append(lower, strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(p))
		}
		options = append(options, "ro", "lowerdir="+octal(strings.Join(lower, ":")))
		for _, p := range want {
			options = append(options, "lowerdir+="+octal(p))
		}
		got := overlayLayers(strings.Join(options, ","))
		if !slices.Equal(got, slices.Concat(want, want)) {
			t.Fatalf("%q, want %q twice", got, want)
		}
	})
}

// octal escapes as seq_show_option does.
func octal(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(",= \t\n\\", s[i]) >= 0 {
			fmt.Fprintf(&b, `\%03o`, s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
