// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func (m *mounted) explain(rel string) Explanation {
	m.t.Helper()
	e, err := m.Explain(rel)
	if err != nil {
		m.t.Fatalf("explain %s: %v", rel, err)
	}
	return e
}

func wantSaid(t *testing.T, what string, said []string, want string) {
	t.Helper()
	if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, want) }) {
		t.Errorf("%s: %q does not say %q", what, said, want)
	}
}

func TestExplain(t *testing.T) {
	low1 := layer(t, "file a 1", "file gone 1", "file d/x 1", "file both 1", "whiteout white", "file move/m 1")
	low2 := layer(t, "file both 2", "file d/y 2", "file white 2", "symlink both s", "file f")
	m := mountOver(t, nil, low1, low2)
	must(t, unix.Unlink(m.path("gone")))
	writePath(t, m.path("a"), "new")
	must(t, unix.Unlink(m.path("a")))
	writePath(t, m.path("d/up"), "u")
	must(t, unix.Rename(m.path("move"), m.path("moved")))
	mkdir(t, m.path("made"))

	if e := m.explain("/"); !e.Exists || e.Type != "directory" || !slices.Equal(e.Merged, []string{m.upper, low1, low2}) {
		t.Errorf("root: %+v", e)
	}
	e := m.explain("both")
	if !e.Exists || e.Layer != "lower 1" || e.ServedBy != low1+"/both" || !slices.Equal(e.Hidden, []string{low2 + "/both"}) || e.IOMode != "passthrough" || e.Type != "file" {
		t.Errorf("both: %+v", e)
	}
	if st := statOf(t, m.path("both")); st.Ino != e.Ino {
		t.Errorf("both: inode %d, stat says %d", e.Ino, st.Ino)
	}
	if e := m.explain("f"); e.Layer != "lower 2" || e.ServedBy != low2+"/f" {
		t.Errorf("f: %+v", e)
	}
	if e := m.explain("s"); e.Type != "symlink" || e.IOMode != "" {
		t.Errorf("s: %+v", e)
	}
	e = m.explain("gone")
	if e.Exists || !strings.HasPrefix(e.HiddenBy, "journal record cover") || !slices.Equal(e.Hidden, []string{low1 + "/gone"}) {
		t.Errorf("gone: %+v", e)
	}
	wantSaid(t, "gone", e.Records, `name "gone"`)
	e = m.explain("a")
	if e.Exists || e.HiddenBy == "" || !slices.Equal(e.Hidden, []string{low1 + "/a"}) {
		t.Errorf("a: %+v", e)
	}
	e = m.explain("d")
	if e.Layer != "upper" || !slices.Equal(e.Merged, []string{m.upper + "/d", low1 + "/d", low2 + "/d"}) || len(e.Hidden) != 0 {
		t.Errorf("d: %+v", e)
	}
	if e := m.explain("d/up"); e.Layer != "upper" || e.ServedBy != m.upper+"/d/up" {
		t.Errorf("d/up: %+v", e)
	}
	e = m.explain("moved")
	wantSaid(t, "moved", e.Records, "redirect: /move")
	if !slices.Equal(e.Merged, []string{m.upper + "/moved", low1 + "/move"}) {
		t.Errorf("moved: %+v", e)
	}
	if e := m.explain("none"); e.Exists || e.HiddenBy != "" || len(e.Hidden) != 0 {
		t.Errorf("none: %+v", e)
	}
	e = m.explain("white")
	if e.Exists {
		t.Errorf("white: %+v", e)
	}
	for _, bad := range []string{"none/x", "both/x"} {
		if _, err := m.Explain(bad); err == nil {
			t.Errorf("%s is explained", bad)
		}
	}
	if e := m.explain("../../d/./up"); e.Path != "/d/up" {
		t.Errorf("path %q", e.Path)
	}
}

