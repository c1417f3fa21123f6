// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// copyWithoutBPF copies the sources without the bpf room.
func copyWithoutBPF(t testing.TB, to string) {
	t.Helper()
	root := ".."
	must(t, filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if e.IsDir() {
			if slices.Contains([]string{"bpf", ".git", "bin"}, rel) || strings.HasPrefix(e.Name(), ".") && rel != "." {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	}))
}

// TestNoBPF: the program builds, passes vet and mounts without the bpf room,
// and says in one line what it cannot do.
func TestNoBPF(t *testing.T) {
	requirePlyfs(t, "a build without programs")
	requireRoot(t)
	requireTool(t, "go")
	dir := tempDir(t)
	tree, bin := filepath.Join(dir, "tree"), filepath.Join(dir, "plyfs")
	copyWithoutBPF(t, tree)
	goTool := func(args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = tree, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %q: %v\n%s", args, err, out)
		}
	}
	goTool("build", "-tags", "nobpf", "-o", bin, "./cmd/plyfs")
	goTool("vet", "-tags", "nobpf", "./...")
	goTool("test", "-tags", "nobpf", "./creds/...")
	checkNoBPF(t, bin, dir)
}

// checkNoBPF uses a binary that has no programs.
func checkNoBPF(t *testing.T, bin, dir string) {
	t.Helper()
	low, upper, work := makeTree(t, dir+"/low", []string{"f=1", "d/g=2"}), makeTree(t, dir+"/upper", nil), makeTree(t, dir+"/work", nil)
	mp := makeTree(t, dir+"/mnt", nil)
	policy := filepath.Join(dir, "p.yaml")
	must(t, os.WriteFile(policy, []byte("version: 1\nrules: []\n"), 0o644))
	rw := "lowerdir=" + low + ",upperdir=" + upper + ",workdir=" + work
	refused := func(words []string, args ...string) {
		t.Helper()
		out, err := exec.Command(bin, args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("%q: %v %s", args, err, out)
		}
		checkOneLine(t, string(out), words)
	}
	for _, option := range []string{"policy=" + policy, "bpf=" + policy} {
		refused([]string{"built without programs", "nobpf"}, "mount", "-o", rw+","+option, mp)
	}
	for _, args := range [][]string{{"bpf", "check", policy}, {"policy", "check", policy}} {
		refused([]string{args[0]}, args...)
	}
	if out, err := exec.Command(bin, "mount", "-o", rw, mp).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	defer func() {
		if out, err := exec.Command(bin, "umount", mp).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	}()
	wantFile(t, mp+"/f", "1")
	must(t, os.WriteFile(mp+"/d/g", []byte("3"), 0o644))
	wantFile(t, mp+"/d/g", "3")
	// The daemon refuses what a command that has programs asks it for.
	out, err := plyfs("policy", "set", mp, policy)
	wantRefused(t, "policy set", out, err, "built without programs")
}
