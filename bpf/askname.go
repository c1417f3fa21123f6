// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"syscall"
	"time"

	"github.com/plyfs/plyfs/stack"
)

// Name implements stack.Policy: lookup and readdir programs.
func (p *Policy) Name(q stack.NameQuery) stack.NameAnswer {
	inode, _ := p.nearest(q.Place)
	for _, r := range inode {
		if !r.hasAny(opLookup, opReaddir) {
			continue
		}
		if a, say := r.name(q); say {
			return a
		}
	}
	return stack.NameAnswer{}
}

// name asks one rule; say is false where it leaves the name as it is.
func (r *rule) name(q stack.NameQuery) (a stack.NameAnswer, say bool) {
	o, asked := opLookup, opLookup
	if q.Listing {
		asked = opReaddir
		if r.progs.has(opReaddir, pre) || !r.progs.has(opLookup, pre) && r.progs.has(opReaddir, post) {
			o = opReaddir
		}
	}
	ask := r.newQuestion(asked, q.Place, q.Name, q.Caller)
	ask.fillName(q)
	c := r.progs.get()
	defer r.progs.put(c)
	if q.After != 0 {
		err := ask.after(c, o, int32(q.After), nil)
		return stack.NameAnswer{Errno: errnoOf(err)}, err != nil && err != errNoSay
	}
	action, err := ask.firstAction(c, o)
	if err != nil {
		return stack.NameAnswer{Errno: errnoOf(err)}, err != errNoSay
	}
	if action == actUser {
		return a, false
	}
	if a, err = ask.nameAnswer(c, o, q); err != nil {
		return stack.NameAnswer{Errno: errnoOf(err)}, true
	}
	if action != actContinue {
		a, err = ask.nameAfter(c, o, action, a, q)
		if err != nil {
			return stack.NameAnswer{Errno: errnoOf(err)}, err != errNoSay
		}
	}
	return a, a != stack.NameAnswer{}
}

// nameAfter has the post program asked: at once about a listing, which does
// not resolve names, else when the stack knows what was chosen.
func (q *question) nameAfter(c *call, o op, action int32, a stack.NameAnswer, nq stack.NameQuery) (stack.NameAnswer, error) {
	if !nq.Listing && !a.Hide {
		a.Again = uint8(action)
		return a, nil
	}
	if action == actPostfilter && nq.Listing && q.r.progs.has(opReaddir, post) {
		o = opReaddir // though lookup/pre may have answered
	}
	var failed error
	if a.Hide {
		failed = syscall.ENOENT
	}
	return a, q.after(c, o, action, failed)
}

func (q *question) fillName(nq stack.NameQuery) {
	in := &q.in
	in.Parent, in.Layers, in.NLayers, in.Mode = nq.Parent, nq.Holders, uint32(nq.Layers), nq.Type
	if nq.Layer > 0 {
		in.Layer = uint32(nq.Layer)
	}
	if nq.After != 0 {
		in.Ino = nq.Ino
	}
	if !nq.Listing {
		in.Mode, in.Size = nq.Mode, uint64(max(nq.Size, 0))
	}
}

// nameAnswer checks what a lookup or readdir program put out.
func (q *question) nameAnswer(c *call, o op, nq stack.NameQuery) (a stack.NameAnswer, err error) {
	out := &c.Out
	if out.Flags&^(outHide|outChoose|outNoCache) != 0 {
		return a, q.wrong(o, pre, "flags %#x are not for names", out.Flags)
	}
	a.Hide = out.Flags&outHide != 0
	a.NoCache = out.Flags&outNoCache != 0
	a.TTL = time.Duration(out.TTLms) * time.Millisecond
	if nq.Listing {
		return a, nil
	}
	a.Skip = out.Skip
	if out.Flags&outChoose != 0 {
		if out.Layer == 0 || out.Layer > 62 || nq.Holders>>out.Layer&1 == 0 {
			return a, q.wrong(o, pre, "layer %d does not hold the name, or is not lower", out.Layer)
		}
		a.Layer = int(out.Layer)
	}
	return a, nil
}

// Attr implements stack.Policy: getattr programs. What they answer is shown to
// everybody, so they do not see who asks.
func (p *Policy) Attr(q stack.AttrQuery) stack.AttrAnswer {
	inode, _ := p.nearest(q.Place)
	for _, r := range inode {
		if r.hasAny(opGetattr) {
			return r.attr(q)
		}
	}
	return stack.AttrAnswer{}
}

func (r *rule) attr(q stack.AttrQuery) stack.AttrAnswer {
	ask := r.newQuestion(opGetattr, q.Place, baseName(q.Place), stack.Nobody)
	ask.in.Ino, ask.in.Mode, ask.in.Size, ask.in.Mtime = q.Ino, q.Mode, uint64(q.Size), uint64(q.Mtime)
	ask.in.Layer = uint32(q.Layer)
	c := r.progs.get()
	defer r.progs.put(c)
	action, err := ask.firstAction(c, opGetattr)
	if err == nil && action != actUser {
		if err = ask.after(c, opGetattr, action, nil); err == nil {
			return ask.attrAnswer(c, phaseOf(action))
		}
	}
	return stack.AttrAnswer{Errno: errnoOf(err)}
}

// phaseOf tells which program's output is looked at: with PLY_POSTFILTER that
// of the post program.
func phaseOf(action int32) phase {
	if action == actPostfilter {
		return post
	}
	return pre
}

// attrAnswer checks what a getattr program put out.
func (q *question) attrAnswer(c *call, ph phase) (a stack.AttrAnswer) {
	out := &c.Out
	if out.Flags&^(outMtime|outMode|outNoCache) != 0 {
		return stack.AttrAnswer{Errno: errnoOf(q.wrong(opGetattr, ph, "flags %#x are not for attributes", out.Flags))}
	}
	if out.Flags&outMtime != 0 {
		a.SetMtime, a.Mtime = true, int64(out.Mtime)
	}
	if out.Flags&outMode != 0 {
		a.ClearMode = out.ModeClear
	}
	return a
}

func baseName(place string) string {
	for i := len(place) - 1; i >= 0; i-- {
		if place[i] == '/' {
			return place[i+1:]
		}
	}
	return place
}
