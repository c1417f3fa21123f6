// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestBenchSmoke runs the benchmark program once with little work.
func TestBenchSmoke(t *testing.T) {
	requirePlyfs(t, "a benchmark")
	requireRoot(t)
	dir := tempDir(t)
	bench := filepath.Join(dir, "bench")
	run(t, "", "go", "build", "-o", bench, "./bench")
	out := run(t, "", bench, "-quick", "-dir", dir, "-plyfs", plyfsBin)
	for _, w := range []string{"overlayfs", "plyfs", "find+stat", "untar", "daemon memory", "firstwrite", "append", "plan of 64 extents"} {
		if !strings.Contains(out, w) {
			t.Errorf("the table has no %q:\n%s", w, out)
		}
	}
}
