// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Systems under test.
const (
	sutPlyfs   = "plyfs"
	sutOverlay = "overlay"
)

var (
	// sut is the system under test.
	sut = sutPlyfs
	// plyfsBin is the binary under test.
	plyfsBin string
)

// The main thread cannot end: a test that changes a thread's credential would
// leave it changed there, for all who look at the process. So tests get others.
func init() { runtime.LockOSThread() }

// TestMain builds the binary once and runs the tests on it.
func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if s := os.Getenv("PLYFS_SUT"); s != "" {
		sut = s
	}
	unix.Umask(0o022)
	switch sut {
	case sutOverlay:
		return m.Run()
	case sutPlyfs:
	default:
		fmt.Fprintf(os.Stderr, "PLYFS_SUT=%s: want %q or %q\n", sut, sutPlyfs, sutOverlay)
		return 2
	}
	dir, err := os.MkdirTemp("", "plyfs-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	watchRaces(dir)
	if plyfsBin = os.Getenv("PLYFS_BIN"); plyfsBin == "" {
		plyfsBin = filepath.Join(dir, "plyfs")
		if err := buildPlyfs(plyfsBin); err != nil {
			fmt.Fprintln(os.Stderr, "building the binary under test:", err)
			return 1
		}
	}
	return m.Run()
}

// raceReports is where the race detector of the binary writes its reports: the
// daemon has no standard error.
var raceReports string

// watchRaces sets the race detector of the binary up: reports to files, and no
// second of sleep at the end of each process.
func watchRaces(dir string) {
	raceReports = filepath.Join(dir, "race")
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0 log_path="+raceReports)
}

// checkRaces fails the test on new reports of the race detector.
func checkRaces(t testing.TB) {
	t.Helper()
	files, err := filepath.Glob(raceReports + ".*")
	if err != nil {
		t.Error(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && len(b) > 0 {
			t.Errorf("data race:\n%s", b)
		}
		os.Remove(f)
	}
}

// buildPlyfs builds the binary under test at path, with the race detector if
// the tests have it.
func buildPlyfs(path string) error {
	args := []string{"build", "-o", path}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if raceDetector {
		args = append(args, "-race")
		env = append(os.Environ(), "CGO_ENABLED=1")
	}
	cmd := exec.Command("go", append(args, "github.com/plyfs/plyfs/cmd/plyfs")...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// requirePlyfs skips a test of what only plyfs has when another system is
// under test.
func requirePlyfs(t testing.TB, what string) {
	t.Helper()
	if sut != sutPlyfs {
		t.Skipf("only plyfs has %s", what)
	}
}

// requireRoot skips where mounting is not allowed.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
}
