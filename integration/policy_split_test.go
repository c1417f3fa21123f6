// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The disk image of the tests: its size and the number of chunks.
const (
	diskSize   = 16 << 20
	diskChunks = 64
)

// makeDisk makes an ext4 image with files in it, and returns its bytes.
func makeDisk(t *testing.T, dir string) []byte {
	t.Helper()
	requireTool(t, "mkfs.ext4", "e2fsck", "e2label", "losetup")
	files := makeTree(t, filepath.Join(dir, "files"), diskFiles)
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o644))
	must(t, os.Truncate(image, diskSize))
	run(t, "", "mkfs.ext4", "-q", "-L", "original", "-d", files, image)
	b, err := os.ReadFile(image)
	must(t, err)
	return b
}

// diskFiles are the files in the image.
var diskFiles = []string{"hello=hello, world", "d/large=#3000000", "d/small=#777", "d/link -> ../hello", "empty="}

// newDisk mounts a tree whose disk.img is the image in chunks.
func newDisk(t *testing.T, options ...string) (*union, []byte) {
	t.Helper()
	dir := tempDir(t)
	image := makeDisk(t, dir)
	chunks := makeTree(t, filepath.Join(dir, "chunks"), nil)
	const size = diskSize / diskChunks
	for i := range diskChunks {
		must(t, os.WriteFile(filepath.Join(chunks, fmt.Sprintf("%03d", i)), image[i*size:(i+1)*size], 0o644))
	}
	policy := writePolicy(t, dir, "policy.yaml", `- {path: /disk.img, name: disk, program: split, parts: ["chunks/*"]}`+"\n")
	u := newMount(t, mountOpts{dir: dir, lowers: [][]string{{"disk.img=only a name", "other=1"}},
		options: append([]string{"policy=" + policy}, options...)})
	return u, image
}

// onDisk mounts an image by a loop device and runs f with the mount point.
func onDisk(t *testing.T, image, options string, f func(at string)) {
	t.Helper()
	at := makeTree(t, filepath.Join(tempDir(t), "disk"), nil)
	run(t, "", "mount", "-o", options, image, at)
	defer func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmounting the image: %v", err)
			unix.Unmount(at, unix.MNT_DETACH)
		}
	}()
	f(at)
}

// wantDiskFiles looks at the files of a mounted image.
func wantDiskFiles(t *testing.T, at string) {
	t.Helper()
	wantFile(t, filepath.Join(at, "hello"), "hello, world")
	wantFile(t, filepath.Join(at, "d/large"), string(pattern(3_000_000, 3_000_000)))
	wantFile(t, filepath.Join(at, "d/small"), string(pattern(777, 777)))
	wantFile(t, filepath.Join(at, "d/link"), "hello, world")
	wantFile(t, filepath.Join(at, "empty"), "")
}

// TestPolicySplitImage: an image in chunks is the image, for the kernel and
// for e2fsck.
func TestPolicySplitImage(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u, image := newDisk(t, option)
		p := u.path("disk.img")
		if st := lstat(t, p); st.Size != diskSize {
			t.Errorf("the size is %d, want %d", st.Size, diskSize)
		}
		if got := strings.Fields(run(t, "", "sha256sum", p))[0]; got != hexSum(image) {
			t.Errorf("sha256 %s, want %s", got, hexSum(image))
		}
		u.wantServed("disk.img", "server", "disk")
		u.wantUntouched(option, "other")
		wantFile(t, u.path("other"), "1")
		run(t, "", "e2fsck", "-fn", p)
		if got := run(t, "", "e2label", p); got != "original\n" {
			t.Errorf("the label is %q", got)
		}
		dev := strings.TrimSpace(run(t, "", "losetup", "-r", "-f", "--show", p))
		b, err := os.ReadFile(dev)
		run(t, "", "losetup", "-d", dev)
		must(t, err)
		wantBytes(t, "a loop device", b, image)
		onDisk(t, p, "loop,ro", func(at string) { wantDiskFiles(t, at) })
		if n := u.status().CopyUps.Files; n != 0 {
			t.Errorf("reading copied %d files up", n)
		}
		var plan struct {
			Size    int64 `json:"size"`
			Extents []struct {
				Offset, Length, Source int64
				Kind, From             string
			} `json:"extents"`
		}
		u.planInto(&plan, "disk.img")
		if plan.Size != diskSize || len(plan.Extents) != diskChunks || !strings.HasSuffix(plan.Extents[63].From, "chunks/063") ||
			plan.Extents[63].Offset != diskSize/64*63 {
			t.Errorf("the plan: %+v", plan)
		}
	})
}

