// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Policies and maps that change while the mount is in use.

// filled is a program that shows n bytes of a letter in the place of a file.
func filled(letter byte, n int) string {
	return fmt.Sprintf(`
	out->flags = PLY_OUT_SIZE;
	out->size = %d;
	if (in->flags & PLY_IN_ATTR)
		return PLY_CONTINUE;
	for (int i = 0; i < %d; i++)
		out->data[i] = %d;
	out->data_len = %d;
	ply_extent(out, 0, %d, PLY_EXT_INLINE, 0, 0);
	return PLY_CONTINUE;`, n, n, letter, n, n)
}

// TestLiveSetAtomic: a policy that does not load leaves everything as it was.
func TestLiveSetAtomic(t *testing.T) {
	w := newWorkshop(t)
	good := w.openProgram("good", filled('g', 32))
	refused := w.openProgram("refused", "return in->name[in->name_len - 1];")
	file := func(name, rules string) string {
		p := filepath.Join(w.dir, name)
		must(t, os.WriteFile(p, []byte("version: 1\nrules:\n"+rules), 0o644))
		return p
	}
	open := file("open.yaml", "- {path: /, program: redact, whole: true}\n")
	must(t, os.Chmod(open, 0o666))
	u := newMount(t, mountOpts{options: []string{"bpf=" + good}, lowers: [][]string{{"f=" + strings.Repeat("l", 32), "d/x=1"}}})
	held, err := os.Open(u.path("f"))
	must(t, err)
	defer held.Close()
	for _, c := range []struct {
		file  string
		words []string
	}{
		{filepath.Join(w.dir, "none.o"), []string{"none.o"}},
		{filepath.Join(w.dir, "none.yaml"), []string{"none.yaml"}},
		{refused, []string{"refused.o", "verifier", "refused.c:"}},
		{filepath.Join(w.dir, "good.c"), []string{"good.c"}},
		{open, []string{"open.yaml", "written"}},
		{file("half.yaml", "- {path: /d, program: ./good.o}\n- {path: /f, program: ./refused.o}\n"), []string{"half.yaml:4", "verifier"}},
		{file("key.yaml", "- {path: /, program: redact, whoole: true}\n"), []string{"key.yaml:3", "whoole", "whole"}},
		{file("part.yaml", "- {path: /f, program: split, parts: [none.bin]}\n"), []string{"part.yaml:3", "none.bin"}},
		{file("param.yaml", "- {path: /, program: ./good.o, params: {limit: 1}}\n"), []string{"param.yaml:3", "limit"}},
		{file("map.yaml", "- {path: /, program: ./good.o, maps: {m: {1: 1}}}\n"), []string{"map.yaml:3", "m"}},
		{file("layer.yaml", "- {path: /, program: select, clauses: [{match: '*', layer: 7}]}\n"), []string{"layer.yaml:3", "7"}},
	} {
		out, err := plyfs("policy", "set", u.mp, c.file)
		wantRefused(t, "policy set "+c.file, out, err, c.words...)
		wantFile(t, u.path("f"), strings.Repeat("g", 32))
		if n := u.policyStatus().Policy.Generation; n != 1 {
			t.Errorf("after %s it is policy %d, want 1", c.file, n)
		}
	}
	b := make([]byte, 32)
	_, err = held.ReadAt(b, 0)
	must(t, err)
	wantBytes(t, "a descriptor", b, bytes.Repeat([]byte("g"), 32))
}

// TestLiveReplaceInUse: while readers open and read, each of them sees one
// policy or the other; who reads after the command sees the new one.
func TestLiveReplaceInUse(t *testing.T) {
	w := newWorkshop(t)
	const n = 64
	a, b := w.openProgram("a", filled('a', n)), w.openProgram("b", filled('b', n))
	u := newMount(t, mountOpts{options: []string{"bpf=" + a}, lowers: [][]string{{"f=" + strings.Repeat("l", n)}}})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var reads atomic.Int64
	for range 4 {
		wg.Go(func() { readWhile(t, stop, u.path("f"), n, "abl", &reads) })
	}
	letters := map[string]byte{a: 'a', b: 'b', "": 'l'}
	for i := range 30 {
		next := []string{b, "", a}[i%3]
		if next == "" {
			u.clearPolicy()
		} else {
			u.setPolicy(next)
		}
		wantFile(t, u.path("f"), strings.Repeat(string(letters[next]), n))
	}
	close(stop)
	wg.Wait()
	if reads.Load() < 100 {
		t.Errorf("only %d reads", reads.Load())
	}
	u.clearPolicy()
	if e := u.explain("f"); len(e.Rules) != 0 || e.DecidedBy != "" {
		t.Errorf("after policy clear: %+v", e)
	}
}

