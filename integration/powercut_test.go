// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The power cut test. A file system in an image holds the lower layer, upper
// and work. Workers that do one thing each work in the mount; the log of what
// they intend, what returned and what was synced is outside: in the memory of
// the test. At a random moment the power of the image is cut, the daemon is
// killed, the image and plyfs are mounted again, and each object must be in a
// state that it was in since it was last synced.
//
// The same workload on the file system alone is the control. On ext4 it must
// be clean; xfs and btrfs have losses of their own, and plyfs may have these
// too, but no others.

// cutRounds is the number of rounds on each file system when PLYFS_CUTS is
// not set.
var cutRounds = map[string]int{"ext4": 20, "xfs": 5, "btrfs": 5}

// cutImageRounds is the number of rounds after which a fresh image is taken.
// Until then the next round begins with what was found after the last cut.
const cutImageRounds = 5

// TestPowerCut is the power cut test on plyfs.
func TestPowerCut(t *testing.T) {
	requirePlyfs(t, "fsync that is tested by power cuts")
	for _, name := range cutFileSystems() {
		t.Run(name, func(t *testing.T) {
			rounds := cutRoundsOf(t, name)
			control := newPowercut(t, name, cutControl)
			control.rounds(control.controlRounds(rounds))
			control.report()
			p := newPowercut(t, name, cutPlyfs)
			p.rounds(rounds)
			p.report()
			p.judge(control)
		})
	}
}

// TestPowerCutLoses proves that the test would find something: a mount that
// syncs nothing must not pass it.
func TestPowerCutLoses(t *testing.T) {
	requirePlyfs(t, "the option volatile")
	p := newPowercut(t, "ext4", cutPlyfs)
	p.options = []string{"volatile,after_volatile=keep"}
	for i := 0; i < 20 && len(p.violations) == 0; i++ {
		p.round()
	}
	if len(p.violations) == 0 {
		t.Error("20 power cuts of a mount that syncs nothing did no harm")
	}
}

// cutFileSystems are the file systems to test on.
func cutFileSystems() []string {
	if s := os.Getenv("PLYFS_CUT_FS"); s != "" {
		return strings.Split(s, ",")
	}
	return []string{"ext4", "xfs", "btrfs"}
}

func cutRoundsOf(t *testing.T, name string) int {
	if s := os.Getenv("PLYFS_CUTS"); s != "" {
		return mustAtoi(t, s)
	}
	if n, ok := cutRounds[name]; ok {
		return n
	}
	return cutRounds["xfs"]
}

// What the workload runs on.
type cutSystem string

const (
	cutPlyfs   cutSystem = "plyfs"
	cutControl cutSystem = "control"
)

// powercut is a sequence of rounds on one file system.
type powercut struct {
	testing.TB
	*rand.Rand
	name    string
	system  cutSystem
	seed    uint64
	disk    *cutDisk
	options []string // of plyfs, one a round in turn
	objects []*cutObject
	lower   []treeDump
	mount   *union
	turn    bool // which way to sync

	done, age   int // rounds in all, and on this image
	ops, synced int64
	violations  []cutViolation
}

// cutViolation is what was wrong after a cut.
type cutViolation struct {
	kind string // worker and one word
	text string
}

// newPowercut makes the image and the layers.
func newPowercut(t testing.TB, name string, system cutSystem) *powercut {
	t.Helper()
	p := &powercut{TB: t, name: name, system: system, seed: cutSeed(t)}
	p.Rand = rand.New(rand.NewPCG(p.seed, 0))
	t.Logf("%s on %s: PLYFS_SEED=%d", system, name, p.seed)
	p.disk = newCutDisk(t, name, func(root string) {
		if system == cutControl {
			buildCut(t, []string{makeTree(t, root+"/tree", nil)}, newCutObjects())
			return
		}
		makeTree(t, root+"/upper", nil)
		makeTree(t, root+"/work", nil)
		buildCut(t, []string{makeTree(t, root+"/lower1", nil), makeTree(t, root+"/lower2", nil)}, newCutObjects())
		p.lower = dumpCutLower(t, root)
	})
	p.options = cutOptions()
	if system == cutPlyfs {
		mp := makeTree(t, filepath.Join(tempDir(t), "mnt"), nil)
		at := p.disk.mp
		p.mount = &union{TB: t, sut: sutPlyfs, mp: mp, lowers: []string{at + "/lower1", at + "/lower2"}, upper: at + "/upper", work: at + "/work"}
		t.Cleanup(p.mount.finish)
	}
	return p
}

