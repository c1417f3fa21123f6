// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/json"
	"fmt"
)

// status is what the tests read of `plyfs status --json`.
type status struct {
	Mountpoint    string            `json:"mountpoint"`
	PID           int               `json:"pid"`
	IO            string            `json:"io"`
	MaxStackDepth int               `json:"max_stack_depth"`
	CapEffective  string            `json:"cap_effective"`
	CapSysRes     bool              `json:"cap_sys_resource"`
	Layers        []layerStatus     `json:"layers"`
	Requests      map[string]uint64 `json:"requests"`
	Errors        map[string]uint64 `json:"errors"`
	Panics        uint64            `json:"panics"`
	Nodes         int               `json:"nodes"`
	FDs           int               `json:"fds"`
	LastErrors    []string          `json:"last_errors"`
	Opens         struct {
		Passthrough uint64            `json:"passthrough"`
		Server      uint64            `json:"server"`
		Refusals    map[string]uint64 `json:"refusals"`
		Overtaken   uint64            `json:"overtaken"`
	} `json:"opens"`
	CopyUps struct {
		Files uint64 `json:"files"`
		Dirs  uint64 `json:"dirs"`
	} `json:"copy_ups"`
	Journal *struct {
		Error string `json:"error"`
	} `json:"journal"`
}

type layerStatus struct {
	Role        string `json:"role"`
	Path        string `json:"path"`
	FSType      string `json:"fs_type"`
	Depth       int    `json:"depth"`
	ReadOnly    bool   `json:"read_only_clone"`
	Passthrough bool   `json:"passthrough"`
	Why         string `json:"why"`
	Attrs       string `json:"attributes"`
}

// readStatus asks the daemon of a mount.
func readStatus(mp string) (*status, error) {
	out, stderr, err := plyfsOut("status", "--json", mp)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr)
	}
	st := &status{}
	if err := json.Unmarshal([]byte(out), st); err != nil {
		return nil, fmt.Errorf("%w in %q", err, out)
	}
	return st, nil
}

// status asks the daemon or ends the test.
func (u *union) status() *status {
	u.Helper()
	st, err := readStatus(u.mp)
	if err != nil {
		u.Fatalf("status: %v", err)
	}
	return st
}
