// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack/journal"
)

// checkLower is the lower layer of most of the tests here.
func checkLower(t testing.TB) string {
	return layer(t, "file a/x 1", "file a/y 2", "file a/deep/z 3", "file b/x 4", "file c/w 5", "file d/v 6", "file d/u 7",
		"file big "+strings.Repeat("0123456789abcdef", 4096), "file h1 hard", "link h1 h2", "link h1 d/h3", "file keep 8")
}

// workload leaves something of everything that upper and the journal can hold.
func workload(t testing.TB, m *mounted) {
	t.Helper()
	must(t, unix.Unlink(m.path("a/x")))            // a record
	writePath(t, m.path("a/y"), "changed")         // a copy
	must(t, unix.Rename(m.path("b"), m.path("B"))) // a redirect
	must(t, unix.Unlink(m.path("B/x")))
	must(t, unix.Unlink(m.path("c/w")))
	must(t, unix.Rmdir(m.path("c")))
	mkdir(t, m.path("c")) // opaque
	writePath(t, m.path("c/new"), "new")
	mkdir(t, m.path("plain"))
	must(t, unix.Rename(m.path("d/v"), m.path("plain/v"))) // impure
	mkdir(t, m.path("moved"))
	must(t, unix.Rename(m.path("moved"), m.path("a/moved"))) // opaque, with a note
	writePath(t, m.path("h1"), "changed hard")               // in the index
	must(t, unix.Unlink(m.path("h2")))
	must(t, unix.Symlink("keep", m.path("sym")))
	must(t, unix.Mknod(m.path("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
}

// checkMade mounts over the lowers, does the workload, and unmounts.
func checkMade(t testing.TB) *mounted {
	t.Helper()
	m := mountOver(t, nil, checkLower(t))
	workload(t, m)
	m.unmount()
	return m
}

func (m *mounted) config() Config { return Config{Upper: m.upper, Work: m.work, Lowers: m.lowers} }

// check checks, and fails the test if anything was changed by that.
func (m *mounted) check() *CheckReport {
	m.t.Helper()
	before := fingerprint(m.t, append([]string{m.upper, m.work}, m.lowers...)...)
	r, err := Check(m.config())
	if err != nil {
		m.t.Fatalf("Check: %v", err)
	}
	if fingerprint(m.t, append([]string{m.upper, m.work}, m.lowers...)...) != before {
		m.t.Error("the check has changed something")
	}
	return r
}

// fingerprint sums up trees: content, xattrs and all times but that of access.
func fingerprint(t testing.TB, roots ...string) string {
	t.Helper()
	h := sha256.New()
	for _, root := range roots {
		err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st := statOf(t, p)
			fmt.Fprintf(h, "%s %o %d %d %d %v %v\n", p, st.Mode, st.Ino, st.Nlink, st.Size, st.Mtim, st.Ctim)
			list := make([]byte, 4096)
			n, _ := unix.Llistxattr(p, list)
			for _, a := range strings.Split(string(list[:max(n, 0)]), "\x00") {
				val := make([]byte, 4096)
				if n, err := unix.Lgetxattr(p, a, val); err == nil {
					fmt.Fprintf(h, "%s=%x\n", a, val[:n])
				}
			}
			if e.Type().IsRegular() {
				b, err := os.ReadFile(p)
				h.Write(b)
				return err
			}
			return nil
		})
		must(t, err)
	}
	return string(h.Sum(nil))
}

// wantClean expects a report without violations.
func wantClean(t testing.TB, when string, r *CheckReport) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Severity == Violation {
			t.Errorf("%s: %+v", when, f)
		}
	}
	if !r.Clean || !r.Complete {
		t.Errorf("%s: clean %v, complete %v", when, r.Clean, r.Complete)
	}
}

// wantFindings expects findings of exactly these kinds.
func wantFindings(t testing.TB, when string, r *CheckReport, kinds ...string) {
	t.Helper()
	var got []string
	for _, f := range r.Findings {
		if !slices.Contains(got, f.Kind) {
			got = append(got, f.Kind)
		}
	}
	slices.Sort(got)
	slices.Sort(kinds)
	if !slices.Equal(got, kinds) {
		t.Errorf("%s: found %q, want %q:\n%s", when, got, kinds, findingsText(r))
	}
}

