// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

// testMeta is the layer set of most tests.
func testMeta() Meta {
	return Meta{
		Upper:  LayerID{Path: "/u", FSType: "ext4", UUID: "aa", RootIno: 2},
		Lowers: []LayerID{{Path: "/l1", FSType: "xfs", RootIno: 128}, {Path: "/l2", FSType: "ext4", UUID: "bb", RootIno: 11}},
	}
}

// quiet has no folds but those that a test asks for.
var quiet = Options{FoldInterval: -1}

func open(t testing.TB, dir string, o Options) *Journal {
	t.Helper()
	j, err := Open(dir, testMeta(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { j.Close() }) // ErrClosed if the test did
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantNames(t testing.TB, j interface {
	LoadDir(DirID) (map[string]struct{}, error)
}, id DirID, want ...string) {
	t.Helper()
	got, err := j.LoadDir(id)
	must(t, err)
	var m map[string]struct{}
	for _, n := range want {
		if m == nil {
			m = make(map[string]struct{})
		}
		m[n] = struct{}{}
	}
	if !reflect.DeepEqual(got, m) {
		t.Fatalf("LoadDir(%d) = %v, want %v", id, got, m)
	}
}

// copyDir copies the files of a journal, as a kill -9 at this moment leaves them.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "plyfs")
	must(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

func TestApplyLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	check := func(j interface {
		LoadDir(DirID) (map[string]struct{}, error)
		LoadLinks() (map[Origin]Links, error)
	}) {
		t.Helper()
		wantNames(t, j, 1, "a", "ü\n")
		wantNames(t, j, 2, "y")
		wantNames(t, j, 3)
		wantNames(t, j, 1<<63, "far")
		links, err := j.LoadLinks()
		must(t, err)
		if want := map[Origin]Links{{1, 77}: {3, 2}}; !maps.Equal(links, want) {
			t.Fatalf("LoadLinks = %v, want %v", links, want)
		}
	}
	must(t, j.Apply(Cover(1, "a"), Cover(1, "b"), Cover(2, "x"), Cover(3, "z"), Cover(1<<63, "far")))
	must(t, j.Apply(SetLinks(Origin{1, 77}, Links{3, 1}), SetLinks(Origin{0, 5}, Links{2, 1})))
	must(t, j.Apply(NoteDir(2, DirNote{Opaque: true, Path: "/p"})))
	must(t, j.fold())
	must(t, j.Apply(Uncover(1, "b"), Cover(1, "ü\n"), DropDir(2), Cover(2, "y"), DropDir(3), DropDir(4)))
	must(t, j.Apply(SetLinks(Origin{1, 77}, Links{3, 2}), DropLinks(Origin{0, 5}), DropLinks(Origin{9, 9})))
	check(j)
	must(t, j.fold())
	check(j)
	must(t, j.Apply(Uncover(1, "nothing")))
	if s := j.Stats(); s.Covers != 4 || s.Links != 1 || s.Notes != 0 || s.Folds != 2 || s.LastErr != nil {
		t.Errorf("Stats = %+v", s)
	}
	must(t, j.Close())
	s, err := OpenReadOnly(dir)
	must(t, err)
	check(s)
	must(t, s.Close())
	check(open(t, dir, quiet))
}

func TestDump(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	m := testMeta()
	m.ForeignUpper = true
	j, err := Open(dir, m, quiet)
	must(t, err)
	must(t, j.Apply(Cover(0x20, "b c"), Cover(3, "x"), SetLinks(Origin{1, 9}, Links{2, 1}), NoteDir(0x20, DirNote{Path: "/q"})))
	must(t, j.fold())
	must(t, j.Apply(Cover(0x20, "a\n"), NoteDir(0x20, DirNote{Opaque: true, Redirect: "/r", Path: "/q"}), SetLinks(Origin{0, 99}, Links{4, 3})))
	want := `format 1
upper "/u" ext4 UUID aa root 2
lower 1 "/l1" xfs UUID none root 128
lower 2 "/l2" ext4 UUID bb root 11
foreign-upper
cover 0x3 "x"
note 0x20 opaque redirect "/r" path "/q"
cover 0x20 "a\n"
cover 0x20 "b c"
links 0:99 nlink 4 gone 3
links 1:9 nlink 2 gone 1
`
	var live, offline bytes.Buffer
	must(t, j.Dump(&live))
	if live.String() != want {
		t.Errorf("Dump:\n%s\nwant:\n%s", live.String(), want)
	}
	before := copyDir(t, dir) // both database and log hold something
	s, err := OpenReadOnly(before)
	must(t, err)
	defer s.Close()
	must(t, s.Dump(&offline))
	if offline.String() != want {
		t.Errorf("Snapshot.Dump:\n%s\nwant:\n%s", offline.String(), want)
	}
	must(t, j.Close())
}

func TestForeignUpperIsThatOfTheFirstMount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	m := testMeta()
	m.ForeignUpper = true
	j, err := Open(dir, m, quiet)
	must(t, err)
	must(t, j.Close())
	if j = open(t, dir, quiet); !j.Meta().ForeignUpper {
		t.Error("ForeignUpper forgotten")
	}
}

func TestApplyRefusesNonsense(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "plyfs"), quiet)
	for _, op := range []Op{Cover(0, "a"), Cover(1, ""), Cover(1, "."), Cover(1, ".."), Cover(1, "a/b"),
		Uncover(1, "a\x00"), Cover(1, strings.Repeat("n", maxName+1)), DropDir(0), {},
		NoteDir(1, DirNote{Path: strings.Repeat("p", maxPath+1)})} {
		if err := j.Apply(Cover(1, "good"), op); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("Apply(%+v) = %v, want EINVAL", op, err)
		}
	}
	many := make([]Op, maxPayload/4000)
	for i := range many {
		many[i] = Cover(1, strings.Repeat("n", maxName))
	}
	if err := j.Apply(many...); !errors.Is(err, syscall.E2BIG) {
		t.Errorf("Apply of too much = %v, want E2BIG", err)
	}
	wantNames(t, j, 1)
}

