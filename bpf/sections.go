// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"strings"

	"github.com/plyfs/plyfs/bpf/internal/config"
)

// progKey says when a program is asked.
type progKey struct {
	op    op
	phase phase
}

// sections are the names that plyfs.h lists, in its order.
var sections = [...]struct {
	name string
	key  progKey
}{
	{"ply/inode/lookup/pre", progKey{opLookup, pre}},
	{"ply/inode/lookup/post", progKey{opLookup, post}},
	{"ply/inode/readdir/pre", progKey{opReaddir, pre}},
	{"ply/inode/readdir/post", progKey{opReaddir, post}},
	{"ply/inode/getattr/pre", progKey{opGetattr, pre}},
	{"ply/inode/getattr/post", progKey{opGetattr, post}},
	{"ply/file/open/pre", progKey{opOpen, pre}},
	{"ply/file/open/post", progKey{opOpen, post}},
	{"ply/file/read/pre", progKey{opRead, pre}},
	{"ply/file/read/post", progKey{opRead, post}},
	{"ply/file/write/pre", progKey{opWrite, pre}},
	{"ply/file/write/post", progKey{opWrite, post}},
}

// String is the section's name.
func (k progKey) String() string {
	for _, s := range sections {
		if s.key == k {
			return s.name
		}
	}
	return "ply/?"
}

// parseSection is the inverse of progKey.String.
func parseSection(name string) (progKey, bool) {
	for _, s := range sections {
		if s.name == name {
			return s.key, true
		}
	}
	return progKey{}, false
}

// sectionList is the valid names, for messages.
func sectionList() string {
	return "ply/inode/{lookup,readdir,getattr}/{pre,post}, ply/file/{open,read,write}/{pre,post}"
}

// nearestSection is the valid name that takes the fewest edits, and "" if all
// are far.
func nearestSection(name string) string {
	best, least := "", 8
	for _, s := range sections {
		if d := config.Distance(strings.ToLower(name), s.name); d < least {
			best, least = s.name, d
		}
	}
	return best
}
