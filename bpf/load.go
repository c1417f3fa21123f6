// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// loadOptions are what a policy says about an object.
type loadOptions struct {
	vars    map[string]uint64 // values of const volatile variables
	sizes   map[string]uint32 // max_entries of maps
	pinTo   string            // "", or a directory of a bpffs: maps are pinned there under their names
	timeout time.Duration     // for all programs together; 0: defaultLoadTime
}

const (
	defaultLoadTime = 30 * time.Second
	// maxLogTime is how long the verifier may take to say why it refuses what
	// it has refused already.
	maxLogTime = 1500 * time.Millisecond
	// logBytes holds nearly every log. A longer one is verified a third time.
	logBytes = 16 << 20
	// sleepable is BPF_F_SLEEPABLE.
	sleepable = 1 << 4
)

// load loads the object into the kernel. Errors are *VerifierRefusal, or one
// line that begins with the object's name. It returns in time whatever the
// programs are.
func (o *object) load(opt loadOptions) (*programs, error) {
	spec, err := o.prepare(opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	l := &loading{
		object: o, spec: spec, pinTo: opt.pinTo,
		started: make(chan string, 1), refused: make(chan loaded, 1), done: make(chan loaded, 1),
	}
	go func() {
		p, err := l.run()
		l.done <- loaded{p, err}
	}()
	timeout := opt.timeout
	if timeout <= 0 {
		timeout = defaultLoadTime
	}
	return l.wait(timeout)
}

// loading is a load on its way in a goroutine of its own, which can outlive
// the one that waits for it: nothing ends the verifier.
type loading struct {
	*object
	spec    *ebpf.CollectionSpec // a private copy
	pinTo   string
	started chan string // the section that the verifier has before it
	refused chan loaded // what is known before the log is
	done    chan loaded
}

type loaded struct {
	p   *programs
	err error
}

// wait waits for the load, and gives it up when it takes too long.
func (l *loading) wait(timeout time.Duration) (*programs, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var section string
	var refused error
	for {
		select {
		case r := <-l.done:
			return r.p, r.err
		case section = <-l.started:
		case r := <-l.refused:
			refused = r.err
			timer.Reset(maxLogTime)
		case <-timer.C:
			go l.drop()
			if refused == nil {
				refused = l.tooComplex(section, fmt.Sprintf("the verifier was not done with it after %v", timeout))
			}
			return nil, refused
		}
	}
}

// drop frees what a given-up load still brings.
func (l *loading) drop() {
	for {
		select {
		case <-l.started:
		case <-l.refused:
		case r := <-l.done:
			if r.p != nil {
				r.p.Close()
			}
			return
		}
	}
}

// run makes the maps, then the programs.
func (l *loading) run() (_ *programs, err error) {
	made, err := l.makeMaps()
	if err != nil {
		return nil, err
	}
	p := newPrograms(l, made.maps)
	defer func() {
		if err != nil {
			p.Close()
			made.unpin()
		}
	}()
	if err := p.mapMemory(); err != nil {
		return nil, fmt.Errorf("%s: %w", l.name, err)
	}
	for _, s := range sections {
		if ps := l.progs[s.key]; ps != nil {
			l.started <- s.name
			if err := l.loadProgram(p, s.key, ps.Copy()); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// loadProgram verifies one program, which it may change, and adds it to p.
func (l *loading) loadProgram(p *programs, key progKey, ps *ebpf.ProgramSpec) error {
	ps.Type, ps.AttachType, ps.AttachTo, ps.Flags = ebpf.Syscall, ebpf.AttachNone, "", sleepable
	for i := range ps.Instructions {
		ins := &ps.Instructions[i]
		if m := p.maps[ins.Reference()]; m != nil && ins.IsLoadFromMap() {
			if err := ins.AssociateMap(m); err != nil {
				return fmt.Errorf("%s: section %s: map %s: %w", l.name, key, ins.Reference(), err)
			}
		}
	}
	if !l.own && worstTurns(ps.Instructions) > maxTurns {
		return fmt.Errorf("%s: section %s (%s): its loops within loops could take more than seconds; give them smaller bounds",
			l.name, key, ps.Name)
	}
	start := time.Now()
	prog, err := ebpf.NewProgramWithOptions(ps, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		prog, err = l.secondTry(ps, err)
	}
	if err != nil {
		return err
	}
	p.add(key, ps, prog, time.Since(start))
	return nil
}

// secondTry loads a refused program again to hear why. What is too complex is
// not: that takes half a minute with the log on. Too many instructions are
// E2BIG, too many branches EFAULT.
func (l *loading) secondTry(ps *ebpf.ProgramSpec, first error) (*ebpf.Program, error) {
	if errors.Is(first, unix.E2BIG) || errors.Is(first, unix.EFAULT) {
		return nil, l.tooComplex(ps.SectionName, "")
	}
	err := l.refusal(ps, first)
	l.refused <- loaded{err: err}
	if errors.Is(first, unix.EPERM) && checkPrivilege() != nil {
		return nil, err
	}
	prog, second := ebpf.NewProgramWithOptions(ps,
		ebpf.ProgramOptions{LogLevel: ebpf.LogLevelBranch, LogSizeStart: logBytes})
	if second == nil {
		return prog, nil
	}
	return nil, l.refusal(ps, second)
}

// made is the maps of a load.
type made struct {
	maps map[string]*ebpf.Map
	pins []*ebpf.Map // those that were pinned just now
}

func (m made) unpin() {
	for _, m := range m.pins {
		_ = m.Unpin()
	}
}

// makeMaps makes the maps, or takes those that are pinned already.
func (l *loading) makeMaps() (made, error) {
	pinned, err := l.pinned()
	if err != nil {
		return made{}, fmt.Errorf("%s: %w", l.name, err)
	}
	coll, err := ebpf.NewCollectionWithOptions(
		&ebpf.CollectionSpec{Maps: l.spec.Maps, Variables: l.spec.Variables,
			Types: l.spec.Types, ByteOrder: l.spec.ByteOrder},
		ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: l.pinTo}})
	if err != nil {
		l.removePins(pinned)
		return made{}, fmt.Errorf("%s: %w", l.name, mapError(err))
	}
	m := made{maps: coll.Maps}
	for name := range coll.Maps {
		if l.spec.Maps[name].Pinning == ebpf.PinByName && !pinned[name] {
			m.pins = append(m.pins, coll.Maps[name])
		}
	}
	return m, nil
}

// mapError says in our words why maps could not be made.
func mapError(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return permissionError()
	case errors.Is(err, ebpf.ErrMapIncompatible):
		return fmt.Errorf("%w; remove the pinned map, or pin elsewhere", oneLine(err))
	case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: it is too large", oneLine(err))
	}
	return oneLine(err)
}

// permissionError explains EPERM. The library's own words blame the memlock
// limit, which has no part in it.
func permissionError() error {
	if missing := checkPrivilege(); missing != nil {
		return missing
	}
	return fmt.Errorf("the kernel refuses it: %w, though no capability is missing; "+
		"a security module, a seccomp filter or the kernel's lockdown may forbid BPF", unix.EPERM)
}

// prepare copies the spec and puts the options into it.
func (o *object) prepare(opt loadOptions) (*ebpf.CollectionSpec, error) {
	spec := o.spec.Copy()
	for _, name := range slices.Sorted(maps.Keys(opt.vars)) {
		if err := setVariable(spec, name, opt.vars[name]); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(opt.sizes)) {
		if err := setSize(spec, name, opt.sizes[name]); err != nil {
			return nil, err
		}
	}
	return spec, preparePins(spec, opt.pinTo)
}
