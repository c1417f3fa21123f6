// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/cilium/ebpf/asm"
)

const (
	measureRuns = 1000
	// measureTime is for one program, allMeasureTime for those of an object.
	measureTime    = 100 * time.Millisecond
	allMeasureTime = time.Second
)

// measure runs each program on an empty input and fills in what a run costs.
// No more is run after a program that has not come back in time: nothing can
// stop it.
func (p *programs) measure(reports []ProgramReport) {
	deadline := time.Now().Add(allMeasureTime)
	i := 0
	p.each(func(pr *program) {
		r := &reports[i]
		i++
		left := time.Until(deadline)
		switch {
		case nestedLoops(pr.spec.Instructions):
			r.Slow = "a loop of bpf_loop within another may run for hours, and nothing can stop it; it was not run"
		case left <= 0:
			r.Slow = "not measured: another program was too slow"
		default:
			p.measureOne(pr, r, left)
		}
	})
}

// measureOne waits for the runs of one program, but not for ever.
func (p *programs) measureOne(pr *program, r *ProgramReport, left time.Duration) {
	done := make(chan ProgramReport, 1)
	if !p.enter() {
		return
	}
	go func() {
		defer p.leave()
		done <- p.tryRuns(pr, *r)
	}()
	select {
	case *r = <-done:
	case <-time.After(left):
		r.Slow = fmt.Sprintf("slow: over the budget of %s ms; it still ran after %s ms",
			milliseconds(defaultBudget), milliseconds(left))
	}
}

// tryRuns makes the runs.
func (p *programs) tryRuns(pr *program, r ProgramReport) ProgramReport {
	c := p.get()
	defer p.put(c)
	k := p.slots.take()
	defer p.slots.give(k)
	c.In.ABI, c.In.Op, c.In.Phase = abiVersion, uint32(pr.key.op), uint32(pr.key.phase)
	var times []time.Duration
	for start := monotonic(); len(times) < measureRuns && monotonic()-start < measureTime; {
		took, errno := p.timeOnce(c, pr, k)
		if errno != 0 {
			r.Slow = fmt.Sprintf("cannot be run: %v; its context is struct ply_ctx and no more", errno)
			return r
		}
		times = append(times, took)
	}
	slices.Sort(times)
	r.Runs, r.RunNS = len(times), int64(times[len(times)/2])
	if r.RunNS > int64(defaultBudget) {
		r.Slow = fmt.Sprintf("slow: over the budget of %s ms: %s ms a run",
			milliseconds(defaultBudget), milliseconds(time.Duration(r.RunNS)))
	}
	return r
}

func (p *programs) timeOnce(c *call, pr *program, k uint32) (time.Duration, syscall.Errno) {
	start := monotonic()
	_, errno := p.once(c, pr, k)
	return monotonic() - start, errno
}

// nestedLoops says whether the callback of a helper that loops calls such a
// helper itself, directly or in functions that it calls.
func nestedLoops(insns asm.Instructions) bool {
	functions := functionsOf(insns)
	for _, f := range functions {
		for callback := range f.pointers {
			if loops(functions, callback, make(map[string]bool)) {
				return true
			}
		}
	}
	return false
}

// function is what is to be known of one function of a program.
type function struct {
	loops    bool            // it calls a helper that calls back again and again
	calls    map[string]bool // functions that it calls
	pointers map[string]bool // functions whose address it takes: callbacks
}

// functionsOf splits a program into its functions.
func functionsOf(insns asm.Instructions) map[string]*function {
	all := make(map[string]*function)
	current := &function{}
	for i := range insns {
		ins := &insns[i]
		if name := ins.Symbol(); name != "" {
			current = &function{calls: make(map[string]bool), pointers: make(map[string]bool)}
			all[name] = current
		}
		switch {
		case ins.IsBuiltinCall():
			fn := asm.BuiltinFunc(ins.Constant)
			current.loops = current.loops || fn == asm.FnLoop || fn == asm.FnForEachMapElem
		case ins.IsFunctionCall() && current.calls != nil:
			current.calls[ins.Reference()] = true
		case ins.IsLoadOfFunctionPointer() && current.pointers != nil:
			current.pointers[ins.Reference()] = true
		}
	}
	return all
}

// loops says whether a function loops, or one that it calls.
func loops(all map[string]*function, name string, seen map[string]bool) bool {
	f := all[name]
	if f == nil || seen[name] {
		return false
	}
	seen[name] = true
	if f.loops {
		return true
	}
	for callee := range f.calls {
		if loops(all, callee, seen) {
			return true
		}
	}
	return false
}
