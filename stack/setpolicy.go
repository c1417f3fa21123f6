// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"strings"
	"syscall"
	"time"
)

// SetPolicy replaces the policy of a live mount; nil takes it away. When it
// returns, every name and every byte that the mount gives from then on is as
// the new policy says, whatever the kernel had kept, with one exception: a
// descriptor that is passed through to a backing file by then, or a mapping of
// it, goes on showing that file, for the kernel cannot take it back. Whoever
// opens the same file anew gets what the new policy says. It waits for calls of
// the old policy that are under way.
//
// On an error everything is as it was, and p is closed. KindUsage: p answers by
// caller and the mount began without a policy, so that the kernel shares its
// listings.
func (fs *FS) SetPolicy(p Policy) error {
	fs.setting.Lock()
	defer fs.setting.Unlock()
	if p != nil && !fs.answersOpenDir {
		s := &policyState{Policy: p}
		if sc := fs.scopeOf(s, "/"); sc.NamesByCaller || sc.BelowByCaller {
			fs.closePolicy(s)
			return &Error{Kind: KindUsage, Path: fs.cfg.Mountpoint,
				Msg:  "the policy answers by caller, but the mount began without a policy, and the kernel shares its listings among all callers",
				Mend: "unmount, and mount again with this policy"}
		}
	}
	old := fs.pol()
	next := &policyState{Policy: p, gen: 1}
	if p != nil {
		next.epoch = fs.epochOf(p)
	}
	if old != nil {
		next.gen = old.gen + 1
	} else if fs.lastGen > 0 {
		next.gen = fs.lastGen + 1
	}
	fs.lastGen = next.gen
	if p == nil {
		next = nil
	}
	fs.policy.Store(next)
	fs.recheck(old, next)
	if old != nil {
		fs.closePolicy(old)
	}
	return nil
}

// epochOf is the epoch of a policy, which may panic.
func (fs *FS) epochOf(p Policy) (epoch uint64) {
	defer fs.policyPanics(func() { epoch = 0 })
	return p.Epoch()
}

// policyPoll is how often the policy's epoch is looked at.
const policyPoll = 50 * time.Millisecond

// policyWatcher makes the mount follow when the policy's answers change.
func (fs *FS) policyWatcher(stop <-chan struct{}) {
	tick := time.NewTicker(policyPoll)
	defer tick.Stop()
	var gen, epoch uint64
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		p := fs.usePolicy()
		if p == nil {
			continue
		}
		if p.gen != gen {
			gen, epoch = p.gen, p.epoch
		}
		e := fs.epochOf(p)
		p.using.RUnlock()
		if e != epoch {
			epoch = e
			fs.RefreshPolicy()
		}
	}
}

// RefreshPolicy asks the policy anew about all that is known: its answers have
// changed. It does for them what SetPolicy does for a new policy.
func (fs *FS) RefreshPolicy() {
	fs.setting.Lock()
	defer fs.setting.Unlock()
	if p := fs.pol(); p != nil {
		fs.recheck(p, p)
	}
}

// recheck makes what is known of names and files what the policy now says, and
// then has the kernel forget what it has kept. No lock is held: whoever
// decided by the old policy did so under the lock of a node that is visited
// after the new one came into force.
func (fs *FS) recheck(old, next *policyState) {
	fs.answers.Add(1)
	kept, gone := fs.recheckNames(old, next)
	fs.nodes.each(fs.recheckFile)
	if fs.dev == nil {
		return
	}
	fs.notifyEntries(gone, fs.dev.dropEntry)
	fs.notifyEntries(kept, fs.dev.expireEntry)
	fs.nodes.each(func(n *node) {
		if err := fs.dev.invalPages(n.id); err != nil {
			fs.log.Debug("notify", "node", n.id, "err", err)
		}
	})
	// The answer to a lookup may have been on its way to its caller, who sets
	// the name's time afterwards; the name leads where it led, but for how long
	// is an answer of the old policy. Pages and attributes have no such gap.
	time.Sleep(answerGap)
	fs.notifyEntries(kept, fs.dev.expireEntry)
}

// answerGap is longer than it takes most callers to wake up and read an answer.
const answerGap = 20 * time.Millisecond

func (fs *FS) notifyEntries(entries []nameRef, notify func(parent uint64, name string) error) {
	for _, e := range entries {
		if err := notify(e.parent.id, e.name); err != nil {
			fs.log.Debug("notify", "name", e.name, "err", err)
		}
	}
}

// recheckNames goes through the known names from the root down, takes those
// away that lead elsewhere now, and returns all that the kernel may have kept.
func (fs *FS) recheckNames(old, next *policyState) (kept, gone []nameRef) {
	fs.moving.Lock() // no directory slips from what is to be visited to what was
	defer fs.moving.Unlock()
	for dirs := []*node{fs.root}; len(dirs) > 0; {
		p := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		var moved []*node
		p.mu.Lock()
		for key, c := range p.dir.children {
			name, _, variant := strings.Cut(key, "/")
			switch {
			case p.detached:
				moved = append(moved, c)
				gone = append(gone, nameRef{p, name})
			case !variant && fs.leadsTo(old, next, p, name, c):
				kept = append(kept, nameRef{p, name})
				if c.isDir() {
					dirs = append(dirs, c)
				}
			default:
				fs.detach(p, name, c)
				moved = append(moved, c)
				gone = append(gone, nameRef{p, name})
			}
		}
		p.mu.Unlock()
		for _, c := range moved {
			gone = fs.detachTree(c, gone)
		}
	}
	return kept, gone
}

// leadsTo tells whether a name still leads to a node.
// Precondition: p.mu is held for writing.
func (fs *FS) leadsTo(old, next *policyState, p *node, name string, c *node) bool {
	c = c.current()
	place := fs.placeOf(p, name)
	was, is := fs.scopeOf(old, place), fs.scopeOf(next, place)
	if !was.Names && !is.Names {
		return true
	}
	if is.Names && is.NamesByCaller {
		c.ttl.Store(1)
		return c.isDir() // asked about each time
	}
	f, err := fs.resolve(p, name, Nobody)
	defer f.discard()
	if err != nil || !c.is(f) {
		return false
	}
	c.ttl.Store(0)
	if f.ruled {
		c.ttl.Store(int64(f.ttl) + 1)
	}
	return true
}

// detachTree makes a directory that a policy hides refuse all that is asked
// through it, and all below it; it adds the names that the kernel may have kept
// there.
func (fs *FS) detachTree(n *node, entries []nameRef) []nameRef {
	if !n.isDir() {
		return entries
	}
	n.mu.Lock()
	n.detached = true
	var below []*node
	for key, c := range n.dir.children {
		name, _, _ := strings.Cut(key, "/")
		entries = append(entries, nameRef{n, name})
		below = append(below, c)
	}
	n.mu.Unlock()
	for _, c := range below {
		entries = fs.detachTree(c, entries)
	}
	return entries
}

// recheckFile has the handles that the daemon serves show what the policy now
// says. Those of a retired node are not told apart any more: they get ESTALE.
func (fs *FS) recheckFile(n *node) {
	if !n.isReg() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.io == nil:
	case n.io.opens == 0 || n.io.mode != modeServer:
		n.io.cacheTag, n.io.gen = unknownTag, unknownGen
	case n.succ.Load() != nil:
		n.io.serveLocked(&decision{plan: fs.failingPlan(syscall.ESTALE)})
	default:
		fs.redecideLocked(n)
	}
}