// readWhile opens and reads a file until stop: n bytes of one of the letters.
func readWhile(t *testing.T, stop <-chan struct{}, path string, n int, letters string, reads *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("reading meanwhile: %v", err)
			return
		}
		if len(got) != n || bytes.Count(got, got[:1]) != n || !strings.Contains(letters, string(got[0])) {
			t.Errorf("a reader saw %q", got)
			return
		}
		reads.Add(1)
	}
}

// TestLiveCallerNeedsMount: a mount that began without a policy refuses names
// by caller later, and says so; one that began with one takes them.
func TestLiveCallerNeedsMount(t *testing.T) {
	w := newWorkshop(t)
	by := w.compile("by", strings.Replace(program("ply/inode/lookup/pre", `
	if (in->uid != 0)
		out->flags = PLY_OUT_HIDE;
	return PLY_CONTINUE;`), "\n", "\nPLY_CALLER;\n", 1))
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}})
	out, err := plyfs("policy", "set", u.mp, by)
	wantRefused(t, "policy set", out, err, "caller", "mount again")
	wantFile(t, u.path("f"), "1")
	u.remountWith("bpf=" + w.openProgram("nothing", "return PLY_CONTINUE;"))
	u.setPolicy(by)
	wantFile(t, u.path("f"), "1")
	as(t, alice, func() { wantGone(t, u.path("f")); wantNames(t, u.mp) })
	wantNames(t, u.mp, "f")
}

// hideByMap hides the names that a map has, and blanks as many bytes of each
// file as another says.
const hideByMap = `#include <plyfs.h>
struct { __uint(type, PLY_MAP_HASH); __uint(max_entries, 128); __type(key, char[16]); __type(value, __u32); } hidden SEC(".maps");
struct { __uint(type, PLY_MAP_HASH); __uint(max_entries, 128); __type(key, char[16]); __type(value, __u64); } blank SEC(".maps");

static __always_inline void name_of(const struct ply_in *in, char *key)
{
	for (int i = 0; i < 15; i++)
		if (i < in->name_len)
			key[i] = in->name[i];
}

PLY_PROGRAM("ply/inode/lookup/pre", hide)
{
	char key[16] = {};

	name_of(in, key);
	if (bpf_map_lookup_elem(&hidden, key))
		out->flags = PLY_OUT_HIDE;
	return PLY_CONTINUE;
}

PLY_PROGRAM("ply/file/open/pre", blanks)
{
	char key[16] = {};
	__u64 *n;

	name_of(in, key);
	n = bpf_map_lookup_elem(&blank, key);
	if (!n || !*n || *n >= in->size)
		return PLY_CONTINUE;
	ply_zero(out, 0, *n);
	ply_backing(out, *n, in->size - *n, PLY_SELF, *n);
	return PLY_CONTINUE;
}
PLY_LICENSE("GPL");
`

