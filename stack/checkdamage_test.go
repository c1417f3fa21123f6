// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack/journal"
)

// A damage is one way to spoil the directories that checkMade leaves.
type damage struct {
	name   string
	do     func(t testing.TB, m *mounted)
	kinds  []string
	loses  string // part of what the first violation loses
	mended bool   // Repair leaves nothing
	note   bool   // no violation
}

func TestCheckNamesDamage(t *testing.T) {
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			m := checkMade(t)
			d.do(t, m)
			r := m.check()
			wantFindings(t, "damaged", r, d.kinds...)
			if r.Clean != d.note {
				t.Errorf("clean: %v\n%s", r.Clean, findingsText(r))
			}
			if len(r.Findings) == 0 {
				return
			}
			if f := r.Findings[0]; !strings.Contains(f.Loses, d.loses) || d.loses == "" && f.Loses != "" || f.What == "" || f.Path == "" {
				t.Errorf("%+v", f)
			}
			for _, f := range r.Findings {
				if _, known := checkKinds[f.Kind]; !known {
					t.Errorf("kind %q is in no list", f.Kind)
				}
				if f.Severity == Violation && f.Mend == "" && !f.Repairable {
					t.Errorf("no mend: %+v", f)
				}
			}
			again, err := Repair(m.config())
			must(t, err)
			left := m.check()
			if d.mended {
				wantFindings(t, "repaired", left)
				wantClean(t, "repaired", again)
				if again.Repair.Backup == "" || len(again.Repair.Done) == 0 || len(again.Repair.Failed) > 0 {
					t.Errorf("%+v", again.Repair)
				}
				if _, err := os.Stat(again.Repair.Backup + "/" + journal.DBName); err != nil {
					t.Errorf("the copy of the journal: %v", err)
				}
			} else {
				wantFindings(t, "after a repair that refuses", left, d.kinds...)
				if again.Repair.Backup != "" {
					t.Errorf("a copy was made for nothing: %+v", again.Repair)
				}
			}
		})
	}
	seen := map[string]bool{}
	for _, d := range damages {
		for _, k := range d.kinds {
			seen[k] = true
		}
	}
	for k := range checkKinds {
		if !seen[k] && !elsewhere[k] {
			t.Errorf("no test makes a %q", k)
		}
	}
}

// elsewhere are kinds that other tests make.
var elsewhere = map[string]bool{"live": true, "tmp": true, "first-mount": true, "never-mounted": true, "read-only": true, "metacopy": true, "unreadable": true, "volatile": true}

func flipMark(path string, change func(*dirMark)) func(t testing.TB, m *mounted) {
	return func(t testing.TB, m *mounted) {
		mark := markAt(t, m.upper+path)
		change(&mark)
		setMarkAt(t, m.upper+path, mark)
	}
}

func planted(path, attr string, value []byte) func(t testing.TB, m *mounted) {
	return func(t testing.TB, m *mounted) { must(t, unix.Lsetxattr(m.upper+path, attr, value, 0)) }
}

func partialOrigin(layer uint32, ino, limit uint64, path string) []byte {
	return originMark{Origin: journal.Origin{Layer: layer, Ino: ino}, partial: true, limit: int64(limit), path: path}.encode()
}

func encodeOrigin(o journal.Origin) []byte { return originMark{Origin: o}.encode() }

// plantPartial makes a sparse upper file over the lower file "big", with the
// first of its 16 blocks written.
func plantPartial(t testing.TB, m *mounted, name string, change func(ino, size uint64) []byte) {
	t.Helper()
	st := statOf(t, m.lowers[0]+"/big")
	must(t, os.WriteFile(m.upper+"/"+name, []byte(strings.Repeat("w", 4096)), 0o644))
	must(t, os.Truncate(m.upper+"/"+name, st.Size))
	must(t, unix.Setxattr(m.upper+"/"+name, xattrOrigin, change(st.Ino, uint64(st.Size)), 0))
	must(t, os.WriteFile(m.work+"/plyfs/partial", nil, 0o600))
}

func plant(name string, change func(ino, size uint64) []byte) func(t testing.TB, m *mounted) {
	return func(t testing.TB, m *mounted) { plantPartial(t, m, name, change) }
}