func cutSeed(t testing.TB) uint64 {
	if s := os.Getenv("PLYFS_SEED"); s != "" && s != "random" {
		return uint64(mustAtoi(t, s))
	}
	return uint64(time.Now().UnixNano() % 1_000_000_000)
}

// cutOptions are the options of the mounts, in turn.
func cutOptions() []string {
	if s := os.Getenv("PLYFS_CUT_OPTIONS"); s != "" {
		return strings.Split(s, ";")
	}
	options := []string{"", "io=coherent"}
	if help, _ := plyfs("help", "options"); strings.Contains(help, "copyup=") {
		options = append(options, "copyup=partial", "copyup=auto,copyup_threshold=12K", "copyup=partial,io=coherent",
			"copyup=partial,complete_rate=20M", "copyup=whole")
	}
	return options
}

// controlRounds is how many rounds of the control a number of rounds needs:
// where the file system is clean one in four, to see that the test is right;
// where it is not, as many.
func (p *powercut) controlRounds(rounds int) int {
	if strings.HasPrefix(p.name, "ext4") {
		return (rounds + 3) / 4
	}
	return rounds
}

func (p *powercut) rounds(n int) {
	p.Helper()
	for range n {
		p.round()
		if len(p.violations) >= 200 {
			p.Logf("enough violations after %d rounds", p.done)
			return
		}
	}
}

// round works, cuts the power, and checks what is there afterwards.
func (p *powercut) round() {
	p.Helper()
	if p.age == 0 || p.age == cutImageRounds {
		p.disk.fresh()
		p.objects, p.age = newCutObjects(), 0
	}
	p.done++
	p.age++
	if p.mount != nil {
		p.mount.opts.options = p.roundOptions()
	}
	p.begin()
	before := len(p.violations)
	if p.age > 1 && p.IntN(3) == 0 {
		p.check("before the round")
	}
	r := p.work()
	p.recover()
	p.check("after the cut")
	for _, e := range r.errors {
		p.violation("", e)
	}
	p.ops += r.ops.Load()
	p.synced += r.synced.Load()
	p.end()
	if len(p.violations) > before {
		p.age = 0 // what is wrong now would be wrong again
	}
}

// roundOptions are the options of this round's mounts.
func (p *powercut) roundOptions() []string {
	if o := p.options[p.done%len(p.options)]; o != "" {
		return []string{o}
	}
	return nil
}

// begin mounts plyfs.
func (p *powercut) begin() {
	p.Helper()
	if p.mount != nil {
		p.mount.mount()
	}
}

// end uses the mount for a moment and unmounts it.
func (p *powercut) end() {
	p.Helper()
	if p.mount == nil {
		return
	}
	probe := p.mount.path("g0/probe")
	must(p, os.WriteFile(probe, cutSlice(1, cutSmall), 0o644))
	must(p, syncfs(p.mount.mp))
	wantFile(p, probe, string(cutSlice(1, cutSmall)))
	must(p, os.Remove(probe))
	p.mount.unmount()
	checkRaces(p)
}

// root is where the objects are.
func (p *powercut) root() string {
	if p.mount != nil {
		return p.mount.mp
	}
	return p.disk.mp + "/tree"
}

// backing is where new files really are.
func (p *powercut) backing() string {
	if p.mount != nil {
		return p.mount.upper
	}
	return p.root()
}

// sync makes everything durable: by `plyfs sync`, and by what sync(2) does in
// turn. The kernel does not tell a FUSE daemon about that: it begins to write
// the pages that it has for the mount itself, does not wait for them, and syncs
// the file system below. So stores through mappings that are in use may be lost.
func (p *powercut) sync() (mapped bool, err error) {
	if p.turn = !p.turn; p.turn && p.mount != nil {
		out, err := plyfs("sync", p.mount.mp)
		if err != nil {
			return false, fmt.Errorf("plyfs sync: %w: %s", err, out)
		}
		return true, nil
	}
	if err := syncfs(p.root()); err != nil {
		return false, err
	}
	return p.mount == nil, p.disk.sync()
}