// TestLiveMaps: map set and delete show at once, for names, listings, new
// opens and what is open already; dump and list tell what is in the maps.
func TestLiveMaps(t *testing.T) {
	w := newWorkshop(t)
	u := newMount(t, mountOpts{options: []string{"bpf=" + w.compile("maps", hideByMap)}, lowers: [][]string{{"f=12345678", "g=12345678", "h=1"}}})
	change := func(args ...string) {
		t.Helper()
		if out, err := plyfs(append([]string{"policy", "map", args[0], u.mp}, args[1:]...)...); err != nil || out != "" {
			t.Fatalf("policy map %q: %v %s", args, err, out)
		}
	}
	wantNames(t, u.mp, "f", "g", "h")
	change("set", "hidden", "str:h", "1")
	wantGone(t, u.path("h"))
	wantNames(t, u.mp, "f", "g")
	change("delete", "hidden", "str:h")
	wantNames(t, u.mp, "f", "g", "h")
	wantFile(t, u.path("h"), "1")

	change("set", "blank", "str:f", "2")
	held, err := os.Open(u.path("f"))
	must(t, err)
	defer held.Close()
	b := make([]byte, 8)
	for _, c := range [][2]string{{"0x3", "\x00\x00\x0045678"}, {"7", "\x00\x00\x00\x00\x00\x00\x008"}, {"0", "12345678"}, {"2", "\x00\x00345678"}} {
		change("set", "blank", "str:f", c[0])
		_, err := held.ReadAt(b, 0)
		must(t, err)
		wantBytes(t, "a descriptor", b, []byte(c[1]))
		wantFile(t, u.path("f"), c[1])
		wantFile(t, u.path("g"), "12345678")
	}
	out, err := plyfs("policy", "map", "dump", u.mp, "blank")
	if err != nil || !slices.Equal(strings.Fields(out), []string{`"f"`, "2"}) {
		t.Errorf("map dump: %v %q", err, out)
	}
	out, err = plyfs("policy", "map", "list", u.mp)
	if err != nil || !strings.Contains(out, "1 of 128") || !strings.Contains(out, "0 of 128") {
		t.Errorf("map list: %v\n%s", err, out)
	}
	for args, words := range map[string][]string{
		"set none str:f 1":                    {"none", "hidden"},
		"delete hidden str:f":                 {"hidden", "no such key"},
		"set hidden str:12345678901234567 1":  {"hidden", "16 bytes"},
		"set hidden str:f 4294967296":         {"hidden", "value"},
		"set hidden --rule other str:f 1":     {"other", "maps"},
		"set ply_slots 0 0":                   {"ply_slots"},
		"set hidden":                          {"usage"},
		"dump hidden --most 0 extra-argument": {"usage"},
	} {
		f := strings.Fields(args)
		out, err := plyfs(append([]string{"policy", "map", f[0], u.mp}, f[1:]...)...)
		wantRefused(t, "map "+args, out, err, words...)
	}
}

