// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each bad object is refused with one line that names the object, the culprit
// and the mend.
func TestBadObjects(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags []string
		want  []string
	}{
		{"no program", []string{"-DNO_PROGRAM"}, []string{"no plyfs program", "ply/inode/{lookup"}},
		{"unknown section", []string{`-DSECTION="ply/file/opne/pre"`},
			[]string{"section ply/file/opne/pre", "did you mean ply/file/open/pre?", "the sections are ply/inode/{lookup"}},
		{"capitals", []string{`-DSECTION="PLY/inode/Readdir/POST"`}, []string{"did you mean ply/inode/readdir/post?"}},
		{"far away", []string{`-DSECTION="ply/whatever/this/may/be/anyway"`}, []string{"no such section; the sections"}},
		{"kprobe beside", []string{`-DOTHER_SECTION="kprobe/do_unlinkat"`},
			[]string{"section kprobe/do_unlinkat: not a plyfs section"}},
		{"only a syscall program", []string{"-DNO_PROGRAM", `-DOTHER_SECTION="syscall"`},
			[]string{"section syscall: not a plyfs section"}},
		{"data", []string{"-DDATA"}, []string{"section ply/file/open/pre: holds data"}},
		{"two programs", []string{"-DTWO"},
			[]string{"section ply/file/open/pre: two programs, ply_first and ply_second"}},
		{"no header", []string{"-DNO_HEADER"}, []string{"no variable ply_abi", "#include <plyfs.h>"}},
		{"no types", []string{"-g0"}, []string{"no type information", "-g"}},
		{"LPM trie", []string{"-DMAP_TYPE=11"}, []string{"map odd", "LPMTrie", "use a hash or an array"}},
		{"bloom filter", []string{"-DMAP_TYPE=30"}, []string{"map odd", "BloomFilter"}},
		{"big-endian", []string{"-target", "bpfeb"}, []string{"ELFDATA2MSB", "byte order"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tryRead(t, build(t, "bad.c", c.flags...))
			wantError(t, err, c.want...)
		})
	}
}

// wantError checks that err is one line with all of the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	t.Log(err)
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, w := range append(words, "prog.o: ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// The header of another version gives another ply_abi or another ply_slots.
func TestOtherHeader(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"newer", "#define PLY_ABI 1", "#define PLY_ABI 7", "was built for ABI 7, this plyfs has 1"},
		{"zero", "#define PLY_ABI 1", "#define PLY_ABI 0", "was built for ABI 0"},
		{"other size", "#define PLY_EXTENTS 16", "#define PLY_EXTENTS 17", "map ply_slots: values have"},
		{"fewer slots", "max_entries, 64", "max_entries, 63", "map ply_slots: 63 entries"},
		{"no slots", "} ply_slots SEC(\".maps\")", "} ply_slots", "no map ply_slots"},
		{"no epoch", "} ply_epoch SEC(\".maps\")", "} ply_epoch", "no map ply_epoch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := os.ReadFile("include/plyfs.h")
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(text), c.from, c.to, 1)
			if changed == string(text) {
				t.Fatalf("plyfs.h has no %q", c.from)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "plyfs.h"), []byte(changed), 0o644); err != nil {
				t.Fatal(err)
			}
			path := build(t, "bad.c", "-I", dir)
			_, err = tryRead(t, path)
			wantError(t, err, c.want)
		})
	}
}

func TestNoObject(t *testing.T) {
	elf, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, content, want string
	}{
		{"empty", "", "not an object file"},
		{"short", "\x7fELF", "not an object file"},
		{"source", "#include <plyfs.h>\n", "clang -O2 -g -target bpf"},
		{"of this machine", string(elf), "not for BPF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readObject("prog.o", strings.NewReader(c.content))
			wantError(t, err, c.want)
		})
	}
}

