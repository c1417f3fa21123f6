// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package integration tests the plyfs binary from outside: real layers, real
// mounts, the system calls of a user, and nothing of plyfs' own packages.
//
// Every test describes its layers as fixtures (see fixture_test.go), mounts
// them with [newMount], works in the mount with plain system calls, and is
// then held to the promises that hold for every mount: no layer below has
// changed, the daemon has counted no panic, and it has leaked no descriptor.
//
// The system under test is chosen by the environment variable PLYFS_SUT:
// "plyfs" (default) or "overlay", kernel overlayfs. The second proves the
// tests themselves: what is a promise of a union mount must hold there too.
//
// The other variables:
//
//	PLYFS_BIN           a ready-made binary to test instead of building one
//	PLYFS_SEED          seed of the random choices of the oracle, the kill test, the model test
//	                    of partial files and the power cuts, or "random" (the oracle and the
//	                    model have seeds of their own else, the others never the same)
//	PLYFS_ORACLE_RUNS   number of the oracle's sequences (default: by time)
//	PLYFS_ORACLE_REPLAY a file with the JSON of a failing sequence
//	PLYFS_ORACLE_WITHOUT kinds of operations to leave out, with blanks between
//	PLYFS_FULL          how many times more work on full disks than in an ordinary run
//	PLYFS_DAMAGES       how many times more damages to journals than in an ordinary run
//	PLYFS_KILLS         number of kill -9 in the kill test
//	PLYFS_PARTIAL_RUNS  number of the model test's sequences for each file system (default: by time)
//	PLYFS_PARTIAL_REPLAY a file with the JSON of a failing sequence
//	PLYFS_PARTIAL_WITHOUT kinds of operations to leave out, with blanks between
//	PLYFS_CUTS          number of power cuts on each file system
//	PLYFS_CUT_FS        those file systems: ext4, ext4-1k (small blocks), xfs, btrfs; with
//	                    -disk behind it the disk below loses its power (default: ext4,xfs,btrfs)
//	PLYFS_CUT_OPTIONS   options of plyfs for its rounds, in turn, with semicolons between
//	PLYFS_LOAD_TIME     how long the load test runs, as a Go duration
//	PLYFS_TMP           where the layers are made (default: the temporary directory)
package integration
