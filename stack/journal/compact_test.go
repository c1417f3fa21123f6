// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// manyRecords makes a closed journal with records of all kinds, of which some
// were removed again.
func manyRecords(t testing.TB, n int) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "plyfs")
	j, err := Open(dir, testMeta(), Options{FoldInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	id, err := j.NewDirID()
	if err != nil {
		t.Fatal(err)
	}
	gone, err := j.NewDirID()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf("name %06d", i)
		if err := j.Apply(Cover(id, name), Cover(gone, name), SetLinks(Origin{1, uint64(i)}, Links{3, 1})); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.fold(); err != nil {
		t.Fatal(err)
	}
	if err := j.Apply(DropDir(gone), NoteDir(id, DirNote{Opaque: true, Redirect: "/r\xff", Path: "/p\"q"})); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func dumpText(t testing.TB, dir string) string {
	t.Helper()
	s, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b bytes.Buffer
	if err := s.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCompactKeepsEveryRecord(t *testing.T) {
	dir := manyRecords(t, 25_000)
	want := dumpText(t, dir)
	before, after, err := Compact(dir)
	if err != nil {
		t.Fatal(err)
	}
	if after >= before || after < 100_000 {
		t.Errorf("%d bytes became %d", before, after)
	}
	if got := dumpText(t, dir); got != want {
		t.Error("the dump is another one after compaction")
	}
	if found, err := Check(dir); err != nil || len(found) > 0 {
		t.Errorf("the compacted journal: %v, %v", found, err)
	}
	j, err := Open(dir, testMeta(), Options{})
	if err != nil {
		t.Fatalf("the compacted journal cannot be opened: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, newDBName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a leftover: %v", err)
	}
}

// What is in the logs only is not lost, and the records of the last mount go on
// being counted.
func TestCompactKeepsTheLogs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j, err := Open(dir, testMeta(), Options{FoldInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := j.NewDirID()
	if err := j.Apply(Cover(id, "in the log")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Compact(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a live journal is compacted: %v", err)
	}
	if err := j.release(); err != nil { // the process is killed
		t.Fatal(err)
	}
	want := dumpText(t, dir)
	if _, _, err := Compact(dir); err != nil {
		t.Fatal(err)
	}
	if got := dumpText(t, dir); got != want || !bytes.Contains([]byte(got), []byte("in the log")) {
		t.Errorf("before:\n%s\nafter:\n%s", want, got)
	}
}

func TestCompactRefusesDamage(t *testing.T) {
	dir := manyRecords(t, 100)
	b, err := os.ReadFile(dbPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.ReplaceAll(b, []byte("name 000042"), []byte("name 00004?"))
	if err := os.WriteFile(dbPath(dir), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Compact(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged record: %v", err)
	}
	if CanRebuild(dir) {
		t.Error("a damaged record can be rebuilt")
	}
	if got, _ := os.ReadFile(dbPath(dir)); !bytes.Equal(got, b) {
		t.Error("the damaged database was changed")
	}
}

// A journal that is refused is not written anew, for what is wrong with it would
// no longer be seen.
func TestCompactRefusesDamagedLogs(t *testing.T) {
	for _, damage := range []string{"empty", "random"} {
		dir := filepath.Join(t.TempDir(), "plyfs")
		j, err := Open(dir, testMeta(), Options{FoldInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		id, _ := j.NewDirID()
		err = errors.Join(err, j.Apply(Cover(id, "in the log")), j.Sync(), j.release())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{logName, altName} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if damage == "empty" {
				b = nil
			}
			for i := range b {
				b[i] ^= 0x5a
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before, err := os.ReadFile(dbPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenReadOnly(dir); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s logs: opening says %v", damage, err)
		}
		if _, _, err := Compact(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s logs: %v", damage, err)
		}
		if after, _ := os.ReadFile(dbPath(dir)); !bytes.Equal(after, before) {
			t.Errorf("%s logs: the database was changed", damage)
		}
	}
}

// A file that is not cut at a page can be written anew: no record hangs on that.
func TestRebuild(t *testing.T) {
	dir := manyRecords(t, 100)
	want := dumpText(t, dir)
	f, err := os.OpenFile(dbPath(dir), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("hangs over"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if found, err := Check(dir); err != nil || len(found) == 0 {
		t.Fatalf("Check: %v, %v", found, err)
	}
	if !CanRebuild(dir) {
		t.Fatal("cannot be rebuilt")
	}
	if _, _, err := Compact(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("Compact: %v", err)
	}
	if err := Rebuild(dir); err != nil {
		t.Fatal(err)
	}
	if found, err := Check(dir); err != nil || len(found) > 0 {
		t.Errorf("the rebuilt journal: %v, %v", found, err)
	}
	if got := dumpText(t, dir); got != want {
		t.Error("the dump is another one")
	}
}

func TestContentsAndJSON(t *testing.T) {
	dir := manyRecords(t, 3)
	s, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := s.Contents()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Covers) != 1 || len(c.Notes) != 1 || len(c.Links) != 3 || c.Reserved == 0 {
		t.Errorf("%+v", c)
	}
	for id := range c.Notes {
		if names, err := s.LoadDir(id); err != nil || len(names) != 3 || len(c.Covers[id]) != 3 || !c.Known(id) || c.Known(id+9) {
			t.Errorf("%v, %v: %v", names, err, c.Covers)
		}
		if id > c.Reserved {
			t.Errorf("id %#x is above the highest, %#x", id, c.Reserved)
		}
	}
	var b bytes.Buffer
	if err := s.DumpJSON(&b); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Format      int
		Lowers      []LayerID
		Directories []struct {
			ID, Redirect, Path string
			Opaque             bool
			Covers             []string
		}
		Links []struct{ Layer, Ino, Nlink, Gone uint64 }
	}
	if err := json.Unmarshal(b.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Format != formatVersion || len(d.Lowers) != len(testMeta().Lowers) || len(d.Directories) != 1 || len(d.Links) != 3 {
		t.Fatalf("%+v", d)
	}
	if got := d.Directories[0]; !got.Opaque || got.Redirect != `/r\xff` || got.Path != `/p\"q` || len(got.Covers) != 3 {
		t.Errorf("%+v", got)
	}
}

func TestBackup(t *testing.T) {
	dir := manyRecords(t, 3)
	want := dumpText(t, dir)
	path, err := Backup(dir, "journal.backup-1")
	if err != nil {
		t.Fatal(err)
	}
	if got := dumpText(t, path); got != want {
		t.Errorf("the copy says\n%s", got)
	}
	if _, err := Backup(dir, "journal.backup-1"); err == nil {
		t.Error("a copy is overwritten")
	}
}
