// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

//go:build race

package integration

// raceDetector says that the binary under test is built with -race, as the
// tests are.
const raceDetector = true
