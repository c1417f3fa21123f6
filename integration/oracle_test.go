// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The size of the oracle's work.
const (
	// oracleSeed begins the sequences of an ordinary run, so that a red one
	// is about the change at hand; PLYFS_SEED=random goes elsewhere, as
	// `make test-long` does.
	oracleSeed    = 20261123
	oracleSteps   = 150              // operations in a sequence
	oracleCompare = 30               // the trees are compared after so many
	oracleTime    = 25 * time.Second // for each I/O mode, when PLYFS_ORACLE_RUNS is not set
	shrinkTime    = 60 * time.Second // for shortening a failing sequence
)

// TestOracle runs random sequences of operations on the system under test, on
// kernel overlayfs and on a plain copy of the merged tree, and expects the
// same results, errors and trees. What may differ is in one table (see
// differences). A failing sequence is shortened and printed.
func TestOracle(t *testing.T) {
	requireRoot(t)
	for _, io := range []string{ioPassthrough, ioCoherent} {
		if sut == sutOverlay && io == ioCoherent {
			continue // overlayfs has one mode
		}
		t.Run(io, func(t *testing.T) { runOracle(t, &sequence{IO: io}) })
	}
}

// TestOracleRAM does the same, without overlayfs, on a file system that has no
// xattrs, so that plyfs keeps its own in a store.
func TestOracleRAM(t *testing.T) {
	requirePlyfs(t, "a store of attributes")
	for _, io := range []string{ioPassthrough, ioCoherent} {
		t.Run(io, func(t *testing.T) { runOracle(t, &sequence{IO: io, RAM: true}) })
	}
}

// runOracle runs sequences like the given one until the time or the number
// asked for is over.
func runOracle(t *testing.T, like *sequence) {
	workers := startWorkers(t)
	seed := int64(oracleSeed)
	runs := 0
	if s := os.Getenv("PLYFS_ORACLE_RUNS"); s != "" {
		runs = mustAtoi(t, s)
	}
	if s := os.Getenv("PLYFS_SEED"); s != "" {
		if s == "random" {
			seed = time.Now().UnixNano() % 1_000_000_000
		} else {
			seed = int64(mustAtoi(t, s))
			runs = max(runs, 1)
		}
	}
	atMost := oracleTime
	if like.RAM {
		atMost /= 3
	}
	n, total := 0, tally{}
	for start := time.Now(); (runs > 0 && n < runs) || (runs == 0 && time.Since(start) < atMost); n++ {
		seq, errs := generate(t, seed+int64(n), *like, workers, total)
		if len(errs) > 0 {
			report(t, seed+int64(n), seq, errs, workers)
			return
		}
	}
	t.Logf("%d sequences from seed %d; succeeded/run: %s", n, seed, total)
	for kind, k := range total {
		if k[0] == 0 && k[1] >= 1000 {
			t.Errorf("%d operations %q, and none succeeded: the generator is wrong", k[1], kind)
		}
	}
}

// TestOracleReplay runs the sequence in the file PLYFS_ORACLE_REPLAY.
func TestOracleReplay(t *testing.T) {
	file := os.Getenv("PLYFS_ORACLE_REPLAY")
	if file == "" {
		t.Skip("PLYFS_ORACLE_REPLAY names no file")
	}
	b, err := os.ReadFile(file)
	must(t, err)
	seq := &sequence{}
	must(t, json.Unmarshal(b, seq))
	for _, e := range replay(t, seq, startWorkers(t)) {
		t.Error(e)
	}
}

// TestOracleKnown runs the sequences that once failed.
func TestOracleKnown(t *testing.T) {
	requireRoot(t)
	workers := startWorkers(t)
	files, err := os.ReadDir("testdata/oracle")
	must(t, err)
	for _, f := range files {
		t.Run(strings.TrimSuffix(f.Name(), ".json"), func(t *testing.T) {
			b, err := os.ReadFile("testdata/oracle/" + f.Name())
			must(t, err)
			seq := &sequence{}
			must(t, json.Unmarshal(b, seq))
			for _, e := range replay(t, seq, workers) {
				t.Error(e)
			}
		})
	}
}

func startWorkers(t testing.TB) []*worker {
	var ws []*worker
	for _, u := range users {
		ws = append(ws, startWorker(t, u))
	}
	return ws
}

func mustAtoi(t testing.TB, s string) int {
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}

