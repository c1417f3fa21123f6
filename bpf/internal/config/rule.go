// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"path"
	"strings"
)

// The programs that plyfs brings along.
const (
	Redact  = "redact"  // ranges of a file read as zeros
	Prepend = "prepend" // a text is put before a file
	Split   = "split"   // a file is put together from others
	Select  = "select"  // names are hidden, or come from a chosen layer
)

// object stands for the programs of objects, where the others have names.
const object = "object"

// A Rule says which program governs a subtree or a file.
type Rule struct {
	Line    int    // where it begins
	Name    string // its label, which no other rule has
	Path    string // in the mount: absolute and cleaned
	Program string // Redact, Prepend, Split, Select, or the object as the file has it
	Object  string // the object file, absolute; "": a program of plyfs

	Match []string // Redact, Prepend: patterns of names (see Match); none: all

	Handler string  // Redact, objects: a registered handler, or ""
	Ranges  []Range // Redact: what reads as zeros; sorted, disjoint, not adjacent
	Whole   bool    // Redact: all of it does

	Prefix     []byte // Prepend: the text; nil if it is in PrefixFile
	PrefixFile string // Prepend: absolute, or ""

	Parts   []string // Split, objects: absolute, patterns resolved, in order
	Base    string   // Split: what Patches lie over, absolute; "": the file itself
	Patches []Patch  // Split: later ones lie over earlier ones
	Size    *uint64  // Split: nil: that of the parts or the base

	Clauses []Clause // Select: the first that matches has the say

	Params map[string]uint64 // objects: constants; negative numbers as two's complement
	Maps   map[string]Map    // objects: contents of maps
}

// A Range is a range of a file's bytes. It ends at 1<<63 - 1 at the latest.
type Range struct{ Off, Len uint64 }

// A Patch is a piece of a file that lies over another.
type Patch struct {
	Line   int
	Offset uint64  // where it lies
	File   string  // absolute
	From   uint64  // where it begins in File
	Length *uint64 // nil: the rest of File
}

// A Map is what a BPF map of an object is filled with.
type Map struct {
	Line    int
	Entries []MapEntry // as in the file, no key twice
}

// A MapEntry is an entry of a map, or a member of a structure. Key and Value
// are int64, uint64 (only what int64 has no room for), bool, string, []any of
// these, or []MapEntry for a mapping.
type MapEntry struct {
	Line       int
	Key, Value any
}

// An Action is what a clause does to a name.
type Action uint8

// The actions.
const (
	Hide  Action = iota + 1 // as if it were not there
	Layer                   // it comes from Clause.Layer
	Skip                    // the layers of Clause.Skip are passed over
	Show                    // as it is
	Deny                    // EACCES
)

// String is the key of the policy file.
func (a Action) String() string {
	return [...]string{"", "hide", "layer", "skip", "show", "deny"}[a]
}

// An IDRange is a range of user or group ids, both ends included.
type IDRange struct{ First, Last uint32 }

// A Clause says what happens to names that match.
type Clause struct {
	Line   int
	Match  string   // a pattern, see Match
	Type   uint32   // S_IFREG, S_IFDIR or S_IFLNK; 0: any
	UID    *IDRange // who asks: nil: anybody
	GID    *IDRange // likewise; with UID, both must hold
	Not    bool     // all others than UID and GID say
	Action Action
	Layer  int   // with Layer: the lower layer, from 1
	OrHide bool  // with Layer: hide what that layer lacks; else it is left as it is
	Skip   []int // with Skip: lower layers, from 1, sorted
}

// kind is what the rule's program is called where it is not the path of an
// object that matters.
func (r *Rule) kind() string {
	if r.Object != "" {
		return object
	}
	return r.Program
}

// defaultName is the label of a rule that has none.
func (r *Rule) defaultName() string {
	program := r.Program
	if r.Object != "" {
		program = strings.TrimSuffix(path.Base(r.Object), ".o")
	}
	return program + ":" + r.Path
}
