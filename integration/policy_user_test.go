// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Programs as a user writes them: in C, with nothing but what `plyfs bpf
// header` prints.

// workshop is a directory in which a user compiles programs.
type workshop struct {
	testing.TB
	dir string
}

// newWorkshop skips where there is no compiler for BPF.
func newWorkshop(t testing.TB) *workshop {
	t.Helper()
	requirePlyfs(t, "programs")
	requireRoot(t)
	requireTool(t, "clang")
	if out, err := exec.Command("clang", "-print-targets").Output(); err == nil && !bytes.Contains(out, []byte("bpf")) {
		t.Skip("clang is installed, but does not compile for BPF")
	}
	w := &workshop{t, tempDir(t)}
	header, stderr, err := plyfsOut("bpf", "header")
	if err != nil {
		t.Fatalf("bpf header: %v\n%s", err, stderr)
	}
	must(t, os.WriteFile(filepath.Join(w.dir, "plyfs.h"), []byte(header), 0o644))
	return w
}

// compile makes an object of a program in C.
func (w *workshop) compile(name, source string) string {
	w.Helper()
	object := filepath.Join(w.dir, name+".o")
	must(w, os.WriteFile(filepath.Join(w.dir, name+".c"), []byte(source), 0o644))
	cmd := exec.Command("clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-I", ".", "-c", name+".c", "-o", object)
	cmd.Dir = w.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("clang %s.c: %v\n%s", name, err, out)
	}
	return object
}

// program is the C of an object with one program, p.
func program(section, body string) string {
	return "#include <plyfs.h>\nPLY_PROGRAM(\"" + section + "\", p)\n{\n" + body + "\n}\nPLY_LICENSE(\"GPL\");\n"
}

// openProgram compiles an object that is asked when files are opened.
func (w *workshop) openProgram(name, body string) string {
	w.Helper()
	return w.compile(name, program("ply/file/open/pre", body))
}

// planned is what the tests read of `plyfs bpf plan --json`.
type planned struct {
	Size    int64  `json:"size"`
	IOMode  string `json:"io_mode"`
	Extents []struct {
		Offset int64  `json:"offset"`
		Length int64  `json:"length"`
		Kind   string `json:"kind"`
		From   string `json:"from"`
	} `json:"extents"`
}

// plan asks of what a file is made, and says it in short: its extents, and how
// it is served.
func (u *union) plan(path string, args ...string) string {
	u.Helper()
	out, stderr, err := plyfsOut(append([]string{"bpf", "plan", "--json", u.path(path)}, args...)...)
	if err != nil {
		u.Fatalf("bpf plan %s: %v\n%s", path, err, stderr)
	}
	var p planned
	must(u, json.Unmarshal([]byte(out), &p))
	s := p.IOMode
	for _, e := range p.Extents {
		s += fmt.Sprintf(" %s:%d+%d", e.Kind, e.Offset, e.Length)
	}
	return s
}

// blankKeys zeros the first 4 KiB of all names that end with .key, for all but
// root.
const blankKeys = `#include <plyfs.h>
PLY_CALLER;
PLY_PROGRAM("ply/file/open/pre", blank_keys)
{
	__u32 n = in->name_len;
	__u64 z = in->size < 4096 ? in->size : 4096;

	if (n < 4 || n >= PLY_NAME_MAX || bpf_strncmp(in->name + n - 4, 4, ".key"))
		return PLY_CONTINUE;
	if (in->uid == 0 || !z)
		return PLY_CONTINUE;
	ply_zero(out, 0, z);
	if (z < in->size)
		ply_backing(out, z, in->size - z, PLY_SELF, z);
	return PLY_CONTINUE;
}
PLY_LICENSE("GPL");
`

// TestUserBlankByCaller: what a file shows depends on who opens it, also when
// several have it open at once.
func TestUserBlankByCaller(t *testing.T) {
	w := newWorkshop(t)
	object := w.compile("keys", blankKeys)
	u := newMount(t, mountOpts{options: []string{"bpf=" + object},
		lowers: [][]string{{"empty.key=", "small.key=#100", "page.key=#4096", "large.key=#100000", "other=#5000"}}})
	for _, f := range []struct {
		name    string
		n       int
		blanked int
	}{{"empty.key", 0, 0}, {"small.key", 100, 100}, {"page.key", 4096, 4096}, {"large.key", 100_000, 4096}, {"other", 5000, 0}} {
		full := mustRead(t, filepath.Join(u.lowers[0], f.name))
		blank := bytes.Clone(full)
		clear(blank[:f.blanked])
		for range 2 {
			wantBytes(t, "root reads "+f.name, mustRead(t, u.path(f.name)), full)
			as(t, alice, func() { wantBytes(t, "alice reads "+f.name, mustRead(t, u.path(f.name)), blank) })
		}
		if st := lstat(t, u.path(f.name)); st.Size != int64(f.n) {
			t.Errorf("%s: size %d, want %d", f.name, st.Size, f.n)
		}
	}
	checkOpenAtOnce(t, u, "large.key")
	for _, c := range [][2]string{
		{"0", "passthrough backing:0+100000"}, {"1000", "server zero:0+4096 backing:4096+95904"},
	} {
		if got := u.plan("large.key", "--uid", c[0]); got != c[1] {
			t.Errorf("the plan for uid %s is %q, want %q", c[0], got, c[1])
		}
	}
}

