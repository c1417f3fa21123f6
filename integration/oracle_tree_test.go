// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A sequence is what the oracle runs: the fixtures of the lower layers and
// the operations on their merged tree.
type sequence struct {
	IO   string     `json:"io"`            // io= option of plyfs
	RAM  bool       `json:"ram,omitempty"` // on ramfs, which has no xattrs, and without overlayfs
	Base [][]string `json:"base"`
	Ops  []op       `json:"ops"`
}

// trees are the three trees of a run.
type trees struct {
	*trial
	seq     *sequence
	plain   *opTree
	overlay *opTree // nil on ramfs: there it renames no lower directory
	sut     *opTree
	mounts  []*union
	workers []*worker
	model   *overtakes
	tally   tally
}

// tally counts, by kind of operation, how many succeeded and how many were
// run: random operations that all fail would prove nothing.
type tally map[string][2]int

func (t tally) add(kind, outcome string) {
	n := t[kind]
	if outcome != errNoSlot.Error() && (outcome[0] < 'A' || outcome[0] > 'Z') {
		n[0]++
	}
	n[1]++
	t[kind] = n
}

// merge adds the counts of another tally.
func (t tally) merge(o tally) {
	for k, n := range o {
		t[k] = [2]int{t[k][0] + n[0], t[k][1] + n[1]}
	}
}

func (t tally) String() string {
	var out []string
	for _, k := range sortedKeys(t, nil) {
		out = append(out, fmt.Sprintf("%s %d/%d", k, t[k][0], t[k][1]))
	}
	return strings.Join(out, ", ")
}

// trial is a testing.TB that keeps failures for itself, so that a sequence
// can be run again and again while it is shortened.
type trial struct {
	testing.TB
	errs     []string
	cleanups []func()
}

// errTrialOver is the panic that ends a trial.
var errTrialOver = errors.New("trial is over")

func (r *trial) Helper()                   {}
func (r *trial) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *trial) Failed() bool              { return len(r.errs) > 0 }
func (r *trial) FailNow()                  { panic(errTrialOver) }
func (r *trial) Error(a ...any)            { r.errs = append(r.errs, fmt.Sprint(a...)) }
func (r *trial) Errorf(f string, a ...any) { r.errs = append(r.errs, fmt.Sprintf(f, a...)) }
func (r *trial) Fatal(a ...any)            { r.Error(a...); r.FailNow() }
func (r *trial) Fatalf(f string, a ...any) { r.Errorf(f, a...); r.FailNow() }

// run calls f and then the cleanups, and returns the failures.
func (r *trial) run(f func()) []string {
	func() {
		defer r.recover()
		f()
	}()
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		func() {
			defer r.recover()
			r.cleanups[i]()
		}()
	}
	return r.errs
}

func (r *trial) recover() {
	if x := recover(); x != nil && x != errTrialOver {
		panic(x)
	}
}

// setUp builds the layers, mounts them twice and copies the merged tree.
func setUp(r *trial, s *sequence, workers []*worker) *trees {
	t := &trees{trial: r, seq: s, workers: workers, model: newOvertakes(), tally: tally{}}
	dir, base := "", s.Base
	if s.RAM {
		dir, base = newFS(r, "ramfs", 0), withoutXattrs(base)
	} else {
		dir = tempDir(r)
	}
	var lowers []string
	for i, l := range withoutStrayWhiteouts(base) {
		lowers = append(lowers, makeTree(r, filepath.Join(dir, fmt.Sprintf("lower%d", i+1)), l))
	}
	if !s.RAM {
		t.overlay = t.mountOn(sutOverlay, filepath.Join(dir, "o"), lowers)
	}
	t.sut = t.mountOn(sut, filepath.Join(dir, "s"), lowers)
	plain := makeTree(r, filepath.Join(dir, "p", "mnt"), nil)
	if out, err := exec.Command("cp", "-a", t.mounts[0].mp+"/.", plain).CombinedOutput(); err != nil {
		r.Fatalf("cp -a: %v: %s", err, out)
	}
	t.plain = &opTree{name: "plain copy", root: plain, fds: map[int]int{}}
	r.Cleanup(t.closeAll)
	return t
}

// mountOn mounts the lower layers by a system in a directory.
func (t *trees) mountOn(kind, dir string, lowers []string) *opTree {
	m := prepare(t.trial, mountOpts{sut: kind, dir: makeTree(t.trial, dir, nil), lowerDirs: lowers,
		noLowerCheck: kind == sutOverlay, options: []string{"io=" + t.seq.IO}})
	name := kind
	if kind == sutOverlay {
		m.opts.options = nil
		name = whoOverlay
	}
	m.mount()
	t.mounts = append(t.mounts, m)
	return &opTree{name: name, root: m.mp, fds: map[int]int{}}
}

// all are the trees, the plain copy first and the system under test last.
func (t *trees) all() []*opTree {
	if t.overlay == nil {
		return []*opTree{t.plain, t.sut}
	}
	return []*opTree{t.plain, t.overlay, t.sut}
}

func (t *trees) closeAll() {
	for _, tr := range t.all() {
		tr.closeAll()
	}
	t.model.forgetSlots()
}

// remount closes all descriptors and mounts both unions anew.
func (t *trees) remount() {
	t.closeAll()
	for _, m := range t.mounts {
		m.remount()
	}
}

