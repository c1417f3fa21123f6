// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A cutModel knows what a case may look like: the trees that plain directories
// show after any of its steps were done, and others not.
type cutModel struct {
	steps int
	trees map[int]shownTree // by the steps that are done, a bit each
}

// all has every step's bit.
func (m *cutModel) all() int { return 1<<m.steps - 1 }

// newCutModel does the steps on plain directories. Steps that cannot be done
// without another are no possible outcome.
func newCutModel(t testing.TB, base string, build func(root string), steps []cutOp) *cutModel {
	t.Helper()
	m := &cutModel{steps: len(steps), trees: map[int]shownTree{}}
	for mask := range 1 << len(steps) {
		root := filepath.Join(base, fmt.Sprint(mask))
		mkdir(t, root)
		build(root)
		if !doSteps(root, steps, mask) {
			continue
		}
		tree, err := showTree(root)
		must(t, err)
		m.trees[mask] = tree
	}
	if m.trees[m.all()] == nil {
		t.Fatal("the steps cannot be done on plain directories")
	}
	return m
}

func doSteps(root string, steps []cutOp, mask int) bool {
	for i, op := range steps {
		if mask>>i&1 == 1 && op(root) != nil {
			return false
		}
	}
	return true
}

// movesTimes are the points at which a file's times are those of a write that
// changed nothing of what it shows.
var movesTimes = map[CutPoint]bool{cutChunkFilled: true, cutEdgeFilled: true}

// match finds the most steps after which a tree looks so, of those that must
// be done at least. A tree that is none of them is told by its differences. A
// power cut may take written data and leave the time of the write, so times are
// compared only where it is exact.
func (m *cutModel) match(got shownTree, atLeast int, times bool) (mask int, diff string) {
	for mask := m.all(); mask >= 0; mask-- {
		want := m.trees[mask]
		if want == nil || mask&atLeast != atLeast {
			continue
		}
		if !times {
			got, want = got.timeless(), want.timeless()
		}
		d := got.diff(want)
		if d == "" {
			return mask, ""
		}
		diff += fmt.Sprintf("\n after steps %b:%s", mask, d)
	}
	return 0, diff
}

func (m *cutModel) every() (all []shownTree) {
	for _, t := range m.trees {
		all = append(all, t)
	}
	return all
}

// split parts a tree into what is common to all cases and what is the case's.
func (t shownTree) split() (common, own shownTree) {
	common, own = shownTree{}, shownTree{}
	for p, s := range t {
		if p == commonDir || strings.HasPrefix(p, commonDir+"/") {
			common[p] = s
		} else {
			own[p] = s
		}
	}
	return common, own
}

// A cutBench is a case made ready on an image.
type cutBench struct {
	*cutCase
	image       *cutImage
	dir, mnt    string
	lowers      []string
	lowerTrees  []shownTree
	own, common *cutModel
	cells       int
}

// newCutBench makes the lower layers of a case on the image, and its models on
// plain directories.
func newCutBench(t testing.TB, i *cutImage, c *cutCase) *cutBench {
	t.Helper()
	b := &cutBench{cutCase: c, image: i, mnt: t.TempDir(), dir: filepath.Join(i.dir, strings.ReplaceAll(c.name, " ", "-"))}
	b.lowers = []string{b.dir + "/lower"}
	mkdir(t, b.lowers[0])
	b.build(t, b.lowers[0], false)
	if c.below != nil {
		b.lowers = append(b.lowers, b.dir+"/below")
		mkdir(t, b.lowers[1])
		for _, line := range c.below {
			addEntry(t, b.lowers[1], strings.Fields(line))
		}
		must(t, age(b.lowers[1]))
	}
	for _, l := range b.lowers {
		tree, err := showTree(l)
		must(t, err)
		b.lowerTrees = append(b.lowerTrees, tree)
	}
	i.sync(t)
	models := t.TempDir()
	b.own = newCutModel(t, models+"/own", func(root string) { b.buildMerged(t, root, c.allSetup()) }, c.steps())
	b.common = newCutModel(t, models+"/common", func(root string) { b.buildMerged(t, root, c.commonSetup()) }, c.commonUnsynced())
	for _, m := range []*cutModel{b.own, b.common} {
		for mask, tree := range m.trees {
			common, own := tree.split()
			if m.trees[mask] = own; m == b.common {
				m.trees[mask] = common
			}
		}
	}
	return b
}

// build makes the topmost lower layer, merged: with the second one below it.
func (b *cutBench) build(t testing.TB, root string, merged bool) {
	t.Helper()
	if merged {
		for _, line := range b.below {
			addEntry(t, root, strings.Fields(line))
		}
	}
	for _, line := range b.lowerLines() {
		addEntry(t, root, strings.Fields(line))
	}
	if b.dress != nil {
		must(t, b.dress(root))
	}
	must(t, age(root))
}

func (b *cutBench) buildMerged(t testing.TB, root string, setup cutOp) {
	t.Helper()
	b.build(t, root, true)
	must(t, setup(root))
}

// newJob makes an upper and a work directory for a child.
func (b *cutBench) newJob(t testing.TB) *cutJob {
	t.Helper()
	b.cells++
	dir := filepath.Join(b.dir, fmt.Sprint(b.cells))
	j := &cutJob{Case: b.name, Stage: b.stage, Lowers: b.lowers, Upper: dir + "/upper", Work: dir + "/work", Mnt: b.mnt,
		Image: b.image.dir, NoXattrs: b.image.noXattrs}
	mkdir(t, j.Upper)
	mkdir(t, j.Work)
	b.image.sync(t)
	return j
}

