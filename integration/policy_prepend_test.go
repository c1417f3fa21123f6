// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// licence is what the tests put before each Go file.
const licence = "// Copyright 2026 Somebody Else.\n// All rights reserved. ä\n\n"

// goModule is a small module, as a fixture.
var goModule = map[string]string{
	"go.mod":             "module example.org/small\n\ngo 1.24\n",
	"main.go":            "package main\n\nimport (\n\t_ \"embed\"\n\t\"fmt\"\n\n\t\"example.org/small/add\"\n)\n\n//go:embed note.txt\nvar note string\n\nfunc main() { fmt.Print(note, add.Add(40, 2), \"\\n\") }\n",
	"note.txt":           "the sum is ",
	"add/add.go":         "// Package add adds.\npackage add\n\n// Add adds.\nfunc Add(a, b int) int { return a + b }\n",
	"add/add_test.go":    "package add\n\nimport \"testing\"\n\nfunc TestAdd(t *testing.T) {\n\tif Add(1, 2) != 3 {\n\t\tt.Fatal(\"wrong\")\n\t}\n}\n",
	"add/zero.go":        "",
	"add/other_linux.go": "//go:build linux\n\npackage add\n",
	"script.sh":          "#!/bin/sh\necho here\n",
}

// goEnv is an environment for the go command without the network.
func goEnv() []string {
	return append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOTOOLCHAIN=local", "GOWORK=off", "CGO_ENABLED=0")
}

// inModule runs a command there and returns its output.
func inModule(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(goEnv(), "LC_ALL=C", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// newModule makes a lower layer with the module under src and a policy that
// puts the licence before its Go files, by text or by file.
func newModule(t *testing.T, option string, byFile, git bool) *union {
	t.Helper()
	dir := tempDir(t)
	src := makeTree(t, filepath.Join(dir, "lower/src"), nil)
	for name, text := range goModule {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(src, name), []byte(text), 0o644))
	}
	if git {
		inModule(t, src, "git", "init", "-q", "-b", "main")
		inModule(t, src, "git", "add", "-A")
		inModule(t, src, "git", "commit", "-q", "-m", "all")
	}
	rule := fmt.Sprintf(`- {path: /src, name: licence, program: prepend, match: "*.go", text: %s}`, strconv.QuoteToGraphic(licence))
	if byFile {
		must(t, os.WriteFile(filepath.Join(dir, "licence.txt"), []byte(licence), 0o644))
		rule = `- {path: /src, name: licence, program: prepend, match: "*.go", file: licence.txt}`
	}
	policy := writePolicy(t, dir, "policy.yaml", rule+"\n")
	return newMount(t, mountOpts{dir: dir, lowerDirs: []string{filepath.Join(dir, "lower")}, options: []string{option, "policy=" + policy}})
}

// wantOf is what a file of the module shows.
func wantOf(name string) string {
	if strings.HasSuffix(name, ".go") {
		return licence + goModule[name]
	}
	return goModule[name]
}

// TestPolicyPrependContent: content and sizes agree in all ways of asking.
func TestPolicyPrependContent(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		for _, byFile := range []bool{false, true} {
			t.Run(fmt.Sprintf("file=%v", byFile), func(t *testing.T) {
				u := newModule(t, option, byFile, false)
				u.wantSizes() // before any is opened
				for name := range goModule {
					wantFile(t, u.path("src", name), wantOf(name))
				}
				u.wantSizes()
				u.wantServed("src/main.go", "server", "licence")
				u.wantUntouched(option, "src/note.txt")
				u.wantHead("src/main.go")
			})
		}
	})
}

// wantSizes compares the sizes of stat, statx, find, ls, du and wc.
func (u *union) wantSizes() {
	u.Helper()
	for name := range goModule {
		p, want := u.path("src", name), int64(len(wantOf(name)))
		if st := lstat(u, p); st.Size != want {
			u.Errorf("%s: stat has %d bytes, want %d", name, st.Size, want)
		}
		for _, c := range []struct {
			column int
			cmd    []string
		}{{0, []string{"find", "-printf", "%s"}}, {0, []string{"stat", "-c", "%s"}}, {0, []string{"wc", "-c"}}, {4, []string{"ls", "-ln"}}, {0, []string{"du", "-b"}}} {
			args := append([]string{p}, c.cmd[1:]...)
			if f := strings.Fields(run(u, "", c.cmd[0], args...)); f[c.column] != fmt.Sprint(want) {
				u.Errorf("%s: %s says %s bytes, want %d", name, c.cmd[0], f[c.column], want)
			}
		}
	}
}

// wantHead reads at the seam between the text and the file.
func (u *union) wantHead(name string) {
	u.Helper()
	want := wantOf(strings.TrimPrefix(name, "src/"))
	must(u, withFile(u.path(name), os.O_RDONLY, func(f *os.File) error {
		for off := len(licence) - 3; off < len(licence)+3; off++ {
			b := make([]byte, 7)
			if _, err := f.ReadAt(b, int64(off)); err != nil {
				return err
			}
			if string(b) != want[off:off+7] {
				u.Errorf("%s: %q at byte %d, want %q", name, b, off, want[off:off+7])
			}
		}
		end, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_END)
		if err != nil || end != int64(len(want)) {
			u.Errorf("%s: SEEK_END is %d, %v; want %d", name, end, err, len(want))
		}
		m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		wantBytes(u, "mapping of "+name, m, []byte(want))
		return unix.Munmap(m)
	}))
	if got := run(u, "", "head", "-n", "1", u.path(name)); got != strings.SplitAfter(licence, "\n")[0] {
		u.Errorf("head -n 1: %q", got)
	}
}

