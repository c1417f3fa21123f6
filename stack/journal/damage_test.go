// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// populated makes a journal with records in the database and in the log, as a crash
// leaves it, and gives its directory and dump.
func populated(t testing.TB, dirs, names int) (dir, dump string) {
	t.Helper()
	work := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, work, quiet)
	for d := range dirs {
		ops := []Op{NoteDir(DirID(d+1), DirNote{Path: fmt.Sprintf("/dir/%d", d)}), SetLinks(Origin{0, uint64(d + 1)}, Links{2, 1})}
		for n := range names {
			ops = append(ops, Cover(DirID(d+1), fmt.Sprintf("name-%d-%d", d, n)))
		}
		must(t, j.Apply(ops...))
	}
	must(t, j.fold())
	must(t, j.Apply(Cover(1, "in the log"), DropDir(2)))
	must(t, j.Sync())
	must(t, j.Apply(Cover(1, "after it")))
	var b bytes.Buffer
	must(t, j.Dump(&b))
	return copyDir(t, work), b.String()
}

// examine opens a journal that may be damaged in every way there is. It must be
// refused, or be what it was; never panic, never be something else. older, if not
// empty, is accepted too.
func examine(t testing.TB, dir, want, older string) (refused bool) {
	t.Helper()
	s, err := OpenReadOnly(dir)
	if err == nil {
		var b bytes.Buffer
		err = s.Dump(&b)
		if err == nil && b.String() != want && (older == "" || b.String() != older) {
			t.Fatalf("accepted with another content:\n%s", b.String())
		}
		must(t, s.Close())
	}
	wantDamage(t, "OpenReadOnly", err)
	problems, cerr := Check(dir)
	if cerr != nil {
		t.Fatalf("Check: %v", cerr)
	}
	if (err != nil) != (len(problems) > 0) {
		t.Fatalf("OpenReadOnly says %v, Check says %v", err, problems)
	}
	j, oerr := Open(dir, testMeta(), quiet)
	wantDamage(t, "Open", oerr)
	if (oerr == nil) != (err == nil) {
		t.Fatalf("OpenReadOnly says %v, Open says %v", err, oerr)
	}
	if oerr == nil {
		must(t, j.Apply(Cover(77, "x"), DropDir(1)))
		must(t, j.Close())
	}
	return err != nil
}

func wantDamage(t testing.TB, what string, err error) {
	t.Helper()
	var e *Error
	if err != nil && (!isDamage(err) || !errors.As(err, &e) || e.Mend == "") {
		t.Fatalf("%s: %v, which is no explained damage", what, err)
	}
}

func TestFlippedBits(t *testing.T) {
	dir, dump := populated(t, 12, 40)
	files := readFiles(t, dir)
	db := used(files[DBName])
	refused := 0
	const rounds = 150
	for range rounds {
		b := append([]byte(nil), files[DBName]...)
		// Mostly where pages begin: there are the headers and element tables.
		at := rand.IntN(db)
		if rand.IntN(2) == 0 {
			at = at&^4095 + rand.IntN(64)
		}
		b[at] ^= 1 << rand.IntN(8)
		restoreWith(t, dir, files, DBName, b)
		if examine(t, dir, dump, "") {
			refused++
		}
	}
	t.Logf("%d of %d refused, the others were in free space", refused, rounds)
	if refused == 0 {
		t.Error("no flip was noticed")
	}
}

