// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWithout(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if !HasCap(unix.CAP_FSETID) {
		t.Skip("needs CAP_FSETID to take it away")
	}
	before, err := threadCaps()
	if err != nil {
		t.Fatal(err)
	}
	ran := false
	err = Without(unix.CAP_FSETID, func() error {
		ran = true
		if HasCap(unix.CAP_FSETID) {
			t.Error("CAP_FSETID is still effective")
		}
		if !HasCap(unix.CAP_SYS_ADMIN) {
			t.Error("another capability is gone")
		}
		return unix.ENOENT
	})
	if !ran || err != unix.ENOENT {
		t.Errorf("ran %v, error %v; want the function's ENOENT", ran, err)
	}
	if after, err := threadCaps(); err != nil || after != before {
		t.Errorf("capabilities after: %v (%v), before: %v", after, err, before)
	}
}