// generate makes a sequence from the seed while it runs it.
func generate(t testing.TB, seed int64, like sequence, workers []*worker, total tally) (*sequence, []string) {
	g := newGen(seed)
	seq := &like
	seq.Base = g.base()
	if seq.RAM {
		// ramfs has no fallocate. The kernel drops set-user-ID before it asks
		// FUSE for it (as for overlayfs: file.c:ovl_fallocate).
		// And each xattr is an error there, of which the kernel knows another
		// first for ACLs.
		g.omit = append(slices.Clone(g.omit), "fallocate", "setxattr", "fsetxattr", "rmxattr", "getxattr")
	}
	r := &trial{TB: t}
	errs := r.run(func() {
		tr := setUp(r, seq, workers)
		defer func() { total.merge(tr.tally) }()
		tr.compare(-1, "mount")
		for i := range oracleSteps {
			g.see(tr.plain.root)
			g.open = slices.Sorted(maps.Keys(tr.plain.fds))
			o := g.op()
			seq.Ops = append(seq.Ops, o)
			tr.step(i, &o)
			if i%oracleCompare == oracleCompare-1 {
				tr.compare(i, o.Kind)
			}
		}
		tr.finish()
	})
	return seq, errs
}

// finish compares the trees at the end, and after a remount.
func (t *trees) finish() {
	t.compare(len(t.seq.Ops)-1, "end")
	t.remount()
	t.compare(len(t.seq.Ops)-1, "last remount")
}

// replay runs a sequence and returns its failures.
func replay(t testing.TB, seq *sequence, workers []*worker) []string {
	r := &trial{TB: t}
	return r.run(func() {
		tr := setUp(r, seq, workers)
		tr.compare(-1, "mount")
		for i := range seq.Ops {
			tr.step(i, &seq.Ops[i])
		}
		tr.finish()
	})
}

// report shortens a failing sequence and prints it.
func report(t *testing.T, seed int64, seq *sequence, errs []string, workers []*worker) {
	t.Helper()
	t.Errorf("PLYFS_SEED=%d fails (io=%s):\n%s", seed, seq.IO, strings.Join(errs, "\n"))
	short, last := shrink(seq, func(s *sequence) []string { return replay(t, s, workers) })
	if last == nil {
		t.Log("the sequence does not fail a second time")
		return
	}
	b, err := json.MarshalIndent(short, "", " ")
	must(t, err)
	name := fmt.Sprintf("%s/plyfs-oracle-%d.json", os.TempDir(), seed)
	must(t, os.WriteFile(name, b, 0o644))
	t.Logf("shortened to %d operations, saved as %s:\n%s\n%s", len(short.Ops), name, short, strings.Join(last, "\n"))
}

// String prints a sequence a line an entry.
func (s *sequence) String() string {
	var b strings.Builder
	for i, l := range s.Base {
		fmt.Fprintf(&b, "lower %d: %q\n", i+1, l)
	}
	for _, o := range s.Ops {
		fmt.Fprintln(&b, o)
	}
	return b.String()
}

// shrink leaves out operations and lines of the fixtures as long as the
// sequence fails, for shrinkTime.
func shrink(seq *sequence, run func(*sequence) []string) (*sequence, []string) {
	best, last := seq, run(seq)
	if last == nil {
		return seq, nil
	}
	end := time.Now().Add(shrinkTime)
	try := func(s *sequence) bool {
		if time.Now().After(end) {
			return false
		}
		errs := run(s)
		if len(errs) == 0 || strings.HasPrefix(errs[0], "fixture") {
			return false
		}
		best, last = s, errs
		return true
	}
	shrinkList(func() []op { return best.Ops }, func(ops []op) bool {
		return try(&sequence{best.IO, best.RAM, best.Base, ops})
	})
	for i := range best.Base {
		shrinkList(func() []string { return best.Base[i] }, func(lines []string) bool {
			base := slices.Clone(best.Base)
			base[i] = lines
			return try(&sequence{best.IO, best.RAM, base, best.Ops})
		})
	}
	return best, last
}

// shrinkList tries the list without runs of its elements, half of it first.
func shrinkList[T any](list func() []T, try func([]T) bool) {
	for n := (len(list()) + 1) / 2; n > 0; n /= 2 {
		for i := len(list()) - n; i >= 0; i -= n {
			l := list()
			if i+n <= len(l) {
				try(slices.Concat(l[:i], l[i+n:]))
			}
		}
	}
}
