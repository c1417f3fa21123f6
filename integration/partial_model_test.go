// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The size of the model test's work.
const (
	partialSeed  = 20261126
	partialSteps = 60              // operations in a sequence
	partialTime  = 7 * time.Second // for each file system, when PLYFS_PARTIAL_RUNS is not set
)

// partialFS are the file systems that hold the layers.
var partialFS = []struct {
	name, fstype string
	mkfs         []string
}{
	{"ext4", "ext4", nil},
	{"ext4-1k", "ext4", []string{"-b", "1024"}},
	{"xfs", "xfs", nil},
	{"btrfs", "btrfs", nil},
	{"tmpfs", "tmpfs", nil},
}

// partialModes are the ways of copying up.
var partialModes = []string{
	copyUpPartial, copyUpPartial, "copyup=auto,copyup_threshold=5000", "copyup=auto,copyup_threshold=300K", copyUpWhole,
}

// A partialSeq is a lower file and what is done to it.
type partialSeq struct {
	FS      string
	IO      string
	Options string // how to copy up and to complete
	Size    int64
	Seed    int64 // of the contents and the holes
	Linked  bool  // the lower file has another name
	Deep    bool  // it is in the lowest layer, else it hides one there
	Ops     []partialOp
}

// A partialOp is one operation. Unused fields are zero.
type partialOp struct {
	Kind     string
	Handle   int `json:",omitempty"` // slot of a held file; 0: opened for the operation
	Off, Len int64
	Src      int64  `json:",omitempty"` // another offset
	Seed     int64  `json:",omitempty"` // of the bytes; 0: zeros
	Mode     uint32 `json:",omitempty"` // of fallocate, open, chmod
	Text     string `json:",omitempty"` // name or options
}

func (o partialOp) String() string {
	b, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *partialSeq) String() string {
	head := *s
	head.Ops = nil
	b, err := json.Marshal(head)
	if err != nil {
		return err.Error()
	}
	lines := []string{string(b)}
	for _, o := range s.Ops {
		lines = append(lines, o.String())
	}
	return strings.Join(lines, "\n")
}

// TestPartialModel does random operations on a file that is copied up, and on
// an array of bytes: size, contents by each way of reading, holes and the
// upper file must be as the array says, over remounts, kills of the daemon and
// completion. A failing sequence is shortened and printed.
func TestPartialModel(t *testing.T) {
	requireRoot(t)
	for i, fs := range partialFS {
		t.Run(fs.name, func(t *testing.T) {
			runPartial(t, fs.name, newFS(t, fs.fstype, 900, fs.mkfs...), partialSeed+int64(i)*1_000_000)
		})
	}
}

// runPartial runs sequences until the time or the number asked for is over.
func runPartial(t *testing.T, fs, dir string, seed int64) {
	plain := fallocateErrors(t, dir)
	runs := 0
	if s := os.Getenv("PLYFS_PARTIAL_RUNS"); s != "" {
		runs = mustAtoi(t, s)
	}
	if s := os.Getenv("PLYFS_SEED"); s == "random" {
		seed = time.Now().UnixNano() % 1_000_000_000
	} else if s != "" {
		seed = int64(mustAtoi(t, s))
		runs = max(runs, 1)
	}
	n, total := 0, tally{}
	for start := time.Now(); (runs > 0 && n < runs) || (runs == 0 && time.Since(start) < partialTime); n++ {
		g := newPartialGen(seed + int64(n))
		seq := g.sequence(fs, n)
		r := &trial{TB: t}
		errs := r.run(func() { newPartialRun(r, seq, dir, plain).generate(g, total) })
		if len(errs) > 0 {
			reportPartial(t, seed+int64(n), seq, errs, dir, plain)
			return
		}
	}
	t.Logf("%d sequences from seed %d; succeeded/run: %s", n, seed, total)
}