func TestExplainIOMode(t *testing.T) {
	x := overLowerFile(t, IOPassthrough)
	r := openFD(t, x.path("f"), unix.O_RDONLY)
	if e := x.explain("f"); e.IOMode != "passthrough" || !strings.Contains(e.IOWhy, "1 open") {
		t.Errorf("open: %+v", e)
	}
	writePath(t, x.path("f"), newContent)
	e := x.explain("f")
	wantSaid(t, "the copy", e.Records, "origin: layer 1 inode")
	r.close()
	c := overLowerFile(t, IOCoherent)
	if e := c.explain("f"); e.IOMode != "server" || !strings.Contains(e.IOWhy, "io=coherent") {
		t.Errorf("coherent: %+v", e)
	}
	off := mountOver(t, func(c *Config) { c.Passthrough = PassthroughOff }, layer(t, "file a 1"))
	if e := off.explain("a"); e.IOMode != "server" || !strings.Contains(e.IOWhy, "passthrough=off") {
		t.Errorf("off: %+v", e)
	}
}

// changesOf is what Changes reports, as "A path".
func changesOf(t testing.TB, fs *FS) (out []string) {
	t.Helper()
	must(t, fs.Changes(func(kind byte, path string) error {
		out = append(out, fmt.Sprintf("%c %s", kind, path))
		return nil
	}))
	return out
}

func TestChanges(t *testing.T) {
	m := mountOver(t, nil,
		layer(t, "file a 1", "file d/x 1", "file d/y 1", "file deep/er/est 1", "file gone/z 1", "file kind 1", "file kinddir/x 1",
			"file mode 1", "symlink a s", "file touched 1", "file same 1", "file hard 1", "link hard hard2", "file attr 1", "file mv/m 1"))
	if got := changesOf(t, m.FS); len(got) != 0 {
		t.Errorf("at first: %q", got)
	}
	writePath(t, m.path("a"), "2")
	must(t, unix.Unlink(m.path("d/x")))
	writePath(t, m.path("d/new"), "n")
	writePath(t, m.path("deep/er/est"), "2")
	must(t, unix.Unlink(m.path("gone/z")))
	must(t, unix.Rmdir(m.path("gone")))
	must(t, unix.Unlink(m.path("kind")))
	mkdir(t, m.path("kind/sub"))
	must(t, unix.Unlink(m.path("kinddir/x")))
	must(t, unix.Rmdir(m.path("kinddir")))
	writePath(t, m.path("kinddir"), "f")
	must(t, unix.Chmod(m.path("mode"), 0o600))
	must(t, unix.Unlink(m.path("s")))
	must(t, unix.Symlink("other", m.path("s")))
	openFD(t, m.path("same"), unix.O_RDWR).close() // copied up, and the same
	writePath(t, m.path("hard"), "2")
	must(t, unix.Setxattr(m.path("attr"), "user.k", []byte("v"), 0))
	must(t, unix.Rename(m.path("mv"), m.path("mv2")))
	mkdir(t, m.path("add/ed"))
	writePath(t, m.path("add/f"), "")
	writePath(t, m.path("brief"), "")
	must(t, unix.Unlink(m.path("brief")))
	want := []string{
		"M a", "A add", "A add/ed", "A add/f", "M attr", "A d/new", "D d/x", "M deep/er/est", "D gone", "M hard", "M hard2",
		"M kind", "A kind/sub", "M kinddir", "M mode", "D mv", "A mv2", "A mv2/m", "M s",
	}
	got := changesOf(t, m.FS)
	if !slices.Equal(got, want) {
		t.Errorf("changes\n %q, want\n %q", got, want)
	}
	m = m.remount(nil)
	if again := changesOf(t, m.FS); !slices.Equal(again, got) {
		t.Errorf("after a remount\n %q, before\n %q", again, got)
	}
	if err := m.Changes(func(byte, string) error { return unix.EINTR }); err != unix.EINTR {
		t.Errorf("the caller's error: %v", err)
	}
	m.wantForgotten()
}

