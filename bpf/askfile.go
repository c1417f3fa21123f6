// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"slices"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/stack"
)

// File implements stack.Policy: open programs.
func (p *Policy) File(q stack.FileQuery) stack.FileAnswer {
	_, file := p.nearest(q.Place)
	for _, r := range file {
		if !r.hasAny(opOpen) {
			continue
		}
		if a, say := r.file(q); say {
			a.Rule = r.label()
			return a
		}
	}
	if len(file) > 0 {
		return stack.FileAnswer{Rule: file[0].label()}
	}
	return stack.FileAnswer{}
}

// file asks one rule; say is false where it leaves the file as it is.
func (r *rule) file(q stack.FileQuery) (a stack.FileAnswer, say bool) {
	ask := r.newQuestion(opOpen, q.Place, q.Name, q.Caller)
	ask.fillFile(q)
	c := r.progs.get()
	defer r.progs.put(c)
	action, err := ask.firstAction(c, opOpen)
	if err != nil {
		return stack.FileAnswer{Errno: errnoOf(err)}, err != errNoSay
	}
	if action == actUser {
		return a, false
	}
	plan, err := ask.plan(c, q)
	if err != nil {
		return stack.FileAnswer{Errno: errnoOf(err)}, err != errNoSay
	}
	if action != actContinue {
		if err := ask.fileAfter(c, action, plan); err != nil {
			if plan != nil {
				plan.Release()
			}
			return stack.FileAnswer{Errno: errnoOf(err)}, err != errNoSay
		}
	}
	return stack.FileAnswer{Plan: plan}, plan != nil
}

// fileAfter has the post program, or the handler, see the size that is shown.
func (q *question) fileAfter(c *call, action int32, plan *stack.Plan) error {
	if q.in.Flags&inAttr != 0 {
		return nil // nothing was opened
	}
	if plan != nil {
		q.in.Size = uint64(plan.Size)
	}
	return q.after(c, opOpen, action, nil)
}

func (q *question) fillFile(fq stack.FileQuery) {
	in := &q.in
	in.Ino, in.Parent = fq.Ino, fq.Parent
	in.Size, in.Mtime, in.Mode = uint64(max(fq.Size, 0)), uint64(fq.Mtime), fq.Mode
	in.Length = in.Size
	in.Layers, in.Layer, in.NLayers = fq.Holders, uint32(fq.Layer), uint32(fq.Layers)
	in.Flags = flagIf(fq.AttrOnly, inAttr) | flagIf(fq.Write, inWrite) | flagIf(fq.CopyUp, inCopyUp) | flagIf(fq.Copied, inCopied)
	q.data = fq.Data
}

func flagIf(set bool, flag uint32) uint32 {
	if set {
		return flag
	}
	return 0
}

// plan makes a plan of an answer; nil if the file is shown as it is.
func (q *question) plan(c *call, fq stack.FileQuery) (*stack.Plan, error) {
	size := fq.Size
	if c.Out.Flags&^(outSize|outNoCache) != 0 {
		return nil, q.wrong(opOpen, pre, "flags %#x are not for files", c.Out.Flags)
	}
	sized := c.Out.Flags&outSize != 0
	if sized {
		n, ok := toInt64(c.Out.Size)
		if !ok {
			return nil, q.wrong(opOpen, pre, "size %d is too large", c.Out.Size)
		}
		size = n[0]
	}
	switch {
	case fq.AttrOnly && !sized, c.Out.NExtents == 0 && size == fq.Size && !fq.AttrOnly:
		return nil, nil
	case fq.AttrOnly, size == 0:
		return q.newPlan(size, nil), nil
	}
	first, err := q.window(c, opOpen)
	if err != nil {
		return nil, err
	}
	return q.newPlan(size, &first), nil
}

// newPlan makes a plan that goes on asking the rule for windows.
func (q *question) newPlan(size int64, first *stack.Window) *stack.Plan {
	r := q.r
	r.policy.retain()
	p := &stack.Plan{Size: size, Parts: r.parts, Release: sync.OnceFunc(r.policy.release)}
	// What is kept is the question as it was asked; the file that a handler
	// read is not open any more.
	again := *q
	again.data = nil
	p.Window = func(off int64) (stack.Window, error) {
		if off == 0 && first != nil {
			return *first, nil
		}
		return again.nextWindow(off, size)
	}
	if s, ok := r.handler.(Server); ok {
		p.Serve = func(b []byte, off int64) error { return s.Serve(again.handlerCall(opOpen, pre), b, off) }
	}
	return p
}

