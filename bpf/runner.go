// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	// errNoProgram: the object has no program for this op and phase.
	errNoProgram = errors.New("no such program")
	// errClosed: the programs were closed, for others have taken their place.
	errClosed = errors.New("the programs are closed")
	// errRun: the kernel did not run the program.
	errRun = errors.New("running the program")
)

// runAttr is the part of union bpf_attr that BPF_PROG_RUN reads.
type runAttr struct {
	progFD, retval              uint32
	dataSizeIn, dataSizeOut     uint32
	dataIn, dataOut             uint64
	repeat, duration            uint32
	ctxSizeIn, ctxSizeOut       uint32
	ctxIn, ctxOut               uint64
	flags, cpu, batchSize, zero uint32
}

// bpfProgRun is the command BPF_PROG_RUN of bpf(2).
const bpfProgRun = 10

// call is the memory of one call. It belongs to one goroutine from get to put.
type call struct {
	In  input  // what the program is asked; run fills ABI, Op, Phase and Epoch
	Out output // a private copy of the answer: no program can change it any more

	attr runAttr
	ctx  uint32 // struct ply_ctx
}

// The kernel is given addresses within calls, so they are never on a stack.
var calls = sync.Pool{New: func() any { return new(call) }}

// get takes a call whose In is zero.
func (p *programs) get() *call {
	c := calls.Get().(*call)
	c.In = input{}
	return c
}

// put gives a call back.
func (p *programs) put(c *call) { calls.Put(c) }

// has says whether there is a program to be asked.
func (p *programs) has(o op, ph phase) bool { return p.program(o, ph) != nil }

func (p *programs) program(o op, ph phase) *program {
	if int(o) >= len(p.progs) || int(ph) >= len(p.progs[0]) {
		return nil
	}
	return p.progs[o][ph]
}

// run asks a program about c.In and returns its action. In c.Out all fields of
// the header are as the program left them. Of the extents and the data only as
// many are valid as the header says and as there is room for; NExtents and
// DataLen themselves may be wrong and want a check.
//
// Errors are errNoProgram, errClosed, errSwitchedOff, or errRun.
func (p *programs) run(c *call, o op, ph phase) (action int32, err error) {
	return p.runAs(c, o, ph, o)
}

// runAs is run with another op in the input than the program's own: a lookup
// program is asked about listings, too.
func (p *programs) runAs(c *call, o op, ph phase, asked op) (action int32, err error) {
	pr := p.program(o, ph)
	if pr == nil {
		return 0, errNoProgram
	}
	if !p.enter() {
		return 0, errClosed
	}
	defer p.leave()
	k := p.slots.take()
	defer p.slots.give(k)
	if p.budget.isOff() {
		return 0, errSwitchedOff
	}
	c.In.ABI, c.In.Op, c.In.Phase = abiVersion, uint32(asked), uint32(ph)
	c.In.Epoch = atomic.LoadUint64(p.epochWord)
	return p.ask(c, pr, k)
}

// ask runs the program within its budget, and counts.
func (p *programs) ask(c *call, pr *program, k uint32) (int32, error) {
	start := monotonic()
	p.since[k].Store(int64(start) + 1)
	action, errno := p.once(c, pr, k)
	took := monotonic() - start
	p.since[k].Store(0)
	if errno != 0 {
		return 0, pr.failed(errno)
	}
	pr.stats.took(took)
	if took > p.budget.limit() {
		return p.askAgain(c, pr, k, took)
	}
	return action, nil
}

// once copies the input into slot k, runs the program and copies the answer
// out.
func (p *programs) once(c *call, pr *program, k uint32) (int32, syscall.Errno) {
	s := &p.memory[k]
	s.In = c.In
	s.Out = output{}
	c.ctx = k // the kernel writes the program's context back
	c.attr = runAttr{
		progFD: uint32(pr.fd), ctxSizeIn: uint32(unsafe.Sizeof(c.ctx)),
		ctxIn: uint64(uintptr(unsafe.Pointer(&c.ctx))),
	}
	if errno := c.syscall(); errno != 0 {
		return 0, errno
	}
	c.copyOut(&s.Out)
	return int32(c.attr.retval), 0
}

// copyOut copies what the header says is used. Other calls of the same
// programs may write into the slot meanwhile, so the header is read once.
func (c *call) copyOut(out *output) {
	const header = unsafe.Offsetof(out.Extents)
	copy((*[header]byte)(unsafe.Pointer(&c.Out))[:], (*[header]byte)(unsafe.Pointer(out))[:])
	copy(c.Out.Extents[:min(c.Out.NExtents, maxExtents)], out.Extents[:])
	copy(c.Out.Data[:min(c.Out.DataLen, inlineBytes)], out.Data[:])
}

// maxTries is how often an interrupted call is made.
const maxTries = 16

func (c *call) syscall() syscall.Errno {
	var errno syscall.Errno
	for range maxTries {
		_, _, errno = unix.Syscall(unix.SYS_BPF, bpfProgRun, uintptr(unsafe.Pointer(&c.attr)), unsafe.Sizeof(c.attr))
		if errno != unix.EINTR && errno != unix.EAGAIN {
			break
		}
	}
	runtime.KeepAlive(c)
	return errno
}

// failed counts a call that the kernel did not make.
func (pr *program) failed(errno syscall.Errno) error {
	pr.stats.errors.Add(1)
	return fmt.Errorf("%w of section %s: %w", errRun, pr.key, errno)
}

// epoch is ply_epoch[0], which counts changes of the maps; after Close what it
// was then.
func (p *programs) epoch() uint64 {
	if p.epochWord == nil || !p.enter() {
		return p.lastEpoch.Load()
	}
	defer p.leave()
	return atomic.LoadUint64(p.epochWord)
}

// bumpEpoch says that a map was changed.
func (p *programs) bumpEpoch() {
	if p.enter() {
		atomic.AddUint64(p.epochWord, 1)
		p.leave()
	}
}
