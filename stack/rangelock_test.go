// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Nobody is in a range together with one who holds it exclusively.
func TestRangeLockExcludes(t *testing.T) {
	const cells = 16
	var l rangeLock
	var readers, writers [cells]atomic.Int32
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(w), 7))
			for range 2000 {
				from := r.IntN(cells)
				to := from + 1 + r.IntN(cells-from)
				excl := r.IntN(3) == 0
				s := l.lockRange(int64(from), int64(to), excl)
				for c := from; c < to; c++ {
					if excl {
						if writers[c].Add(1) != 1 || readers[c].Load() != 0 {
							t.Errorf("cell %d is not held alone", c)
						}
					} else {
						readers[c].Add(1)
						if writers[c].Load() != 0 {
							t.Errorf("cell %d is read and written", c)
						}
					}
				}
				for c := from; c < to; c++ {
					if excl {
						writers[c].Add(-1)
					} else {
						readers[c].Add(-1)
					}
				}
				s.unlock()
			}
		}()
	}
	wg.Wait()
	if len(l.held) != 0 {
		t.Errorf("%d ranges are still held", len(l.held))
	}
}

// Ranges apart from each other, and readers, do not wait.
func TestRangeLockDoesNotWaitInVain(t *testing.T) {
	var l rangeLock
	a := l.lockRange(0, 10, true)
	b := l.lockRange(10, wholeRange, true)
	b.unlock()
	c := l.lockRange(20, 30, false)
	d := l.lockRange(25, 35, false)
	got := make(chan *span)
	go func() { got <- l.lockRange(5, 6, false) }()
	select {
	case <-got:
		t.Fatal("a reader came in beside a writer")
	case <-time.After(50 * time.Millisecond):
	}
	a.unlock()
	(<-got).unlock()
	c.unlock()
	d.unlock()
}