// reportPartial shortens a failing sequence and prints it.
func reportPartial(t *testing.T, seed int64, seq *partialSeq, errs []string, dir string, plain map[uint32]error) {
	t.Helper()
	t.Errorf("PLYFS_SEED=%d fails on %s (io=%s,%s):\n%s", seed, seq.FS, seq.IO, seq.Options, strings.Join(errs, "\n"))
	best, last := shrinkPartial(seq, func(s *partialSeq) []string { return replayPartial(t, s, dir, plain) })
	if last == nil {
		t.Logf("the sequence does not fail a second time:\n%s", seq)
		return
	}
	b, err := json.MarshalIndent(best, "", " ")
	must(t, err)
	name := fmt.Sprintf("%s/plyfs-partial-%d.json", os.TempDir(), seed)
	must(t, os.WriteFile(name, b, 0o644))
	t.Logf("shortened to %d operations, saved as %s (PLYFS_PARTIAL_REPLAY):\n%s\n%s", len(best.Ops), name, best, strings.Join(last, "\n"))
}

// shrinkPartial leaves out operations as long as the sequence fails.
func shrinkPartial(seq *partialSeq, run func(*partialSeq) []string) (*partialSeq, []string) {
	best, last := seq, run(seq)
	if last == nil {
		return seq, nil
	}
	end := time.Now().Add(shrinkTime)
	shrinkList(func() []partialOp { return best.Ops }, func(ops []partialOp) bool {
		if time.Now().After(end) {
			return false
		}
		s := *best
		s.Ops = ops
		errs := run(&s)
		if len(errs) > 0 {
			best, last = &s, errs
		}
		return len(errs) > 0
	})
	return best, last
}

func replayPartial(t testing.TB, seq *partialSeq, dir string, plain map[uint32]error) []string {
	r := &trial{TB: t}
	return r.run(func() { newPartialRun(r, seq, dir, plain).replay() })
}

// TestPartialReplay runs the sequence in the file PLYFS_PARTIAL_REPLAY.
func TestPartialReplay(t *testing.T) {
	file := os.Getenv("PLYFS_PARTIAL_REPLAY")
	if file == "" {
		t.Skip("PLYFS_PARTIAL_REPLAY names no file")
	}
	b, err := os.ReadFile(file)
	must(t, err)
	replayFile(t, b)
}

// TestPartialKnown runs the sequences that once failed.
func TestPartialKnown(t *testing.T) {
	requireRoot(t)
	files, err := filepath.Glob("testdata/partial/*.json")
	must(t, err)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".json"), func(t *testing.T) {
			b, err := os.ReadFile(f)
			must(t, err)
			replayFile(t, b)
		})
	}
}

func replayFile(t *testing.T, b []byte) {
	seq := &partialSeq{}
	must(t, json.Unmarshal(b, seq))
	for _, fs := range partialFS {
		if fs.name != seq.FS {
			continue
		}
		dir := newFS(t, fs.fstype, 900, fs.mkfs...)
		for _, e := range replayPartial(t, seq, dir, fallocateErrors(t, dir)) {
			t.Error(e)
		}
		return
	}
	t.Errorf("no file system is named %q", seq.FS)
}

// fallocateErrors finds out which modes of fallocate(2) a file system has.
func fallocateErrors(t testing.TB, dir string) map[uint32]error {
	t.Helper()
	name := filepath.Join(dir, "probe")
	errs := map[uint32]error{}
	for _, mode := range fallocateModes {
		must(t, os.WriteFile(name, pattern(10*65536, 1), 0o600))
		must(t, withFile(name, os.O_RDWR, func(f *os.File) error {
			errs[mode] = unix.Fallocate(int(f.Fd()), mode, 65536, 65536)
			return nil
		}))
	}
	must(t, os.Remove(name))
	return errs
}

// partialRun is a sequence under way.
type partialRun struct {
	*union
	seq     *partialSeq
	plain   map[uint32]error // what fallocate(2) says on a plain file
	content []byte           // the model
	names   []string         // of the file, below the mount
	held    map[int]*heldFile
	side    []byte // contents of another file, to copy from
	written bool   // opened for writing, or cut, since the mount
	deleted bool   // it has no name any more
	kills   int
}

// heldFile is a descriptor, or a mapping, that stays open.
type heldFile struct {
	fd    int
	flags int
	m     []byte // a mapping of the first bytes
	// early handles see the lower file; others may be written later.
	early bool
}

