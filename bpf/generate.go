// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import "embed"

// The programs that come with plyfs, compiled; progs/*.c says what each is for
// and which of its maps and constants a rule of the policy sets.
//
// They are embedded as they are, and not through bpf2go: it gives programs in
// sections that it does not know no type, so the loader that it generates would
// leave ours out, and the object of a user has to be loaded from a file anyhow.
// So there is one loader for both.
//
// They are for little-endian machines; on others the loader says so.
//
//go:generate sh progs/build.sh
//go:embed progs/*.o
var shipped embed.FS
