// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Command plyfs stacks directories into one tree and mounts it.
//
// The command line holds no file system logic: it reads options into a
// [stack.Config], starts the process that serves the mount, and asks that
// process questions over a socket. One file holds one subcommand; what several
// share is in files named after it (options, daemon, control, mounts, log).
//
// # Processes
//
// `plyfs mount` runs itself again as the daemon, in a new session, and waits
// on a pipe until the mount is usable or refused. With -f it executes itself
// in place. Either way the serving process comes out of an execve(2) that
// followed the drop of CAP_SYS_RESOURCE, so that none of its threads has it.
//
// `plyfs run` is three processes. The parent stays in the caller's mount
// namespace, owns the scratch directory and passes on signals. The server has
// a mount namespace of its own and mounts there. The command is started from
// the parent and enters that namespace by setns(2): a process that serves a
// FUSE mount must not start programs from it, for between its fork and the
// execve no goroutine may be stopped, and the execve waits for the server.
package main
