// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/bpf/internal/location"
	"github.com/plyfs/plyfs/stack"
)

// maxErrno is the largest errno that a program can answer with.
const maxErrno = 511

// A question is asked of one rule: the input that all its programs see, and
// what a handler is told.
type question struct {
	r     *rule
	in    input
	place string
	name  string
	data  io.ReaderAt
	hints []location.Range
	bytes []byte // that were read
}

// newQuestion begins a question. The caller is filled in only for objects that
// say that their answers depend on him.
func (r *rule) newQuestion(o op, place, name string, who stack.Caller) *question {
	q := &question{r: r, place: place, name: name}
	q.in.Op = uint32(o)
	q.in.NParts = uint32(len(r.parts))
	q.in.UID, q.in.GID, q.in.PID = nobody, nobody, nobody
	if r.caller {
		q.in.UID, q.in.GID, q.in.PID = who.UID, who.GID, who.PID
	}
	q.in.NameLen = uint32(copy(q.in.Name[:nameMax-1], name))
	return q
}

// errNoSay: the program is not to be asked any more, and the policy is to do
// as if there were none.
var errNoSay = errors.New("no say")

// ask runs one program and brings its action down to PLY_CONTINUE,
// PLY_POSTFILTER or PLY_USER_POSTFILTER (or PLY_USER): errnos become errors,
// and PLY_USER_PREFILTER has the handler asked and then the program again.
// Errors: errNoSay; an errno of the program; EIO for anything else.
func (q *question) ask(c *call, o op, ph phase) (int32, error) {
	for {
		c.In = q.in
		q.fillHints(&c.In)
		action, err := q.r.progs.runAs(c, o, ph, op(q.in.Op))
		if err != nil {
			return 0, q.r.failed(err)
		}
		if again, action, err := q.judge(action, o, ph); !again {
			return action, err
		}
	}
}

// judge is ask for one answer; again is set where the handler has edited the
// inputs.
func (q *question) judge(action int32, o op, ph phase) (again bool, _ int32, err error) {
	switch {
	case action == -int32(syscall.ENOSYS):
		return false, 0, q.wrong(o, ph, "it may not answer ENOSYS, for the kernel would never ask again, about any file")
	case action < 0 && action >= -maxErrno:
		return false, 0, syscall.Errno(-action)
	case action == actUserPrefilter && ph == pre:
		if q.in.Flags&inAttr != 0 {
			return false, actUser, nil // the size does not change
		}
		err := q.prefilter(o, ph)
		return err == nil, 0, err
	case action == actContinue, ph == pre && (action == actUser || action == actPostfilter || action == actUserPostfilter):
		return false, action, nil
	}
	return false, 0, q.wrong(o, ph, "action %d means nothing", action)
}

// fillHints shows the program what a handler found from the offset on.
func (q *question) fillHints(in *input) {
	for _, h := range q.hints {
		off, end := uint64(h.Off), uint64(h.Off+h.Len)
		if end <= in.Offset || in.NHints == maxHints {
			continue
		}
		off = max(off, in.Offset)
		in.Hints[in.NHints] = byteRange{Off: off, Len: end - off}
		in.NHints++
	}
}

// prefilter has the rule's handler edit the inputs.
func (q *question) prefilter(o op, ph phase) error {
	if q.r.handler == nil {
		return q.wrong(o, ph, "it asks for a handler, and the rule names none (handler: %s)", strings.Join(handlerNames(), ", "))
	}
	if q.in.Flags&inHandled != 0 {
		return q.wrong(o, ph, "it asks for the handler again")
	}
	if o == opOpen && q.in.Offset > 0 {
		return q.wrong(o, ph, "it asks for the handler at byte %d only, and did not before", q.in.Offset)
	}
	h := q.handlerCall(o, ph)
	if err := q.r.handler.Prefilter(h); err != nil {
		q.r.policy.note(fmt.Sprintf("rule %s: %v", q.r.Name, err))
		return syscall.EIO
	}
	q.hints = h.Hints
	q.in.Flags |= inHandled
	return nil
}

func (q *question) handlerCall(o op, ph phase) *HandlerCall {
	return &HandlerCall{Section: progKey{o, ph}.String(), Place: q.place, Name: q.name,
		Size: int64(q.in.Size), Data: q.data, Ino: q.in.Ino, Mtime: int64(q.in.Mtime), Lower: q.in.Layer > 0,
		Bytes: q.bytes, Off: int64(q.in.Offset)}
}

// after does what an action asks for once the operation is done: the post
// program, or the handler. size is what is shown.
func (q *question) after(c *call, o op, action int32, failed error) error {
	switch {
	case action == actUserPostfilter:
		if q.r.handler == nil {
			return q.wrong(o, pre, "it asks for a handler, and the rule names none (handler: %s)", strings.Join(handlerNames(), ", "))
		}
		if err := q.r.handler.Postfilter(q.handlerCall(o, post)); err != nil {
			q.r.policy.note(fmt.Sprintf("rule %s: %v", q.r.Name, err))
			return syscall.EIO
		}
	case action == actPostfilter:
		if !q.r.progs.has(o, post) {
			return q.wrong(o, pre, "it asks for a post program, and the object has none")
		}
		var e syscall.Errno
		if errors.As(failed, &e) {
			q.in.Error = -int32(e)
		}
		_, err := q.ask(c, o, post)
		return err
	}
	return nil
}

// failed is what becomes of a program that was not run. Who closed it meant
// it: there is another policy by now, and "as if there were no program" is not
// what that says.
func (r *rule) failed(err error) error {
	switch {
	case errors.Is(err, errClosed):
		return syscall.EIO
	case errors.Is(err, errSwitchedOff):
		if r.offNoted.CompareAndSwap(false, true) {
			r.policy.note(fmt.Sprintf("rule %s is switched off: %s; fail=%s", r.Name, r.progs.whyOff(), r.policy.fail))
		}
	default:
		r.policy.note(fmt.Sprintf("rule %s: %v", r.Name, err))
	}
	if r.policy.fail == FailOpen {
		return errNoSay
	}
	return syscall.EIO
}

// wrong counts a wrong answer and keeps its words.
func (q *question) wrong(o op, ph phase, format string, args ...any) error {
	q.r.progs.wrong(o, ph)
	q.r.policy.note(fmt.Sprintf("rule %s: wrong answer of section %v about %s: %s",
		q.r.Name, progKey{o, ph}, q.place, fmt.Sprintf(format, args...)))
	return syscall.EIO
}

// errnoOf is the errno that ask failed with, 0 for errNoSay.
func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case err == nil, err == errNoSay:
		return 0
	case errors.As(err, &e):
		return e
	}
	return syscall.EIO
}

// firstAction is the action with which an operation begins: that of the pre
// program, or, where there is none but a post program, PLY_POSTFILTER.
func (q *question) firstAction(c *call, o op) (int32, error) {
	if q.r.progs.has(o, pre) {
		return q.ask(c, o, pre)
	}
	c.Out = output{}
	if q.r.progs.has(o, post) {
		return actPostfilter, nil
	}
	return actUser, nil
}

// toInt64 takes numbers that file offsets can hold.
func toInt64(ns ...uint64) ([]int64, bool) {
	out := make([]int64, len(ns))
	for i, n := range ns {
		if n > math.MaxInt64 {
			return nil, false
		}
		out[i] = int64(n)
	}
	return out, true
}