// TestLiveMapEmptied: entries come and go while readers read: each sees the
// file with or without what the map says.
func TestLiveMapEmptied(t *testing.T) {
	w := newWorkshop(t)
	u := newMount(t, mountOpts{options: []string{"bpf=" + w.compile("maps", hideByMap)}, lowers: [][]string{{"f=" + strings.Repeat("l", 64)}}})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := os.ReadFile(u.path("f"))
				if zeros := bytes.Count(got, []byte{0}); err != nil || len(got) != 64 || zeros != 0 && zeros != 60 {
					t.Errorf("a reader saw %v %q", err, got)
					return
				}
			}
		})
	}
	for range 20 {
		for _, args := range [][]string{{"set", u.mp, "blank", "str:f", "60"}, {"delete", u.mp, "blank", "str:f"}} {
			if out, err := plyfs(append([]string{"policy", "map"}, args...)...); err != nil {
				t.Fatalf("map %q: %v %s", args, err, out)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// newBPFFS mounts a file system in which maps can be pinned.
func newBPFFS(t testing.TB) string {
	t.Helper()
	dir := makeTree(t, filepath.Join(tempDir(t), "bpffs"), nil)
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("no bpffs: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}

// bpftoolMap changes a pinned map, as somebody else does.
func bpftoolMap(t testing.TB, verb, pin string, keyAndValue ...[]byte) {
	t.Helper()
	args := []string{"map", verb, "pinned", pin}
	for i, b := range keyAndValue {
		args = append(args, []string{"key", "value"}[i], "hex")
		for _, one := range b {
			args = append(args, hex.EncodeToString([]byte{one}))
		}
	}
	if out, err := exec.Command("bpftool", args...).CombinedOutput(); err != nil {
		t.Fatalf("bpftool %q: %v\n%s", args, err, out)
	}
}

// TestLiveHidden: a name that a new policy hides is gone for all, even if its
// last answer of before takes long to reach its caller, for other threads keep
// the processors busy.
func TestLiveHidden(t *testing.T) {
	requirePlyfs(t, "policies")
	const files = 400
	var lower []string
	for i := range files {
		lower = append(lower, fmt.Sprintf("d/hidden%d=1", i))
	}
	dir := tempDir(t)
	show := writePolicy(t, dir, "show.yaml", "- {path: /, program: select, clauses: [{match: none, hide: true}]}\n")
	hide := writePolicy(t, dir, "hide.yaml", "- {path: /, program: select, clauses: [{match: 'hidden*', hide: true}]}\n")
	u := newMount(t, mountOpts{dir: makeTree(t, dir+"/mount", nil), options: []string{"policy=" + show}, lowers: [][]string{lower}})
	file := func(i int) string { return u.path(fmt.Sprintf("d/hidden%d", i)) }
	defer busyProcessors()()
	for round := range 6 {
		u.setPolicy(show)
		for i := range files {
			_ = lstat(t, file(i))
		}
		u.setPolicy(show) // has the kernel ask about each name that it knows
		var stop atomic.Bool
		var wg sync.WaitGroup
		for w := range 2 {
			wg.Go(func() {
				runtime.LockOSThread() // and ends with the goroutine
				const schedIdle = 5
				checkErr(t, unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedIdle}, 0))
				for i := w; i < files && !stop.Load(); i += 2 {
					var st unix.Stat_t
					_ = unix.Lstat(file(i), &st)
				}
			})
		}
		time.Sleep(time.Duration(10+5*round) * time.Millisecond)
		u.setPolicy(hide)
		stop.Store(true)
		wg.Wait()
		shown := 0
		for i := range files {
			if _, err := os.Lstat(file(i)); err == nil {
				shown++
			}
		}
		if shown > 0 {
			t.Errorf("round %d: %d of %d names are shown that the policy hides", round, shown, files)
		}
	}
}

// busyProcessors keeps all processors busy until it is told to stop.
func busyProcessors() (stop func()) {
	var stopped atomic.Bool
	var wg sync.WaitGroup
	n := runtime.NumCPU() + 1
	old := runtime.GOMAXPROCS(2*n + 4) // or the test itself would not run
	for range n {
		wg.Go(func() {
			for !stopped.Load() {
			}
		})
	}
	return func() {
		stopped.Store(true)
		wg.Wait()
		runtime.GOMAXPROCS(old)
	}
}

// eventually waits for what the mount does a moment later.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Errorf("%s: not after %v", what, patience)
}

// TestLivePinned: pinned maps are changed by somebody else. New opens follow
// at once, everything else once ply_epoch has changed; the maps outlive the
// mount, and the next one finds them as they were.
func TestLivePinned(t *testing.T) {
	w := newWorkshop(t)
	requireTool(t, "bpftool")
	pins := filepath.Join(newBPFFS(t), "plyfs")
	u := newMount(t, mountOpts{options: []string{"bpf=" + w.compile("maps", hideByMap), "bpf_pin=" + pins},
		lowers: [][]string{{"f=12345678", "h=1"}}})
	key := func(name string) []byte { return append([]byte(name), make([]byte, 16-len(name))...) }
	wantFile(t, u.path("f"), "12345678")
	bpftoolMap(t, "update", pins+"/blank", key("f"), []byte{4, 0, 0, 0, 0, 0, 0, 0})
	wantFile(t, u.path("f"), "\x00\x00\x00\x005678")
	held, err := os.Open(u.path("f"))
	must(t, err)
	defer held.Close()
	_ = lstat(t, u.path("h"))
	bpftoolMap(t, "update", pins+"/blank", key("f"), []byte{6, 0, 0, 0, 0, 0, 0, 0})
	bpftoolMap(t, "update", pins+"/hidden", key("h"), []byte{1, 0, 0, 0})
	_, err = os.ReadFile(u.path("h"))
	wantErrno(t, "opening what was hidden without a change of ply_epoch", err, unix.ENOENT)
	bpftoolMap(t, "update", pins+"/ply_epoch", []byte{0, 0, 0, 0}, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	eventually(t, "the descriptor shows what the map says", func() bool {
		b := make([]byte, 8)
		_, err := held.ReadAt(b, 0)
		return err == nil && string(b) == "\x00\x00\x00\x00\x00\x0078"
	})
	wantGone(t, u.path("h"))
	wantNames(t, u.mp, "f")
	must(t, held.Close())
	u.remount()
	wantNames(t, u.mp, "f")
	wantFile(t, u.path("f"), "\x00\x00\x00\x00\x00\x0078")
	bpftoolMap(t, "delete", pins+"/hidden", key("h"))
	bpftoolMap(t, "update", pins+"/ply_epoch", []byte{0, 0, 0, 0}, []byte{2, 0, 0, 0, 0, 0, 0, 0})
	eventually(t, "the name is back", func() bool { return len(names(t, u.mp)) == 2 })
}

// TestLivePinErrors: where maps cannot be pinned there is one line that says
// why.
func TestLivePinErrors(t *testing.T) {
	w := newWorkshop(t)
	object := w.compile("maps", hideByMap)
	u := prepare(t, mountOpts{lowers: [][]string{{"f=1"}}, options: []string{"bpf=" + object, "bpf_pin=" + w.dir}})
	wantRefused(t, "pinning on no bpffs", "", u.tryMount(), "bpffs", w.dir)
	pins := filepath.Join(newBPFFS(t), "plyfs")
	u.opts.options[1] = "bpf_pin=" + pins
	u.mount()
	other := w.compile("other", strings.ReplaceAll(hideByMap, "max_entries, 128", "max_entries, 64"))
	out, err := plyfs("policy", "set", u.mp, other)
	wantRefused(t, "a pinned map of another size", out, err, "pinned")
	wantFile(t, u.path("f"), "1")
}

// resources are what a process holds.
type resources struct{ fds, mappings, memory int } // memory is what is resident, in KiB

func resourcesOf(t testing.TB, pid int) resources {
	t.Helper()
	r := resources{fds: countFDs(t, pid), mappings: bytes.Count(mustRead(t, fmt.Sprintf("/proc/%d/maps", pid)), []byte("\n"))}
	for _, line := range strings.Split(string(mustRead(t, fmt.Sprintf("/proc/%d/status", pid))), "\n") {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var err error
			r.memory, err = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			must(t, err)
		}
	}
	return r
}

// TestLiveNoLeak: policies that were replaced leave no descriptors, programs
// or memory behind.
func TestLiveNoLeak(t *testing.T) {
	w := newWorkshop(t)
	objects := []string{w.openProgram("a", filled('a', 64)), w.compile("maps", hideByMap)}
	must(t, os.WriteFile(w.dir+"/part.bin", pattern(5000, 1), 0o644))
	policy := filepath.Join(w.dir, "p.yaml")
	must(t, os.WriteFile(policy, []byte("version: 1\nrules:\n- {path: /f, program: split, parts: [part.bin]}\n- {path: /d, program: redact, ranges: [1-2]}\n"), 0o644))
	bad := w.openProgram("bad", "return in->name[in->name_len - 1];")
	u := newMount(t, mountOpts{options: []string{"bpf=" + objects[0]}, lowers: [][]string{{"f=#100", "d/g=1234"}}})
	round := func() {
		for _, file := range []string{objects[1], policy, objects[0]} {
			u.setPolicy(file)
			mustRead(t, u.path("f"))
			mustRead(t, u.path("d/g"))
		}
	}
	for range 10 { // what is made once and kept
		round()
	}
	before := resourcesOf(t, u.pid)
	for range 34 {
		round()
	}
	after := resourcesOf(t, u.pid)
	allowed := 16 << 10
	if raceDetector {
		allowed *= 4
	}
	if after.memory > before.memory+allowed {
		t.Errorf("%d KiB of memory after 102 more policies, %d before", after.memory, before.memory)
	}
	for range 20 { // the verifier's words may take a lot of memory for a while
		plyfs("policy", "set", u.mp, bad)
	}
	eventually(t, "as few descriptors and mappings as before", func() bool {
		after = resourcesOf(t, u.pid)
		return after.fds <= before.fds+4 && after.mappings <= before.mappings+40
	})
	t.Logf("before %+v, after %+v", before, after)
	eventually(t, "the daemon holds one program", func() bool {
		out, err := exec.Command("bpftool", "prog", "show").Output()
		return err != nil || strings.Count(string(out), "pids plyfs("+itoa(u.pid)+")") <= 1
	})
}
