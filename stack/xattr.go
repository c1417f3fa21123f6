// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// aclXattr tells whether an xattr is a POSIX ACL.
func aclXattr(attr string) bool { return strings.HasPrefix(attr, "system.posix_acl_") }

// GetXAttr reads an xattr; plyfs' own are not there (ENODATA). Nor is an ACL in
// a layer that cannot have any (squashfs, ramfs, a noacl mount): the kernel asks
// for it to judge an access, which any other error would fail
// (fs/fuse/acl.c:__fuse_get_acl).
func (fs *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n := fs.node(h.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	if fs.privateAttr(attr, !n.inUpper()) {
		return 0, fuse.ENODATA
	}
	if fs.cfg.NoACL && aclXattr(attr) {
		return 0, fuse.Status(syscall.EOPNOTSUPP)
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return 0, fs.status(err)
	}
	sz, err := r.getxattr(attr, dest)
	if err == syscall.EOPNOTSUPP && aclXattr(attr) {
		err = syscall.ENODATA
	}
	if err != nil {
		return 0, fs.xattrStatus(err)
	}
	return uint32(sz), fuse.OK
}

// xattrStatus is status without counting the answers that are no failures.
func (fs *FS) xattrStatus(err error) fuse.Status {
	switch err {
	case syscall.ENODATA, syscall.EOPNOTSUPP, syscall.ERANGE:
		return fuse.Status(err.(syscall.Errno))
	}
	return fs.status(err)
}

// maxXattrList is the kernel's bound of a list (XATTR_LIST_MAX).
const maxXattrList = 65536

// ListXAttr lists xattrs without plyfs' own.
func (fs *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := fs.node(h.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	n = n.lockCurrent()
	defer n.mu.RUnlock()
	list, err := fs.listLocked(n)
	if err != nil {
		return 0, fs.xattrStatus(err)
	}
	if bytes.Contains(list, []byte(trustedPrefix)) && !hasCap(h, unix.CAP_SYS_ADMIN) {
		list = withoutTrusted(list)
	}
	if len(list) > len(dest) {
		return uint32(len(list)), fuse.ERANGE
	}
	return uint32(copy(dest, list)), fuse.OK
}

// trustedPrefix is of xattrs that file systems list for CAP_SYS_ADMIN only; FUSE
// leaves that to the daemon.
const trustedPrefix = "trusted."

func withoutTrusted(list []byte) []byte {
	var out []byte
	for _, a := range bytes.SplitAfter(list, []byte{0}) {
		if !bytes.HasPrefix(a, []byte(trustedPrefix)) {
			out = append(out, a...)
		}
	}
	return out
}

// listLocked is the list of xattrs to show. Precondition: n.mu is held.
func (fs *FS) listLocked(n *node) ([]byte, error) {
	r, err := fs.refLocked(n)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1024)
	sz, err := r.listxattr(buf)
	if err == syscall.ERANGE {
		buf = make([]byte, maxXattrList)
		sz, err = r.listxattr(buf)
	}
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, a := range bytes.SplitAfter(buf[:sz], []byte{0}) {
		name := string(bytes.TrimSuffix(a, []byte{0}))
		if name == "" || fs.privateAttr(name, !n.inUpper()) || fs.cfg.NoACL && aclXattr(name) {
			continue
		}
		out = append(out, a...)
	}
	return out, nil
}

// SetXAttr sets an xattr: EPERM for plyfs' own, EOPNOTSUPP for ACLs where
// they are off.
func (fs *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	return fs.changeXattr(in.NodeId, attr, func(r ref) error {
		if err := r.setxattr(attr, data, int(in.Flags)); err != nil {
			return err
		}
		if attr == xattrAccessACL && in.SetXAttrFlags&setxattrACLKillSGID != 0 {
			return killSGID(r)
		}
		return nil
	}, nil)
}

// setxattrACLKillSGID is FUSE_SETXATTR_ACL_KILL_SGID: the caller is not in the
// file's group, so that a new access ACL clears set-group-ID.
const setxattrACLKillSGID = 1

// killSGID clears set-group-ID.
func killSGID(r ref) error {
	var st unix.Stat_t
	if err := r.stat(&st); err != nil || st.Mode&unix.S_ISGID == 0 {
		return err
	}
	return r.chmod(st.Mode & 07777 &^ unix.S_ISGID)
}

// RemoveXAttr removes an xattr.
func (fs *FS) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	there := func(r ref) error { // no copy-up for what is not there
		_, err := r.getxattr(attr, nil)
		return err
	}
	if aclXattr(attr) { // removing an ACL that is not there succeeds
		there = nil
	}
	return fs.changeXattr(h.NodeId, attr, func(r ref) error { return r.removexattr(attr) }, there)
}

// changeXattr copies the file up and changes its xattrs; before, if not nil,
// fails for what needs no copy.
func (fs *FS) changeXattr(id uint64, attr string, change, before func(ref) error) fuse.Status {
	n := fs.node(id)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	n = n.current()
	if fs.privateAttr(attr, false) {
		return fuse.EPERM
	}
	if fs.cfg.NoACL && aclXattr(attr) {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	if err := fs.xattrWouldFail(n, attr, before); err != nil {
		return fs.xattrStatus(err)
	}
	if err := fs.copyUp(n, copyMeta); err != nil {
		return fs.status(err)
	}
	n = n.current()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succ.Load() != nil {
		return fuse.Status(errRetry)
	}
	if n.dir != nil && attr == xattrDefaultACL {
		n.dir.defACL = unknown
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return fs.status(err)
	}
	release := n.keepFromFill()
	err = change(r)
	release()
	if err == nil && n.id != id {
		fs.notifyAttr(n.id)
	}
	return fs.xattrStatus(err)
}

// xattrWouldFail spares a copy-up that could only end in an error: user xattrs
// belong on files and directories alone (fs/xattr.c:xattr_permission), and
// before says what else.
func (fs *FS) xattrWouldFail(n *node, attr string, before func(ref) error) error {
	if strings.HasPrefix(attr, "user.") && !n.isReg() && !n.isDir() {
		return syscall.EPERM
	}
	if before == nil {
		return nil
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	return before(r)
}

const (
	xattrAccessACL  = "system.posix_acl_access"
	xattrDefaultACL = "system.posix_acl_default"
	xattrCapability = "security.capability"
)
