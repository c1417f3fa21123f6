// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package creds

import (
	"os"
	"strconv"
	"strings"
)

// Groups are the supplementary groups of a process, or of a thread by its id;
// 0 means the calling process. FUSE requests carry one group only, so whoever
// must know the others reads them from /proc. ENOENT if the process is gone or
// of another pid namespace.
func Groups(pid int) ([]uint32, error) {
	name := "self"
	if pid != 0 {
		name = strconv.Itoa(pid)
	}
	status, err := os.ReadFile("/proc/" + name + "/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		list, ok := strings.CutPrefix(line, "Groups:")
		if !ok {
			continue
		}
		var groups []uint32
		for _, f := range strings.Fields(list) {
			g, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, err
			}
			groups = append(groups, uint32(g))
		}
		return groups, nil
	}
	return nil, nil
}
