// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// volatileMark is the mark of a volatile mount.
func (u *union) volatileMark() string { return filepath.Join(u.work, "plyfs", "volatile") }

// wantRefused expects that a mount with the options is refused, with the text,
// and changes nothing.
func (u *union) wantRefused(text string, options ...string) {
	u.Helper()
	before := mustDump(u, u.work, dumpOptions{})
	u.opts.options = options
	out, err := plyfs("mount", "-o", u.optionString(), u.mp)
	if err == nil {
		u.mounted = true
		u.Fatal("mounted")
	}
	if !strings.Contains(out, text) || strings.Count(out, "\n") != 1 {
		u.Errorf("refused with %q, want one line with %q", out, text)
	}
	for _, d := range diffTrees(before, mustDump(u, u.work, dumpOptions{}), nil) {
		u.Errorf("the refusal has changed the work directory: %s", d)
	}
}

// TestVolatile: a volatile mount marks its work directory, and further mounts
// are refused, volatile ones too, until they are told to keep what is there. With
// after_volatile=auto they take it up while the machine runs on, volatile ones
// with the mark.
func TestVolatile(t *testing.T) {
	requirePlyfs(t, "marks")
	for _, option := range []string{"volatile", "fsync=0"} {
		u := newMount(t, mountOpts{lowers: [][]string{{"f=lower", "gone=lower"}}, options: []string{option}})
		b, err := os.ReadFile(u.volatileMark())
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil || !strings.Contains(string(b), strings.TrimSpace(string(boot))) {
			t.Errorf("the mark is %q, %v", b, err)
		}
		if out, _ := plyfs("status", u.mp); !strings.Contains(out, ", volatile") {
			t.Errorf("status does not tell: %s", out)
		}
		must(t, os.WriteFile(u.path("f"), []byte("changed"), 0o644))
		must(t, os.Remove(u.path("gone")))
		if kinds := runCheck(t, exitClean, u.mp).kinds("note"); !slices.Equal(kinds, []string{"volatile"}) {
			t.Errorf("a check of the mount notes %q", kinds)
		}
		u.unmount()
		if kinds := runCheck(t, exitClean, u.layersOf()...).kinds("note"); !slices.Equal(kinds, []string{"volatile"}) {
			t.Errorf("a check notes %q", kinds)
		}

		u.wantRefused("the machine has run on since")
		u.wantRefused("the machine has run on since", "volatile")
		u.wantRefused("the machine has run on since", "after_volatile=refuse")
		u.opts.options = []string{"volatile", "after_volatile=auto"}
		for range 2 {
			u.mount()
			wantFile(t, u.path("f"), "changed")
			wantGone(t, u.path("gone"))
			must(t, os.WriteFile(u.path("more"), nil, 0o644))
			must(t, os.Remove(u.path("more")))
			u.unmount()
		}
		if now, err := os.ReadFile(u.volatileMark()); err != nil || string(now) != string(b) {
			t.Errorf("the mark is %q, %v; it was %q", now, err, b)
		}

		restarted := "boot 00000000-0000-0000-0000-000000000000\nmounted x\n"
		must(t, os.WriteFile(u.volatileMark(), []byte(restarted), 0o600))
		u.wantRefused("volatile: it synced nothing", "after_volatile=auto")
		u.wantRefused("after_volatile=keep", "volatile", "after_volatile=auto")
		u.opts.options = []string{"volatile", "after_volatile=keep"}
		u.mount()
		wantFile(t, u.path("f"), "changed")
		u.unmount()
		if b, _ := os.ReadFile(u.volatileMark()); !strings.Contains(string(b), strings.TrimSpace(string(boot))) {
			t.Errorf("what was kept is volatile since this start of the machine, but the mark is %q", b)
		}

		out, err := plyfs("-o", u.optionStringOf("after_volatile=refuse"), u.mp)
		if err == nil || !strings.Contains(out, "has run on since") {
			t.Errorf("as an engine, told to refuse: %v, %q", err, out)
		}
		out, err = plyfs("-o", u.optionStringOf(), u.mp) // as an engine calls it
		if err != nil {
			t.Fatalf("as an engine: %v, %s", err, out)
		}
		wantFile(t, u.path("f"), "changed")
		wantGone(t, u.path("gone"))
		wantGone(t, u.volatileMark())
		if out, err := plyfs("umount", u.mp); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		u.opts.options = nil
		u.mount()
		u.unmount()
		u.mount()
		wantFile(t, u.path("f"), "changed")
		wantGone(t, u.path("gone"))
	}
}

// optionStringOf are the options of the mount, with these in place of its own.
func (u *union) optionStringOf(options ...string) string {
	kept := u.opts.options
	u.opts.options = options
	defer func() { u.opts.options = kept }()
	return u.optionString()
}

