// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Further exit codes of plyfs check.
const (
	exitClean     = 0
	exitViolation = 6
)

// checkReport is what plyfs check --json prints.
type checkReport struct {
	Version         int
	Live            bool
	Clean, Complete bool
	Findings        []checkFinding
	Counts          map[string]int
	Repair          *struct {
		Backup string
		Done   []checkFinding
	}
}

type checkFinding struct {
	Severity, Kind, Path, What, Loses, Mend string
	Repairable                              bool
}

// runCheck runs plyfs check --json and expects an exit code.
func runCheck(t testing.TB, code int, args ...string) checkReport {
	t.Helper()
	out, stderr, err := plyfsOut(append([]string{"check", "--json"}, args...)...)
	if got := exitCodeOf(err); got != code {
		t.Errorf("plyfs check %q: exit code %d, want %d\n%s%s", args, got, code, out, stderr)
	}
	var r checkReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("plyfs check %q: %v\n%s%s", args, err, out, stderr)
	}
	if r.Version != 1 || r.Clean != (code == exitClean) {
		t.Errorf("version %d, clean %v, exit code %d", r.Version, r.Clean, code)
	}
	return r
}

func exitCodeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// layersOf are the arguments of a check of what is not mounted.
func (u *union) layersOf() []string { return append([]string{u.upper, u.work}, u.lowers...) }

func (r checkReport) kinds(severity string) (kinds []string) {
	for _, f := range r.Findings {
		if f.Severity == severity {
			kinds = append(kinds, f.Kind)
		}
	}
	return kinds
}

// TestCheckAfterKills kills the daemon in a workload again and again: what
// that leaves is clean, and so it is after a repair, which changes nothing
// that the mount shows.
func TestCheckAfterKills(t *testing.T) {
	requirePlyfs(t, "a daemon to kill")
	u := newMount(t, mountOpts{lowers: killFixture()})
	model := filepath.Join(tempDir(t), "model")
	run(t, "", "cp", "-a", u.mp, model)
	k := &killer{union: u, model: model, gen: newGen(time.Now().UnixNano() % 1_000_000_000)}
	for i := range 12 {
		pid := k.pid
		wait := time.Duration(50+k.IntN(200)) * time.Millisecond
		go func() {
			time.Sleep(wait)
			unix.Kill(pid, unix.SIGKILL)
		}()
		under := k.work()
		k.awaitDeath()
		must(t, unix.Unmount(k.mp, unix.MNT_DETACH))
		before := mustDump(t, u.upper, dumpOptions{inode: true, dirNlink: true})
		r := runCheck(t, exitClean, u.layersOf()...)
		if !strings.Contains(strings.Join(r.kinds("note"), " "), "live") {
			t.Errorf("it is not said that the mount was cut off: %+v", r.Findings)
		}
		for _, d := range diffTrees(before, mustDump(t, u.upper, dumpOptions{inode: true, dirNlink: true}), nil) {
			t.Errorf("the check has changed upper: %s", d)
		}
		if i%3 == 0 {
			runCheck(t, exitClean, append([]string{"--repair"}, u.layersOf()...)...)
		}
		k.mount()
		k.settle(i, under, mustDump(k, k.mp, dumpOptions{}))
		runCheck(t, exitClean, k.mp)
		if t.Failed() {
			return
		}
	}
	k.unmount()
	runCheck(t, exitClean, u.layersOf()...)
}

// TestCheckDamage plants damage and sees it named, and mended where nothing is
// lost by that.
func TestCheckDamage(t *testing.T) {
	requirePlyfs(t, "its journal")
	u := newMount(t, mountOpts{lowers: [][]string{{"a/x=1", "a/y=2", "b/z=3", "h1=4", "h2 => h1"}}})
	must(t, os.Remove(u.path("a/x")))
	must(t, os.Rename(u.path("b"), u.path("c")))
	must(t, os.WriteFile(u.path("h1"), []byte("changed"), 0o644))
	u.unmount()
	runCheck(t, exitClean, u.layersOf()...)

	mark := make([]byte, 4096)
	n, err := unix.Getxattr(u.upper+"/c", "trusted.plyfs.dir", mark)
	must(t, err)
	bad := append(append([]byte{}, mark[:10]...), "/nowhere"...)
	must(t, unix.Setxattr(u.upper+"/c", "trusted.plyfs.dir", bad, 0))
	r := runCheck(t, exitViolation, u.layersOf()...)
	if f := r.Findings[0]; f.Kind != "redirect-lost" || f.Path != u.upper+"/c" || !strings.Contains(f.What, "/nowhere") || f.Loses == "" || f.Mend == "" {
		t.Errorf("%+v", f)
	}
	out, _ := plyfs(append([]string{"check", "--repair"}, u.layersOf()...)...)
	if !strings.Contains(out, "nothing that could be repaired") || !strings.Contains(out, "loses: ") {
		t.Errorf("a repair of what loses something: %s", out)
	}
	must(t, unix.Setxattr(u.upper+"/c", "trusted.plyfs.dir", mark[:n], 0))

	index, err := filepath.Glob(u.work + "/plyfs/index/*")
	must(t, err)
	must(t, os.Remove(index[0]))
	r = runCheck(t, exitViolation, u.layersOf()...)
	if k := strings.Join(r.kinds("violation"), " "); k != "index-missing" {
		t.Errorf("violations: %s", k)
	}
	r = runCheck(t, exitClean, append([]string{"--repair"}, u.layersOf()...)...)
	if r.Repair == nil || len(r.Repair.Done) != 1 || r.Repair.Backup == "" {
		t.Errorf("%+v", r.Repair)
	}
	if _, err := os.Stat(r.Repair.Backup + "/journal.db"); err != nil {
		t.Error(err)
	}
	runCheck(t, exitClean, u.layersOf()...)

	db := u.work + "/plyfs/journal.db"
	good, err := os.ReadFile(db)
	must(t, err)
	must(t, os.WriteFile(db, good[:8192], 0o600))
	if r = runCheck(t, exitViolation, u.layersOf()...); r.Complete || r.kinds("violation")[0] != "journal-damaged" {
		t.Errorf("%+v", r)
	}
	must(t, os.WriteFile(db, good, 0o600))
	u.mount()
	wantFile(t, u.path("h2"), "changed")
	wantNames(t, u.path("a"), "y")
	wantNames(t, u.path("c"), "z")
}