func findingsText(r *CheckReport) string {
	b, _ := json.MarshalIndent(r.Findings, "", "  ")
	return string(b)
}

func setMarkAt(t testing.TB, path string, m dirMark) {
	t.Helper()
	must(t, unix.Lsetxattr(path, xattrDir, m.encode(), 0))
}

func markAt(t testing.TB, path string) dirMark {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(path, xattrDir, buf)
	if err == unix.ENODATA {
		return dirMark{}
	}
	must(t, err)
	m, err := decodeMark(buf[:n])
	must(t, err)
	return m
}

// withJournal changes the journal of a mount that is over.
func (m *mounted) withJournal(do func(j *journal.Journal)) {
	m.t.Helper()
	s, err := journal.OpenReadOnly(m.work + "/plyfs")
	must(m.t, err)
	meta := s.Meta()
	must(m.t, s.Close())
	j, err := journal.Open(m.work+"/plyfs", meta, journal.Options{})
	must(m.t, err)
	do(j)
	must(m.t, j.Close())
}

func TestCheckClean(t *testing.T) {
	m := checkMade(t)
	r := m.check()
	wantClean(t, "after a workload", r)
	wantFindings(t, "after a workload", r)
	if r.Version != CheckVersion || r.Counts.Directories < 7 || r.Counts.Entries < 6 || r.Counts.Covers == 0 || r.Counts.Index != 1 || r.Counts.Links != 1 {
		t.Errorf("%+v", r)
	}
	m = m.remount(nil)
	live, err := m.FS.Check()
	must(t, err)
	wantClean(t, "live", live)
	if !live.Live {
		t.Error("not said to be live")
	}
}

// What a mount that was killed leaves is no violation, and it is said what will
// become of it.
func TestCheckAfterAKill(t *testing.T) {
	m := mountOver(t, still, checkLower(t))
	workload(t, m)
	back := m.freeze()
	m.unmount()
	back()
	must(t, os.WriteFile(m.work+"/plyfs/tmp/#1", nil, 0o600))
	must(t, os.Mkdir(m.work+"/plyfs/tmp/#2", 0o700))
	r := m.check()
	wantClean(t, "killed", r)
	if !hasKind(r, "live") || !hasKind(r, "tmp") || r.Counts.Whiteouts == 0 {
		t.Errorf("%+v", r)
	}
	r, err := Repair(m.config())
	must(t, err)
	wantClean(t, "killed and repaired", r)
	if hasKind(r, "tmp") || len(r.Repair.Done) == 0 || r.Repair.Backup == "" {
		t.Errorf("%s", findingsText(r))
	}
	wantFindings(t, "killed and repaired", m.check(), "live")
}

func hasKind(r *CheckReport, kind string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Kind == kind })
}

// freeze copies upper and work as they are, and gives a function that puts the
// copies in their place: as if the mount had been killed at this moment.
func (m *mounted) freeze() (putBack func()) {
	m.t.Helper()
	dir := m.t.TempDir()
	if out, err := exec.Command("cp", "-a", m.upper, m.work, dir).CombinedOutput(); err != nil {
		m.t.Fatalf("cp: %v: %s", err, out)
	}
	return func() {
		m.t.Helper()
		for _, d := range []string{m.upper, m.work} {
			for _, name := range names(m.t, d) {
				must(m.t, os.RemoveAll(d+"/"+name))
			}
			from := dir + "/" + filepath.Base(d)
			for _, name := range names(m.t, from) {
				must(m.t, os.Rename(from+"/"+name, d+"/"+name))
			}
		}
	}
}

