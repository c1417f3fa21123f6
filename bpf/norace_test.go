// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

//go:build !race

package bpf

const raceEnabled = false
