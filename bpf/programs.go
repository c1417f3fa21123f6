// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// programs are the loaded programs of an object, with their maps and memory.
// All methods may be called by several goroutines, before and after Close.
type programs struct {
	object *object
	specs  map[string]*ebpf.MapSpec // with the options applied
	pinTo  string
	maps   map[string]*ebpf.Map
	progs  [opWrite + 1][post + 1]*program

	slotBytes, epochBytes []byte // mapped
	memory                *[slotCount]slot
	epochWord             *uint64
	lastEpoch             atomic.Uint64 // for after Close
	slots                 slots
	since                 [slotCount]atomic.Int64 // when the call in a slot began, + 1; 0: none
	watching              sync.Mutex
	seen                  [slotCount]sighting // by watch
	budget                budget

	users  atomic.Int64 // calls being made, and 1 until Close
	closed atomic.Bool
}

// program is one loaded program.
type program struct {
	key    progKey
	spec   *ebpf.ProgramSpec
	prog   *ebpf.Program
	fd     int
	verify time.Duration // what loading it took
	stats  stats
}

func newPrograms(l *loading, m map[string]*ebpf.Map) *programs {
	p := &programs{object: l.object, specs: l.spec.Maps, pinTo: l.pinTo, maps: m}
	p.users.Store(1)
	p.slots.init()
	p.budget.set(defaultBudget)
	return p
}

func (p *programs) add(key progKey, spec *ebpf.ProgramSpec, prog *ebpf.Program, verify time.Duration) {
	p.progs[key.op][key.phase] = &program{key: key, spec: spec, prog: prog, fd: prog.FD(), verify: verify}
}

// each calls fn for every program, in the order of plyfs.h.
func (p *programs) each(fn func(*program)) {
	for _, s := range sections {
		if pr := p.program(s.key.op, s.key.phase); pr != nil {
			fn(pr)
		}
	}
}

// mapMemory maps ply_slots and ply_epoch.
func (p *programs) mapMemory() error {
	var err error
	if p.slotBytes, err = mapArray(p.maps[slotsMap], int(unsafe.Sizeof(*p.memory))); err != nil {
		return fmt.Errorf("map %s: %w", slotsMap, err)
	}
	if p.epochBytes, err = mapArray(p.maps[epochMap], 8); err != nil {
		return fmt.Errorf("map %s: %w", epochMap, err)
	}
	p.memory = (*[slotCount]slot)(unsafe.Pointer(&p.slotBytes[0]))
	p.epochWord = (*uint64)(unsafe.Pointer(&p.epochBytes[0]))
	return nil
}

func mapArray(m *ebpf.Map, size int) ([]byte, error) {
	return unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// enter begins a use of the programs; it fails after Close. leave ends it.
func (p *programs) enter() bool {
	for !p.closed.Load() {
		n := p.users.Load()
		if n == 0 {
			return false
		}
		if p.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (p *programs) leave() {
	if p.users.Add(-1) == 0 {
		p.free()
	}
}

// Close frees the programs, maps and memory. It does not wait: if calls are
// being made, the last of them does it. Later calls get errClosed. Pinned maps
// stay pinned.
func (p *programs) Close() {
	p.lastEpoch.Store(p.epoch())
	if p.closed.CompareAndSwap(false, true) {
		p.leave()
	}
}

func (p *programs) free() {
	for _, b := range [][]byte{p.slotBytes, p.epochBytes} {
		if b != nil {
			_ = unix.Munmap(b)
		}
	}
	p.each(func(pr *program) { _ = pr.prog.Close() })
	for _, m := range p.maps {
		_ = m.Close()
	}
}