// A damaged file is an error, never a panic.
func TestDamagedObject(t *testing.T) {
	good, err := os.ReadFile(build(t, "echo.c"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 1 + len(good)/700 {
		bad := bytes.Clone(good)
		for j := i; j < min(i+4, len(bad)); j++ {
			bad[j] ^= 0xff
		}
		for _, b := range [][]byte{bad, good[:i]} {
			if _, err := readObject("prog.o", bytes.NewReader(b)); err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("byte %d: %q", i, err)
			}
		}
	}
}

func TestReadObject(t *testing.T) {
	o := mustRead(t, build(t, "echo.c"))
	if o.abi != 1 || o.caller || len(o.progs) != 3 || o.progs[progKey{opLookup, post}] == nil {
		t.Errorf("abi %d, caller %v, programs %v", o.abi, o.caller, o.progs)
	}
	o = mustRead(t, build(t, "bad.c", "-DCALLER"))
	if !o.caller {
		t.Error("PLY_CALLER was not seen")
	}
}

// What the verifier refuses is shown with its words and the line of C.
func TestRefusal(t *testing.T) {
	o := mustRead(t, build(t, "bad.c", "-DOUT_OF_BOUNDS"))
	_, err := o.load(loadOptions{})
	skipUnprivileged(t, err)
	var r *VerifierRefusal
	if !errors.As(err, &r) {
		t.Fatalf("%T %v", err, err)
	}
	wantError(t, err, "section ply/file/open/pre (ply_first)", "refused by the verifier", "BAD LINE", "bad.c:")
	var log bytes.Buffer
	if err := r.WriteLog(&log); err != nil || strings.Count(log.String(), "\n") < 5 {
		t.Errorf("the log is %v %q", err, &log)
	}
}

// A program that the verifier takes seconds for is refused in time, without
// the verifier's words.
func TestUnbounded(t *testing.T) {
	for _, flag := range []string{"-DUNBOUNDED", "-DLONG"} {
		t.Run(flag, func(t *testing.T) { checkInTime(t, build(t, "bad.c", flag)) })
	}
}

func checkInTime(t *testing.T, path string) {
	before := fds(t)
	start := time.Now()
	_, err := Check(path)
	took := time.Since(start)
	skipUnprivileged(t, err)
	var r *VerifierRefusal
	if !errors.As(err, &r) || !strings.Contains(err.Error(), "too complex, or an unbounded loop") {
		t.Errorf("%T %v", err, err)
	}
	t.Log(took, err)
	if took > secondsAtMost {
		t.Errorf("checking took %v", took)
	}
	wantFDs(t, before)
}

// wantFDs waits for the descriptors that others still close.
func wantFDs(t *testing.T, want int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for fds(t) > want {
		if time.Now().After(deadline) {
			t.Errorf("%d descriptors, there were %d", fds(t), want)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A load that is given up leaves nothing behind.
func TestLoadTimeout(t *testing.T) {
	o := mustRead(t, build(t, "bad.c", "-DUNBOUNDED"))
	before := fds(t)
	_, err := o.load(loadOptions{timeout: 50 * time.Millisecond})
	skipUnprivileged(t, err)
	wantError(t, err, "section ply/file/open/pre (ply_first)", "unbounded loop")
	o = mustRead(t, build(t, "echo.c"))
	if p, err := o.load(loadOptions{timeout: 1}); err == nil {
		p.Close()
	}
	wantFDs(t, before)
}

// Without privilege the error says what is missing, in our words.
func TestUnprivileged(t *testing.T) {
	if path := os.Getenv("PLYFS_TEST_UNPRIVILEGED"); path != "" {
		_, err := mustRead(t, path).load(loadOptions{})
		wantError(t, err, "CAP_BPF and CAP_PERFMON are missing", "setcap", "AmbientCapabilities", "token")
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	asNobody(t, build(t, "echo.c"))
}

// asNobody runs this test again as the user nobody.
func asNobody(t *testing.T, object string) {
	t.Helper()
	b, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp("/tmp", "plyfs-test-*.o")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := errors.Join(f.Chmod(0o644), os.WriteFile(f.Name(), b, 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestUnprivileged$", "-test.v")
	cmd.Env = append(os.Environ(), "PLYFS_TEST_UNPRIVILEGED="+f.Name())
	cmd.Dir = "/"
	cmd.SysProcAttr = nobodyAttr()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func TestPrivilegeError(t *testing.T) {
	const bpf, perfmon, admin = 1 << 39, 1 << 38, 1 << 21
	for _, c := range []struct {
		caps    uint64
		initial bool
		want    string
	}{
		{bpf | perfmon, true, ""},
		{admin, true, ""},
		{0, true, "CAP_BPF and CAP_PERFMON are missing"},
		{bpf, true, ": CAP_PERFMON is missing"},
		{perfmon, true, ": CAP_BPF is missing"},
		{admin, false, "user namespace"},
	} {
		err := privilegeError(c.caps, c.initial)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%#x %v: %v", c.caps, c.initial, err)
		}
	}
}