// TestWitness: a log that was cut off between two frames, and a whole journal that
// is older than the last mount, are found out by what is said beside them; records
// that were never synced may go.
func TestWitness(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	old := readFiles(t, dir)
	must(t, j.Apply(Cover(1, "synced")))
	must(t, j.Sync())
	if _, err := unix.Getxattr(dir, witnessAttr, make([]byte, witnessBytes)); err != nil {
		t.Skipf("trusted.* xattrs cannot be had here: %v", err)
	}
	size := j.active.size
	log := j.active.path()
	must(t, j.Apply(Cover(1, "not synced")))
	must(t, j.release()) // as by a kill
	for _, c := range []struct {
		size    int64
		damaged bool
	}{{size, false}, {size - frameHeader, false}, {size - frameHeader - 1, true}, {frameHeader, true}, {0, true}} {
		must(t, os.Truncate(log, c.size))
		problems, err := Check(dir)
		must(t, err)
		if (len(problems) > 0) != c.damaged {
			t.Errorf("cut to %d of %d: %v", c.size, size, problems)
		}
	}
	must(t, os.WriteFile(log, nil, 0o600))
	_, err := Open(dir, testMeta(), quiet)
	wantDamage(t, "Open", err)
	if err == nil {
		t.Error("a log without what was durable is taken")
	}
	for name, b := range old {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	must(t, unix.Setxattr(dir, witnessAttr, []byte("\x01\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	if _, err = Open(dir, testMeta(), quiet); err == nil {
		t.Error("a journal that is older than the last mount is taken")
	}
	wantDamage(t, "Open", err)
}

// TestBranchKey: a page that begins with another key than the one above says is
// refused, although nothing is out of order: bbolt would spoil it.
func TestBranchKey(t *testing.T) {
	dir, dump := populated(t, 12, 40)
	files := readFiles(t, dir)
	found := 0
	for off := 0; off+4096 <= used(files[DBName]); off += 4096 {
		b := append([]byte(nil), files[DBName]...)
		page := b[off:]
		if native.Uint16(page[8:]) != boltBranch {
			continue
		}
		key := boltHeader + int(native.Uint32(page[boltHeader:]))
		clear(page[key : key+8])
		restoreWith(t, dir, files, DBName, b)
		if examine(t, dir, dump, "") {
			found++
		}
	}
	if found == 0 {
		t.Error("no branch page was tried, or none refused")
	}
}

// used is the length of a database file without the zeros at its end.
func used(b []byte) int { return len(bytes.TrimRight(b, "\x00")) }

func restoreWith(t testing.TB, dir string, files map[string][]byte, name string, b []byte) {
	t.Helper()
	_ = unix.Removexattr(dir, witnessAttr) // of a later opening
	for n, content := range files {
		if n == name {
			content = b
		}
		if err := os.WriteFile(filepath.Join(dir, n), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFlippedBitsInTheLog(t *testing.T) {
	dir, dump := populated(t, 2, 3)
	files := readFiles(t, dir)
	for _, name := range []string{logName, altName} {
		for bit := range len(files[name]) * 8 {
			if bit%5 != 0 {
				continue // enough, and each byte gets its turn
			}
			b := append([]byte(nil), files[name]...)
			b[bit/8] ^= 1 << (bit % 8)
			restoreWith(t, dir, files, name, b)
			// The last frame was not synced: without it is right, too.
			older := bytes.Replace([]byte(dump), []byte("cover 0x1 \"after it\"\n"), nil, 1)
			examine(t, dir, dump, string(older))
		}
	}
}

func TestTruncatedDatabase(t *testing.T) {
	dir, dump := populated(t, 12, 40)
	files := readFiles(t, dir)
	for size := 0; size < used(files[DBName]); size += 1531 {
		restoreWith(t, dir, files, DBName, files[DBName][:size])
		if !examine(t, dir, dump, "") {
			t.Errorf("a file of %d bytes is accepted", size)
		}
	}
}

func TestMissingFiles(t *testing.T) {
	for _, name := range []string{DBName, logName, altName} {
		dir, _ := populated(t, 2, 2)
		must(t, os.Remove(filepath.Join(dir, name)))
		_, err := Open(dir, testMeta(), quiet)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// TestOlderDatabase puts a database from before beside a newer log: what the log no
// longer has would be lost.
func TestOlderDatabase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	old := readFiles(t, dir)[DBName]
	must(t, j.Apply(Cover(1, "a")))
	must(t, j.fold())
	for _, what := range []string{"of the same opening", "of the opening before"} {
		broken := copyDir(t, dir)
		must(t, os.WriteFile(dbPath(broken), old, 0o600))
		if _, err := Open(broken, testMeta(), quiet); !errors.Is(err, ErrDamaged) {
			t.Errorf("database %s: %v", what, err)
		}
		must(t, j.Close())
		old = readFiles(t, dir)[DBName]
		j = open(t, dir, quiet)
	}
}

// TestLostMeta damages the newest commit of the database, which bbolt answers with the
// one before it.
func TestLostMeta(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	must(t, j.Apply(Cover(1, "a")))
	must(t, j.fold())
	must(t, j.Close())
	files := readFiles(t, dir)
	refused := 0
	for page := range 2 {
		b := append([]byte(nil), files[DBName]...)
		b[page*os.Getpagesize()+40] ^= 1
		restoreWith(t, dir, files, DBName, b)
		s, err := OpenReadOnly(dir)
		if errors.Is(err, ErrDamaged) {
			refused++
			continue
		}
		must(t, err)
		must(t, s.Close())
		j := open(t, dir, quiet)
		wantNames(t, j, 1, "a") // the damaged one was the older
		must(t, j.Close())
	}
	if refused != 1 {
		t.Errorf("%d of 2 refused, want the newer one", refused)
	}
}

func FuzzScanLog(f *testing.F) {
	var log []byte
	for i := range 3 {
		b := make([]byte, frameHeader)
		op := Cover(1, fmt.Sprint("n", i))
		b = op.append(b)
		sealFrame(b, 1<<32, uint64(i+1), uint64(i))
		log = append(log, b...)
	}
	f.Add(log, uint64(0))
	f.Add(append(make([]byte, 600), log...), uint64(1))
	f.Fuzz(func(t *testing.T, data []byte, seq uint64) {
		s := scanLog("log", data, 1<<32)
		if s.end > len(data) || (len(s.run) > 0) != (s.end > 0) {
			t.Fatalf("run of %d frames ends at %d of %d", len(s.run), s.end, len(data))
		}
		r, err := recoverLogs(seq, 1<<32, []logScan{s})
		if err != nil {
			wantDamage(t, "recoverLogs", err)
			return
		}
		if r.seq != seq+uint64(len(r.frames)) {
			t.Fatalf("%d frames after %d end at %d", len(r.frames), seq, r.seq)
		}
	})
}

func FuzzDecodeOps(f *testing.F) {
	var b []byte
	for _, o := range []Op{Cover(1, "a"), Uncover(2, "b"), DropDir(3), SetLinks(Origin{1, 2}, Links{3, 4}),
		DropLinks(Origin{1, 2}), NoteDir(4, DirNote{true, "/r", "/p"}), {kind: opReserve, dir: 9}} {
		b = o.append(b)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		ops, err := decodeOps(data)
		if err != nil {
			return
		}
		var again []byte
		for i := range ops {
			if err := ops[i].validate(); err != nil {
				t.Fatalf("decoded %+v: %v", ops[i], err)
			}
			again = ops[i].append(again)
		}
		back, err := decodeOps(again)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(ops) {
			t.Fatalf("%+v became %+v (%v)", ops, back, err)
		}
	})
}

func FuzzOpenDamaged(f *testing.F) {
	dir, dump := populated(f, 6, 30)
	files := readFiles(f, dir)
	f.Add(uint32(8), byte(0xff), uint32(4096), byte(1))
	f.Add(uint32(3*4096+10), byte(2), uint32(3*4096+18), byte(0x80))
	f.Fuzz(func(t *testing.T, at uint32, x byte, at2 uint32, y byte) {
		b := append([]byte(nil), files[DBName]...)
		n := uint32(used(b))
		b[at%n] ^= x
		b[at2%n] ^= y
		restoreWith(t, dir, files, DBName, b)
		examine(t, dir, dump, "")
	})
}
