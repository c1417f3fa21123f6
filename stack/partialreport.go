// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// largestShown is how many partial files a status names.
const largestShown = 8

// partialStatus sums up the partial files that the mount has met; nil for a
// read-only mount.
func (fs *FS) partialStatus() *PartialStatus {
	if fs.upper == nil {
		return nil
	}
	c := &fs.completer
	s := &PartialStatus{CopyUp: fs.cfg.CopyUp, Why: fs.noPartial, Rate: max(0, fs.cfg.CompleteRate),
		Completed: fs.count.completed.Load(), CompletedBytes: fs.count.completedBytes.Load()}
	c.mu.Lock()
	s.Waiting = c.waiting
	c.mu.Unlock()
	now := c.current.Load()
	if now != nil {
		now = now.current()
	}
	fs.nodes.each(func(n *node) {
		f, state, ok := fs.partialFile(n)
		switch {
		case !ok:
		case state == partEmpty:
			s.MetadataOnly++
		case state == partAll:
			s.Unsynced++
		default:
			s.Files++
			s.UpperBytes += f.UpperBytes
			s.BytesLeft += f.BytesLeft
			s.Largest = append(s.Largest, f)
			if n == now && f.Size > 0 {
				s.Current, s.CurrentPercent = f.Path, 100*(1-float64(f.BytesLeft)/float64(f.Size))
			}
		}
	})
	slices.SortFunc(s.Largest, func(a, b PartialFile) int { return cmp.Compare(b.BytesLeft, a.BytesLeft) })
	s.Largest = s.Largest[:min(len(s.Largest), largestShown)]
	return s
}

// partialFile describes a node if it is a partial file.
func (fs *FS) partialFile(n *node) (f PartialFile, state partState, ok bool) {
	if n.succ.Load() != nil {
		return f, 0, false
	}
	n.mu.RLock()
	q := n.partial()
	if !n.up || q == nil || n.unlinked {
		n.mu.RUnlock()
		return f, 0, false
	}
	q.mu.Lock()
	state = q.state
	q.mu.Unlock()
	f.BytesLeft = fs.leftLocked(n)
	var st unix.Stat_t
	r, err := fs.refLocked(n)
	if err == nil {
		err = r.stat(&st)
	}
	n.mu.RUnlock()
	f.Size, f.UpperBytes, f.Path = st.Size, 512*st.Blocks, fs.pathOf(n)
	return f, state, err == nil
}

// describePartial adds what is copied of a file, and what not.
// Precondition: n.mu is held for writing.
func (fs *FS) describePartial(e *Explanation, n *node) {
	q := n.partial()
	if q == nil || !n.up {
		return
	}
	q.mu.Lock()
	limit, path, state := q.limit, q.path, q.state
	q.mu.Unlock()
	words := map[partState]string{
		partEmpty: "no data in upper: the lower file's bytes are shown",
		partSome:  fmt.Sprintf("about %d bytes are still read from lower", fs.leftLocked(n)),
		partAll:   "all data in upper, not synced yet",

		partUnknown: "not looked at yet",
	}
	e.Records = append(e.Records, fmt.Sprintf("partial: %s; lower file %s in layer %d below byte %d", words[state], path, q.origin.Layer, limit))
}
