// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The command line of programs and policies.

// checkBPF runs `plyfs bpf check` and expects it to come back soon.
func checkBPF(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	start := time.Now()
	stdout, stderr, err := plyfsOut(append([]string{"bpf", "check"}, args...)...)
	if took := time.Since(start); took > patience {
		t.Errorf("bpf check %q took %v", args, took)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return stdout, stderr, exit.ExitCode()
	}
	must(t, err)
	return stdout, stderr, 0
}

// checked is what the tests read of `plyfs bpf check --json`.
type checked struct {
	ABI      int    `json:"abi"`
	Caller   bool   `json:"caller"`
	License  string `json:"license"`
	Programs []struct {
		Section  string `json:"section"`
		Verified int    `json:"verified"`
		RunNS    int64  `json:"run_ns"`
		Slow     string `json:"slow"`
	} `json:"programs"`
	Maps      []struct{ Name, Type string } `json:"maps"`
	Variables []struct {
		Name, Type, Value string
		Const             bool
	} `json:"variables"`
	Warnings []string `json:"warnings"`
}

// TestPolicyCheckGood: what is said of programs that load.
func TestPolicyCheckGood(t *testing.T) {
	w := newWorkshop(t)
	source := strings.Replace(blankKeys, "PLY_CALLER;", "const volatile __u32 limit = 42;\nstruct { __uint(type, PLY_MAP_HASH); "+
		"__uint(max_entries, 7); __type(key, __u32); __type(value, __u64); } seen SEC(\".maps\");\nPLY_CALLER;", 1)
	source = strings.Replace(source, "__u32 n = in->name_len;", "__u32 n = in->name_len, k = limit;\n\tbpf_map_delete_elem(&seen, &k);", 1)
	object := w.compile("good", source)
	stdout, stderr, code := checkBPF(t, "--json", object)
	var c checked
	if err := json.Unmarshal([]byte(stdout), &c); err != nil || code != 0 {
		t.Fatalf("exit code %d: %v: %q %s", code, err, stdout, stderr)
	}
	if c.ABI != 1 || !c.Caller || c.License != "GPL" || len(c.Programs) != 1 || c.Programs[0].Section != "ply/file/open/pre" ||
		c.Programs[0].Verified == 0 || c.Programs[0].RunNS == 0 || c.Programs[0].Slow != "" {
		t.Errorf("check says %+v", c)
	}
	if len(c.Maps) != 1 || c.Maps[0].Name != "seen" || len(c.Variables) != 1 || c.Variables[0].Name != "limit" || c.Variables[0].Value != "42" {
		t.Errorf("maps and variables: %+v", c)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "PLY_CALLER") {
		t.Errorf("warnings: %q", c.Warnings)
	}
	for name, words := range map[string][]string{
		"nolicence": {"PLY_LICENSE"}, "slow": {"slow", "budget"},
	} {
		source := map[string]string{
			"nolicence": strings.Replace(program("ply/file/open/pre", "return PLY_CONTINUE;"), "PLY_LICENSE(\"GPL\");", "", 1),
			"slow":      slowProgram(2),
		}[name]
		stdout, stderr, code := checkBPF(t, w.compile(name, source))
		if code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, stderr)
		}
		for _, word := range words {
			if !strings.Contains(stdout, word) {
				t.Errorf("%s: no %q in\n%s", name, word, stdout)
			}
		}
	}
}

