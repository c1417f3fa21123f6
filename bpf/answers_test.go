// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"math"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/stack"
)

// answerCase is an answer of one program. wrong is the program that it counts
// against, 0 if it is right.
type answerCase struct {
	name  string
	reply reply
	wrong phase
}

// outOf makes an output.
func outOf(change func(*output)) (o output) {
	change(&o)
	return o
}

// badExtent is an answer whose second extent is changed.
func badExtent(change func(*extent)) reply {
	out := oneExtent(0, 10)
	out.NExtents = 2
	out.Extents[1] = extent{Off: 10, Len: 90, Src: 10, Backing: backingSelf}
	change(&out.Extents[1])
	return reply{out: out}
}

// actionCases are wrong for every op.
func actionCases() (list []answerCase) {
	for _, a := range []int32{5, 6, 99, math.MaxInt32, math.MinInt32, -512, -513, -4095} {
		list = append(list, answerCase{"action", reply{action: a}, pre})
	}
	return append(list, answerCase{"prefilter without a handler", reply{action: actUserPrefilter}, pre})
}

// flagCases are the flags that an op does not have.
func flagCases(allowed uint32) (list []answerCase) {
	for bit := range 32 {
		c := answerCase{"flag", reply{out: output{Flags: 1 << bit}}, pre}
		if allowed>>bit&1 == 1 {
			c = answerCase{"its flag", reply{action: actUser, out: output{Flags: 1 << bit}}, 0}
		}
		list = append(list, c)
	}
	return list
}

// extentCases are those of open and read programs.
func extentCases() []answerCase {
	return []answerCase{
		{"17 extents", reply{out: output{NExtents: 17}}, pre},
		{"many extents", reply{out: output{NExtents: math.MaxUint32}}, pre},
		{"4097 inline bytes", reply{out: outOf(func(o *output) { *o = oneExtent(0, 100); o.DataLen = 4097 })}, pre},
		{"many inline bytes", reply{out: outOf(func(o *output) { *o = oneExtent(0, 100); o.DataLen = math.MaxUint32 })}, pre},
		{"4096 inline bytes", reply{out: outOf(func(o *output) { *o = oneExtent(0, 100); o.DataLen = 4096 })}, 0},
		{"right", badExtent(func(*extent) {}), 0},
		{"offset overflows", badExtent(func(e *extent) { e.Off = 1 << 63 }), pre},
		{"length overflows", badExtent(func(e *extent) { e.Len = math.MaxUint64 }), pre},
		{"source overflows", badExtent(func(e *extent) { e.Src = 1 << 63 }), pre},
		{"kind 4", badExtent(func(e *extent) { e.Kind = 4 }), pre},
		{"kind 257", badExtent(func(e *extent) { e.Kind = 257 }), pre},
		{"no such part", badExtent(func(e *extent) { e.Backing = backingPart }), pre},
		{"part before the first", badExtent(func(e *extent) { e.Backing = backingPart - 1 }), pre},
		{"part overflows", badExtent(func(e *extent) { e.Backing = math.MaxUint32 }), pre},
		{"upper, of a lower file", badExtent(func(e *extent) { e.Backing = 0 }), pre},
		{"a layer that lacks it", badExtent(func(e *extent) { e.Backing = 3 }), pre},
		{"a layer that has it", badExtent(func(e *extent) { e.Backing = 2 }), 0},
		{"layer 63", badExtent(func(e *extent) { e.Backing = 63 }), pre},
		{"behind self", badExtent(func(e *extent) { e.Backing = 65 }), pre},
		{"backing of zeros is not looked at", badExtent(func(e *extent) { e.Kind, e.Backing = extZero, 99 }), 0},
	}
}

// nameCases are those of lookup programs.
func nameCases() []answerCase {
	choose := func(layer uint32) reply { return reply{out: output{Flags: outChoose, Layer: layer}} }
	return []answerCase{
		{"choose upper", choose(0), pre},
		{"choose what lacks it", choose(3), pre},
		{"choose what there is not", choose(9), pre},
		{"choose 63", choose(63), pre},
		{"choose 64", choose(64), pre},
		{"choose far", choose(math.MaxUint32), pre},
		{"choose right", choose(2), 0},
		{"layer without choose", reply{out: output{Layer: 99}}, 0},
		{"hide", reply{out: output{Flags: outHide}}, 0},
		{"skip all", reply{out: output{Skip: math.MaxUint64}}, 0},
		{"extents are not looked at", reply{out: output{NExtents: 99, DataLen: math.MaxUint32}}, 0},
	}
}

// openCases are those of open programs, besides.
func openCases() []answerCase {
	size := func(n uint64, extents uint32) reply {
		return reply{out: outOf(func(o *output) { *o = oneExtent(0, 10); o.Flags, o.Size, o.NExtents = outSize, n, extents })}
	}
	return []answerCase{
		{"size overflows", size(1<<63, 1), pre},
		{"size overflows", size(math.MaxUint64, 0), pre},
		{"largest size", size(math.MaxInt64, 1), 0},
		{"no size", size(0, 0), 0},
		{"size without its flag", reply{out: output{Size: 1 << 63}}, 0},
	}
}

