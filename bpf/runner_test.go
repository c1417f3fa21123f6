// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func mustRun(t testing.TB, p *programs, c *call, o op, ph phase) int32 {
	t.Helper()
	action, err := p.run(c, o, ph)
	if err != nil {
		t.Fatal(err)
	}
	return action
}

// A program sees the input, and its answer arrives.
func TestRun(t *testing.T) {
	p := mustLoad(t, loadOptions{vars: map[string]uint64{"limit": 1 << 40, "flag": 1}}, "echo.c")
	for _, k := range []progKey{{opLookup, pre}, {opLookup, post}, {opOpen, pre}} {
		if !p.has(k.op, k.phase) {
			t.Errorf("no program %s", k)
		}
	}
	if p.has(opOpen, post) || p.has(opWrite+1, pre) || p.has(opRead, post+1) {
		t.Error("a program that is not there")
	}
	p.bumpEpoch()
	p.bumpEpoch()
	c := p.get()
	defer p.put(c)
	c.In.Ino, c.In.Offset, c.In.Name[0] = 40, 2, 'A'
	if a := mustRun(t, p, c, opLookup, pre); a != actContinue {
		t.Errorf("action %d", a)
	}
	o := &c.Out
	if o.Size != 1<<40 || o.Mtime != 2 || o.Skip != 42 || o.Layer != 1<<16|1<<8|1 || o.ModeClear != ^uint32(0) || o.TTLms != 'A'<<8|1 {
		t.Errorf("flags %d layer %#x skip %d size %d mtime %d mode %#x ttl %#x",
			o.Flags, o.Layer, o.Skip, o.Size, o.Mtime, o.ModeClear, o.TTLms)
	}
	if a := mustRun(t, p, c, opLookup, post); a != -13 {
		t.Errorf("action %d", a)
	}
	if _, err := p.run(c, opOpen, post); !errors.Is(err, errNoProgram) {
		t.Error(err)
	}
}

// Outputs are zero when a program is called, whatever the call before left in
// the slot; only what is said to be used is copied out.
func TestRunZeroes(t *testing.T) {
	p := mustLoad(t, loadOptions{}, "echo.c")
	c := p.get()
	defer p.put(c)
	for range 3 {
		c.In.Size, c.In.Offset = 1000, 4096
		c.Out.Extents[2].Len, c.Out.Data[1] = 7, 7
		if a := mustRun(t, p, c, opOpen, pre); a != actPostfilter {
			t.Fatalf("action %d", a)
		}
		o := &c.Out
		if o.NExtents != 2 || o.Extents[0] != (extent{4096, 10, 0, extZero, 0}) ||
			o.Extents[1] != (extent{4106, 1000, 20, extBacking, 1}) || o.DataLen != 1 || o.Data[0] != 'x' {
			t.Errorf("%d extents %+v, %d bytes %q", o.NExtents, o.Extents[:3], o.DataLen, o.Data[:2])
		}
		if o.Extents[2].Len != 7 || o.Data[1] != 7 {
			t.Error("more was copied than is used")
		}
	}
}

// Garbage in all outputs, and in the slots of others, stays within the call.
func TestRunGarbage(t *testing.T) {
	p := mustLoad(t, loadOptions{}, "garbage.c")
	c := p.get()
	defer p.put(c)
	c.In.Ino = 5
	if a := mustRun(t, p, c, opOpen, pre); a != math.MaxInt32 {
		t.Errorf("action %d", a)
	}
	if c.In.Ino != 5 {
		t.Error("the program changed the private input")
	}
	o := &c.Out
	if o.NExtents != math.MaxUint32 || o.DataLen != math.MaxUint32 || o.Flags != math.MaxUint32 ||
		o.Extents[maxExtents-1].Backing != math.MaxUint32 || o.Data[inlineBytes-1] != 0xff {
		t.Errorf("%d extents, %d bytes", o.NExtents, o.DataLen)
	}
	if a := mustRun(t, p, c, opRead, pre); a != -1 || o.NExtents != math.MaxUint32 {
		t.Errorf("action %d, %d extents", a, o.NExtents)
	}
	p.wrong(opOpen, pre)
	p.wrong(opOpen, post)
	if s := p.snapshot(); s.Programs[0].Wrong != 1 {
		t.Errorf("%+v", s)
	}
}

func TestRunAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop what it is given")
	}
	p := mustLoad(t, loadOptions{}, "echo.c")
	if n := testing.AllocsPerRun(1000, func() {
		c := p.get()
		mustRun(t, p, c, opLookup, pre)
		p.put(c)
	}); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

// A slow program is switched off, and with it all of its object; later calls
// do not run anything.
func TestSlow(t *testing.T) {
	p := mustLoad(t, loadOptions{}, "slow.c")
	c := p.get()
	defer p.put(c)
	mustRun(t, p, c, opOpen, pre)
	waited := p.snapshot().Programs[1].Slow // for a processor, on a busy machine
	c.In.Size = 1
	if _, err := p.run(c, opOpen, pre); !errors.Is(err, errSwitchedOff) {
		t.Fatalf("error %v", err)
	}
	start := time.Now()
	for range 1000 {
		for _, o := range []op{opOpen, opLookup} {
			if _, err := p.run(c, o, pre); !errors.Is(err, errSwitchedOff) {
				t.Fatalf("error %v", err)
			}
		}
	}
	if took := time.Since(start); took > 5*time.Second { // each would take more than 5 ms
		t.Errorf("2000 calls of programs that are switched off took %v", took)
	}
	t.Log(p.whyOff())
	s := p.snapshot()
	if !strings.Contains(s.Off, "section ply/file/open/pre took ") || !strings.Contains(s.Off, "the budget is 5 ms") {
		t.Errorf("reason %q", s.Off)
	}
	if pr := s.Programs[1]; pr.Slow != waited+1 || pr.Runs != 2 {
		t.Errorf("%+v", pr)
	}
}

