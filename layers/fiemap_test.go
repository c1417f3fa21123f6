// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Preallocated blocks are unwritten, written ones and holes are not.
func TestUnwritten(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := FD(f.Fd())
	const block = 4096
	if err := f.Truncate(400 * block); err != nil { // first: see CopyData about xfs
		t.Fatal(err)
	}
	for i := range int64(100) { // more extents than one answer holds
		if err := unix.Fallocate(int(fd), 0, 4*i*block, block); err != nil {
			t.Skipf("no preallocation here: %v", err)
		}
		if _, err := f.WriteAt(make([]byte, block), (4*i+2)*block); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	got, err := fd.Unwritten(400 * block)
	if err != nil {
		t.Fatal(err)
	}
	var want []Extent
	for i := range int64(100) {
		want = append(want, Extent{4 * i * block, block})
	}
	if len(got) == 0 {
		t.Skip("this file system does not tell")
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, err := fd.Unwritten(block / 2); err != nil || !slices.Equal(got, []Extent{{0, block / 2}}) {
		t.Errorf("of half a block: %v, %v", got, err)
	}
}