// TestCheckLive checks a mount that is used, and refuses its directories.
func TestCheckLive(t *testing.T) {
	requirePlyfs(t, "a control socket")
	u := newMount(t, mountOpts{lowers: [][]string{{"a/x=1", "b=2"}}})
	must(t, os.Remove(u.path("a/x")))
	must(t, os.WriteFile(u.path("b"), []byte("3"), 0o644))
	if r := runCheck(t, exitClean, u.mp); !r.Live || r.Counts["covers"] != 1 {
		t.Errorf("%+v", r)
	}
	_, stderr, err := plyfsOut(append([]string{"check"}, u.layersOf()...)...)
	if exitCodeOf(err) != exitBusy || !strings.Contains(stderr, "plyfs check "+u.mp) {
		t.Errorf("the directories of a live mount: %v: %s", err, stderr)
	}
	_, stderr, err = plyfsOut("journal", "compact", u.work)
	if exitCodeOf(err) != exitBusy || !strings.Contains(stderr, u.mp) {
		t.Errorf("compacting a live journal: %v: %s", err, stderr)
	}
	must(t, os.Mkdir(u.upper+"/planted", 0o755))
	mark := append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "/nowhere"...)
	must(t, unix.Setxattr(u.upper+"/planted", "trusted.plyfs.dir", mark, 0))
	if r := runCheck(t, exitViolation, u.mp); r.kinds("violation")[0] != "redirect-lost" {
		t.Errorf("%+v", r)
	}
	must(t, os.Remove(u.upper+"/planted"))
	var dump struct {
		Format      int
		Directories []struct{ Covers []string }
	}
	out, _, err := plyfsOut("journal", "dump", "--json", u.mp)
	must(t, err)
	must(t, json.Unmarshal([]byte(out), &dump))
	if len(dump.Directories) != 1 || dump.Directories[0].Covers[0] != "x" {
		t.Errorf("%s", out)
	}
	u.unmount()
	offline, _, err := plyfsOut("journal", "dump", "--json", u.work)
	must(t, err)
	if offline != out {
		t.Errorf("offline\n%s\nlive\n%s", offline, out)
	}
	out, _, err = plyfsOut("journal", "compact", u.work)
	must(t, err)
	if !strings.Contains(out, "bytes before") {
		t.Errorf("compact: %s", out)
	}
	runCheck(t, exitClean, u.layersOf()...)
	u.mount()
	wantNames(t, u.path("a"))
	wantFile(t, u.path("b"), "3")
}

// TestCheckPaths names the layers in other ways than the mount did, on a file
// system without a UUID, where the journal knows layers by their paths.
func TestCheckPaths(t *testing.T) {
	requirePlyfs(t, "plyfs check")
	fs := newFS(t, "ext4", 16, "-U", "00000000-0000-0000-0000-000000000000")
	for _, n := range []string{"upper", "work", "mnt"} {
		makeTree(t, fs+"/"+n, nil)
	}
	makeTree(t, fs+"/low", []string{"f=1"})
	link := tempDir(t) + "/link"
	must(t, os.Symlink(fs, link))
	run(t, fs, plyfsBin, "mount", "-o", "lowerdir=low,upperdir=upper,workdir=work", "mnt")
	must(t, os.Remove(fs+"/mnt/f"))
	run(t, fs, plyfsBin, "umount", "mnt")
	for _, dir := range []string{fs, link} {
		for _, prefix := range []string{"", "./", link + "/", fs + "/"} {
			for _, repair := range []bool{false, true} {
				args := []string{"check", prefix + "upper", prefix + "work", prefix + "low"}
				if repair {
					args = append(args, "--repair")
				}
				cmd := exec.Command(plyfsBin, args...)
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%q: %v: %s", args, err, out)
				}
			}
		}
	}
}