// TestPolicySplitWrite: what is written through the mount lands in a copy that
// was made of the chunks; they do not change.
func TestPolicySplitWrite(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u, image := newDisk(t, option)
		p, chunks := u.path("disk.img"), filepath.Join(filepath.Dir(u.mp), "chunks")
		before := mustDump(t, chunks, dumpOptions{inode: true})
		reader, err := os.Open(p)
		must(t, err)
		defer reader.Close()
		must(t, withFile(p, os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte("WRITTEN"), 5<<20-3); return err }))
		want := bytes.Clone(image)
		copy(want[5<<20-3:], "WRITTEN")
		for _, where := range []string{p, filepath.Join(u.upper, "disk.img")} {
			got, err := os.ReadFile(where)
			must(t, err)
			if hexSum(got) != hexSum(want) {
				wantBytes(t, where, got, want)
			}
		}
		b := make([]byte, 7)
		_, err = reader.ReadAt(b, 5<<20-3)
		must(t, err)
		if string(b) != "WRITTEN" {
			t.Errorf("a reader that the daemon serves sees %q after the write", b)
		}
		reader.Close()
		// The kernel writes, too.
		onDisk(t, p, "loop", func(at string) {
			wantDiskFiles(t, at)
			must(t, os.WriteFile(filepath.Join(at, "new"), pattern(500_000, 5), 0o644))
			must(t, os.Remove(filepath.Join(at, "d/large")))
		})
		run(t, "", "e2fsck", "-fn", p)
		u.remount()
		onDisk(t, p, "loop,ro", func(at string) {
			wantFile(t, filepath.Join(at, "new"), string(pattern(500_000, 5)))
			wantGone(t, filepath.Join(at, "d/large"))
		})
		for _, d := range diffTrees(before, mustDump(t, chunks, dumpOptions{inode: true}), nil) {
			t.Errorf("A PART CHANGED: %s", d)
		}
	})
}

// TestPolicySplitPatches: a base, and patches over it: another superblock, and
// one patch over another. The base is a file of its own or the file itself.
func TestPolicySplitPatches(t *testing.T) {
	for _, self := range []bool{false, true} {
		t.Run(fmt.Sprintf("self=%v", self), func(t *testing.T) {
			requirePlyfs(t, "policies")
			dir := tempDir(t)
			image := makeDisk(t, dir)
			labelled := filepath.Join(dir, "labelled")
			must(t, os.WriteFile(labelled, image, 0o644))
			run(t, "", "e2label", labelled, "patched")
			l, err := os.ReadFile(labelled)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "super"), l[:4096], 0o644))
			must(t, os.WriteFile(filepath.Join(dir, "boot"), pattern(2000, 9), 0o644))
			want := bytes.Clone(image)
			copy(want[1024:2048], l[1024:2048])
			copy(want[:1000], pattern(2000, 9))
			copy(want[10:20], l[1024:1034])
			rule := "- {path: /disk.img, name: patched, program: split, "
			lower := "disk.img="
			if !self {
				rule += "base: image, "
			}
			rule += "patches: [{offset: 1K, file: super, from: 1K, length: 1K}, {offset: 0, file: boot, length: 1000}, {offset: 10, file: super, from: 1024, length: 10}]}\n"
			u := prepare(t, mountOpts{dir: dir, lowers: [][]string{{lower}}, noLowerCheck: true})
			if self {
				must(t, os.WriteFile(filepath.Join(u.lowers[0], "disk.img"), image, 0o644))
			}
			u.opts.options = []string{"policy=" + writePolicy(t, dir, "policy.yaml", rule)}
			u.mount()
			p := u.path("disk.img")
			got, err := os.ReadFile(p)
			must(t, err)
			wantBytes(t, "base and patches", got, want)
			if got := run(t, "", "e2label", p); got != "patched\n" {
				t.Errorf("the label is %q", got)
			}
			run(t, "", "e2fsck", "-fn", p)
			onDisk(t, p, "loop,ro", func(at string) { wantDiskFiles(t, at) })
			must(t, withFile(p, os.O_WRONLY, func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 100_000); return err }))
			want[100_000] = 'x'
			got, err = os.ReadFile(filepath.Join(u.upper, "disk.img"))
			must(t, err)
			wantBytes(t, "the copy in upper", got, want)
		})
	}
}

