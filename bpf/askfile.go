// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"slices"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/bpf/internal/config"
	"github.com/plyfs/plyfs/stack"
)

// File implements stack.Policy: open programs.
func (p *Policy) File(q stack.FileQuery) stack.FileAnswer {
	_, file := p.nearest(q.Place)
	for _, r := range file {
		if !r.hasAny(opOpen) {
			continue
		}
		a, say, user := r.file(q)
		if a.Plan == nil && a.Errno == 0 && q.Layer == 0 && !user && r.mayBlank(q.Name) {
			a.Server, a.Why, say = true, r.label()+" may blank what is written to it", true
		}
		if say {
			a.Rule = r.label()
			return a
		}
	}
	if len(file) > 0 {
		return stack.FileAnswer{Rule: file[0].label()}
	}
	return stack.FileAnswer{}
}

// file asks one rule; say is false where it leaves the file as it is, and user
// is set where the program wants nothing to do with it (PLY_USER).
func (r *rule) file(q stack.FileQuery) (a stack.FileAnswer, say, user bool) {
	ask := r.newQuestion(opOpen, q.Place, q.Name, q.Caller)
	ask.fillFile(q)
	c := r.progs.get()
	defer r.progs.put(c)
	action, err := ask.firstAction(c, opOpen)
	if err != nil {
		return stack.FileAnswer{Errno: errnoOf(err)}, err != errNoSay, err == errNoSay
	}
	if action == actUser {
		return a, r.matches(q.Name), true
	}
	plan, err := ask.plan(c, q)
	if err != nil {
		return stack.FileAnswer{Errno: errnoOf(err)}, err != errNoSay, false
	}
	if action != actContinue {
		if err := ask.fileAfter(c, action, plan); err != nil {
			if plan != nil {
				plan.Release()
			}
			return stack.FileAnswer{Errno: errnoOf(err)}, err != errNoSay, false
		}
	}
	return stack.FileAnswer{Plan: plan}, plan != nil || r.matches(q.Name), false
}

// matches tells whether the file is one of those that the rule names. Then it
// has the say, even if it leaves the file as it is: which of several rules of a
// place that is must not depend on what is asked, the size or the bytes.
func (r *rule) matches(name string) bool {
	return slices.ContainsFunc(r.Match, func(pattern string) bool { return config.Match(pattern, name) })
}

// mayBlank tells whether the rule may have something to say about a file in
// upper once more was written to it, though it has not yet. Then the kernel must
// not be handed the file: it could not be taken back. An object whose program
// answers PLY_USER says that it never will.
func (r *rule) mayBlank(name string) bool {
	return r.Program != config.Prepend && r.Program != config.Split && (len(r.Match) == 0 || r.matches(name))
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
	if err := q.fileFlags(c, opOpen, outSize|outNoCache); err != nil {
		return nil, err
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
		return q.newPlan(size, nil)
	}
	first, err := q.window(c, opOpen)
	if err != nil {
		return nil, err
	}
	return q.newPlan(size, &first)
}

// fileFlags checks the flags of the output.
func (q *question) fileFlags(c *call, o op, allowed uint32) error {
	if c.Out.Flags&^allowed != 0 {
		return q.wrong(o, pre, "flags %#x are not for this", c.Out.Flags)
	}
	return nil
}

// newPlan makes a plan that goes on asking the rule for windows.
func (q *question) newPlan(size int64, first *stack.Window) (*stack.Plan, error) {
	r := q.r
	if !r.policy.retain() {
		return nil, r.failed(errClosed)
	}
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
	return p, nil
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
	if err := ask.fileFlags(c, opOpen, outSize|outNoCache); err != nil {
		return stack.Window{}, err
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
	if err := ask.fileFlags(c, o, outNoCache); err != nil {
		return stack.DataAnswer{Errno: errnoOf(err)}
	}
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