func TestCheckFirstMounts(t *testing.T) {
	needRoot(t)
	cfg := mountDirs(t, layer(t, "file a 1"))
	cfg.Mountpoint = ""
	r, err := Check(cfg)
	must(t, err)
	wantFindings(t, "never mounted", r, "never-mounted")
	wantClean(t, "never mounted", r)
	m := mountConfig(t, Config{Upper: cfg.Upper, Work: cfg.Work, Lowers: cfg.Lowers, Mountpoint: t.TempDir()})
	m.unmount()
	wantFindings(t, "mounted", m.check())
	var e *Error
	if r, err := Check(Config{Upper: cfg.Work, Work: cfg.Upper, Lowers: cfg.Lowers}); !errors.As(err, &e) || e.Kind != KindUsage {
		t.Errorf("upper and work are taken for each other: %v %+v", err, r)
	}
	must(t, unix.Removexattr(cfg.Upper, xattrPair))
	wantFindings(t, "cut off", m.check(), "first-mount")
	for what, c := range map[string]Config{
		"no upper":       {Lowers: cfg.Lowers},
		"no lower":       {Upper: cfg.Upper, Work: cfg.Work},
		"missing lower":  {Upper: cfg.Upper, Work: cfg.Work, Lowers: []string{"/nonexistent"}},
		"work in upper":  {Upper: cfg.Upper, Work: cfg.Upper, Lowers: cfg.Lowers},
		"file for upper": {Upper: cfg.Lowers[0] + "/a", Work: cfg.Work, Lowers: cfg.Lowers},
	} {
		_, err := Check(c)
		var e *Error
		if !errors.As(err, &e) || e.Kind != KindUsage {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The directories of a live mount are refused, those of a check are not.
func TestCheckLocks(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file a 1"))
	for _, do := range []func(Config) (*CheckReport, error){Check, Repair} {
		_, err := do(m.config())
		var e *Error
		if !errors.As(err, &e) || e.Kind != KindBusy || !strings.Contains(e.Mend, "plyfs check MOUNTPOINT") {
			t.Errorf("of a live mount: %v", err)
		}
	}
	m.unmount()
	fs, err := openForCheck(m.config(), false)
	must(t, err)
	if _, err := Check(m.config()); err != nil {
		t.Errorf("two checks at a time: %v", err)
	}
	if _, err := Repair(m.config()); err == nil {
		t.Error("a repair while a check runs")
	}
	fs.closeCheck()
}

func TestCheckForeignUpper(t *testing.T) {
	needRoot(t)
	cfg := mountDirs(t, layer(t, "file a/x 1", "file gone 2", "file b/y 3"))
	must(t, os.WriteFile(cfg.Upper+"/.wh.gone", nil, 0o644))
	mkdir(t, cfg.Upper+"/moved")
	must(t, unix.Setxattr(cfg.Upper+"/moved", "trusted.overlay.redirect", []byte("/b"), 0))
	mkdir(t, cfg.Upper+"/a")
	setMarkAt(t, cfg.Upper+"/a", dirMark{id: 1 << 60}) // of another journal
	must(t, os.WriteFile(cfg.Upper+"/own", []byte("own"), 0o644))
	must(t, os.WriteFile(cfg.Upper+"/a/empty", nil, 0o644))
	m := mountConfig(t, cfg)
	wantNames(t, m.mnt, "a", "b", "moved", "own")
	must(t, os.WriteFile(m.path("new"), []byte("new"), 0o644))
	r, err := m.FS.Check()
	must(t, err)
	wantClean(t, "foreign, mounted", r)
	m.unmount()
	wantClean(t, "foreign", m.check())
	must(t, os.WriteFile(m.upper+"/meta", nil, 0o644))
	must(t, os.Truncate(m.upper+"/meta", 100_000))
	must(t, unix.Setxattr(m.upper+"/meta", "trusted.overlay.metacopy", []byte{}, 0))
	wantFindings(t, "a metacopy", m.check(), "metacopy")
	must(t, os.Remove(m.upper+"/meta"))
	must(t, unix.Setxattr(m.upper+"/moved", "trusted.overlay.redirect", []byte("/nowhere"), 0))
	wantFindings(t, "a redirect of overlayfs", m.check(), "redirect-lost")
}

func TestCheckReadOnlyMount(t *testing.T) {
	m := mountOver(t, func(c *Config) { c.Upper, c.Work = "", "" }, layer(t, "file a 1"))
	r, err := m.FS.Check()
	must(t, err)
	wantFindings(t, "read-only", r, "read-only")
	wantClean(t, "read-only", r)
}

// A live check never takes a change under way for a damage, and sees one that
// is there.
func TestCheckLiveUnderLoad(t *testing.T) {
	lines := []string{}
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("file d%d/f 1", i), fmt.Sprintf("file d%d/s/g 2", i))
	}
	m := mountOver(t, nil, layer(t, append(lines, "file h 1", "link h d1/h", "link h d2/h")...))
	var over atomic.Bool
	done := make(chan struct{}, 2)
	for w := range 2 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := w; !over.Load(); i += 2 {
				d := fmt.Sprintf("d%d", i%40)
				_ = tryWrite(m.path(d+"/f"), "x")
				_ = unix.Unlink(m.path(d + "/s/g"))
				_ = unix.Rmdir(m.path(d + "/s"))
				_ = unix.Mkdir(m.path(d+"/s"), 0o755)
				_ = unix.Rename(m.path(d), m.path("r"+d))
				_ = unix.Rename(m.path("r"+d), m.path(d))
				_ = unix.Unlink(m.path(d + "/f"))
				_ = tryWrite(m.path(d+"/f"), "y")
				_ = unix.Link(m.path("h"), m.path(d+"/k"))
				_ = unix.Unlink(m.path(d + "/k"))
			}
		}()
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		r, err := m.FS.Check()
		must(t, err)
		wantClean(t, "under load", r)
	}
	must(t, os.Mkdir(m.upper+"/twin", 0o755))
	setMarkAt(t, m.upper+"/twin", dirMark{redirect: "/nowhere"})
	r, err := m.FS.Check()
	must(t, err)
	if r.Clean || !hasKind(r, "redirect-lost") {
		t.Errorf("a damage under load: %s", findingsText(r))
	}
	over.Store(true)
	<-done
	<-done
	must(t, os.Remove(m.upper+"/twin"))
}

