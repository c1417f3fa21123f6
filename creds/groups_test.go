// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"os"
	"slices"
	"testing"
)

func TestGroups(t *testing.T) {
	got, err := Groups(0)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range want {
		if !slices.Contains(got, uint32(g)) {
			t.Errorf("group %d of getgroups(2) is not in %v", g, got)
		}
	}
	if _, err := Groups(1 << 30); err == nil {
		t.Error("groups of a process that cannot exist")
	}
}
