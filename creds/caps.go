// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capSet is what capget(2) and capset(2) take: two words of 32 capabilities.
type capSet [2]unix.CapUserData

// threadCaps reads the capabilities of the calling thread.
func threadCaps() (c capSet, err error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err = unix.Capget(&h, &c[0])
	return c, err
}

// apply sets the capabilities of the calling thread.
func (c *capSet) apply() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return unix.Capset(&h, &c[0])
}

// effective is the effective set as one number, bit by capability.
func (c *capSet) effective() uint64 {
	return uint64(c[0].Effective) | uint64(c[1].Effective)<<32
}

// drop takes one capability out of all three sets.
func (c *capSet) drop(capability int) {
	word, bit := &c[capability/32], uint32(1)<<(capability%32)
	word.Effective &^= bit
	word.Permitted &^= bit
	word.Inheritable &^= bit
}

// HasCap reports whether the calling thread has the capability (a
// unix.CAP_ constant) in its effective set.
func HasCap(capability int) bool {
	c, err := threadCaps()
	if err != nil || capability < 0 || capability > 63 {
		return false
	}
	return c.effective()>>capability&1 == 1
}

// EffectiveCaps is the effective capability set of a process (of its main
// thread), bit by capability; 0 means the calling process.
func EffectiveCaps(pid int) (uint64, error) {
	name := "self"
	if pid != 0 {
		name = strconv.Itoa(pid)
	}
	status, err := os.ReadFile("/proc/" + name + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, fmt.Errorf("no effective capabilities in the status of process %s", name)
}