// TestPolicySplitSize: a size larger than the parts is zeros behind them, a
// smaller one cuts.
func TestPolicySplitSize(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		dir := tempDir(t)
		must(t, os.WriteFile(filepath.Join(dir, "p1"), pattern(1000, 1), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "p2"), pattern(5000, 2), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "p0"), nil, 0o644))
		policy := writePolicy(t, dir, "policy.yaml", strings.Join([]string{
			"- {path: /large, program: split, parts: [p1, p2], size: 10K}",
			"- {path: /small, program: split, parts: [p1, p0, p2], size: 1500}",
			"- {path: /twice, program: split, parts: [p2, p1, p2]}", ""}, "\n"))
		u := newMount(t, mountOpts{dir: dir, options: []string{option, "policy=" + policy},
			lowers: [][]string{{"large=#100", "small=#9999", "twice="}}})
		p1, p2 := string(pattern(1000, 1)), string(pattern(5000, 2))
		want := map[string]string{"large": p1 + p2 + string(make([]byte, 10240-6000)), "small": (p1 + p2)[:1500], "twice": p2 + p1 + p2}
		for name, w := range want {
			if st := lstat(t, u.path(name)); st.Size != int64(len(w)) {
				t.Errorf("%s: the size is %d, want %d", name, st.Size, len(w))
			}
			wantFile(t, u.path(name), w)
		}
		for name := range want {
			must(t, withFile(u.path(name), os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("+"); return err }))
			wantFile(t, u.path(name), want[name]+"+")
			wantFile(t, filepath.Join(u.upper, name), want[name]+"+")
		}
	})
}

// TestPolicySplitChanged: a part that shrinks under the mount is an error that
// is counted, for reads of what it had and for a copy-up; one that grows gives
// no more than it had.
func TestPolicySplitChanged(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		dir := tempDir(t)
		part := filepath.Join(dir, "p2")
		must(t, os.WriteFile(filepath.Join(dir, "p1"), pattern(8192, 1), 0o644))
		must(t, os.WriteFile(part, pattern(8192, 2), 0o644))
		policy := writePolicy(t, dir, "policy.yaml", "- {path: /f, name: two, program: split, parts: [p1, p2, p1]}\n")
		u := newMount(t, mountOpts{dir: dir, lowers: [][]string{{"f=#100"}}, options: []string{option, "policy=" + policy}})
		want := slicesJoin(pattern(8192, 1), pattern(8192, 2), pattern(8192, 1))
		must(t, withFile(part, os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("more"); return err }))
		got, err := os.ReadFile(u.path("f"))
		must(t, err)
		wantBytes(t, "a part has grown", got, want)
		if n := u.policyStatus().Policy.WrongAnswers; n != 0 {
			t.Errorf("%d wrong answers before anything was wrong", n)
		}
		u.allowEIO = true
		must(t, os.Truncate(part, 4096))
		_, err = os.ReadFile(u.path("f"))
		wantErrno(t, "reading a file of which a part has shrunk", err, unix.EIO)
		st := u.policyStatus().Policy
		if st.WrongAnswers == 0 {
			t.Error("no wrong answer is counted")
		}
		if all := strings.Join(u.status().LastErrors, "\n"); !strings.Contains(all, "/f") {
			t.Errorf("the last errors do not name the file: %q", all)
		}
		wantErrno(t, "copy-up of such a file", os.Chmod(u.path("f"), 0o600), unix.EIO)
		wantGone(t, filepath.Join(u.upper, "f"))
		if f := names(t, u.upper); len(f) > 0 {
			t.Errorf("upper has %q after a copy-up that failed", f)
		}
		wantNames(t, u.mp, "f")
		must(t, os.WriteFile(part, pattern(8192, 2), 0o644))
		got, err = os.ReadFile(u.path("f"))
		must(t, err)
		wantBytes(t, "the part is whole again", got, want)
	})
}