func TestStatus(t *testing.T) {
	low1, low2 := layer(t, "file a 1", "dir d"), tmpfs(t)
	m := mountOver(t, nil, low1, low2)
	readPath(t, m.path("a"))
	writePath(t, m.path("d/new"), "n")
	openFD(t, m.path("a"), unix.O_RDWR).close()
	must(t, unix.Unlink(m.path("a")))
	var st unix.Stat_t
	_ = unix.Lstat(m.path("none"), &st)
	wantErrno(t, "rmdir", unix.Rmdir(m.path("d")), unix.ENOTEMPTY)
	must(t, m.Sync()) // records that follow a change of upper are written then
	s := m.Status()
	if s.Mountpoint != m.mnt || s.PID != os.Getpid() || s.ReadOnly || s.IO != IOPassthrough || s.MaxStackDepth != 1 || s.Panics != 0 {
		t.Errorf("%+v", s)
	}
	if len(s.Layers) != 3 || s.Layers[0].Role != "upper" || s.Layers[1].Path != low1 || s.Layers[2].FSType != "tmpfs" {
		t.Fatalf("layers %+v", s.Layers)
	}
	if s.Layers[0].ReadOnly || !s.Layers[1].ReadOnly || !s.Layers[2].ReadOnly || !slices.Contains(s.Layers[0].Caps, "trusted_xattr") {
		t.Errorf("layers %+v", s.Layers)
	}
	for _, op := range []string{"INIT", "LOOKUP", "OPEN", "CREATE", "UNLINK", "RMDIR"} {
		if s.Requests[op] == 0 {
			t.Errorf("no %s in %v", op, s.Requests)
		}
	}
	if s.Errors["ENOTEMPTY"] != 1 || s.Errors["EIO"] != 0 || len(s.LastErrors) != 0 {
		t.Errorf("errors %v, %q", s.Errors, s.LastErrors)
	}
	if s.CopyUps.Files != 1 || s.CopyUps.Dirs != 1 || s.CopyUps.Failed != 0 {
		t.Errorf("copy-ups %+v", s.CopyUps)
	}
	if s.Nodes < 2 || s.Threads < 1 || s.FDs < 5 {
		t.Errorf("%d nodes, %d threads, %d descriptors", s.Nodes, s.Threads, s.FDs)
	}
	if s.Journal == nil || s.Journal.Records["cover"] != 1 || s.Journal.Path != m.work+"/plyfs" || s.Journal.Error != "" {
		t.Errorf("journal %+v", s.Journal)
	}
	var b bytes.Buffer
	must(t, m.DumpJournal(&b))
	if !strings.Contains(b.String(), "a") || b.Len() < 20 {
		t.Errorf("dump %q", b.String())
	}
}

func TestStatusReadOnly(t *testing.T) {
	m := mountOver(t, func(c *Config) { c.Upper, c.Work = "", "" }, layer(t, "file a 1"))
	s := m.Status()
	if !s.ReadOnly || s.Journal != nil || len(s.Layers) != 1 || s.Layers[0].Role != "lower" {
		t.Errorf("%+v", s)
	}
	var b bytes.Buffer
	must(t, m.DumpJournal(&b))
	if !strings.Contains(b.String(), "no journal") {
		t.Errorf("dump %q", b.String())
	}
}

func TestOpNames(t *testing.T) {
	for op, want := range map[int]string{1: "LOOKUP", 2: "FORGET", 14: "OPEN", 15: "READ", 26: "INIT", 34: "ACCESS", 35: "CREATE",
		42: "BATCH_FORGET", 44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK", 47: "COPY_FILE_RANGE", 50: "SYNCFS", 51: "TMPFILE", 52: "STATX", 63: "OPCODE_63"} {
		if got := opName(op); got != want {
			t.Errorf("opcode %d is %q, want %q", op, got, want)
		}
	}
}
