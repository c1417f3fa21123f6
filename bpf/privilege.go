// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrPrivilege: this process may not load programs. What is missing follows in
// the message.
var ErrPrivilege = errors.New("loading BPF programs")

// checkPrivilege is nil if this process may load programs, else one line that
// says which capabilities are missing and how to get them. A BPF token, which
// is not looked at, makes up for them; so it is asked only after the kernel has
// refused.
func checkPrivilege() error {
	caps, err := effectiveCaps()
	if err != nil {
		return fmt.Errorf("reading the capabilities of this process: %w", err)
	}
	return privilegeError(caps, inInitialUserNS())
}

// effectiveCaps is the effective set of the calling thread.
func effectiveCaps() (uint64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, err
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// initialUserNS is PROC_USER_INIT_INO, the inode of the first user namespace.
const initialUserNS = 0xEFFFFFFD

// inInitialUserNS is true where capabilities count for BPF, and when that
// cannot be found out.
func inInitialUserNS() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &st) != nil || st.Ino == initialUserNS
}

// privilegeError judges a set of capabilities.
func privilegeError(caps uint64, initial bool) error {
	if !initial {
		return fmt.Errorf("%w: capabilities of a user namespace do not count for it; "+
			"mount a bpffs with a BPF token delegated to this namespace "+
			"(delegate_cmds, delegate_maps, delegate_progs), or run plyfs outside of it", ErrPrivilege)
	}
	missing := missingCaps(caps)
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s missing (kernel.unprivileged_bpf_disabled does not matter); "+
		"run as root, or setcap cap_bpf,cap_perfmon=ep, or systemd's AmbientCapabilities=CAP_BPF CAP_PERFMON, "+
		"or a container's --cap-add BPF --cap-add PERFMON, or a BPF token delegated through bpffs",
		ErrPrivilege, strings.Join(missing, " and ")+verb(len(missing)))
}

func verb(n int) string {
	if n == 1 {
		return " is"
	}
	return " are"
}

// missingCaps names what is not in caps. CAP_SYS_ADMIN includes both.
func missingCaps(caps uint64) []string {
	if caps&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return nil
	}
	var missing []string
	if caps&(1<<unix.CAP_BPF) == 0 {
		missing = append(missing, "CAP_BPF")
	}
	if caps&(1<<unix.CAP_PERFMON) == 0 {
		missing = append(missing, "CAP_PERFMON")
	}
	return missing
}
