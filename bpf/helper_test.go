// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Policies are refused where others can write, and so they are in the directories
// of the tests.
func init() { unix.Umask(0o022) }

// build compiles testdata/file with plyfs.h and gives the object's path.
func build(t testing.TB, file string, flags ...string) string {
	t.Helper()
	clang, err := exec.LookPath("clang")
	if err != nil {
		t.Skip("clang is missing: test programs cannot be compiled")
	}
	out := filepath.Join(t.TempDir(), "prog.o")
	args := append([]string{"-O2", "-g", "-target", "bpf", "-mcpu=v3"}, flags...)
	cmd := exec.Command(clang, append(args, "-I", "include", "-c", filepath.Join("testdata", file), "-o", out)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("clang %s: %v\n%s", file, err, text)
	}
	return out
}

// tryRead reads an object under the name prog.o.
func tryRead(t testing.TB, path string) (*object, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return readObject("prog.o", f)
}

func mustRead(t testing.TB, path string) *object {
	t.Helper()
	o, err := tryRead(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// mustLoad compiles, reads and loads; the test's end closes.
func mustLoad(t testing.TB, opt loadOptions, file string, flags ...string) *programs {
	t.Helper()
	o := mustRead(t, build(t, file, flags...))
	p, err := o.load(opt)
	skipUnprivileged(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// skipUnprivileged skips the test if this process may not load programs.
func skipUnprivileged(t testing.TB, err error) {
	t.Helper()
	if err != nil && checkPrivilege() != nil {
		t.Skip(err)
	}
	if errors.Is(err, unix.EPERM) {
		t.Skip("this system does not let root load BPF programs: ", err)
	}
}

// fds counts the descriptors of this process.
func fds(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func nobodyAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}