// work runs the workers until the power is cut.
func (p *powercut) work() *cutRun {
	p.Helper()
	r := &cutRun{root: p.root(), backing: p.backing(), objects: p.objects, syncFS: p.sync, syncs: []float64{0.03, 0.2, 0.6}[p.IntN(3)]}
	wait := r.begin(p.Uint64())
	time.Sleep(time.Duration(50+p.IntN(550)) * time.Millisecond)
	r.cutting.Store(true)
	p.disk.cut(p.Rand)
	if p.mount != nil {
		p.mount.kill9()
	}
	if err := wait(); err != nil {
		p.Fatal(err)
	}
	return r
}

// recover starts the machine again.
func (p *powercut) recover() {
	p.Helper()
	if p.mount != nil {
		if err := unmountSoon(p.mount.mp); err != nil {
			p.Fatalf("unmounting the dead mount: %v", err)
		}
		p.mount.mounted = false
	}
	p.disk.recover()
	if p.mount != nil {
		for i, after := range dumpCutLower(p, p.disk.mp) {
			for _, d := range diffTrees(p.lower[i], after, nil) {
				p.Errorf("LOWER LAYER %d CHANGED: %s", i+1, d)
			}
		}
	}
	p.begin()
}

// dumpCutLower looks at the lower layers on the disk.
func dumpCutLower(t testing.TB, root string) []treeDump {
	t.Helper()
	o := dumpOptions{inode: true, dirNlink: true}
	return []treeDump{mustDump(t, root+"/lower1", o), mustDump(t, root+"/lower2", o)}
}

// check compares all that is in the tree with what may be there.
func (p *powercut) check(when string) {
	p.Helper()
	tree, err := cutTree(p.root())
	if err != nil {
		p.Fatalf("%s: %v", when, err)
	}
	delete(tree, "")
	for _, o := range p.objects {
		log := o.log
		for _, x := range o.check(p.root(), tree[o.key]) {
			x.text = fmt.Sprintf("%s: %s: %s", when, o.key, x.text)
			if p.violation(o.worker, x) {
				p.Logf("  its log:\n    %s", strings.Join(log, "\n    "))
			}
		}
		delete(tree, o.key)
	}
	for key, names := range tree {
		p.violation("", cutProblem{"unexpected", fmt.Sprintf("%s: %s: %q", when, key, names)})
	}
}

// violation notes what was wrong and says whether it was printed.
func (p *powercut) violation(worker string, x cutProblem) bool {
	kind := strings.TrimSpace(worker + " " + x.kind)
	p.violations = append(p.violations, cutViolation{kind, x.text})
	if len(p.violations) > 20 {
		return false
	}
	p.Logf("%s on %s, round %d (%d on its image, options %q): %s: %s", p.system, p.name, p.done, p.age, p.roundOptions(), kind, x.text)
	return true
}

// kinds counts the violations.
func (p *powercut) kinds() map[string]int {
	kinds := map[string]int{}
	for _, v := range p.violations {
		kinds[v.kind]++
	}
	return kinds
}

// report says how it went.
func (p *powercut) report() {
	p.Helper()
	p.Logf("%s on %s: %d power cuts, %d operations, %d syncs, %d violations", p.system, p.name, p.done, p.ops, p.synced, len(p.violations))
	kinds := p.kinds()
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		p.Logf("  %4d %s", kinds[k], k)
	}
}

// cutNative is what file systems do by themselves, by the word for it.
//
// btrfs writes a file that was cut off and grew again with its new size, but
// without the zeros in what was its last block then.
var cutNative = map[string][]string{"btrfs": {"uncut"}}

// cutKnown is what plyfs alone does, by the word for it: the completion of a
// partial file writes to it and then sets its times back, and a cut may come
// between the two.
var cutKnown = []string{"mtime"}

// judge fails the test for what the file system does not do by itself.
func (p *powercut) judge(control *powercut) {
	p.Helper()
	clean := strings.HasPrefix(p.name, "ext4")
	if clean && len(control.violations) > 0 {
		p.Errorf("the control is not clean: the test itself is wrong")
	}
	native := control.kinds()
	fstype, _, _ := strings.Cut(p.name, "-")
	for kind, n := range p.kinds() {
		word := kind[strings.LastIndex(kind, " ")+1:]
		if slices.Contains(cutNative[fstype], word) || slices.Contains(cutKnown, word) || !clean && n*control.done <= 2*native[kind]*p.done {
			continue
		}
		p.Errorf("%d times: %s; the control had it %d times in %d rounds", n, kind, native[kind], control.done)
	}
}