// nextWindow asks for the extents from off on.
func (q *question) nextWindow(off, size int64) (stack.Window, error) {
	ask := *q
	ask.in.Offset = uint64(off)
	ask.in.Length = max(ask.in.Size, ask.in.Offset) - ask.in.Offset
	c := ask.r.progs.get()
	defer ask.r.progs.put(c)
	action, err := ask.ask(c, opOpen, pre)
	switch {
	case err == errNoSay:
		return stack.Window{}, syscall.EIO // in the middle of a file there is no "as if"
	case err != nil:
		return stack.Window{}, err
	case action == actUser:
		return stack.Window{}, ask.wrong(opOpen, pre, "it has no extents for byte %d of %d", off, size)
	}
	if shown := ask.shownSize(&c.Out); shown != uint64(size) {
		return stack.Window{}, ask.wrong(opOpen, pre, "the size is %d in one window and %d in another", size, shown)
	}
	return ask.window(c, opOpen)
}

func (q *question) shownSize(out *output) uint64 {
	if out.Flags&outSize != 0 {
		return out.Size
	}
	return q.in.Size
}

// window checks what only the ABI knows of extents, and makes them the
// stack's, which checks the rest.
func (q *question) window(c *call, o op) (w stack.Window, err error) {
	out := &c.Out
	switch {
	case out.NExtents > maxExtents:
		return w, q.wrong(o, pre, "%d extents, of at most %d", out.NExtents, maxExtents)
	case out.DataLen > inlineBytes:
		return w, q.wrong(o, pre, "%d inline bytes, of at most %d", out.DataLen, inlineBytes)
	}
	w.Extents = make([]stack.Extent, out.NExtents)
	for i := range w.Extents {
		if w.Extents[i], err = q.extent(&out.Extents[i], i, o); err != nil {
			return stack.Window{}, err
		}
	}
	w.Data = slices.Clone(out.Data[:out.DataLen])
	return w, nil
}

func (q *question) extent(e *extent, i int, o op) (x stack.Extent, err error) {
	n, ok := toInt64(e.Off, e.Len, e.Src)
	if !ok {
		return x, q.wrong(o, pre, "extent %d: offset %d, length %d or source %d is too large", i, e.Off, e.Len, e.Src)
	}
	x = stack.Extent{Off: n[0], Len: n[1], Src: n[2]}
	switch e.Kind {
	case extBacking:
		x.Kind = stack.ExtentBacking
		if x.Backing, ok = q.backing(e.Backing); !ok {
			return x, q.wrong(o, pre, "extent %d: there is no backing file %d", i, e.Backing)
		}
	case extZero:
		x.Kind, x.Src = stack.ExtentZero, 0
	case extInline:
		x.Kind = stack.ExtentInline
	case extServer:
		x.Kind = stack.ExtentServer
	default:
		return x, q.wrong(o, pre, "extent %d: there is no kind %d", i, e.Kind)
	}
	return x, nil
}

// backing is the stack's name of a backing file.
func (q *question) backing(b uint32) (stack.Backing, bool) {
	switch {
	case b == backingSelf:
		return stack.Self, true
	case b >= backingPart && b-backingPart < uint32(len(q.r.parts)):
		return stack.PartBacking(int(b - backingPart)), true
	case b > 0 && b < 63 && q.in.Layers>>b&1 == 1:
		return stack.LayerBacking(int(b)), true
	case b == 0 && q.in.Layer == 0: // upper, where the file is
		return stack.Self, true
	}
	return 0, false
}

// Data implements stack.Policy: read and write programs.
func (p *Policy) Data(q stack.DataQuery) stack.DataAnswer {
	_, file := p.nearest(q.Place)
	o := opRead
	if q.Write {
		o = opWrite
	}
	for _, r := range file {
		if r.hasAny(o) {
			return r.dataOp(q, o)
		}
	}
	return stack.DataAnswer{}
}

func (r *rule) dataOp(q stack.DataQuery, o op) stack.DataAnswer {
	ask := r.newQuestion(o, q.Place, q.Name, q.Caller)
	ask.fillFile(q.FileQuery)
	ask.in.Offset, ask.in.Length = uint64(q.Off), uint64(q.Len)
	c := r.progs.get()
	defer r.progs.put(c)
	if q.After != 0 {
		ask.bytes = q.Data
		ask.in.NameLen = uint32(copy(ask.in.Name[:], q.Data))
		return stack.DataAnswer{Errno: errnoOf(ask.after(c, o, int32(q.After), nil))}
	}
	action, err := ask.firstAction(c, o)
	if err != nil || action == actUser {
		return stack.DataAnswer{Errno: errnoOf(err)}
	}
	var a stack.DataAnswer
	if action != actContinue {
		a.Again = uint8(action)
	}
	if o == opWrite || c.Out.NExtents == 0 {
		return a
	}
	w, err := ask.window(c, o)
	if err != nil {
		return stack.DataAnswer{Errno: errnoOf(err)}
	}
	a.Window, a.Parts = &w, r.parts
	return a
}
