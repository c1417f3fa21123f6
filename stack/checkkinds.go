// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"maps"
	"slices"
)

// A CheckKind is a kind of finding. Kinds are stable: scripts may rely on them.
type CheckKind struct {
	Kind     string
	Severity Severity
	Says     string // the invariant that does not hold, or what a note means
	Repaired bool   // a repair mends it where it loses nothing
}

// CheckKinds lists what is proved, in the order of the kinds' names.
func CheckKinds() []CheckKind {
	list := make([]CheckKind, 0, len(checkKinds))
	for _, kind := range slices.Sorted(maps.Keys(checkKinds)) {
		k := checkKinds[kind]
		k.Kind = kind
		list = append(list, k)
	}
	return list
}

var checkKinds = map[string]CheckKind{
	"journal-damaged":    {Severity: Violation, Says: "the journal's pages, records, sums and logs are sound", Repaired: true},
	"journal-missing":    {Severity: Violation, Says: "an upper that was mounted has its journal"},
	"layers-differ":      {Severity: Violation, Says: "the layers are those that the journal was made for, in their order"},
	"pair":               {Severity: Violation, Says: "upper and work bear the same mark"},
	"mark-unreadable":    {Severity: Violation, Says: "the mark of each upper directory can be read"},
	"mark-contradiction": {Severity: Violation, Says: "what a directory's mark says fits itself and the journal's note; what a directory merges with never changes"},
	"id-unknown":         {Severity: Violation, Says: "each directory id was handed out by the journal"},
	"id-twice":           {Severity: Violation, Says: "no two directories have one id"},
	"id-lost":            {Severity: Violation, Says: "no directory without records fits records without a directory"},
	"redirect-lost":      {Severity: Violation, Says: "a redirect leads to a directory of the lower layers"},
	"merged-twice":       {Severity: Violation, Says: "no two upper directories merge with one lower directory"},
	"shown-twice":        {Severity: Violation, Says: "a moved lower directory does not show at its old place"},
	"covers-nothing":     {Severity: Violation, Says: "a directory in which names are hidden merges with a lower one"},
	"origin-unreadable":  {Severity: Violation, Says: "the origin of each copy can be read"},
	"origin-twice":       {Severity: Violation, Says: "a lower file has one copy in upper"},
	"origin-layer":       {Severity: Violation, Says: "an origin names a layer that is there"},
	"impure":             {Severity: Violation, Says: "a directory without lower parts that holds copies says so", Repaired: true},
	"partial-lower":      {Severity: Violation, Says: "the lower file of a partial one is there, with its inode number and size"},
	"partial-type":       {Severity: Violation, Says: "a partial file is a regular file"},
	"partial-mark":       {Severity: Violation, Says: "WORK/plyfs/partial is there while there are partial files", Repaired: true},
	"place":              {Severity: Violation, Says: "the place by which a policy goes is a path"},
	"index-origin":       {Severity: Violation, Says: "a copy in the index bears the origin that its name says"},
	"index-lower":        {Severity: Violation, Says: "the lower file of a copy in the index is there"},
	"index-missing":      {Severity: Violation, Says: "a copy of a lower file that has further names is in the index", Repaired: true},
	"links-many":         {Severity: Violation, Says: "an account counts no name as gone that shows", Repaired: true},
	"metacopy":           {Severity: Violation, Says: "an upper of kernel overlayfs holds no metacopies"},
	"unreadable":         {Severity: Violation, Says: "all can be read"},

	"leftover":       {Severity: Note, Says: "records of a directory that was removed when a mount was cut off", Repaired: true},
	"covers-idle":    {Severity: Note, Says: "records of names that no lower layer has", Repaired: true},
	"links-few":      {Severity: Note, Says: "an account that a mount will bring up to date", Repaired: true},
	"links-nlink":    {Severity: Note, Says: "the lower file has another link count than when it was first met", Repaired: true},
	"links-missing":  {Severity: Note, Says: "a copy in the index without an account", Repaired: true},
	"links-leftover": {Severity: Note, Says: "the account of a lower file that is not there", Repaired: true},
	"tmp":            {Severity: Note, Says: "an entry under way when a mount was cut off; the next one removes it", Repaired: true},
	"live":           {Severity: Note, Says: "the last mount was cut off; the next one settles what that left"},
	"first-mount":    {Severity: Note, Says: "the first mount was cut off; the next one goes on"},
	"never-mounted":  {Severity: Note, Says: "upper and work were never mounted together"},
	"partial-none":   {Severity: Note, Says: "WORK/plyfs/partial is there without need"},
	"attr-unknown":   {Severity: Note, Says: "a private xattr that this plyfs does not write here"},
	"index-unknown":  {Severity: Note, Says: "a name in the index that plyfs does not give"},
	"volatile":       {Severity: Note, Says: "a volatile mount was or is here: the next one is refused"},
	"work-unknown":   {Severity: Note, Says: "a name in WORK/plyfs that plyfs does not give"},
	"read-only":      {Severity: Note, Says: "a read-only mount has nothing to prove"},
}