// TestPolicyPrependBuild: the go command works on what is shown.
func TestPolicyPrependBuild(t *testing.T) {
	requirePlyfs(t, "policies")
	requireTool(t, "go")
	u := newModule(t, policyModes[0].option, false, false)
	must(t, os.Remove(u.path("src/add/zero.go"))) // the licence alone is no Go
	out := filepath.Join(tempDir(t), "small")
	inModule(t, u.path("src"), "go", "vet", "./...")
	inModule(t, u.path("src"), "go", "build", "-o", out, ".")
	if got := run(t, "", out); got != "the sum is 42\n" {
		t.Errorf("the program says %q", got)
	}
	if got := inModule(t, u.path("src"), "gofmt", "-l", "."); got != "" {
		t.Errorf("gofmt would change %q", got)
	}
	if got := inModule(t, u.path("src"), "go", "doc", "./add"); !strings.Contains(got, "Package add adds.") || strings.Contains(got, "rights") {
		t.Errorf("go doc says %q", got)
	}
	if n := u.status().CopyUps.Files; n != 0 {
		t.Errorf("building copied %d files up", n)
	}
}

// TestPolicyPrependGit: git sees the licence in each Go file and nothing else.
func TestPolicyPrependGit(t *testing.T) {
	requirePlyfs(t, "policies")
	requireTool(t, "git")
	u := newModule(t, policyModes[0].option, false, true)
	src := u.path("src")
	var want []string
	for _, name := range sortedKeys(goModule, nil) {
		if strings.HasSuffix(name, ".go") {
			want = append(want, " M "+name)
		}
	}
	if got := strings.TrimRight(inModule(t, src, "git", "status", "--porcelain"), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("git status:\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	lines := strings.Count(licence, "\n")
	stat := fmt.Sprintf("%d files changed, %d insertions(+)\n", len(want), lines*len(want))
	if got := inModule(t, src, "git", "diff", "--shortstat"); strings.TrimSpace(got)+"\n" != stat {
		t.Errorf("git diff --shortstat: %q, want %q", got, stat)
	}
	inModule(t, src, "git", "commit", "-q", "-a", "-m", "as shown")
	if got := inModule(t, src, "git", "status", "--porcelain"); got != "" {
		t.Errorf("git status after the commit: %q", got)
	}
	// A checkout of the old commit writes files, to which nothing is added;
	// and back.
	inModule(t, src, "git", "checkout", "-q", "HEAD^")
	wantFile(t, u.path("src/main.go"), goModule["main.go"])
	inModule(t, src, "git", "checkout", "-q", "main")
	wantFile(t, u.path("src/main.go"), wantOf("main.go"))
	inModule(t, src, "git", "fsck", "--strict")
}

// goEdits add a line to a Go file, each in another way.
var goEdits = map[string]string{
	"append":  `echo '// end' >>"$1"`,
	"sed":     `sed -i '$a // end' "$1"`,
	"rewrite": `cat "$1" >"$1.new"; echo '// end' >>"$1.new"; cat "$1.new" >"$1"; rm "$1.new"`,
	"rename":  `cp -p "$1" "$1~"; echo '// end' >>"$1~"; mv "$1~" "$1"`,
	"inplace": `size=$(stat -c %s "$1"); printf '// end\n' | dd of="$1" bs=1 seek="$size" conv=notrunc status=none`,
	"backup":  `mv "$1" "$1.bak"; cat "$1.bak" >"$1"; echo '// end' >>"$1"; rm "$1.bak"`,
	"touch":   `touch "$1"; chmod 600 "$1"; echo '// end' >>"$1"`,
}

// TestPolicyPrependEdit: however a file is edited, the text is there once.
func TestPolicyPrependEdit(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		for edit, script := range goEdits {
			t.Run(edit, func(t *testing.T) {
				u := newModule(t, option, false, false)
				want := wantOf("add/add.go") + "// end\n"
				run(t, "", "sh", "-ec", script, "sh", u.path("src/add/add.go"))
				wantFile(t, u.path("src/add/add.go"), want)
				wantFile(t, filepath.Join(u.upper, "src/add/add.go"), want)
				u.remount()
				wantFile(t, u.path("src/add/add.go"), want)
			})
		}
	})
}

// TestPolicyPrependNew: nothing is put before a file that was made in upper,
// in the place of one of the lower layer or elsewhere, and edited there.
func TestPolicyPrependNew(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u := newModule(t, option, false, false)
		const text = "package add\n"
		must(t, os.Remove(u.path("src/add/add.go")))
		for edit, script := range goEdits {
			p := u.path("src/add/add.go")
			must(t, os.WriteFile(p, []byte(text), 0o644))
			run(t, "", "sh", "-ec", script, "sh", p)
			wantFile(t, p, text+"// end\n")
			must(t, os.Rename(p, u.path("src/add", edit+".go")))
		}
		u.remount()
		for edit := range goEdits {
			wantFile(t, u.path("src/add", edit+".go"), text+"// end\n")
		}
	})
}

// TestPolicyPrependTree: a walk sees as many bytes as it reads.
func TestPolicyPrependTree(t *testing.T) {
	requirePlyfs(t, "policies")
	u := newModule(t, policyModes[0].option, true, false)
	copied := filepath.Join(tempDir(t), "copied")
	run(t, "", "cp", "-a", u.path("src"), copied)
	must(t, filepath.WalkDir(copied, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			name, _ := filepath.Rel(copied, p)
			wantFile(t, p, wantOf(name))
		}
		return err
	}))
	tar := filepath.Join(tempDir(t), "all.tar")
	run(t, u.path("src"), "tar", "-cf", tar, ".")
	if got := run(t, u.path("src"), "tar", "-df", tar); got != "" {
		t.Errorf("tar finds differences: %s", got)
	}
}
