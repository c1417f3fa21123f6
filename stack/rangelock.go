// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"math"
	"slices"
	"sync"
)

// A rangeLock locks byte ranges of one file, shared by those who look where
// bytes are and then read them, exclusively by those who move them there. So a
// reader waits only for the blocks that it wants. The zero value is free.
type rangeLock struct {
	mu   sync.Mutex
	free sync.Cond // something was released; L is mu
	held []*span
	wait []*span // first come first
}

// A span is a locked range.
type span struct {
	from, to int64
	excl     bool
	lock     *rangeLock
}

// wholeRange is the end of a range that reaches as far as files do.
const wholeRange = math.MaxInt64

// lockRange waits for the range [from, to) and locks it.
func (l *rangeLock) lockRange(from, to int64, excl bool) *span {
	s := &span{from: from, to: to, excl: excl, lock: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.L == nil {
		l.free.L = &l.mu
	}
	l.wait = append(l.wait, s)
	for l.conflicts(s) {
		l.free.Wait()
	}
	l.wait = slices.DeleteFunc(l.wait, func(w *span) bool { return w == s })
	l.held = append(l.held, s)
	if len(l.wait) > 0 {
		l.free.Broadcast() // those who waited for it to go first, and share
	}
	return s
}

// conflicts tells whether a range must wait: for one that is held, or for one
// that has waited longer. Precondition: l.mu is held.
func (l *rangeLock) conflicts(s *span) bool {
	if slices.ContainsFunc(l.held, s.excludes) {
		return true
	}
	for _, w := range l.wait {
		if w == s {
			return false
		}
		if s.excludes(w) {
			return true
		}
	}
	return false
}

// excludes tells whether two ranges cannot be held together.
func (s *span) excludes(o *span) bool {
	return (s.excl || o.excl) && o.from < s.to && s.from < o.to
}

// unlock releases the range.
func (s *span) unlock() {
	l := s.lock
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, h := range l.held {
		if h == s {
			last := len(l.held) - 1
			l.held[i] = l.held[last]
			l.held[last] = nil
			l.held = l.held[:last]
			break
		}
	}
	l.free.Broadcast()
}