func TestDirIDsAreNeverReused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	seen := make(map[DirID]bool)
	take := func(j *Journal, n int) {
		for range n {
			id, err := j.NewDirID()
			must(t, err)
			if id == 0 || seen[id] {
				t.Fatalf("id %d given twice", id)
			}
			seen[id] = true
		}
	}
	j := open(t, dir, quiet)
	take(j, idBlock+10) // over a block that Open reserved: by way of the log
	crashed := copyDir(t, dir)
	must(t, j.Close())
	take(open(t, dir, quiet), 10)
	for id := range seen { // the crashed copy must not know less than was handed out before
		if id > j.nextID {
			delete(seen, id)
		}
	}
	j = open(t, crashed, quiet)
	take(j, 10)
	// A fold renews the block without a sync of its own.
	must(t, j.Apply(Cover(1, "a")))
	take(j, idBlock/2)
	must(t, j.fold())
	syncs := j.Stats().Syncs
	take(j, idBlock/2+100)
	if got := j.Stats().Syncs; got != syncs {
		t.Errorf("%d syncs for ids after a fold", got-syncs)
	}
}

func TestLayerSet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	must(t, open(t, dir, quiet).Close())
	for _, c := range []struct {
		name   string
		change func(*Meta)
		says   string // empty: accepted
	}{
		{"same", func(*Meta) {}, ""},
		{"moved with a UUID", func(m *Meta) { m.Lowers[1].Path = "/elsewhere" }, ""},
		{"moved without a UUID", func(m *Meta) { m.Lowers[0].Path = "/elsewhere" }, "lower layer 1 was /l1"},
		{"UUID became known", func(m *Meta) { m.Lowers[0].UUID = "cc" }, ""},
		{"other UUID", func(m *Meta) { m.Lowers[1].UUID = "cc" }, "lower layer 2 was /l2"},
		{"other root", func(m *Meta) { m.Lowers[1].RootIno++ }, "root inode 12"},
		{"other type", func(m *Meta) { m.Lowers[1].FSType = "btrfs" }, "btrfs"},
		{"other upper", func(m *Meta) { m.Upper.RootIno++ }, "upper layer was /u"},
		{"one less", func(m *Meta) { m.Lowers = m.Lowers[:1] }, "it had 2 lower layers and has now 1"},
		{"other order", func(m *Meta) { m.Lowers[0], m.Lowers[1] = m.Lowers[1], m.Lowers[0] }, "another order, it was /l1:/l2"},
	} {
		m := testMeta()
		c.change(&m)
		j, err := Open(dir, m, quiet)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else {
				must(t, j.Close())
			}
			continue
		}
		if !errors.Is(err, ErrLayerSet) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "; mount with the layers") {
			t.Errorf("%s: %v, want it to say %q", c.name, err, c.says)
		}
	}
}

func TestLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	if _, err := Open(dir, testMeta(), quiet); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "by process ") {
		t.Errorf("second Open: %v", err)
	}
	if _, err := OpenReadOnly(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("OpenReadOnly: %v", err)
	}
	if _, err := Check(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("Check: %v", err)
	}
	must(t, j.Close())
	s, err := OpenReadOnly(dir)
	must(t, err)
	if _, err := Open(dir, testMeta(), quiet); !errors.Is(err, ErrLocked) {
		t.Errorf("Open beside a reader: %v", err)
	}
	must(t, s.Close())
	open(t, dir, quiet)
}

func TestNewerFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	must(t, open(t, dir, quiet).Close())
	db, err := bbolt.Open(dbPath(dir), 0o600, &bbolt.Options{NoFreelistSync: true})
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		return putMeta(tx, stateKey, []byte{0, 0, 0, formatVersion + 1, 'n', 'e', 'w'})
	}))
	must(t, db.Close())
	if _, err := Open(dir, testMeta(), quiet); !errors.Is(err, ErrNewer) {
		t.Errorf("Open: %v", err)
	}
	if _, err := OpenReadOnly(dir); !errors.Is(err, ErrNewer) {
		t.Errorf("OpenReadOnly: %v", err)
	}
	if p, err := Check(dir); err != nil || len(p) != 1 {
		t.Errorf("Check: %v, %v", p, err)
	}
}

func TestClosed(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "plyfs"), quiet)
	must(t, j.Close())
	_, loadErr := j.LoadDir(1)
	_, idErr := j.NewDirID()
	for what, err := range map[string]error{"Close": j.Close(), "Apply": j.Apply(Cover(1, "a")), "Sync": j.Sync(),
		"LoadDir": loadErr, "NewDirID": idErr, "Dump": j.Dump(&bytes.Buffer{})} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if s := j.Stats(); !errors.Is(s.LastErr, ErrClosed) {
		t.Errorf("Stats after Close: %+v", s)
	}
}

func TestOpenReadOnlyChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	if _, err := OpenReadOnly(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no journal: %v", err)
	}
	j := open(t, dir, quiet)
	must(t, j.Apply(Cover(1, "a")))
	crashed := copyDir(t, dir)
	before := readFiles(t, crashed)
	s, err := OpenReadOnly(crashed)
	must(t, err)
	wantNames(t, s, 1, "a")
	must(t, s.Close())
	if !reflect.DeepEqual(before, readFiles(t, crashed)) {
		t.Error("files changed")
	}
}

func readFiles(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	for _, name := range []string{DBName, logName, altName} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		out[name] = b
	}
	return out
}
