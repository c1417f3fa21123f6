// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

//go:build nobpf

package main

import (
	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/stack"
)

// errNoBPF is what this program says of all that needs programs.
func errNoBPF() error {
	return fail(exitEnvironment, "this plyfs was built without programs (build tag nobpf); use one that was built with them")
}

// policyKeeper refuses policies.
type policyKeeper struct{}

func newPolicyKeeper(m *mountOptions) (*policyKeeper, error) {
	if m.policy.any() {
		return nil, errNoBPF()
	}
	return &policyKeeper{}, nil
}

func (*policyKeeper) serve(*stack.FS, string) {}

// handle implements policyServer.
func (*policyKeeper) handle(string, policyRequest) (any, error) { return nil, errNoBPF() }

// bpfCommands are those that need the bpf room: none.
func bpfCommands() []*cobra.Command { return nil }