// TestPolicyCheckBad: each mistake of a program is one line that says what to
// mend.
func TestPolicyCheckBad(t *testing.T) {
	w := newWorkshop(t)
	good := program("ply/file/open/pre", "return PLY_CONTINUE;")
	section := func(name string) string { return strings.Replace(good, "ply/file/open/pre", name, 1) }
	header := string(mustRead(t, w.dir+"/plyfs.h"))
	for name, edit := range map[string][2]string{"abi2.h": {"#define PLY_ABI 1", "#define PLY_ABI 2"}, "slot.h": {"#define PLY_INLINE 4096", "#define PLY_INLINE 8192"}} {
		changed := strings.Replace(header, edit[0], edit[1], 1)
		if changed == header {
			t.Fatalf("%s is not in the header", edit[0])
		}
		must(t, os.WriteFile(filepath.Join(w.dir, name), []byte(changed), 0o644))
	}
	for _, c := range []struct {
		name, source string
		words        []string
	}{
		{"typo", section("ply/file/opne/pre"), []string{"ply/file/opne/pre", "did you mean ply/file/open/pre?"}},
		{"noply", section("file/open/pre"), []string{"file/open/pre", "did you mean ply/file/open/pre?"}},
		{"kprobe", "#include <plyfs.h>\nSEC(\"kprobe/vfs_read\") int k(void *ctx) { return 0; }\n", []string{"kprobe/vfs_read", "not a plyfs section"}},
		{"none", "#include <plyfs.h>\nPLY_LICENSE(\"GPL\");\n", []string{"no plyfs program"}},
		{"twice", good + "PLY_PROGRAM(\"ply/file/open/pre\", q)\n{\n\treturn PLY_CONTINUE;\n}\n", []string{"ply_p", "ply_q"}},
		{"abi", strings.Replace(good, "<plyfs.h>", "\"abi2.h\"", 1), []string{"ABI 2", "this plyfs has 1"}},
		{"slots", strings.Replace(good, "<plyfs.h>", "\"slot.h\"", 1), []string{"ply_slots", "rebuild"}},
		{"noheader", "__attribute__((section(\"ply/file/open/pre\"), used)) int f(void *ctx) { return 0; }\n", []string{"plyfs.h"}},
		{"bounds", program("ply/file/open/pre", "return in->name[in->name_len - 1];"), []string{"verifier", "bounds.c:4", "ply_p"}},
		{"null", "#include <plyfs.h>\nstruct { __uint(type, PLY_MAP_HASH); __uint(max_entries, 1); __type(key, __u64); __type(value, __u64); } m SEC(\".maps\");\n" +
			strings.TrimPrefix(program("ply/file/read/pre", "\t__u64 k = 0, *v = bpf_map_lookup_elem(&m, &k);\n\t*v = 1;\n\treturn PLY_CONTINUE;"), "#include <plyfs.h>\n"),
			[]string{"verifier", "null.c:6"}},
		{"forever", program("ply/file/open/pre", "\tvolatile __u64 x = 0;\n\tfor (;;) {\n\t\tx += in->size;\n\t\tif (x == 7)\n\t\t\tbreak;\n\t}\n\treturn 0;"),
			[]string{"unbounded loop"}},
		{"samestate", program("ply/file/open/pre", "\t__u64 i = 0;\n\twhile (in->size + i != 42)\n\t\ti += in->mtime;\n\tout->size = i;\n\treturn 0;"),
			[]string{"verifier", "loop"}},
	} {
		object := w.compile(c.name, c.source)
		stdout, stderr, code := checkBPF(t, object)
		if code != exitFailure || stdout != "" {
			t.Errorf("%s: exit code %d, output %q", c.name, code, stdout)
		}
		checkOneLine(t, stderr, append(c.words, c.name+".o"))
	}
	if stdout, _, _ := checkBPF(t, "--log", w.dir+"/bounds.o"); strings.Count(stdout, "\n") < 10 {
		t.Errorf("--log prints only %q", stdout)
	}
}

// TestPolicyCheckNoObject: files that are no objects.
func TestPolicyCheckNoObject(t *testing.T) {
	w := newWorkshop(t)
	native := filepath.Join(w.dir, "native.o")
	must(t, os.WriteFile(filepath.Join(w.dir, "p.c"), []byte(program("ply/file/open/pre", "return 0;")), 0o644))
	run(t, w.dir, "clang", "-O2", "-target", "bpf", "-mcpu=v3", "-I", ".", "-c", "p.c", "-o", "nodebug.o")
	if exec.Command("clang", "-x", "c", "-c", "-o", native, "/dev/null").Run() != nil {
		native = plyfsBin
	}
	for _, c := range []struct {
		file  string
		code  int
		words []string
	}{
		{filepath.Join(w.dir, "p.c"), exitFailure, []string{"p.c", "clang -O2 -g -target bpf"}},
		{filepath.Join(w.dir, "nodebug.o"), exitFailure, []string{"nodebug.o", ".BTF", "-g"}},
		{native, exitFailure, []string{"not for BPF", "-target bpf"}},
		{w.dir, exitFailure, []string{filepath.Base(w.dir)}},
		{filepath.Join(w.dir, "none.o"), exitUsage, []string{"none.o", "does not exist"}},
	} {
		_, stderr, code := checkBPF(t, c.file)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.file, code, c.code)
		}
		checkOneLine(t, stderr, c.words)
	}
}