var damages = []damage{
	{name: "mark cut short", do: planted("/a", xattrDir, []byte{1, 0, 0}), kinds: []string{"mark-unreadable", "leftover"}, loses: "EIO"},
	{name: "mark of a newer version", do: planted("/a", xattrDir, append([]byte{2}, make([]byte, 9)...)), kinds: []string{"mark-unreadable", "leftover"}, loses: "EIO"},
	{name: "mark of the root", do: planted("", xattrDir, []byte{9}), kinds: []string{"mark-unreadable", "leftover"}, loses: "EIO"},
	{name: "unknown flags", do: flipMark("/a", func(d *dirMark) { d.flags |= 0x40 }), kinds: []string{"mark-unreadable", "leftover"}, loses: "EIO"},
	{name: "opaque lost", do: flipMark("/c", func(d *dirMark) { d.flags = 0 }), kinds: []string{"mark-contradiction"}, loses: "removed"},
	{name: "opaque lost, with a note", do: func(t testing.TB, m *mounted) {
		must(t, os.Mkdir(m.lowers[0]+"/a/moved", 0o755)) // as if it had been there
		flipMark("/a/moved", func(d *dirMark) { d.flags = 0 })(t, m)
	}, kinds: []string{"mark-contradiction"}, loses: "never showed"},
	{name: "opaque gained", do: flipMark("/a", func(d *dirMark) { d.flags |= markOpaque }), kinds: []string{"covers-nothing", "impure"}, loses: "the lower directory"},
	{name: "opaque and redirect", do: flipMark("/B", func(d *dirMark) { d.flags |= markOpaque }), kinds: []string{"mark-contradiction"}},
	{name: "impure lost", do: flipMark("/plain", func(d *dirMark) { d.flags = markOpaque }), kinds: []string{"impure"}, loses: "inode number", mended: true},
	{name: "impure gained", do: flipMark("/a", func(d *dirMark) { d.flags |= markImpure }), kinds: []string{"mark-contradiction"}, loses: "removed"},
	{name: "id of another directory", do: func(t testing.TB, m *mounted) {
		id := markAt(t, m.upper+"/a").id
		flipMark("/B", func(d *dirMark) { d.id = id })(t, m)
	}, kinds: []string{"id-twice", "leftover"}, loses: "removed"},
	{name: "id that was not handed out", do: flipMark("/a", func(d *dirMark) { d.id = 1<<64 - 1 }), kinds: []string{"id-unknown", "id-lost"}, loses: "removed"},
	{name: "id that nothing is known of", do: flipMark("/a", func(d *dirMark) { d.id ^= 1 << 14 }), kinds: []string{"id-lost"}, loses: "removed"},
	{name: "id of a moved directory lost", do: flipMark("/B", func(d *dirMark) { d.id ^= 1 << 14 }), kinds: []string{"id-lost"}, loses: "removed"},
	{name: "redirect to nowhere", do: flipMark("/B", func(d *dirMark) { d.redirect = "/nowhere" }), kinds: []string{"redirect-lost"}, loses: "the lower directory"},
	{name: "redirect to a file", do: flipMark("/B", func(d *dirMark) { d.redirect = "/keep" }), kinds: []string{"redirect-lost"}, loses: "the lower directory"},
	{name: "redirect with a dot", do: flipMark("/B", func(d *dirMark) { d.redirect = "/./b" }), kinds: []string{"redirect-lost"}, loses: "the lower directory"},
	{name: "redirect not as written", do: flipMark("/B", func(d *dirMark) { d.redirect = "//b" }), kinds: []string{"mark-contradiction"}},
	{name: "redirect elsewhere", do: flipMark("/B", func(d *dirMark) { d.redirect = "/d" }), kinds: []string{"mark-contradiction", "merged-twice", "covers-idle"}, loses: "never showed"},
	{name: "redirect lost", do: flipMark("/B", func(d *dirMark) { d.redirect = "" }), kinds: []string{"mark-contradiction", "covers-nothing"}, loses: "not what it showed"},
	{name: "two for one", do: func(t testing.TB, m *mounted) {
		must(t, os.Mkdir(m.upper+"/twin", 0o755))
		setMarkAt(t, m.upper+"/twin", dirMark{redirect: "/d"})
	}, kinds: []string{"merged-twice"}, loses: "one of the two"},
	{name: "the hiding record lost", do: func(t testing.TB, m *mounted) {
		id := markAt(t, m.upper).id
		m.withJournal(func(j *journal.Journal) { must(t, j.Apply(journal.Uncover(id, "b"))) })
	}, kinds: []string{"shown-twice"}, loses: "twice"},
	{name: "origin cut short", do: planted("/a/y", xattrOrigin, []byte{1, 0}), kinds: []string{"origin-unreadable"}, loses: "EIO"},
	{name: "origin of a newer version", do: planted("/a/y", xattrOrigin, append([]byte{3}, make([]byte, 12)...)), kinds: []string{"origin-unreadable"}, loses: "EIO"},
	{name: "origin in a layer that is not there", do: planted("/a/y", xattrOrigin, encodeOrigin(journal.Origin{Layer: 7, Ino: 1})), kinds: []string{"origin-layer"}, loses: "EIO"},
	{name: "partial", do: plant("big", func(ino, size uint64) []byte { return partialOrigin(1, ino, size, "") }), note: true},
	{name: "partial by path", do: plant("elsewhere", func(ino, size uint64) []byte { return partialOrigin(1, ino, size/2, "/big") }), note: true},
	{name: "partial, another lower file", do: plant("big", func(ino, size uint64) []byte { return partialOrigin(1, ino+1<<40, size, "") }), kinds: []string{"partial-lower"}, loses: "the bytes 4096 to 65535"},
	{name: "partial, no lower file of the name", do: plant("big2", func(ino, size uint64) []byte { return partialOrigin(1, ino, 8192, "") }), kinds: []string{"partial-lower"}, loses: "the bytes 4096 to 8191"},
	{name: "partial, no lower file at the path", do: plant("big", func(ino, size uint64) []byte { return partialOrigin(1, ino, size, "/d/big") }), kinds: []string{"partial-lower"}, loses: "the bytes 4096"},
	{name: "partial, a directory at the path", do: plant("big", func(ino, size uint64) []byte { return partialOrigin(1, ino, size, "/d") }), kinds: []string{"partial-lower"}, loses: "the bytes 4096"},
	{name: "partial, limit too high", do: plant("big", func(ino, size uint64) []byte { return partialOrigin(1, ino, size+1, "") }), kinds: []string{"partial-lower"}},
	{name: "partial, limit absurd", do: plant("big", func(ino, size uint64) []byte { return partialOrigin(1, ino, 1<<63, "") }), kinds: []string{"origin-unreadable"}, loses: "EIO"},
	{name: "partial, path climbs", do: plant("big", func(ino, size uint64) []byte { return partialOrigin(1, ino, size, "/d/../big") }), kinds: []string{"origin-unreadable"}, loses: "EIO"},
	{name: "partial, lower file cut short", do: func(t testing.TB, m *mounted) {
		plantPartial(t, m, "big", func(ino, size uint64) []byte { return partialOrigin(1, ino, size, "") })
		must(t, os.Truncate(m.lowers[0]+"/big", 10000))
	}, kinds: []string{"partial-lower"}, loses: "the bytes 10000 to 65535"},
	{name: "partial and nothing written is missing", do: func(t testing.TB, m *mounted) {
		plantPartial(t, m, "big", func(ino, size uint64) []byte { return partialOrigin(1, ino+1<<40, 4096, "") })
	}, kinds: []string{"partial-lower"}},
	{name: "partial and no regular file", do: planted("/null", xattrOrigin, partialOrigin(1, 1, 1, "/big")), kinds: []string{"partial-type"}, loses: "nothing that can be told"},
	{name: "partial and not said so", do: func(t testing.TB, m *mounted) {
		plantPartial(t, m, "big", func(ino, size uint64) []byte { return partialOrigin(1, ino, size, "") })
		must(t, os.Remove(m.work+"/plyfs/partial"))
	}, kinds: []string{"partial-mark"}, loses: "completed", mended: true},
	{name: "no partial file", do: func(t testing.TB, m *mounted) {
		again := m.remount(nil)
		must(t, again.CompletePath("/", func(CompletionProgress) error { return nil }))
		again.unmount()
		must(t, os.WriteFile(m.work+"/plyfs/partial", nil, 0o600))
	}, kinds: []string{"partial-none"}, note: true},
	{name: "place", do: planted("/plain", xattrPlace, []byte("no/path")), kinds: []string{"place"}, loses: "policy"},
	{name: "place that climbs", do: planted("/a/y", xattrPlace, []byte("/x/../y")), kinds: []string{"place"}, loses: "policy"},
	{name: "place as it should be", do: planted("/a/y", xattrPlace, []byte("/x/y")), note: true},
	{name: "odd value", do: planted("/a/y", xattrCopied, []byte("?")), kinds: []string{"attr-unknown"}, note: true},
	{name: "unknown private xattr", do: planted("/a/y", xattrPrefix+"future", []byte("?")), kinds: []string{"attr-unknown"}, note: true},
	{name: "pair of another upper", do: planted("", xattrPair, make([]byte, pairBytes)), kinds: []string{"pair"}, loses: "refused"},
	{name: "pair cut short", do: planted("", xattrPair, make([]byte, 3)), kinds: []string{"pair"}, loses: "refused"},
	{name: "pair gone from upper", do: func(t testing.TB, m *mounted) { must(t, unix.Removexattr(m.upper, xattrPair)) }, kinds: []string{"pair"}, loses: "refused"},
	{name: "pair gone from work", do: func(t testing.TB, m *mounted) { must(t, unix.Removexattr(m.work+"/plyfs", xattrPair)) }, kinds: []string{"pair"}, loses: "refused"},
	{name: "another lower", do: func(t testing.TB, m *mounted) { m.lowers = []string{layer(t, "file z 1")} }, kinds: []string{"layers-differ"}, loses: "refused"},
	{name: "one lower more", do: func(t testing.TB, m *mounted) { m.lowers = append(m.lowers, layer(t, "file z 1")) }, kinds: []string{"layers-differ"}, loses: "refused"},
	{name: "journal gone", do: func(t testing.TB, m *mounted) { must(t, os.Remove(m.work+"/plyfs/"+journal.DBName)) }, kinds: []string{"journal-missing"}, loses: "removed"},
	{name: "work gone", do: func(t testing.TB, m *mounted) { must(t, os.RemoveAll(m.work+"/plyfs")) }, kinds: []string{"journal-missing"}, loses: "removed"},
	{name: "log gone", do: func(t testing.TB, m *mounted) { must(t, os.Remove(m.work+"/plyfs/journal.log")) }, kinds: []string{"journal-damaged"}, loses: "removed"},
	{name: "journal cut", do: func(t testing.TB, m *mounted) { must(t, os.Truncate(m.work+"/plyfs/"+journal.DBName, 8192)) }, kinds: []string{"journal-damaged"}, loses: "removed"},
	{name: "journal hangs over", do: func(t testing.TB, m *mounted) {
		p := m.work + "/plyfs/" + journal.DBName
		st := statOf(t, p)
		must(t, os.Truncate(p, st.Size+5))
	}, kinds: []string{"journal-damaged"}, mended: true},
	{name: "records of a directory that is gone", do: func(t testing.TB, m *mounted) {
		m.withJournal(func(j *journal.Journal) {
			id, err := j.NewDirID()
			must(t, err)
			must(t, j.Apply(journal.Cover(id, "x"), journal.NoteDir(id, journal.DirNote{Path: "/gone"})))
		})
	}, kinds: []string{"leftover"}, note: true, mended: true},
	{name: "records of names that lower does not have", do: func(t testing.TB, m *mounted) {
		id := markAt(t, m.upper+"/a").id
		m.withJournal(func(j *journal.Journal) { must(t, j.Apply(journal.Cover(id, "nobody"))) })
	}, kinds: []string{"covers-idle"}, note: true, mended: true},
	{name: "index without its origin", do: func(t testing.TB, m *mounted) {
		must(t, unix.Removexattr(m.indexed(t), xattrOrigin))
	}, kinds: []string{"index-origin"}, loses: "one file"},
	{name: "index of another origin", do: func(t testing.TB, m *mounted) {
		must(t, unix.Setxattr(m.indexed(t), xattrOrigin, encodeOrigin(journal.Origin{Layer: 1, Ino: 77}), 0))
	}, kinds: []string{"index-origin"}, loses: "one file"},
	{name: "origin of a file with a copy in the index", do: func(t testing.TB, m *mounted) {
		o, _ := parseIndexName(filepath.Base(m.indexed(t)))
		must(t, unix.Setxattr(m.upper+"/a/y", xattrOrigin, encodeOrigin(o), 0))
	}, kinds: []string{"origin-twice"}, loses: "one file"},
	{name: "origin of another copy", do: func(t testing.TB, m *mounted) {
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(m.upper+"/plain/v", xattrOrigin, buf)
		must(t, err)
		must(t, unix.Lsetxattr(m.upper+"/a/y", xattrOrigin, buf[:n], 0))
	}, kinds: []string{"origin-twice"}, loses: "one file"},
	{name: "index entry gone", do: func(t testing.TB, m *mounted) { must(t, os.Remove(m.indexed(t))) }, kinds: []string{"index-missing"}, loses: "written to it", mended: true},
	{name: "foreign name in the index", do: func(t testing.TB, m *mounted) {
		must(t, os.WriteFile(m.work+"/plyfs/index/what", nil, 0o600))
	}, kinds: []string{"index-unknown"}, note: true},
	{name: "copy of a lower file that is not there", do: func(t testing.TB, m *mounted) {
		o := journal.Origin{Layer: 1, Ino: 1 << 40}
		must(t, os.WriteFile(m.work+"/plyfs/index/"+indexName(o), nil, 0o600))
		must(t, unix.Setxattr(m.work+"/plyfs/index/"+indexName(o), xattrOrigin, encodeOrigin(o), 0))
	}, kinds: []string{"index-lower"}, loses: "the copy"},
	{name: "account that counts too many", do: account(func(l *journal.Links) { l.Gone = 3 }), kinds: []string{"links-many"}, loses: "the copy", mended: true},
	{name: "account that counts too few", do: account(func(l *journal.Links) { l.Gone = 1 }), kinds: []string{"links-few"}, note: true, mended: true},
	{name: "account with another link count", do: account(func(l *journal.Links) { l.Nlink = 9 }), kinds: []string{"links-nlink"}, note: true, mended: true},
	{name: "account lost", do: func(t testing.TB, m *mounted) {
		o, _ := parseIndexName(filepath.Base(m.indexed(t)))
		m.withJournal(func(j *journal.Journal) { must(t, j.Apply(journal.DropLinks(o))) })
	}, kinds: []string{"links-missing"}, note: true, mended: true},
	{name: "account of nothing", do: func(t testing.TB, m *mounted) {
		m.withJournal(func(j *journal.Journal) {
			must(t, j.Apply(journal.SetLinks(journal.Origin{Layer: 1, Ino: 1 << 40}, journal.Links{Nlink: 2, Gone: 1})))
		})
	}, kinds: []string{"links-leftover"}, note: true, mended: true},
	{name: "stranger in work", do: func(t testing.TB, m *mounted) {
		must(t, os.WriteFile(m.work+"/plyfs/notes.txt", nil, 0o600))
	}, kinds: []string{"work-unknown"}, note: true},
}

