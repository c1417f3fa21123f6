// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"fmt"
	"strings"
)

// sameAs reports whether a and b are the same layer: file system type and root
// inode are equal, and so are the UUIDs, or the paths where a UUID is not known.
func (a LayerID) sameAs(b LayerID) bool {
	if a.FSType != b.FSType || a.RootIno != b.RootIno {
		return false
	}
	if a.UUID != "" && b.UUID != "" {
		return a.UUID == b.UUID
	}
	return a.Path == b.Path
}

// String describes a layer for messages.
func (a LayerID) String() string {
	uuid := a.UUID
	if uuid == "" {
		uuid = "none"
	}
	return fmt.Sprintf("%s (%s, UUID %s, root inode %d)", a.Path, a.FSType, uuid, a.RootIno)
}

// compareLayers says what differs between the layers that a journal was made for and
// those given, as an [ErrLayerSet] about the database at path, or gives nil. Their
// number and order matter: records speak of layers by index.
func compareLayers(path string, stored, given Meta) error {
	var diffs []string
	if !stored.Upper.sameAs(given.Upper) {
		diffs = append(diffs, fmt.Sprintf("the upper layer was %s and is now %s", stored.Upper, given.Upper))
	}
	switch {
	case len(stored.Lowers) != len(given.Lowers):
		diffs = append(diffs, fmt.Sprintf("it had %d lower layers and has now %d", len(stored.Lowers), len(given.Lowers)))
	case sameSet(stored.Lowers, given.Lowers) && !sameList(stored.Lowers, given.Lowers):
		diffs = append(diffs, "the lower layers are the same but in another order, it was "+paths(stored.Lowers))
	default:
		for i, l := range stored.Lowers {
			if !l.sameAs(given.Lowers[i]) {
				diffs = append(diffs, fmt.Sprintf("lower layer %d was %s and is now %s", i+1, l, given.Lowers[i]))
			}
		}
	}
	if len(diffs) == 0 {
		return nil
	}
	return &Error{Kind: ErrLayerSet, File: path,
		What: "the journal belongs to another set of layers: " + strings.Join(diffs, ", "),
		Mend: "mount with the layers it was made for, or use a fresh upperdir and workdir"}
}

func sameList(a, b []LayerID) bool {
	for i := range a {
		if !a[i].sameAs(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// sameSet reports whether b is a in another order.
func sameSet(a, b []LayerID) bool {
	used := make([]bool, len(b))
	for _, l := range a {
		found := false
		for i := range b {
			if !used[i] && l.sameAs(b[i]) {
				used[i], found = true, true
				break
			}
		}
		if !found {
			return false
		}
	}
	return len(a) == len(b)
}

func paths(layers []LayerID) string {
	var p []string
	for _, l := range layers {
		p = append(p, strings.ReplaceAll(l.Path, ":", `\:`))
	}
	return strings.Join(p, ":")
}
