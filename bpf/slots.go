// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// slots hands out the slots of ply_slots. A call that finds one free takes no
// lock.
type slots struct {
	free    atomic.Uint64 // bit k: slot k is free
	waiting atomic.Int64
	mu      sync.Mutex
	given   *sync.Cond
}

func (s *slots) init() {
	s.free.Store(^uint64(0) >> (64 - slotCount))
	s.given = sync.NewCond(&s.mu)
}

// take waits for a free slot.
func (s *slots) take() uint32 {
	if k, ok := s.try(); ok {
		return k
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	for {
		if k, ok := s.try(); ok {
			return k
		}
		s.given.Wait()
	}
}

func (s *slots) try() (uint32, bool) {
	for {
		free := s.free.Load()
		if free == 0 {
			return 0, false
		}
		if s.free.CompareAndSwap(free, free&(free-1)) {
			return uint32(bits.TrailingZeros64(free)), true
		}
	}
}

// give gives a slot back. Who waits has counted itself before it looked.
func (s *slots) give(k uint32) {
	s.free.Or(1 << k)
	if s.waiting.Load() > 0 {
		s.mu.Lock()
		s.given.Signal()
		s.mu.Unlock()
	}
}