func TestAnyOrigin(t *testing.T) {
	o := journal.Origin{Layer: 3, Ino: 1 << 50}
	for _, c := range []struct {
		b    []byte
		want originMark
	}{
		{encodeOrigin(o), originMark{Origin: o}},
		{partialOrigin(3, 1<<50, 77, ""), originMark{Origin: o, partial: true, limit: 77}},
		{partialOrigin(3, 1<<50, 0, "/a b/\xff"), originMark{Origin: o, partial: true, path: "/a b/\xff"}},
	} {
		if got, err := decodeOrigin(c.b); err != nil || got != c.want {
			t.Errorf("%x: %+v, %v", c.b, got, err)
		}
	}
	for _, b := range [][]byte{nil, {2}, partialOrigin(1, 1, 1, "")[:20], partialOrigin(1, 1, 1, "rel"), partialOrigin(1, 1, 1, "/a//b"),
		partialOrigin(1, 1, 1, "/"), partialOrigin(1, 1, 1, "/a\x00"), append([]byte{4}, make([]byte, 30)...), append(partialOrigin(1, 1, 1, "/a"), 'b')} {
		if got, err := decodeOrigin(b); !errors.Is(err, errMark) {
			t.Errorf("%x: %+v, %v", b, got, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"/a b": "/a b", `/q"q`: `/q"q`, "/\x1b[m\n": `/\x1b[m\n`, "/ü": "/ü", "/\xff": `/\xff`} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A repair after a kill leaves to the mount what that will count, or it would be
// counted twice.
func TestRepairBeforeARecount(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file a 1", "link a b", "link a c"))
	writePath(t, m.path("a"), "2")
	m.unmount()
	// What a kill leaves between the removal of b and its count.
	must(t, unix.Mknod(m.upper+"/b", unix.S_IFCHR, 0))
	must(t, os.WriteFile(m.work+"/plyfs/"+liveMark, nil, 0o600))
	r, err := Repair(m.config())
	must(t, err)
	if !hasKind(r, "links-few") {
		t.Errorf("the name that is not counted is not told: %s", findingsText(r))
	}
	m = mountConfig(t, Config{Upper: m.upper, Work: m.work, Lowers: m.lowers, Mountpoint: m.mnt})
	if n := statOf(t, m.path("c")).Nlink; n != 2 {
		t.Errorf("%d links, want 2", n)
	}
	m.unmount()
	r, err = Check(m.config())
	must(t, err)
	wantClean(t, "after the recount", r)
}
