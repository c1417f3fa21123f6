// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package creds holds the daemon's credential: what it gives up at start, and
// how one thread becomes, for one call, the owner of what it creates.
//
// # Model
//
// All work on layers is done as the mounter, that is with the daemon's own
// credential: whether the caller may do it was checked before by the kernel,
// on our inode (default_permissions). Only what is created must belong to the
// caller, and as on overlayfs (dir.c:ovl_create_or_link) that is done by
// taking on the new owner's file system uid and gid for the creating call,
// with the mounter's capabilities kept. See [As].
//
// Supplementary groups are not switched. They matter to permission checks
// only, which the kernel made already with the caller's real groups, and the
// mounter's capabilities answer any that are left. (One place reads them for
// another purpose: chmod clears set-group-ID when the caller is not in the
// file's group and has no CAP_FSETID. The mounter has it, so the caller's case
// has to be decided before the call, from the request.)
//
// CAP_SYS_RESOURCE, which overrides quota and may use reserved blocks, is
// given up before the daemon starts ([DropBoundingResource]), as overlayfs
// drops it from the mounter's credential (super.c:ovl_fill_super).
//
// # Threads
//
// Credentials in Linux belong to a thread. Go's own setters (syscall.Setuid
// and the like) change all threads of the process, so this package makes raw
// system calls, always on a locked OS thread.
package creds
