// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// bucketCount buckets of powers of two reach over 500 seconds.
const bucketCount = 40

// stats counts what a program did. The zero value is ready; no method locks.
type stats struct {
	buckets     [bucketCount]atomic.Uint64 // runs that took less than 2^i ns, and no less than half of it
	nanoseconds atomic.Uint64              // of all runs
	errors      atomic.Uint64              // runs that the kernel did not make
	wrong       atomic.Uint64              // answers that mean nothing
	slow        atomic.Uint64              // runs over the budget
}

// took counts a run.
func (s *stats) took(d time.Duration) {
	ns := uint64(max(d, 0))
	s.buckets[min(bits.Len64(ns), bucketCount-1)].Add(1)
	s.nanoseconds.Add(ns)
}

// wrong counts an answer that means nothing.
func (p *programs) wrong(o op, ph phase) {
	if pr := p.program(o, ph); pr != nil {
		pr.stats.wrong.Add(1)
	}
}

// objectStatus is what "plyfs status" says about an object.
type objectStatus struct {
	Object   string          `json:"object"`
	ABI      int             `json:"abi"`
	Caller   bool            `json:"caller"`
	Epoch    uint64          `json:"epoch"`
	BudgetNS int64           `json:"budget_ns"`
	Off      string          `json:"off,omitempty"` // why the programs are switched off
	Programs []programStatus `json:"programs"`
}

// programStatus is what one program did since it was loaded.
type programStatus struct {
	Section  string         `json:"section"`
	Function string         `json:"function"`
	Runs     uint64         `json:"runs"`
	Errors   uint64         `json:"errors"`
	Wrong    uint64         `json:"wrong_answers"`
	Slow     uint64         `json:"slow"`
	MeanNS   uint64         `json:"mean_ns"`
	P50NS    uint64         `json:"p50_ns"` // rounded up to a power of two, as P99NS
	P99NS    uint64         `json:"p99_ns"`
	Latency  []latencyCount `json:"latency"`
}

// latencyCount is a bucket that is not empty.
type latencyCount struct {
	BelowNS uint64 `json:"below_ns"` // and at least half of it
	Runs    uint64 `json:"runs"`
}

// snapshot is the state now. Calls that are being made meanwhile may be counted
// in some numbers and not yet in others.
func (p *programs) snapshot() objectStatus {
	s := objectStatus{
		Object: p.object.name, ABI: p.object.abi, Caller: p.object.caller, Epoch: p.epoch(),
		BudgetNS: int64(p.budget.limit()), Off: p.whyOff(), Programs: []programStatus{},
	}
	p.each(func(pr *program) { s.Programs = append(s.Programs, pr.status()) })
	return s
}

func (pr *program) status() programStatus {
	s := programStatus{
		Section: pr.key.String(), Function: pr.spec.Name,
		Errors: pr.stats.errors.Load(), Wrong: pr.stats.wrong.Load(), Slow: pr.stats.slow.Load(),
		Latency: []latencyCount{},
	}
	for i := range pr.stats.buckets {
		if n := pr.stats.buckets[i].Load(); n > 0 {
			s.Latency = append(s.Latency, latencyCount{BelowNS: 1 << i, Runs: n})
			s.Runs += n
		}
	}
	if s.Runs > 0 {
		s.MeanNS = pr.stats.nanoseconds.Load() / s.Runs
	}
	s.P50NS, s.P99NS = percentile(s.Latency, s.Runs, 50), percentile(s.Latency, s.Runs, 99)
	return s
}

// percentile is the upper bound of the bucket that the given part of the runs
// does not go beyond; 0 without runs.
func percentile(l []latencyCount, runs, percent uint64) uint64 {
	var seen uint64
	for _, b := range l {
		if seen += b.Runs; seen*100 >= runs*percent {
			return b.BelowNS
		}
	}
	return 0
}
