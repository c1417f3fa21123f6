// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"

	"github.com/plyfs/plyfs/stack"
)

// Verbs of the control socket that are about the policy.
const (
	verbPlan        = "plan"
	verbPolicySet   = "policy-set"
	verbPolicyClear = "policy-clear"
	verbMapList     = "map-list"
	verbMapDump     = "map-dump"
	verbMapSet      = "map-set"
	verbMapDelete   = "map-delete"
)

// policyRequest is what those verbs are about.
type policyRequest struct {
	File   string        `json:"file,omitempty"` // absolute; a policy file or an object
	Rule   string        `json:"rule,omitempty"`
	Map    string        `json:"map,omitempty"`
	Key    string        `json:"key,omitempty"`
	Value  string        `json:"value,omitempty"`
	Limit  int           `json:"limit,omitempty"`
	Caller *stack.Caller `json:"caller,omitempty"`
}

// mapDump is the answer to map-dump.
type mapDump struct {
	Entries json.RawMessage `json:"entries"` // as the bpf room has them
	More    bool            `json:"more"`
}

// policyServer answers them; a *policyKeeper.
type policyServer interface {
	handle(verb string, r policyRequest) (any, error)
}

// planned is what a mount must have to tell plans; a *stack.FS.
type planned interface {
	PlanOf(rel string, who stack.Caller, most int) (stack.PlanInfo, error)
}
