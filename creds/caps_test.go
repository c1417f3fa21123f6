// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEffectiveCaps(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	want := effective(t)
	for _, pid := range []int{0, os.Getpid()} {
		if got, err := EffectiveCaps(pid); err != nil || got != want {
			t.Errorf("of %d: %x %v, want %x", pid, got, err, want)
		}
	}
	if _, err := EffectiveCaps(1 << 30); err == nil {
		t.Error("no error for a process that cannot be")
	}
}

func TestHasCap(t *testing.T) {
	set := effective(t)
	for c := range 64 {
		if got, want := HasCap(c), set>>c&1 == 1; got != want {
			t.Errorf("capability %d: %v, want %v", c, got, want)
		}
	}
	if HasCap(-1) || HasCap(64) {
		t.Error("has a capability that cannot be")
	}
}

func TestDropBoundingResource(t *testing.T) {
	needRoot(t)
	onThread(func() {
		if err := DropBoundingResource(); err != nil {
			t.Error(err)
			return
		}
		checkDropped(t, unix.CAP_SYS_RESOURCE)
		if err := DropBoundingResource(); err != nil { // nothing left to drop
			t.Error(err)
		}
	})
}

// The same with a capability that is certainly there before, and that is
// inheritable besides: the bounding set would not stop that at execve.
func TestDropInheritable(t *testing.T) {
	needRoot(t)
	victim := spareCap(t)
	onThread(func() {
		c, err := threadCaps()
		if err == nil {
			c[0].Inheritable |= 1 << victim
			err = c.apply()
		}
		if err == nil {
			err = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(victim), 0, 0)
		}
		if err != nil {
			t.Error(err)
			return
		}
		if child(t)["CapEff"]>>victim&1 == 0 {
			t.Error("the child lacks the capability before it is dropped")
		}
		if err := dropThread(victim); err != nil {
			t.Error(err)
			return
		}
		checkDropped(t, victim)
	})
	if !HasCap(victim) {
		t.Error("another thread lost the capability")
	}
}

// spareCap is a capability that this process has and needs for nothing else here.
// A container has few, and not the same ones everywhere.
func spareCap(t *testing.T) int {
	t.Helper()
	for _, c := range []int{unix.CAP_SYS_BOOT, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE, unix.CAP_AUDIT_WRITE, unix.CAP_KILL, unix.CAP_SYS_CHROOT} {
		if HasCap(c) {
			return c
		}
	}
	t.Skip("no capability is here that could be dropped")
	return 0
}

// checkDropped: neither this thread nor what it executes has the capability,
// and nothing else is gone.
func checkDropped(t *testing.T, capability int) {
	t.Helper()
	if HasCap(capability) {
		t.Error("the thread still has it")
	}
	for name, set := range child(t) {
		if set>>capability&1 == 1 {
			t.Errorf("the child has it in %s: %x", name, set)
		}
		if lost := effective(t) &^ set; (name == "CapEff" || name == "CapBnd") && lost != 0 {
			t.Errorf("the child lost more, %s: %x", name, lost)
		}
	}
}