// Every wrong answer is EIO and is counted once; what is right is not.
func TestAnswers(t *testing.T) {
	object := script(t, 0xfff)
	for _, c := range []struct {
		opCase
		cases []answerCase
	}{
		{opCases[0], slices.Concat(actionCases(), flagCases(outHide|outChoose|outNoCache), nameCases())},
		{opCases[1], slices.Concat(actionCases(), flagCases(outHide|outChoose|outNoCache))},
		{opCases[2], slices.Concat(actionCases(), flagCases(outMtime|outMode|outNoCache))},
		{opCases[3], slices.Concat(actionCases(), flagCases(outSize|outNoCache), extentCases(), openCases())},
		{opCases[4], slices.Concat(actionCases(), flagCases(outNoCache), extentCases())},
		{opCases[5], slices.Concat(actionCases(), flagCases(outNoCache))},
	} {
		p := scripted(t, Options{}, object)
		wrong := uint64(0)
		for _, a := range c.cases {
			say(t, p, c.op, pre, 0, a.reply)
			want := syscall.Errno(0)
			if a.wrong != 0 {
				want = syscall.EIO
				wrong++
			}
			if got := c.ask(p); got != want {
				t.Errorf("%s: %s (%d, flags %#x): errno %v, want %v", c.name, a.name, a.reply.action, a.reply.out.Flags, got, want)
			}
			wantWrong(t, p, progKey{c.op, pre}.String(), wrong)
			if p.refs.Load() != 1 {
				t.Fatalf("%s: %s: %d uses of the policy", c.name, a.name, p.refs.Load())
			}
			if t.Failed() {
				return
			}
		}
	}
}

// A post program of attributes alone is counted, too.
func TestPostAlone(t *testing.T) {
	p := scripted(t, Options{}, script(t, allPost))
	say(t, p, opGetattr, post, 0, reply{out: output{Flags: outHide}})
	if a := p.Attr(attrOf("/x")); a.Errno != syscall.EIO {
		t.Errorf("%+v", a)
	}
	wantWrong(t, p, "ply/inode/getattr/post", 1)
}

// Windows behind the first are checked as the first is.
func TestLaterWindows(t *testing.T) {
	sized := func(flags uint32, size uint64) reply {
		out := oneExtent(10, 90)
		out.Flags, out.Size = flags, size
		return reply{out: out}
	}
	p := scripted(t, Options{}, script(t, 0x040))
	say(t, p, opOpen, pre, 0, reply{out: oneExtent(0, 10)})
	plan := mustFile(t, p, fileOf("/x", 100)).Plan
	wrong := uint64(0)
	for _, c := range slices.Concat(extentCases(), []answerCase{
		{"user", reply{action: actUser}, pre},
		{"action", reply{action: 99}, pre},
		{"another size", sized(outSize, 101), pre},
		{"a size too large", sized(outSize, 1<<63+100), pre},
		{"a flag", sized(outHide, 0), pre},
		{"a flag", sized(outSize|outChoose, 100), pre},
		{"the same size", sized(outSize, 100), 0},
		{"no size", sized(0, 0), 0},
	}) {
		say(t, p, opOpen, pre, lineLater, c.reply)
		_, err := plan.Window(10)
		if (err == nil) != (c.wrong == 0) || err != nil && err != syscall.EIO {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.wrong != 0 {
			wrong++
		}
		wantWrong(t, p, "ply/file/open/pre", wrong)
	}
	say(t, p, opOpen, pre, lineLater, reply{action: -13})
	if _, err := plan.Window(10); err != syscall.EACCES {
		t.Error(err)
	}
	wantWrong(t, p, "ply/file/open/pre", wrong)
}

// A size that is told in the first window holds for those without one.
func TestSizeIsKept(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040))
	first := oneExtent(0, 10)
	first.Flags, first.Size = outSize, 50
	say(t, p, opOpen, pre, 0, reply{out: first})
	say(t, p, opOpen, pre, lineLater, reply{out: oneExtent(10, 40)})
	plan := mustFile(t, p, fileOf("/x", 100)).Plan
	if _, err := plan.Window(10); err != syscall.EIO {
		t.Error(err)
	}
	wantWrong(t, p, "ply/file/open/pre", 1)
}

// For the size alone extents are not looked at, wrong ones neither.
func TestAttrOnly(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040))
	for _, c := range []struct {
		out  output
		want int64
	}{
		{output{NExtents: 99}, 100}, {output{Flags: outSize, Size: 7, NExtents: 99, DataLen: 1 << 20}, 7}, {output{Flags: outSize}, 0},
	} {
		say(t, p, opOpen, pre, 0, reply{out: c.out})
		if got := statSize(t, p, fileOf("/x", 100)); got != c.want {
			t.Errorf("%d bytes, want %d", got, c.want)
		}
	}
	wantWrong(t, p, "", 0)
}

// What a name's answer says arrives.
func TestNameAnswers(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x005))
	out := output{Flags: outChoose | outNoCache, Layer: 2, Skip: 0b1011, TTLms: 1500}
	say(t, p, opLookup, pre, 0, reply{out: out})
	say(t, p, opReaddir, pre, 0, reply{out: out})
	want := stack.NameAnswer{Layer: 2, Skip: 0b1011, NoCache: true, TTL: 1500 * time.Millisecond}
	if got := p.Name(nameOf("/x")); got != want {
		t.Errorf("%+v", got)
	}
	want.Layer, want.Skip = 0, 0
	if got := p.Name(listed("/x")); got != want {
		t.Errorf("a listing, which shows no layer: %+v", got)
	}
}
