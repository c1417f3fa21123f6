// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plyfs/plyfs/bpf/internal/config"
	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack"
	"golang.org/x/sys/unix"
)

// Fail policies: what becomes of an operation whose program was switched off,
// or could not be run.
const (
	FailClosed = config.FailClosed // it fails with EIO
	FailOpen   = config.FailOpen   // it is done as if there were no program
)

// Options are what a mount says about its policy.
type Options struct {
	// Fail and Budget, if set, go before what the policy file says.
	Fail   string
	Budget time.Duration // a call of a program may take so long
	// Lowers are the lower directories, topmost first.
	Lowers []string
	// Written are directories that are written through the mount (upperdir,
	// workdir): no file of the policy must lie in them.
	Written []string
	// Device is the device number of the mount itself, where it is mounted
	// already: no file of the policy must lie there either.
	Device uint64
	// Pin is "" or a directory on a bpffs: the maps of the user's objects are
	// pinned there, PIN/MAP for one object, PIN/RULE/MAP for a policy file.
	Pin    string
	Logger *slog.Logger // nil: slog.Default()
}

// Policy is a loaded policy. It implements stack.Policy.
type Policy struct {
	source string
	fail   string
	budget time.Duration
	log    *slog.Logger
	rules  []*rule
	places map[string]*placeRules
	paths  []string // of places, sorted

	stop chan struct{} // closed by Close

	refs   atomic.Int64 // plans not yet released, and 1 until Close
	closed atomic.Bool

	mu   sync.Mutex
	last []string // the last wrong answers and failures

	found foundCache
}

// placeRules are the rules that are set for one place, by set.
type placeRules struct {
	inode, file []*rule
}

// rule is a rule with its loaded programs.
type rule struct {
	*config.Rule
	policy  *Policy
	progs   *programs
	handler Handler
	parts   []stack.Part
	caller  bool

	offNoted atomic.Bool
}

// LoadFile loads a policy file, and every object and part that it names. Its
// errors name file and line, or the object and the verifier's words.
func LoadFile(path string, opt Options) (*Policy, error) {
	f, err := config.Load(path, config.Known{Handlers: handlerNames(), Layers: len(opt.Lowers)})
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(f.Path)
	if err == nil {
		err = notWritten(real, opt)
	}
	if err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	return load(f, opt)
}

// LoadObject loads one object for the whole mount.
func LoadObject(path string, opt Options) (*Policy, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(filepath.Base(abs), ".o")
	return load(&config.File{Path: abs, Rules: []config.Rule{{Name: name, Path: "/", Program: path, Object: abs}}}, opt)
}

func load(f *config.File, opt Options) (_ *Policy, err error) {
	p := newPolicy(f, opt)
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	for i := range f.Rules {
		r, err := p.loadRule(&f.Rules[i], opt, len(f.Rules) > 1 || f.Rules[i].Line > 0)
		if err != nil {
			return nil, p.ruleError(&f.Rules[i], err)
		}
		p.add(r)
	}
	p.paths = make([]string, 0, len(p.places))
	for place := range p.places {
		p.paths = append(p.paths, place)
	}
	slices.Sort(p.paths)
	go p.watch()
	return p, nil
}

// watchEvery is how often calls that do not come back are looked for.
const watchEvery = 100 * time.Millisecond

// watch looks for calls that do not come back, until the policy is closed.
func (p *Policy) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.watchOnce()
		}
	}
}

func (p *Policy) watchOnce() {
	for _, r := range p.rules {
		r.progs.watch()
	}
}

func newPolicy(f *config.File, opt Options) *Policy {
	p := &Policy{source: f.Path, fail: FailClosed, budget: defaultBudget, log: opt.Logger, places: map[string]*placeRules{}}
	if p.log == nil {
		p.log = slog.Default()
	}
	for _, s := range []string{f.Fail, opt.Fail} {
		if s != "" {
			p.fail = s
		}
	}
	for _, d := range []time.Duration{f.Budget, opt.Budget} {
		if d > 0 {
			p.budget = d
		}
	}
	p.stop = make(chan struct{})
	p.refs.Store(1)
	return p
}