// TestVolatileAfterRestart: the refusal tells whether the machine was started
// anew, and a mark that was cut off is one.
func TestVolatileAfterRestart(t *testing.T) {
	requirePlyfs(t, "marks")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=lower"}}, options: []string{"volatile"}})
	u.kill9()
	must(t, unix.Unmount(u.mp, unix.MNT_DETACH))
	u.mounted = false
	must(t, os.WriteFile(u.volatileMark(), []byte("boot 00000000-0000-0000-0000-000000000000\nmounted x\n"), 0o600))
	u.wantRefused("started anew since")
	must(t, os.WriteFile(u.volatileMark(), nil, 0o600))
	u.wantRefused("may be damaged")
	u.opts.options = []string{"after_volatile=keep"}
	u.mount()
	u.unmount()
}

// TestVolatileNotMounted: a mount that does not come about leaves no mark.
func TestVolatileNotMounted(t *testing.T) {
	requirePlyfs(t, "marks")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=lower"}}})
	u.unmount()
	lower := u.lowers
	u.lowers = []string{u.upper + "/../lower1/../lower2"}
	makeTree(t, filepath.Clean(u.lowers[0]), nil)
	u.wantRefused("another set of layers", "volatile")
	wantGone(t, u.volatileMark())
	u.lowers, u.opts.options = lower, nil
	u.mount()
}

// TestVolatileOverlay: the mark of a volatile kernel overlayfs counts, too.
func TestVolatileOverlay(t *testing.T) {
	requirePlyfs(t, "marks")
	u := prepare(t, mountOpts{lowers: [][]string{{"f=lower"}}})
	must(t, unix.Mount("overlay", u.mp, "overlay", 0, "volatile,lowerdir="+u.lowers[0]+",upperdir="+u.upper+",workdir="+u.work))
	must(t, os.WriteFile(u.path("f"), []byte("changed"), 0o644))
	must(t, unix.Unmount(u.mp, 0))
	u.wantRefused("volatile: it synced nothing")
	u.opts.options = []string{"after_volatile=keep"}
	u.mount()
	wantFile(t, u.path("f"), "changed")
	u.unmount()
	u.opts.options = nil
	u.mount()
	u.unmount()
	// Another feature is none that plyfs could look over.
	makeTree(t, filepath.Join(u.work, "work", "incompat", "frobnicated"), nil)
	u.wantRefused(`the feature "frobnicated"`, "after_volatile=keep")
	must(t, os.RemoveAll(filepath.Join(u.work, "work", "incompat", "frobnicated")))
}

// TestVolatileSyncsNothing counts what reaches the disk: neither a copy-up nor
// fsync, nor a rename, nor the end of a volatile mount syncs; without the
// option they do.
func TestVolatileSyncsNothing(t *testing.T) {
	requirePlyfs(t, "a journal")
	d := newFaultDev(t, "ext4", 64, "commit=300")
	u := prepare(t, mountOpts{lowers: [][]string{{"f=#100000", "dir/g=lower", "h=lower", "h2 => h"}}, upperDir: d.mp})
	work := func() (flushes int) { // there and, the next time, back
		from, to := "dir", "dir2"
		if _, err := os.Lstat(u.path(from)); err != nil {
			from, to = to, from
		}
		before := d.stats().flushes
		must(t, withFile(u.path("f"), os.O_RDWR, func(f *os.File) error {
			if _, err := f.WriteAt([]byte("changed"), 5); err != nil {
				return err
			}
			return f.Sync()
		}))
		if err := os.Remove(u.path("h2")); err != nil {
			must(t, os.WriteFile(u.path("h2"), nil, 0o644))
		}
		must(t, u.rename2(from, to, 0))
		must(t, withFile(u.path(to), os.O_RDONLY, (*os.File).Sync))
		must(t, withFile(u.path(), os.O_RDONLY, func(f *os.File) error { return unix.Syncfs(int(f.Fd())) }))
		u.unmount()
		return d.stats().flushes - before
	}
	u.opts.options = []string{"volatile,after_volatile=auto"}
	n := -1
	for try := 0; n != 0 && try < 5; try++ { // somebody else may have called sync(2) meanwhile
		u.mount()
		n = work()
	}
	if n != 0 {
		t.Errorf("a volatile mount has flushed the disk %d times", n)
	}
	u.opts.options = []string{"after_volatile=auto"}
	before := d.stats().flushes
	u.mount()
	if n := d.stats().flushes - before; n == 0 {
		t.Error("what the volatile mount left was not synced")
	}
	if n := work(); n == 0 {
		t.Error("a mount that is not volatile has not flushed the disk")
	}
}
