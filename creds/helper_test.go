// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary, run again, print what it has and end.
const childEnv = "PLYFS_CREDS_TEST_CHILD"

// The main thread cannot end: a test that changes a thread's credential would
// leave it changed there, for all who look at the process. So tests get others.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Print(string(status))
		return
	}
	os.Exit(m.Run())
}

// child runs the test binary from the calling thread and returns the
// capability sets that it finds itself with.
func child(t *testing.T) map[string]uint64 {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sets := map[string]uint64{}
	for line := range strings.Lines(string(out)) {
		var set uint64
		if name, hex, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(name, "Cap") {
			if _, err := fmt.Sscanf(hex, "%x", &set); err != nil {
				t.Fatal(err)
			}
			sets[name] = set
		}
	}
	if len(sets) != 5 {
		t.Fatalf("capability sets %v", sets)
	}
	return sets
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: changes the thread's ids and capabilities")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create makes the file and returns whose it is.
func create(t testing.TB, name string) (uid, gid uint32) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	must(t, f.Close())
	var st unix.Stat_t
	must(t, unix.Stat(name, &st))
	return st.Uid, st.Gid
}

func effective(t testing.TB) uint64 {
	t.Helper()
	c, err := threadCaps()
	must(t, err)
	return c.effective()
}

// ids is the four uids and gids of the calling thread: real, effective, saved
// and file system.
func ids(t testing.TB) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", unix.Gettid()))
	must(t, err)
	var out []string
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Uid:") || strings.HasPrefix(line, "Gid:") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, " ")
}