func mustRead(t testing.TB, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("reading: %v", err)
	}
	return b
}

// checkOpenAtOnce reads a file of whose first bytes alice sees only zeros
// while root has it open, and the other way round.
func checkOpenAtOnce(t *testing.T, u *union, name string) {
	t.Helper()
	first := func(f *os.File) bool {
		b := make([]byte, 16)
		_, err := f.ReadAt(b, 0)
		checkErr(t, err)
		return !bytes.Equal(b, make([]byte, 16))
	}
	var roots, alices *os.File
	var err error
	open := func(f **os.File) func() {
		return func() { *f, err = os.Open(u.path(name)); checkErr(t, err) }
	}
	for range 3 {
		open(&roots)()
		as(t, alice, open(&alices))
		for range 2 {
			if !first(roots) {
				t.Error("root's descriptor shows what alice sees")
			}
			if first(alices) {
				t.Error("alice's descriptor shows what root sees")
			}
		}
		roots.Close()
		open(&roots)()
		if first(alices) || !first(roots) {
			t.Error("opening it again has changed what is seen")
		}
		roots.Close()
		alices.Close()
	}
}

// TestUserSplice: one file of two layers' versions; what is copied up is the
// splice.
func TestUserSplice(t *testing.T) {
	w := newWorkshop(t)
	object := w.openProgram("splice", `
	__u64 half = in->size / 2;

	if ((in->layers & 6) != 6 || in->layer == 0 || !half)
		return PLY_CONTINUE;
	ply_backing(out, 0, half, PLY_LAYER(1), 0);
	ply_backing(out, half, in->size - half, PLY_LAYER(2), half);
	return PLY_CONTINUE;`)
	u := newMount(t, mountOpts{options: []string{"bpf=" + object},
		lowers: [][]string{{"both=aaaaAAAA", "one=1", "top=t"}, {"both=bbbbBBBB", "bottom=b"}}})
	wantFile(t, u.path("both"), "aaaaBBBB")
	wantFile(t, u.path("one"), "1")
	wantFile(t, u.path("bottom"), "b")
	if got, want := u.plan("both"), "server backing:0+4 backing:4+4"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	f, err := os.OpenFile(u.path("both"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("w"), 3)
	must(t, err)
	must(t, f.Close())
	wantFile(t, u.path("both"), "aaawBBBB")
	wantFile(t, filepath.Join(u.upper, "both"), "aaawBBBB")
	u.remount()
	wantFile(t, u.path("both"), "aaawBBBB")
}

// TestUserCountReads: a program that only counts changes nothing but the
// count.
func TestUserCountReads(t *testing.T) {
	w := newWorkshop(t)
	object := w.compile("count", `#include <plyfs.h>
struct { __uint(type, PLY_MAP_HASH); __uint(max_entries, 100); __type(key, __u64); __type(value, __u64); } reads SEC(".maps");
PLY_PROGRAM("ply/file/read/pre", count)
{
	__u64 ino = in->ino, one = 1, *n = bpf_map_lookup_elem(&reads, &ino);

	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&reads, &ino, &one, 0);
	return PLY_CONTINUE;
}
PLY_LICENSE("GPL");
`)
	u := newMount(t, mountOpts{options: []string{"bpf=" + object}, lowers: [][]string{{"f=#300000", "never=1"}}})
	wantBytes(t, "f", mustRead(t, u.path("f")), mustRead(t, u.lowers[0]+"/f"))
	out, err := plyfs("policy", "map", "dump", u.mp, "reads")
	must(t, err)
	if fields := strings.Fields(out); len(fields) != 2 || fields[0] != itoa(int(lstat(t, u.path("f")).Ino)) || fields[1] == "0" {
		t.Errorf("the map holds %q, want one count of inode %d", out, lstat(t, u.path("f")).Ino)
	}
	u.wantServed("f", "server", "count")
}

// TestUserClearSetID: a program takes the set-user-ID bit away, from what is
// shown and from what is run.
func TestUserClearSetID(t *testing.T) {
	w := newWorkshop(t)
	requireTool(t, "id")
	id, err := exec.LookPath("id")
	must(t, err)
	object := w.compile("nosuid", program("ply/inode/getattr/pre", `
	out->flags = PLY_OUT_MODE;
	out->mode_clear = 06000;
	return PLY_CONTINUE;`))
	low := makeTree(t, filepath.Join(w.dir, "low"), nil)
	run(t, "", "cp", id, low+"/id")
	must(t, os.Chmod(low+"/id", 0o755|os.ModeSetuid))
	u := newMount(t, mountOpts{lowerDirs: []string{low}, dir: w.dir})
	effective := func() string {
		out, stderr, code := runAs(t, alice, "/", u.path("id"), "-u")
		if code != 0 {
			t.Errorf("id: exit code %d: %s", code, stderr)
		}
		return strings.TrimSpace(out)
	}
	if got := effective(); got != "0" {
		t.Fatalf("without a program it runs as %s, want 0: the test is worth nothing", got)
	}
	u.setPolicy(object)
	if mode := lstat(t, u.path("id")).Mode & 0o7777; mode != 0o755 {
		t.Errorf("mode %o, want 755", mode)
	}
	if got := effective(); got != "1000" {
		t.Errorf("it runs as %s, want 1000", got)
	}
}

// TestUserPost: a post program alone is asked about each open, sees the size,
// and may refuse.
func TestUserPost(t *testing.T) {
	w := newWorkshop(t)
	object := w.compile("post", program("ply/file/open/post", `
	if (in->flags & (PLY_IN_ATTR | PLY_IN_COPYUP))
		return PLY_CONTINUE;
	return in->size > 1000 ? -27 : PLY_CONTINUE;`))
	u := newMount(t, mountOpts{options: []string{"bpf=" + object}, lowers: [][]string{{"small=1", "big=#1001"}}})
	wantFile(t, u.path("small"), "1")
	_, err := os.ReadFile(u.path("big"))
	wantErrno(t, "opening what is too big", err, 27)
	if st := lstat(t, u.path("big")); st.Size != 1001 {
		t.Errorf("size %d, want 1001", st.Size)
	}
}

// TestUserWindows: a file of more extents than an answer holds.
func TestUserWindows(t *testing.T) {
	w := newWorkshop(t)
	object := w.openProgram("windows", `
	/* Every other 100 bytes are zeros. */
	__u64 pos = in->offset;

	for (int i = 0; i < PLY_EXTENTS && pos < in->size; i++) {
		__u64 n = 100 - pos % 100;

		if (n > in->size - pos)
			n = in->size - pos;
		if (pos / 100 % 2)
			ply_zero(out, pos, n);
		else
			ply_backing(out, pos, n, PLY_SELF, pos);
		pos += n;
	}
	return PLY_CONTINUE;`)
	u := newMount(t, mountOpts{options: []string{"bpf=" + object}, lowers: [][]string{{"f=#70050"}}})
	want := mustRead(t, u.lowers[0]+"/f")
	for i := range want {
		if i/100%2 == 1 {
			want[i] = 0
		}
	}
	wantBytes(t, "f", mustRead(t, u.path("f")), want)
	f, err := os.Open(u.path("f"))
	must(t, err)
	defer f.Close()
	for _, off := range []int64{69_999, 50, 100, 33_333} { // anywhere, and in any order
		b := make([]byte, 50)
		_, err := f.ReadAt(b, off)
		must(t, err)
		wantBytes(t, fmt.Sprint("f at ", off), b, want[off:off+50])
	}
}

// TestUserExamples: the programs of bpf/examples compile and load.
func TestUserExamples(t *testing.T) {
	w := newWorkshop(t)
	sources, err := filepath.Glob("../bpf/examples/*.c")
	must(t, err)
	if len(sources) == 0 {
		t.Fatal("there are no examples")
	}
	for _, s := range sources {
		name := strings.TrimSuffix(filepath.Base(s), ".c")
		out, err := plyfs("bpf", "check", w.compile(name, string(mustRead(t, s))))
		if err != nil || strings.Contains(out, "slow") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestUserReadme runs each shell session of bpf/README.md whose output follows
// it, as somebody who pastes it into a root shell.
func TestUserReadme(t *testing.T) {
	w := newWorkshop(t)
	requireTool(t, "bash", "base64", "setpriv")
	path := makeTree(t, filepath.Join(w.dir, "bin"), nil)
	must(t, os.Symlink(plyfsBin, filepath.Join(path, "plyfs")))
	parts := strings.Split(string(mustRead(t, "../bpf/README.md")), "\n```")
	ran := 0
	for i, p := range parts {
		script, ok := strings.CutPrefix(p, "sh\n")
		if !ok || i+2 >= len(parts) || !strings.HasPrefix(parts[i+2], "text\n") {
			continue
		}
		ran++
		want := strings.TrimPrefix(parts[i+2], "text\n")
		cmd := exec.Command("bash", "-c", script)
		cmd.Dir, cmd.Env = w.dir, append(os.Environ(), "LC_ALL=C", "PATH="+path+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != strings.TrimSpace(want) {
			t.Errorf("%v: this session\n%s\nprints\n%s\nwant\n%s", err, script, out, want)
		}
	}
	if ran < 5 {
		t.Errorf("%d sessions were found, want 5 at least", ran)
	}
}