// ruleError says where in the policy file an object failed to load.
func (p *Policy) ruleError(r *config.Rule, err error) error {
	if r.Line == 0 {
		return err
	}
	return fmt.Errorf("%s:%d: rule %s: %w", p.source, r.Line, r.Name, err)
}

// add sets a rule for its place.
func (p *Policy) add(r *rule) {
	p.rules = append(p.rules, r)
	pl := p.places[r.Path]
	if pl == nil {
		pl = &placeRules{}
		p.places[r.Path] = pl
	}
	if r.hasAny(opLookup, opReaddir, opGetattr) {
		pl.inode = append(pl.inode, r)
	}
	if r.hasAny(opOpen, opRead, opWrite) {
		pl.file = append(pl.file, r)
	}
}

// hasAny tells whether the rule's object has a program for one of the ops.
func (r *rule) hasAny(ops ...op) bool {
	return slices.ContainsFunc(ops, func(o op) bool { return r.progs.has(o, pre) || r.progs.has(o, post) })
}

// openPart opens a file of the policy, through a read-only clone of its mount.
func openPart(path string, opt Options) (stack.Part, error) {
	f, err := config.OpenTrusted(path)
	if err != nil {
		return stack.Part{}, err
	}
	defer f.Close()
	if err := notWritten(f.Name(), opt); err != nil {
		return stack.Part{}, err
	}
	fd, err := layers.OpenReadOnly(int(f.Fd()))
	if err != nil {
		return stack.Part{}, fmt.Errorf("%s: %w", path, err)
	}
	return stack.Part{Name: f.Name(), FD: fd}, nil
}

// notWritten refuses a file, by its path without symbolic links, that can be
// written through the mount.
func notWritten(path string, opt Options) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if opt.Device != 0 && st.Dev == opt.Device {
		return fmt.Errorf("%s lies on the mount itself; name the file where it is in a layer, or a copy elsewhere", path)
	}
	for _, dir := range opt.Written {
		if dir == "" {
			continue
		}
		in, err := layers.Inside(filepath.Dir(path), dir)
		if err != nil {
			return err
		}
		if in {
			return fmt.Errorf("%s lies in %s, which is written through the mount; move it elsewhere", path, dir)
		}
	}
	return nil
}

// Close implements stack.Policy. Closing again does nothing.
func (p *Policy) Close() {
	if p.closed.CompareAndSwap(false, true) {
		close(p.stop)
		p.release()
	}
}

