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
//
// The kernel is told to forget the mode: it does not expect it to change here,
// and would go by the old one at the next exec or link.
func (fs *FS) killPriv(n *node, r ref, caller *fuse.InHeader) error {
	defer n.keepFromFill()()
	var st unix.Stat_t
	if err := r.stat(&st); err != nil {
		return err
	}
	mode := st.Mode &^ unix.S_ISUID
	if mode&unix.S_ISGID != 0 && (mode&unix.S_IXGRP != 0 || !inGroup(caller, st.Gid) && !hasCap(caller, unix.CAP_FSETID)) {
		mode &^= unix.S_ISGID
	}
	if mode != st.Mode {
		if err := r.chmod(mode & 07777); err != nil {
			return err
		}
		if err := fs.dev.invalAttr(n.id); err != nil {
			return err
		}
	}
	return dropCapability(r)
}

// loseSetID serves a SETATTR that sets nothing. The kernel sends it when
// set-ID bits and capabilities must go: before a write by a process without
// CAP_FSETID, passed through or not (fs/inode.c:file_remove_privs), and at
// chown(path, -1, -1). The two look the same, but the latter is for the owner
// alone where there are bits to lose (fs/attr.c:notify_change): without it, any
// user could take them from a file. So who is not the owner is believed to
// write only if the file is open for writing.
func (fs *FS) loseSetID(n *node, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	caller := &in.InHeader
	n = n.lockCurrent()
	err := fs.fillAttrLocked(n, &out.Attr)
	writing := n.io != nil && n.io.write > 0
	n.mu.RUnlock()
	if err != nil {
		return fs.status(err)
	}
	if n.isDir() || !setID(out.Mode) && !writing {
		return fuse.OK
	}
	if !writing && caller.Uid != out.Uid && !hasCap(caller, unix.CAP_FOWNER) {
		return fuse.EPERM
	}
	if err := fs.copyUp(n, copyMeta); err != nil {
		return fs.status(err)
	}
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	r, err := fs.refLocked(n)
	switch {
	case err != nil:
	case writing && hasCap(caller, unix.CAP_FSETID):
		// A privileged write takes the capabilities (the kernel has sent a
		// REMOVEXATTR for them) and leaves the bits.
	default:
		err = fs.killPriv(n, r, caller)
	}
	if err == nil {
		err = fs.fillAttrLocked(n, &out.Attr)
	}
	return fs.status(err)
}

func dropCapability(r ref) error {
	err := r.removexattr(xattrCapability)
	if err == syscall.ENODATA || err == syscall.EOPNOTSUPP {
		return nil
	}
	return err
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
