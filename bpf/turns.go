// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import "github.com/cilium/ebpf/asm"

const (
	// maxTurns is some seconds of a short loop: nothing can stop a program that
	// runs.
	maxTurns = 1 << 31

	// mostTurns is BPF_MAX_LOOPS, to which a bound that the program computes
	// may come.
	mostTurns = 1 << 23
)

// worstTurns is how often the innermost callback of a program can be called. A
// bound that the program computes may be anything, so that one such loop within
// another is too much. Iterators (bpf_iter_num) are not counted.
func worstTurns(insns asm.Instructions) float64 {
	functions := functionsOf(insns)
	if len(insns) == 0 {
		return 1
	}
	return turnsOf(functions, insns[0].Symbol(), 0)
}

// function is what is to be known of one function of a program.
type function struct {
	calls []string
	loops []loop
}

// loop is a call of a helper that calls back.
type loop struct {
	turns    float64
	callback string
}

// maxFrames is the kernel's bound on functions within functions.
const maxFrames = 8

func turnsOf(all map[string]*function, name string, depth int) float64 {
	f := all[name]
	if f == nil || depth > maxFrames {
		return 1
	}
	worst := 1.0
	for _, callee := range f.calls {
		worst = max(worst, turnsOf(all, callee, depth+1))
	}
	for _, l := range f.loops {
		worst = max(worst, l.turns*turnsOf(all, l.callback, depth+1))
	}
	return worst
}

// functionsOf splits a program into its functions.
func functionsOf(insns asm.Instructions) map[string]*function {
	all := make(map[string]*function)
	current, args := new(function), arguments{}
	for i := range insns {
		ins := &insns[i]
		if name := ins.Symbol(); name != "" {
			current, args = new(function), arguments{}
			all[name] = current
		}
		switch {
		case ins.IsBuiltinCall():
			if l, ok := args.loop(asm.BuiltinFunc(ins.Constant)); ok {
				current.loops = append(current.loops, l)
			}
			args = arguments{}
		case ins.IsFunctionCall():
			current.calls = append(current.calls, ins.Reference())
			args = arguments{}
		default:
			args.follow(ins)
		}
	}
	return all
}

// arguments are what is known of the registers before a call.
type arguments struct {
	first    int64 // r1, if it is a constant
	constant bool
	function string // r2, "" if it is no function
}

// follow looks at an instruction that may set them.
func (a *arguments) follow(ins *asm.Instruction) {
	class := ins.OpCode.Class()
	if class.IsStore() || class.IsJump() {
		return
	}
	switch ins.Dst {
	case asm.R1:
		a.first, a.constant = 0, false
		if class.IsALU() && ins.OpCode.ALUOp() == asm.Mov && ins.OpCode.Source() == asm.ImmSource {
			a.first, a.constant = ins.Constant, true
		}
	case asm.R2:
		a.function = ""
		if ins.IsLoadOfFunctionPointer() {
			a.function = ins.Reference()
		}
	}
}

// loop is what a helper does with the arguments.
func (a *arguments) loop(fn asm.BuiltinFunc) (loop, bool) {
	switch fn {
	case asm.FnLoop:
		if !a.constant {
			return loop{mostTurns, a.function}, true
		}
		return loop{max(1, float64(a.first)), a.function}, true
	case asm.FnForEachMapElem:
		return loop{mostTurns, a.function}, true
	}
	return loop{}, false
}
