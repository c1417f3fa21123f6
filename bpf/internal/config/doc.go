// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package config reads policy files: which program, with which parameters and
// backing files, governs which subtree or file of a mount. A file is checked
// whole; what is wrong with it is said all at once, each with its line and what
// to do about it. testdata/example.yaml shows everything that can be said.
package config
