// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package bpf asks BPF programs what to do with names and files: a [Policy]
// implements stack.Policy.
//
// # Model
//
// A policy is a list of rules. A rule sets an object, one of those that plyfs
// brings along (progs) or the user's own, for a place of the tree: all below a
// directory, or one file. There are two sets, that of inode programs (lookup,
// readdir, getattr) and that of file programs (open, read, write); in each the
// nearest place wins, and what is set there hides what is set above. Of several
// rules of one place, the first whose match fits has the say.
//
// Each rule has its object loaded for itself, with constants and maps of its
// own (load.go, configure.go). Programs are of the type syscall, verified and
// compiled by the kernel; the daemon runs them by bpf(2), with the question in
// and the answer out of a slot of an array that it has mapped (runner.go). A
// program that takes longer than its budget is switched off for good
// (budget.go). What a program answers is copied out of the slot, and then
// checked: here as far as it is about the ABI (action, flags, counts,
// overflow), in stack as far as it is about the file.
//
// The ABI is include/plyfs.h, abi.go its mirror.
//
// # Lifetime
//
// A policy lives until it is closed and the last plan that it gave is
// released: plans ask for further windows, and read parts.
package bpf