// newPartialRun makes the layers of a sequence and mounts them.
func newPartialRun(r *trial, seq *partialSeq, fsDir string, plain map[uint32]error) *partialRun {
	dir, err := os.MkdirTemp(fsDir, "seq")
	must(r, err)
	r.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			r.Errorf("removing the layers: %v", err)
		}
	})
	p := &partialRun{seq: seq, plain: plain, names: []string{"d/f"}, held: map[int]*heldFile{}}
	p.content = sparseContent(seq.Size, seq.Seed)
	p.side = sideContent()
	top := makeTree(r, filepath.Join(dir, "l1"), []string{"d/", "d/x=other", "empty/"})
	low := makeTree(r, filepath.Join(dir, "l2"), []string{"d/y=another"})
	must(r, os.WriteFile(filepath.Join(low, "side"), p.side, 0o644))
	at := low
	if !seq.Deep {
		at = top
		must(r, os.WriteFile(filepath.Join(low, "d/f"), pattern(int(seq.Size)+5000, seq.Seed+1), 0o644))
	}
	must(r, writeSparse(filepath.Join(at, "d/f"), p.content))
	if seq.Linked {
		must(r, os.Link(filepath.Join(at, "d/f"), filepath.Join(at, "second")))
		p.names = append(p.names, "second")
	}
	p.union = prepare(r, mountOpts{dir: dir, lowerDirs: []string{top, low}, options: p.options(seq.Options)})
	p.mount()
	r.Cleanup(p.closeAll)
	return p
}

func (p *partialRun) options(how string) []string {
	return partialOptions(append([]string{"io=" + p.seq.IO}, strings.Split(how, ",")...)...)
}

// generate makes operations while it runs them.
func (p *partialRun) generate(g *partialGen, total tally) {
	for i := range partialSteps {
		if p.deleted {
			break
		}
		o := g.op(p)
		p.seq.Ops = append(p.seq.Ops, o)
		res := p.step(i, o)
		total.add(o.Kind, res)
	}
	p.last()
}

// replay runs a sequence.
func (p *partialRun) replay() {
	for i, o := range p.seq.Ops {
		if p.deleted {
			break
		}
		p.step(i, o)
	}
	p.last()
}

// last ends a sequence: what is there after a remount, and after completion.
func (p *partialRun) last() {
	if p.deleted {
		p.closeAll()
		p.remount()
		return
	}
	p.check("at the end")
	p.again(p.seq.Options)
	p.check("after the last remount")
	p.finishFile()
	p.check("after completion")
	p.again(p.seq.Options)
	p.check("after completion and a remount")
}

// again mounts again with other options.
func (p *partialRun) again(how string) {
	p.closeAll()
	p.unmount()
	p.opts.options = p.options(how)
	p.mount()
	p.written = false
}

// finishFile completes the file by the command. If it has been copied up its
// upper file then is whole.
func (p *partialRun) finishFile() {
	if sut != sutPlyfs {
		return
	}
	p.flushMaps()
	up := filepath.Join(p.upper, p.names[0])
	_, before := os.Lstat(up)
	p.complete(p.names[0])
	if before == nil {
		p.wantWhole(p.names[0], p.content)
	}
}

// sideContent is what another file of the mount has, to copy from.
var sideContent = sync.OnceValue(func() []byte { return pattern(1<<20, 77) })

// sparseContent is the lower file's contents: bytes that are never zero, and
// holes.
func sparseContent(size, seed int64) []byte {
	b := pattern(int(size), seed)
	g := newPartialGen(seed)
	for range g.IntN(4) {
		if size > blockSize {
			from := g.Int64N(size)
			to := min(size, from+1+g.Int64N(size/3+1))
			if g.IntN(2) == 0 {
				from -= from % blockSize
			}
			clear(b[from:to])
		}
	}
	return b
}

// writeSparse writes contents, with holes for blocks of zeros.
func writeSparse(path string, b []byte) error {
	return withFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, func(f *os.File) error {
		for off := 0; off < len(b); off += blockSize {
			piece := b[off:min(off+blockSize, len(b))]
			if firstNonZero(piece) < 0 {
				continue
			}
			if _, err := f.WriteAt(piece, int64(off)); err != nil {
				return err
			}
		}
		return f.Truncate(int64(len(b)))
	})
}