// TestPolicyCheckPrivilege: without capabilities there is one line that says
// which, and exit code 3.
func TestPolicyCheckPrivilege(t *testing.T) {
	w := newWorkshop(t)
	bin := filepath.Join(w.dir, "plyfs")
	run(t, "", "cp", plyfsBin, bin)
	must(t, os.Chmod(bin, 0o755))
	object := w.openProgram("good", "return PLY_CONTINUE;")
	policy := filepath.Join(w.dir, "p.yaml")
	must(t, os.WriteFile(policy, []byte("version: 1\nrules:\n- {path: /, program: redact, whole: true}\n"), 0o644))
	nobody := user{65534, 65534, nil}
	for _, args := range [][]string{{"bpf", "check", object}, {"policy", "check", policy}} {
		stdout, stderr, code := runAs(t, nobody, "/", bin, args...)
		if code != exitEnvironment || stdout != "" {
			t.Errorf("%q as nobody: exit code %d, output %q", args, code, stdout)
		}
		checkOneLine(t, stderr, []string{"CAP_BPF", "CAP_PERFMON"})
	}
	if stdout, _, code := runAs(t, nobody, "/", bin, "bpf", "header"); code != 0 || !strings.Contains(stdout, "PLY_ABI") {
		t.Errorf("bpf header as nobody: exit code %d", code)
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		return
	}
	// Each of the two capabilities is missed by its name.
	for have, lacks := range map[string]string{"bpf": "CAP_PERFMON", "perfmon": "CAP_BPF"} {
		cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+"+have, "--ambient-caps=-all,+"+have,
			"--bounding-set=-all,+"+have, bin, "bpf", "check", object)
		out, err := cmd.CombinedOutput()
		if strings.HasPrefix(string(out), "setpriv:") {
			t.Logf("%v: %s", err, out)
			continue
		}
		if err == nil { // CAP_BPF alone loads what needs no more
			continue
		}
		checkOneLine(t, string(out), []string{lacks})
	}
}

// TestPolicyCheckFile: the mistakes of a policy file are said all at once,
// each with its line; a good one is said to be good.
func TestPolicyCheckFile(t *testing.T) {
	w := newWorkshop(t)
	w.openProgram("good", "return PLY_CONTINUE;")
	bad := filepath.Join(w.dir, "bad.yaml")
	must(t, os.WriteFile(bad, []byte(`version: 1
rules:
  - path: photos
    program: redacted
  - path: /x
    program: redact
    match: "["
    rnages: [1-2]
  - path: /y
    program: ./none.o
  - path: /z
    program: select
    clauses:
      - {match: "*", layer: 3}
`), 0o644))
	_, stderr, err := plyfsOut("policy", "check", "--lowerdir", w.dir, bad)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
		t.Errorf("got %v, want exit code %d", err, exitUsage)
	}
	line := regexp.MustCompile(`^plyfs: ` + regexp.QuoteMeta(bad) + `:(\d+): .+`)
	var lines []string
	for _, l := range strings.Split(strings.TrimSuffix(stderr, "\n"), "\n") {
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Errorf("not FILE:LINE: %q", l)
			continue
		}
		lines = append(lines, m[1])
	}
	slices.Sort(lines)
	if got := strings.Join(slices.Compact(lines), " "); got != "10 14 3 4 5 7 8" {
		t.Errorf("errors in the lines %s, want 10 14 3 4 5 7 8:\n%s", got, stderr)
	}
	good := filepath.Join(w.dir, "good.yaml")
	must(t, os.WriteFile(good, []byte("version: 1\nrules:\n- {path: /, program: ./good.o}\n"), 0o644))
	if out, err := plyfs("policy", "check", good); err != nil || !strings.Contains(out, "1 rule,") {
		t.Errorf("policy check: %v %q", err, out)
	}
}