// retain keeps programs and parts for a plan; false if they are gone already.
func (p *Policy) retain() bool {
	for {
		n := p.refs.Load()
		if n == 0 {
			return false
		}
		if p.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (p *Policy) release() {
	if p.refs.Add(-1) != 0 {
		return
	}
	for _, r := range p.rules {
		r.close()
	}
}

func (r *rule) close() {
	if r.progs != nil {
		r.progs.Close()
	}
	for _, part := range r.parts {
		_ = unix.Close(part.FD)
	}
}

// Epoch implements stack.Policy: the sum of the objects' epochs, and of those
// that were switched off.
func (p *Policy) Epoch() uint64 {
	var sum uint64
	for _, r := range p.rules {
		sum += r.progs.epoch()
		if r.progs.budget.isOff() {
			sum += 1 << 32
		}
	}
	return sum
}

// Scope implements stack.Policy.
func (p *Policy) Scope(place string) stack.Scope {
	var s stack.Scope
	inode, file := p.nearest(place)
	for _, r := range inode {
		s.Names = s.Names || r.hasAny(opLookup, opReaddir)
		s.Attrs = s.Attrs || r.hasAny(opGetattr)
		s.NamesByCaller = s.NamesByCaller || r.caller && r.hasAny(opLookup, opReaddir)
	}
	for _, r := range file {
		s.Files = true
		s.FilesByCaller = s.FilesByCaller || r.caller
		s.Reads = s.Reads || r.hasAny(opRead)
		s.Writes = s.Writes || r.hasAny(opWrite)
	}
	s.Below, s.BelowByCaller = p.below(place)
	return s
}

// nearest are the rules of each set that govern a place: those of the place
// itself, or of the nearest one above it that has any.
func (p *Policy) nearest(place string) (inode, file []*rule) {
	for {
		if pl := p.places[place]; pl != nil {
			if inode == nil {
				inode = pl.inode
			}
			if file == nil {
				file = pl.file
			}
		}
		if place == "/" || place == "" || inode != nil && file != nil {
			return inode, file
		}
		i := strings.LastIndexByte(place, '/')
		if place = place[:max(i, 0)]; place == "" {
			place = "/"
		}
	}
}

// below tells whether rules are set for places below one, and whether answers
// about names there depend on the caller.
func (p *Policy) below(place string) (any, byCaller bool) {
	prefix := strings.TrimSuffix(place, "/") + "/"
	i, _ := slices.BinarySearch(p.paths, prefix)
	for ; i < len(p.paths) && strings.HasPrefix(p.paths[i], prefix); i++ {
		if p.paths[i] == "/" {
			continue
		}
		any = true
		byCaller = byCaller || slices.ContainsFunc(p.places[p.paths[i]].inode, func(r *rule) bool { return r.caller })
	}
	return any, byCaller
}

// Rules names the rules that have a say about a place.
func (p *Policy) Rules(place string) []string {
	var list []string
	inode, file := p.nearest(place)
	for _, r := range inode {
		list = append(list, "inode: "+r.label()+r.offText())
	}
	for _, r := range file {
		list = append(list, "file: "+r.label()+r.offText())
	}
	return list
}

// offText follows the label of a rule that was switched off.
func (r *rule) offText() string {
	if !r.progs.budget.isOff() {
		return ""
	}
	return ", switched off (bpf_fail=" + r.policy.fail + ")"
}

// label is how a rule is called in messages.
func (r *rule) label() string {
	if r.Line == 0 {
		return r.Name
	}
	return fmt.Sprintf("%s (line %d)", r.Name, r.Line)
}

const lastErrors = 16

// note keeps and logs what went wrong.
func (p *Policy) note(msg string) {
	p.log.Error("policy", "err", msg)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = append(p.last, time.Now().UTC().Format(time.RFC3339)+" "+msg)
	if n := len(p.last); n > lastErrors {
		p.last = p.last[n-lastErrors:]
	}
}

// Status is what `plyfs status` shows.
func (p *Policy) Status() stack.PolicyStatus {
	s := stack.PolicyStatus{Source: p.source, Fail: p.fail, BudgetNS: int64(p.budget)}
	for _, r := range p.rules {
		st := r.status()
		s.WrongAnswers += st.Wrong
		s.Rules = append(s.Rules, st)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.LastErrors = slices.Clone(p.last)
	return s
}

func (r *rule) status() stack.RuleStatus {
	snap := r.progs.snapshot()
	st := stack.RuleStatus{Name: r.Name, Path: r.Path, Program: r.Program, Caller: r.caller, Off: snap.Off}
	for _, q := range snap.Programs {
		st.Wrong += q.Wrong
		qs := stack.QuestionStatus{Section: q.Section, Runs: q.Runs, Errors: q.Errors, Slow: q.Slow,
			P50NS: int64(q.P50NS), P99NS: int64(q.P99NS)}
		for _, b := range q.Latency {
			qs.Latency = append(qs.Latency, stack.LatencyCount{BelowNS: b.BelowNS, Runs: b.Runs})
		}
		st.Questions = append(st.Questions, qs)
	}
	return st
}