// Time that a thread waits for a processor does not count against a program.
func TestSlowThread(t *testing.T) {
	p := mustLoad(t, loadOptions{}, "slow.c")
	c := p.get()
	defer p.put(c)
	k := p.slots.take()
	defer p.slots.give(k)
	if _, err := p.askAgain(c, p.program(opOpen, pre), k, time.Second); err != nil || p.whyOff() != "" {
		t.Errorf("error %v, %s", err, p.whyOff())
	}
	p.setBudget(0)
	if _, err := p.run(c, opLookup, pre); !errors.Is(err, errSwitchedOff) {
		t.Error("a budget of 0 is not exceeded:", err)
	}
	if s := p.snapshot(); s.Programs[0].Slow != 1 || s.Programs[1].Slow != 1 {
		t.Errorf("%+v", s)
	}
}

// Closing in the middle of calls crashes nothing and frees all.
func TestCloseWhileRunning(t *testing.T) {
	o := mustRead(t, build(t, "echo.c"))
	p, err := o.load(loadOptions{}) // what is opened once and kept
	skipUnprivileged(t, err)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	before := fds(t)
	for range 10 {
		closeWhileRunning(t, o)
	}
	wantFDs(t, before)
}

func closeWhileRunning(t *testing.T, o *object) {
	p, err := o.load(loadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var runs atomic.Int64
	for range 32 {
		wg.Go(func() { runUntilClosed(t, p, &runs) })
	}
	for runs.Load() < 2000 {
		runtime.Gosched()
	}
	p.bumpEpoch()
	p.Close()
	p.Close()
	wg.Wait()
	if p.users.Load() != 0 || p.epoch() != 1 {
		t.Errorf("%d users, epoch %d", p.users.Load(), p.epoch())
	}
	if s := p.snapshot(); s.Programs[0].Runs != uint64(runs.Load()) {
		t.Errorf("%d runs were counted, %d made", s.Programs[0].Runs, runs.Load())
	}
	if len(p.mapInfo()) != 0 || !errors.Is(p.mapSet("rules", 1, nil), errClosed) {
		t.Error("maps of closed programs")
	}
}

func runUntilClosed(t *testing.T, p *programs, runs *atomic.Int64) {
	for i := uint64(0); ; i++ {
		c := p.get()
		c.In.Ino = i
		a, err := p.run(c, opLookup, pre)
		skip := c.Out.Skip
		p.put(c)
		_ = p.epoch()
		if errors.Is(err, errClosed) {
			return
		}
		if err != nil || a != actContinue || skip != i {
			t.Errorf("error %v, action %d, %d instead of %d", err, a, skip, i)
			return
		}
		runs.Add(1)
	}
}

// More callers than slots wait for one another.
func TestSlots(t *testing.T) {
	var s slots
	s.init()
	var holders [slotCount]atomic.Int32
	var wg sync.WaitGroup
	for range 4 * slotCount {
		wg.Go(func() {
			for range 200 {
				k := s.take()
				if holders[k].Add(1) != 1 {
					t.Error("two hold a slot")
				}
				runtime.Gosched()
				holders[k].Add(-1)
				s.give(k)
			}
		})
	}
	wg.Wait()
	if s.free.Load() != math.MaxUint64 || s.waiting.Load() != 0 {
		t.Errorf("free %#x, waiting %d", s.free.Load(), s.waiting.Load())
	}
}

func TestSnapshot(t *testing.T) {
	p := mustLoad(t, loadOptions{}, "echo.c")
	c := p.get()
	defer p.put(c)
	for range 100 {
		mustRun(t, p, c, opLookup, pre)
	}
	b, err := json.Marshal(p.snapshot())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
	pr := p.snapshot().Programs[0]
	if pr.Section != "ply/inode/lookup/pre" || pr.Runs != 100 || pr.MeanNS == 0 || pr.P50NS == 0 || pr.P99NS < pr.P50NS {
		t.Errorf("%+v", pr)
	}
}

func TestHistogram(t *testing.T) {
	pr := program{spec: mustRead(t, build(t, "echo.c")).progs[progKey{opLookup, pre}]}
	for _, d := range []time.Duration{0, 1, 1000, 1023, 1024, 1 << 62, -5} {
		pr.stats.took(d)
	}
	s := pr.status()
	want := []latencyCount{{1, 2}, {2, 1}, {1024, 2}, {2048, 1}, {1 << 39, 1}}
	if len(s.Latency) != len(want) || s.Runs != 7 || s.P50NS != 1024 || s.P99NS != 1<<39 {
		t.Fatalf("%+v", s)
	}
	for i := range want {
		if s.Latency[i] != want[i] {
			t.Errorf("bucket %d is %+v instead of %+v", i, s.Latency[i], want[i])
		}
	}
}

func BenchmarkRun(b *testing.B) {
	p := mustLoad(b, loadOptions{}, "echo.c")
	for _, k := range []progKey{{opLookup, post}, {opLookup, pre}, {opOpen, pre}} {
		b.Run(k.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c := p.get()
				mustRun(b, p, c, k.op, k.phase)
				p.put(c)
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c := p.get()
				_, _ = p.run(c, opLookup, post)
				p.put(c)
			}
		})
	})
}
