// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/plyfs/plyfs"

// TestImports holds the rooms to what they may import: stack, layers and
// creds know no BPF, not even by way of others; layers and creds know no
// stack; the command line is not imported.
func TestImports(t *testing.T) {
	rules := map[string][]string{
		"stack":  {module + "/bpf", "github.com/cilium/ebpf", module + "/cmd"},
		"layers": {module + "/bpf", "github.com/cilium/ebpf", module + "/cmd", module + "/stack", module + "/creds"},
		"creds":  {module + "/bpf", "github.com/cilium/ebpf", module + "/cmd", module + "/stack", module + "/layers"},
	}
	for room, forbidden := range rules {
		out, err := exec.Command("go", "list", "-deps", "-test", module+"/"+room+"/...").Output()
		if err != nil {
			t.Fatalf("go list %s: %v", room, err)
		}
		deps := strings.Fields(string(out))
		if len(deps) < 10 {
			t.Fatalf("go list %s gave only %q", room, deps)
		}
		for _, d := range deps {
			for _, f := range forbidden {
				if d == f || strings.HasPrefix(d, f+"/") {
					t.Errorf("%s depends on %s", room, d)
				}
			}
		}
	}
}

// TestImportsBlackBox: these tests import no room.
func TestImportsBlackBox(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-test", module+"/integration/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range strings.Fields(string(out)) {
		if strings.HasPrefix(d, module+"/") && !strings.HasPrefix(d, module+"/integration") {
			t.Errorf("the black-box tests depend on %s", d)
		}
	}
}