// indexed is the one copy in the index.
func (m *mounted) indexed(t testing.TB) string {
	t.Helper()
	list := names(t, m.work+"/plyfs/index")
	if len(list) != 1 {
		t.Fatalf("the index holds %q", list)
	}
	return m.work + "/plyfs/index/" + list[0]
}

// account changes the account of the one hard-linked file.
func account(change func(*journal.Links)) func(t testing.TB, m *mounted) {
	return func(t testing.TB, m *mounted) {
		o, _ := parseIndexName(filepath.Base(m.indexed(t)))
		m.withJournal(func(j *journal.Journal) {
			all, err := j.LoadLinks()
			must(t, err)
			l := all[o]
			change(&l)
			must(t, j.Apply(journal.SetLinks(o, l)))
		})
	}
}

// Repairing makes what a mount shows no worse.
func TestRepairKeepsTheTree(t *testing.T) {
	m := checkMade(t)
	m = m.remount(nil)
	want := treeOf(t, m.mnt)
	m.unmount()
	m.withJournal(func(j *journal.Journal) {
		id, err := j.NewDirID()
		must(t, err)
		must(t, j.Apply(journal.Cover(id, "x"), journal.Cover(markAt(t, m.upper+"/a").id, "nobody")))
	})
	account(func(l *journal.Links) { l.Gone = 3 })(t, m)
	must(t, os.Remove(m.indexed(t)))
	must(t, os.WriteFile(m.work+"/plyfs/tmp/#9", nil, 0o600))
	r, err := Repair(m.config())
	must(t, err)
	wantFindings(t, "repaired", r)
	if len(r.Repair.Done) != 5 {
		t.Errorf("%+v", r.Repair)
	}
	m = m.remount(nil)
	if got := treeOf(t, m.mnt); !slices.Equal(got, want) {
		t.Errorf("after the repair\n%q, want\n%q", got, want)
	}
	if got := readPath(t, m.path("d/h3")); got != "changed hard" {
		t.Errorf("a name that was not touched shows %q", got)
	}
}