// TestPolicyTrust: what others may write is not read, be it the policy, an
// object, a part, or a directory that they are in; nor what lies in upper.
func TestPolicyTrust(t *testing.T) {
	w := newWorkshop(t)
	sub := makeTree(t, filepath.Join(w.dir, "sub"), []string{"parts/a=1"})
	object := filepath.Join(sub, "good.o")
	must(t, os.Rename(w.openProgram("good", "return PLY_CONTINUE;"), object))
	policy := filepath.Join(sub, "p.yaml")
	must(t, os.WriteFile(policy, []byte("version: 1\nrules:\n- {path: /f, program: split, parts: [parts/a]}\n- {path: /d, program: ./good.o}\n"), 0o644))
	u := newMount(t, mountOpts{options: []string{"policy=" + policy}, lowers: [][]string{{"f=f", "d/x=x"}}})
	wantFile(t, u.path("f"), "1")
	for file, name := range map[string]string{
		policy: policy, object: object, sub + "/parts/a": "parts/a", sub + "/parts": "parts", sub: "sub",
	} {
		mode := lstat(t, file).Mode & 0o7777
		for _, bit := range []uint32{0o002, 0o020} {
			must(t, os.Chmod(file, os.FileMode(mode|bit)))
			for _, args := range [][]string{{"policy", "check", policy}, {"policy", "set", u.mp, policy}} {
				out, err := plyfs(args...)
				wantRefused(t, strings.Join(args, " ")+" with "+name+" writable", out, err, name, "can be written by", "chmod go-w")
			}
		}
		must(t, os.Chmod(file, os.FileMode(mode)))
		must(t, os.Chown(file, 1000, -1))
		out, err := plyfs("policy", "set", u.mp, policy)
		wantRefused(t, "set with "+name+" of somebody else", out, err, name)
		must(t, os.Chown(file, 0, -1))
	}
	must(t, os.Chmod(object, 0o646))
	out, err := plyfs("policy", "set", u.mp, object)
	wantRefused(t, "set of an object that is writable", out, err, "good.o", "chmod go-w")
	must(t, os.Chmod(object, 0o644))
	run(t, "", "cp", "-r", sub, u.upper+"/sub")
	out, err = plyfs("policy", "set", u.mp, u.upper+"/sub/p.yaml")
	wantRefused(t, "set of a policy in upper", out, err, "upper")
	u.setPolicy(policy)
	wantFile(t, u.path("f"), "1")
}

// TestPolicyOptions: options that are wrong or contradict each other are one
// line, the right exit code, and no mount.
func TestPolicyOptions(t *testing.T) {
	w := newWorkshop(t)
	good := w.openProgram("good", "return PLY_CONTINUE;")
	refused := w.openProgram("refused", "return in->name[in->name_len - 1];")
	low, mp := makeTree(t, w.dir+"/low", []string{"f=1"}), makeTree(t, w.dir+"/mnt", nil)
	for _, c := range []struct {
		options string
		code    int
		words   []string
	}{
		{"bpf=" + good + ",policy=" + good, exitUsage, []string{"bpf=", "policy="}},
		{"bpf_pin=" + w.dir, exitUsage, []string{"bpf_pin", "without a program"}},
		{"bpf=" + good + ",bpf_pin=" + w.dir, exitUsage, []string{w.dir, "bpffs"}},
		{"bpf=" + good + ",bpf_fail=maybe", exitUsage, []string{"bpf_fail", "maybe", "closed", "open"}},
		{"bpf=" + good + ",bpf_budget=1", exitUsage, []string{"bpf_budget", "5ms"}},
		{"bpf=" + good + ",bpf_budget=1h", exitUsage, []string{"bpf_budget", "1s"}},
		{"bpf=" + w.dir + "/none.o", exitUsage, []string{"none.o"}},
		{"bpf=" + refused, exitUsage, []string{"refused.o", "verifier", "refused.c:4"}},
		{"bpf=" + w.dir + "/good.c", exitUsage, []string{"good.c", "not an object file"}},
		{"policy=" + good, exitUsage, []string{"good.o"}},
		{"policy=" + w.dir + "/none.yaml", exitUsage, []string{"none.yaml"}},
	} {
		out, err := plyfs("mount", "-o", "lowerdir="+low+","+c.options, mp)
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			plyfs("umount", mp)
			t.Errorf("%s: mounted: %v %s", c.options, err, out)
			continue
		}
		if exit.ExitCode() != c.code {
			t.Errorf("%s: exit code %d, want %d", c.options, exit.ExitCode(), c.code)
		}
		checkOneLine(t, out, c.words)
		if m := mountsAt(t, mp); m != "" {
			t.Errorf("%s: left mounted: %s", c.options, m)
		}
	}
}
