// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package stack is the merged tree: several layers shown as one file system
// over FUSE.
//
// # Model
//
// A directory of the merged tree is an upper directory (perhaps none yet) over
// a lowerStack: the directories of lower layers that merge under it. Any other
// inode is served by one layer, upper or a lower one. What plain directories
// cannot say is written down in two places:
//
//   - facts about an inode on the inode, in trusted.plyfs.* xattrs (mark.go): a
//     directory's id, opaqueness and redirect, a copy's origin. A rename carries
//     them along in one step;
//   - facts about names in the journal: cover(directory id, name) hides the
//     lower entries of a name. With no upper entry it is a whiteout. It stays
//     for the life of the directory, so that making and removing names again
//     costs no record.
//
// Where an upper entry that hides a lower one goes away (unlink, rmdir,
// rename), a whiteout takes its place in the same system call, until the
// record is durable (unlink.go, settle.go). So each operation on upper is one
// atomic call, or a preparation in the work directory that is published by
// one. What waits for a sync is the exception: see countHidden, coverDurably
// and sweepWhiteouts.
//
// Redirects, covers and children are kept per directory in memory (dir.go);
// lower layers do not change under a mount, so what is known of them
// (lowerStack) is never thrown away while a node needs it.
//
// # Nodes
//
// A node is an inode as the kernel knows it: made at a lookup, dropped at its
// forget. All names of a hard-linked inode are one node. A node never goes
// back from upper to lower. If a copy-up overtakes open lower handles that the
// kernel serves by itself, the node is retired and a successor of the same
// st_ino takes over (iomode.go).
//
// # Lock order
//
//	setting (one change of the policy at a time)
//	moving (renames share it; a walk through all names excludes them)
//	settling (one settle at a time), node.copying (one copy-up of a node at a time)
//	  node.mu of a directory
//	    node.mu of a directory below it, or of an unrelated one of larger id
//	      node.mu of what is no directory; two in the order of their ids
//	        of a partial file: ranges of blocks, then times, then partial.mu
//	        hardTab.counting (one account at a time)
//	        hardTab.mu
//	          nodeTable shards
//	          counters.mu, settleMu, completer.mu, inoMap.mu
//	          the layers' and the journal's own locks
//
// A directory is locked before what is below it, never after; whoever needs a
// parent in upper brings it there first, with no lock held. That the chain of
// parents stands still during a rename is the kernel's doing: it runs one
// rename between directories at a time. While data is copied up only
// node.copying is held; while the daemon reads or writes for a user, the
// node's mu for reading. The kernel takes no lock of ours when it is notified.
//
// # Credentials
//
// All work on layers is done as the mounter. The caller's right is checked by
// the kernel on our inodes (default_permissions, POSIX ACLs); a new inode is
// made with the caller's file-system ids (create.go).
package stack