// cut runs the case up to a point and cuts it there, or to its end without a
// cut. It gives the points that were passed.
func (b *cutBench) cut(t testing.TB, j *cutJob, c cutCell) []CutPoint {
	t.Helper()
	if b.crashAt != "" {
		before := *j
		before.Stage, before.Point, before.Way = stageDo, b.crashAt, cutKill
		if trace := b.drive(t, &before); b.crashAt != cutAtEnd && trace[len(trace)-1] != cutAt {
			t.Fatalf("the mount before does not pass %q: %q", b.crashAt, trace)
		}
	}
	j.Point, j.Nth, j.Way = c.point, c.nth, c.way
	trace := b.drive(t, j)
	if c.way != cutKill && c.way != "" {
		b.image.powerUp(t)
	}
	return trace
}

// trace is the list of the points that the case passes.
func (b *cutBench) trace(t testing.TB) []CutPoint {
	t.Helper()
	j := b.newJob(t)
	trace := b.cut(t, j, cutCell{})
	must(t, os.RemoveAll(filepath.Dir(j.Upper)))
	return trace[:len(trace)-1]
}

// check cuts the case and looks at what the next mount shows.
func (b *cutBench) check(t *testing.T, c cutCell) {
	t.Helper()
	j := b.newJob(t)
	if trace := b.cut(t, j, c); trace[len(trace)-1] != cutAt {
		t.Fatalf("the point is not passed again: %q", trace)
	}
	m := b.mount(t, j)
	done := b.checkTree(t, m, c.point, c.way)
	if t.Failed() {
		m.unmount()
		return
	}
	done = b.doRest(t, done)
	b.checkDone(t, m, done, c.way, "done again")
	m.unmount()
	b.checkClean(t, j)
	m = b.mount(t, j)
	b.checkDone(t, m, done, c.way, "after a clean unmount")
	m.unmount()
	for i, l := range b.lowers {
		tree, err := showTree(l)
		must(t, err)
		if d := tree.diff(b.lowerTrees[i]); d != "" {
			t.Errorf("lower layer %d has changed:%s", i+1, d)
		}
	}
	must(t, os.RemoveAll(filepath.Dir(j.Upper)))
}

// doRest does the steps that are not done. One may have lost its ground: a write
// that a power cut took, to a file whose removal it left.
func (b *cutBench) doRest(t *testing.T, done int) int {
	t.Helper()
	for i, op := range b.steps() {
		if done>>i&1 == 1 {
			continue
		}
		if err := op(b.mnt); err == nil {
			done |= 1 << i
		} else if done>>i == 0 {
			t.Fatalf("step %d cannot be done again: %v", i, err)
		}
	}
	return done
}

func (b *cutBench) mount(t *testing.T, j *cutJob) *mounted {
	t.Helper()
	cfg := j.config()
	if b.change != nil {
		b.change(&cfg)
	}
	return mountConfig(t, cfg)
}

// checkTree compares what the mount shows after a cut with the models: it is as
// before the operation or as after it, and everything before it is there, but
// for what a power cut may take because nobody had synced it.
func (b *cutBench) checkTree(t *testing.T, m *mounted, p CutPoint, w cutWay) (done int) {
	t.Helper()
	tree, err := showTree(b.mnt)
	if err != nil {
		t.Fatalf("the tree cannot be read: %v", err)
	}
	common, own := tree.split()
	atLeast, commonAtLeast := 0, 0
	if w.exact() {
		atLeast, commonAtLeast = 1<<len(b.unsynced)-1, b.common.all()
	}
	done, diff := b.own.match(own, atLeast, w.exact() && !movesTimes[p])
	if diff != "" {
		t.Errorf("after the cut:%s", diff)
	}
	if _, diff := b.common.match(common, commonAtLeast, w.exact()); diff != "" {
		t.Errorf("what went before, after the cut:%s", diff)
	}
	tree.wantAbsent(t, b.mnt, append(b.own.every(), b.common.every()...)...)
	b.noErrors(t, m)
	return done
}

// checkDone wants the case's steps done, a bit each.
func (b *cutBench) checkDone(t *testing.T, m *mounted, done int, w cutWay, when string) {
	t.Helper()
	tree, err := showTree(b.mnt)
	if err != nil {
		t.Fatalf("%s, the tree cannot be read: %v", when, err)
	}
	_, own := tree.split()
	want := b.own.trees[done]
	if !w.exact() {
		own, want = own.timeless(), want.timeless()
	}
	if d := own.diff(want); d != "" {
		t.Errorf("%s:%s", when, d)
	}
	tree.wantAbsent(t, b.mnt, b.own.every()...)
	b.noErrors(t, m)
}

func (b *cutBench) noErrors(t *testing.T, m *mounted) {
	t.Helper()
	if e := m.Status().LastErrors; len(e) > 0 {
		t.Errorf("failures: %q", e)
	}
}

// checkClean looks at what a clean unmount leaves. (Whiteouts of before the cut
// may be in upper: nobody knows of them any more, and they do no harm.)
func (b *cutBench) checkClean(t *testing.T, j *cutJob) {
	t.Helper()
	wantNames(t, j.Work+"/plyfs/tmp", sharedWhiteout)
	var st unix.Stat_t
	wantErrno(t, "the live mark", unix.Lstat(j.Work+"/plyfs/"+liveMark, &st), unix.ENOENT)
	if p, err := journal.Check(j.Work + "/plyfs"); err != nil || len(p) > 0 {
		t.Errorf("the journal: %v, %v", p, err)
	}
}
