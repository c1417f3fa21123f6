// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"slices"
	"syscall"
	"time"
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
		if left <= 0 {
			r.Slow = "not measured: another program was too slow"
		} else {
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
