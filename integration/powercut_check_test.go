// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cutSeen is what was found at a name after a power cut.
type cutSeen struct {
	kind   string
	target string
	data   []byte
	attrs  cutAttrs
	ino    uint64
	nlink  uint64
	mtime  int64
	err    error // of reading it
}

// cutProblem is one thing that is not as it may be.
type cutProblem struct {
	kind string // one word, by which problems are counted
	text string
}

// cutTree lists the names below root by the key of the object that they
// belong to: the first two components, up to the first dot.
func cutTree(root string) (map[string][]string, error) {
	tree := map[string][]string{}
	err := walk(root, ".", func(p string) error {
		tree[cutKey(p)] = append(tree[cutKey(p)], p)
		return nil
	})
	return tree, err
}

// cutKey is the key of the object that has the name; "" for directories that
// all share.
func cutKey(p string) string {
	group, rest, ok := strings.Cut(p, "/")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(rest, "./"); i >= 0 {
		rest = rest[:i]
	}
	return group + "/" + rest
}

// seeCut looks at a name.
func seeCut(path string) *cutSeen {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &cutSeen{kind: "nothing", err: err}
	}
	s := &cutSeen{
		kind: typeName(st.Mode), ino: st.Ino, nlink: uint64(st.Nlink), mtime: st.Mtim.Nano(),
		attrs: cutAttrs{mode: st.Mode & 0o7777, uid: st.Uid},
	}
	switch s.kind {
	case "file":
		s.data, s.err = os.ReadFile(path)
	case "symlink":
		s.target, s.err = os.Readlink(path)
		return s
	}
	buf := make([]byte, 64)
	if n, err := unix.Lgetxattr(path, "user.cut", buf); err == nil {
		s.attrs.xattr = string(buf[:n])
	} else if err != unix.ENODATA && s.err == nil {
		s.err = err
	}
	return s
}

// check compares what is below root with the states that the object may be in,
// and brings the object to what was found. Otherwise it returns what is wrong
// with the state that comes nearest.
func (o *cutObject) check(root string, names []string) []cutProblem {
	o.mu.Lock()
	defer o.mu.Unlock()
	found := map[string]*cutSeen{}
	for _, p := range names {
		found[p] = seeCut(filepath.Join(root, p))
	}
	var best []cutProblem
	vals := o.states.vals
	for i := len(vals) - 1; i >= 0; i-- {
		problems := vals[i].compare(found)
		if len(problems) == 0 {
			o.becomes(vals[i], found)
			return nil
		}
		if best == nil || len(problems) < len(best) {
			best = problems
		}
	}
	if o.worker == "removedir" {
		if s := o.unordered(found); s != nil {
			o.becomes(s, found)
			return nil
		}
	}
	return best
}

// unordered is the state in which each name is as in one of the states, or nil
// if there is none. That is all that plyfs promises for removed names: what
// is removed from the lower layer is a record in the journal, what is removed
// from upper a change there, and one may reach the disk before the other.
func (o *cutObject) unordered(found map[string]*cutSeen) cutState {
	s := cutState{}
	for p, f := range found {
		for _, v := range o.states.vals {
			if n := v[p]; n != nil && len(cutState{p: n}.compare(map[string]*cutSeen{p: f})) == 0 {
				s[p] = n
			}
		}
		if s[p] == nil {
			return nil
		}
	}
	for p := range o.states.vals[0] {
		gone := func(v cutState) bool { return v[p] == nil }
		if s[p] == nil && !slices.ContainsFunc(o.states.vals, gone) {
			return nil
		}
	}
	return s
}

// becomes makes what was found the state from which all goes on.
func (o *cutObject) becomes(s cutState, found map[string]*cutSeen) {
	o.states, o.log = newHistory(s), nil
	for p, n := range s {
		n.attrs = newHistory(found[p].attrs)
		if n.kind == "file" {
			n.data.found(found[p].data)
		}
	}
}

// compare compares what was found with one state.
func (s cutState) compare(found map[string]*cutSeen) []cutProblem {
	var problems []cutProblem
	add := func(kind, format string, args ...any) {
		problems = append(problems, cutProblem{kind, fmt.Sprintf(format, args...)})
	}
	inos := map[*cutNode]uint64{}
	for p, n := range s {
		f := found[p]
		if f == nil {
			add("missing", "%s is missing", p)
			continue
		}
		if kind, text := n.check(f); kind != "" {
			add(kind, "%s: %s", p, text)
		}
		if ino, ok := inos[n]; ok && ino != f.ino {
			add("links", "%s is not linked to its other names %q", p, s.names(n))
		}
		inos[n] = f.ino
		if k := len(s.names(n)); n.kind == "file" && f.kind == "file" && f.nlink != uint64(k) {
			add("nlink", "%s has %d links, want %d", p, f.nlink, k)
		}
	}
	for p, f := range found {
		if s[p] == nil {
			add("unexpected", "%s is there: %s of %d bytes", p, f.kind, len(f.data))
		}
	}
	return problems
}

// check compares what was found with what the inode may be.
func (n *cutNode) check(f *cutSeen) (kind, text string) {
	switch {
	case f.kind != n.kind:
		return "type", fmt.Sprintf("a %s (%v), want a %s", f.kind, f.err, n.kind)
	case f.err != nil:
		return "unreadable", f.err.Error()
	case f.target != n.target:
		return "target", fmt.Sprintf("leads to %q, want %q", f.target, n.target)
	case n.mtime != 0 && f.mtime != n.mtime:
		return "mtime", fmt.Sprintf("modified at %d, want %d: nobody wrote to it", f.mtime, n.mtime)
	}
	if n.kind == "file" {
		if kind, text := n.data.check(f.data); kind != "" {
			return kind, text
		}
	}
	if n.kind != "symlink" && !containsAttrs(n.attrs.vals, f.attrs) {
		return "attributes", fmt.Sprintf("%+v, want one of those since the last sync: %+v", f.attrs, n.attrs.vals)
	}
	return "", ""
}

func containsAttrs(list []cutAttrs, a cutAttrs) bool {
	for _, b := range list {
		if a == b {
			return true
		}
	}
	return false
}
