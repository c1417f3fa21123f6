// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"path"
	"slices"
	"strings"
)

// withoutStrayWhiteouts leaves out the whiteouts in directories that merge
// with no lower one: kernel overlayfs lists them in readdir, though a lookup
// does not find them. TestTreeStrayWhiteout has this case.
func withoutStrayWhiteouts(base [][]string) [][]string {
	layers := make([]map[string]entry, len(base))
	out := make([][]string, len(base))
	for i := len(base) - 1; i >= 0; i-- {
		layers[i] = entriesOf(base[i])
		out[i] = slices.DeleteFunc(slices.Clone(base[i]), func(line string) bool {
			e, err := parseEntry(line)
			return err == nil && e.isWhiteout() && !merges(layers[i:], path.Dir(e.path))
		})
		layers[i] = entriesOf(out[i])
	}
	return out
}

// withoutXattrs leaves out the extended attributes of a base.
func withoutXattrs(base [][]string) [][]string {
	out := make([][]string, len(base))
	for i, lines := range base {
		for _, line := range lines {
			path, attrs, ok := strings.Cut(line, " {")
			if ok {
				words := strings.Fields(strings.TrimSuffix(attrs, "}"))
				words = slices.DeleteFunc(words, func(w string) bool { return w == "opaque" || strings.Contains(w, "=") })
				line = path + " {" + strings.Join(words, " ") + "}"
			}
			out[i] = append(out[i], line)
		}
	}
	return out
}

// entriesOf are the entries of a fixture by path, with the directories above
// them.
func entriesOf(lines []string) map[string]entry {
	es := map[string]entry{}
	for _, line := range lines {
		e, err := parseEntry(line)
		if err != nil {
			continue
		}
		for d := path.Dir(e.path); d != "."; d = path.Dir(d) {
			if es[d].kind == "" {
				es[d] = entry{path: d, kind: "dir"}
			}
		}
		es[e.path] = e
	}
	return es
}

func (e entry) isWhiteout() bool { return e.kind == "chr" && e.arg == "0:0" }

func (e entry) isOpaque() bool {
	return slices.ContainsFunc(e.xattrs, func(x [2]string) bool { return x[0] == "trusted.overlay.opaque" })
}

// merges says whether the directory of the first layer merges with one below.
func merges(layers []map[string]entry, dir string) bool {
	for j := 1; j < len(layers); j++ {
		found := true
		for d := dir; d != "."; d = path.Dir(d) {
			above := layers[j-1][d]
			if above.isOpaque() || (above.kind != "" && above.kind != "dir") {
				return false
			}
			found = found && layers[j][d].kind == "dir"
		}
		if found {
			return true
		}
	}
	return false
}