// step runs one operation on all trees and compares what came of it.
func (t *trees) step(i int, o *op) {
	if o.Kind == "remount" {
		t.remount()
		t.compare(i, "remount")
		return
	}
	if notRun(t.plain, o) != "" {
		return
	}
	st := &step{op: o, seq: t.seq, overtaken: t.model.before(t.plain, o), removed: removedSlot(t.plain, o) == "dir"}
	if st.overtaken && o.Kind == "copyrange" && t.seq.IO == ioPassthrough {
		return // it would carry the difference into the trees
	}
	var res []string
	for _, tr := range t.all() {
		r, alive := tr.do(o, t.workers)
		if !alive {
			t.hang(tr, o)
		}
		res = append(res, r)
	}
	t.model.after(t.plain, o, res[0])
	t.tally.add(o.Kind, res[0])
	last := len(res) - 1
	if t.overlay != nil {
		t.judge(i, st, whoOverlay, res[0], res[1])
	}
	if t.overlay == nil || res[last] != res[1] || t.whoSUT() == whoOverlay { // what overlayfs may, we may
		t.judge(i, st, t.whoSUT(), res[0], res[last])
	}
	if t.Failed() {
		t.FailNow()
	}
}

// whoSUT names the system under test in the table of differences.
func (t *trees) whoSUT() string {
	if sut == sutOverlay {
		return whoOverlay
	}
	return sutPlyfs + " io=" + t.seq.IO
}

// judge compares the outcome of an operation with that on the plain copy.
func (t *trees) judge(i int, st *step, who, want, got string) {
	if want == got || known(who, st, want, got) != "" {
		return
	}
	t.Errorf("step %d as user %d: %s\n  plain copy: %s\n  %s: %s", i, users[st.op.User].uid, st.op, want, who, got)
}

// hang ends the run and the mount that does not answer.
func (t *trees) hang(tr *opTree, o *op) {
	for _, m := range t.mounts {
		if m.mp == tr.root {
			m.destroy()
		}
	}
	t.Fatalf("%s hangs in %s", tr.name, o)
}

// compare compares the three trees.
func (t *trees) compare(i int, when string) {
	want := mustDump(t, t.plain.root, dumpOptions{})
	var ovl treeDump
	if t.overlay != nil {
		ovl = t.compareWith(t.overlay, i, when, whoOverlay, want, nil)
	}
	t.compareWith(t.sut, i, when, t.whoSUT(), want, ovl)
	if sut == sutPlyfs { // overlayfs' d_ino is stale now and then
		t.checkInodes(t.sut.root)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// compareWith compares one tree with the plain copy and returns what it saw.
// What overlayfs (ovl) is known to show differently, others may too.
func (t *trees) compareWith(tr *opTree, i int, when, who string, want, ovl treeDump) treeDump {
	got, err := dumpTree(tr.root, dumpOptions{})
	if err != nil {
		t.Fatalf("after step %d (%s), walking %s: %v", i, when, who, err)
	}
	ignore := func(p, field string) bool {
		st := &step{op: &op{Kind: "tree", A: p, B: field}, seq: t.seq, typ: want[p]["type"]}
		w, g := want[p][field], got[p][field]
		return known(who, st, w, g) != "" || (ovl[p][field] == g && known(whoOverlay, st, w, g) != "")
	}
	for _, d := range diffTrees(want, got, ignore) {
		t.Errorf("after step %d (%s), %s: %s", i, when, who, d)
	}
	return got
}

// checkInodes expects that the inode numbers of readdir are those of stat, and
// that no two entries share one but hard links.
func (t *trees) checkInodes(root string) {
	seen := map[[2]uint64]string{}
	err := walk(root, ".", func(p string) error {
		st := lstat(t, filepath.Join(root, p))
		if other, ok := seen[[2]uint64{st.Dev, st.Ino}]; ok && (st.Nlink < 2 || st.Mode&unix.S_IFMT == unix.S_IFDIR) {
			t.Errorf("%s and %s have the same inode number %d", other, p, st.Ino)
		}
		seen[[2]uint64{st.Dev, st.Ino}] = p
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		for name, ino := range direntInodes(t, filepath.Join(root, p)) {
			if name == "." || name == ".." {
				continue
			}
			if c := lstat(t, filepath.Join(root, p, name)); c.Ino != ino {
				t.Errorf("%s/%s: d_ino %d, st_ino %d", p, name, ino, c.Ino)
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("walking: %v", err)
	}
}

// direntInodes reads the inode numbers in a directory, "." and ".." included.
func direntInodes(t testing.TB, dir string) map[string]uint64 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Errorf("opening: %v", err)
		return nil
	}
	defer f.Close()
	inos := map[string]uint64{}
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(int(f.Fd()), buf)
		if err != nil {
			t.Errorf("getdents %s: %v", dir, err)
		}
		if n <= 0 {
			return inos
		}
		for b := buf[:n]; len(b) > 0; {
			d := parseDirent(b)
			inos[d.name] = d.ino
			b = b[d.reclen:]
		}
	}
}

// dirent is one entry of getdents64.
type dirent struct {
	ino, off uint64
	reclen   int
	typ      byte
	name     string
}

// parseDirent reads the first entry in b.
func parseDirent(b []byte) dirent {
	le := func(b []byte) (v uint64) {
		for i, x := range b {
			v |= uint64(x) << (8 * i)
		}
		return v
	}
	d := dirent{ino: le(b[:8]), off: le(b[8:16]), reclen: int(le(b[16:18])), typ: b[18]}
	d.name, _, _ = strings.Cut(string(b[19:d.reclen]), "\x00")
	return d
}
