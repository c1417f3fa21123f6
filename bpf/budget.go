// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// errSwitchedOff: a program was too slow once, so none of the object's is
// asked any more.
var errSwitchedOff = errors.New("the programs are switched off: one was too slow")

// defaultBudget is the time that one call may take. Most take a microsecond.
const defaultBudget = 5 * time.Millisecond

// budget is the time that a call may take, and whether that has happened.
type budget struct {
	nanoseconds atomic.Int64
	off         atomic.Pointer[string] // why the programs are switched off
}

func (b *budget) set(d time.Duration)  { b.nanoseconds.Store(int64(d)) }
func (b *budget) limit() time.Duration { return time.Duration(b.nanoseconds.Load()) }
func (b *budget) isOff() bool          { return b.off.Load() != nil }

// setBudget sets the time that one call may take.
func (p *programs) setBudget(d time.Duration) { p.budget.set(d) }

// whyOff says in words why the programs are switched off; "" if they are not.
func (p *programs) whyOff() string {
	if why := p.budget.off.Load(); why != nil {
		return *why
	}
	return ""
}

// askAgain repeats a call that took too long, by the clock of the thread: it
// may have been the thread that waited for a processor. A program that is slow
// itself switches the object off, for good.
func (p *programs) askAgain(c *call, pr *program, k uint32, took time.Duration) (int32, error) {
	pr.stats.slow.Add(1)
	if p.budget.isOff() {
		return 0, errSwitchedOff
	}
	runtime.LockOSThread()
	start := threadTime()
	action, errno := p.once(c, pr, k)
	busy := threadTime() - start
	runtime.UnlockOSThread()
	if errno != 0 {
		return 0, pr.failed(errno)
	}
	if limit := p.budget.limit(); busy > limit {
		p.switchOff(pr, took, busy, limit)
		return 0, errSwitchedOff
	}
	return action, nil
}

// hangTime is how long a call may be away before those that follow it are no
// longer made. It itself cannot be ended.
const hangTime = time.Second

// A sighting is how often in a row a call was seen under way. Time alone says
// nothing: the whole process may have been stopped, or its container or machine.
type sighting struct {
	at    int64 // when it began
	looks int
}

// watch, called every watchEvery, switches the programs off when a call of them
// does not come back.
func (p *programs) watch() {
	p.watching.Lock()
	defer p.watching.Unlock()
	for k := range p.since {
		s, at := &p.seen[k], p.since[k].Load()
		if at == 0 || at != s.at {
			*s = sighting{at: at}
			continue
		}
		if s.looks++; s.looks >= int(hangTime/watchEvery) {
			why := fmt.Sprintf("a call has not returned for %v", hangTime)
			p.budget.off.CompareAndSwap(nil, &why)
			return
		}
	}
}

// switchOff keeps the first reason.
func (p *programs) switchOff(pr *program, took, busy, limit time.Duration) {
	why := fmt.Sprintf("section %s took %s ms, and again %s ms of processor time; the budget is %s ms",
		pr.key, milliseconds(took), milliseconds(busy), milliseconds(limit))
	p.budget.off.CompareAndSwap(nil, &why)
}

// milliseconds formats with three significant digits.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3g", float64(d)/float64(time.Millisecond))
}

// threadTime is the processor time of the calling thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return monotonic()
	}
	return time.Duration(ts.Nano())
}

// zeroTime makes monotonic cheap: time.Since reads one clock, time.Now two.
var zeroTime = time.Now()

// monotonic is a time from which others are subtracted.
func monotonic() time.Duration { return time.Since(zeroTime) }