// TestPolicySplitRefused: parts that somebody else could change, or that are
// written through the mount, are refused in words that say why.
func TestPolicySplitRefused(t *testing.T) {
	requirePlyfs(t, "policies")
	dir := tempDir(t)
	u := newMount(t, mountOpts{dir: dir, lowers: [][]string{{"f=as it is"}}})
	for name, mode := range map[string]os.FileMode{"good": 0o644, "anybody": 0o666, "group": 0o664} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
		must(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	must(t, os.WriteFile(filepath.Join(dir, "owned"), nil, 0o644))
	must(t, os.Chown(filepath.Join(dir, "owned"), 1000, 1000))
	must(t, os.WriteFile(u.path("in-mount"), nil, 0o644))
	must(t, os.Symlink(filepath.Join(u.upper, "in-mount"), filepath.Join(dir, "to-upper")))
	must(t, os.Mkdir(filepath.Join(dir, "open"), 0o777))
	must(t, os.Chmod(filepath.Join(dir, "open"), 0o777))
	must(t, os.WriteFile(filepath.Join(dir, "open/part"), nil, 0o644))
	for part, words := range map[string][]string{
		"anybody":                             {"anybody can be written by anybody", "chmod"},
		"group":                               {"group can be written by its group", "chmod"},
		"owned":                               {"owned belongs to uid 1000", "chown"},
		"open/part":                           {"open can be written by anybody"},
		"missing":                             {"missing", "no such file"},
		filepath.Join(u.upper, "in-mount"):    {u.upper},
		filepath.Join(u.work, "plyfs/format"): {u.work},
		"to-upper":                            {u.upper},
		u.path("f"):                           {u.mp},
	} {
		policy := writePolicy(t, dir, "policy.yaml", fmt.Sprintf("- path: /f\n  program: split\n  parts:\n    - good\n    - %s\n", part))
		out, err := plyfs("policy", "set", u.mp, policy)
		wantRefused(t, "policy set with "+part, out, err, words...)
		wantFile(t, u.path("f"), "as it is")
	}
	u.setPolicy(writePolicy(t, dir, "policy.yaml", "- {path: /f, program: split, parts: [good, good]}\n"))
	wantFile(t, u.path("f"), "goodgood")
	empty := writePolicy(t, dir, "empty.yaml", "- {path: /f, program: split, parts: [owned]}\n")
	must(t, os.Chown(filepath.Join(dir, "owned"), 0, 0))
	out, err := plyfs("policy", "set", u.mp, empty)
	wantRefused(t, "a split into nothing", out, err, empty+":4", "would be empty")
	must(t, os.Chmod(filepath.Join(dir, "policy.yaml"), 0o666))
	out, err = plyfs("policy", "set", u.mp, filepath.Join(dir, "policy.yaml"))
	wantRefused(t, "a policy that anybody can write", out, err, "policy.yaml can be written by anybody")
	wantFile(t, u.path("f"), "goodgood")
	u.clearPolicy() // and its parts are closed, as the end of the test checks
	wantFile(t, u.path("f"), "as it is")
}

// slicesJoin puts bytes behind one another.
func slicesJoin(all ...[]byte) []byte { return bytes.Join(all, nil) }
