// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/creds"
	"golang.org/x/sys/unix"
)

// setID tells whether a write by the unprivileged can change the mode.
func setID(mode uint32) bool { return mode&(unix.S_ISUID|unix.S_ISGID) != 0 }

// killPriv clears set-user-ID, set-group-ID and security.capability, as the
// kernel does at a write or truncation by a caller without CAP_FSETID. The
// set-group-ID bit of a file that its group cannot execute stays if the caller
// is in the group (fs/attr.c:setattr_should_drop_sgid).
func killPriv(r ref, caller *fuse.InHeader) error {
	var st unix.Stat_t
	if err := r.stat(&st); err != nil {
		return err
	}
	mode := st.Mode &^ unix.S_ISUID
	if mode&unix.S_ISGID != 0 && (mode&unix.S_IXGRP != 0 || !inGroup(caller, st.Gid)) {
		mode &^= unix.S_ISGID
	}
	if mode != st.Mode {
		if err := r.chmod(mode & 07777); err != nil {
			return err
		}
	}
	err := r.removexattr(xattrCapability)
	if err == syscall.ENODATA || err == syscall.EOPNOTSUPP {
		err = nil
	}
	return err
}

// wrote clears set-ID bits after a change of content that the kernel asks for
// without saying whether the caller is privileged.
func (fs *FS) wrote(n *node, caller *fuse.InHeader) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := r.stat(&st); err != nil || !setID(st.Mode) || hasCap(caller, unix.CAP_FSETID) {
		return err
	}
	if err := killPriv(r, caller); err != nil {
		return err
	}
	fs.notifyAttr(n.id)
	return nil
}

// hasCap tells whether the caller has a capability; if that cannot be read
// (another pid namespace) its uid decides.
func hasCap(caller *fuse.InHeader, capability int) bool {
	caps, err := creds.EffectiveCaps(int(caller.Pid))
	if caller.Pid == 0 || err != nil {
		return caller.Uid == 0
	}
	return caps>>capability&1 == 1
}

// inGroup tells whether a group is the caller's, or one of its supplementary
// ones as far as they can be read.
func inGroup(caller *fuse.InHeader, gid uint32) bool {
	if caller.Gid == gid {
		return true
	}
	groups, err := creds.Groups(int(caller.Pid))
	return err == nil && slices.Contains(groups, gid)
}
