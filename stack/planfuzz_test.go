// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
)

// A planModel is a plan decoded from random bytes, and what it must show.
type planModel struct {
	plan      *Plan
	own, part string
	data      string
	right     bool // all of it is right
}

const fuzzMaxSize = 1 << 12

// number takes a number out of random bytes: most are small.
func number(b *[]byte) int64 {
	if len(*b) == 0 {
		return 0
	}
	v := int64(int8((*b)[0]))
	*b = (*b)[1:]
	if v == 127 && len(*b) >= 8 {
		v = int64(binary.LittleEndian.Uint64(*b))
		*b = (*b)[8:]
	}
	return v
}

// decodeExtent makes an extent at an offset: mostly a right one, so that
// reading is tested too.
func decodeExtent(b *[]byte, at int64) Extent {
	e := Extent{Off: at, Len: 1 + number(b)&63, Src: number(b) & 15, Kind: ExtentKind(number(b) & 3)}
	switch number(b) {
	case 1:
		e.Backing = PartBacking(0)
	case 2:
		e.Len = number(b)
	case 3:
		e.Src = number(b)
	case 4:
		e.Kind = ExtentKind(number(b))
	case 5:
		e.Backing = Backing(number(b))
	case 6:
		e.Off = number(b)
	}
	return e
}

// decodePlan makes a plan of random bytes over two files.
func decodePlan(b []byte, own, part string, fd int) *planModel {
	m := &planModel{own: own, part: part, data: "inline bytes of the window, some of them", right: true}
	var wins []Window
	at := int64(0)
	for len(b) > 0 && len(wins) < 50 {
		w := Window{Data: []byte(m.data)}
		for range 1 + number(&b)&3 {
			e := decodeExtent(&b, at)
			_, ok := m.byteOf(e, 0)
			_, last := m.byteOf(e, e.Len-1)
			m.right = m.right && e.Off == at && e.Len > 0 && ok && last
			w.Extents = append(w.Extents, e)
			at += e.Len
		}
		wins = append(wins, w)
	}
	m.right = m.right && at <= fuzzMaxSize
	m.plan = &Plan{Size: max(0, min(at, fuzzMaxSize)), Parts: []Part{{FD: fd}}, Serve: serveOffsets,
		Window: func(off int64) (Window, error) {
			for _, w := range wins {
				if off < w.end() {
					return w.from(off), nil
				}
			}
			return Window{}, nil
		}}
	return m
}

// serveOffsets serves bytes that tell where they are.
func serveOffsets(b []byte, off int64) error {
	for i := range b {
		b[i] = byte(off + int64(i))
	}
	return nil
}

// byteOf is byte i of an extent, and whether there is one.
func (m *planModel) byteOf(e Extent, i int64) (byte, bool) {
	src := ""
	switch {
	case e.Src < 0 || e.Len <= 0 || e.Len > fuzzMaxSize || e.Src > math.MaxInt64-e.Len:
		return 0, false
	case e.Kind == ExtentZero:
		return 0, true
	case e.Kind == ExtentServer:
		return byte(e.Off + i), true
	case e.Kind == ExtentInline:
		src = m.data
	case e.Kind == ExtentBacking && e.Backing == Self:
		src = m.own
	case e.Kind == ExtentBacking && e.Backing == PartBacking(0):
		src = m.part
	}
	if e.Src >= int64(len(src))-i {
		return 0, false
	}
	return src[e.Src+i], true
}

// at is the byte that the plan says is at an offset.
func (m *planModel) at(off int64) (byte, bool) {
	w, err := m.plan.Window(off)
	if err != nil || len(w.Extents) == 0 || w.Extents[0].Off != off {
		return 0, false
	}
	return m.byteOf(w.Extents[0], 0)
}

// FuzzPlan reads by random plans: each read is refused, or gives exactly the
// bytes that the extents say. A right plan is not refused.
func FuzzPlan(f *testing.F) {
	for _, b := range []string{"\x00\x0a\x00\x01\x00", "\x03\x3f\x05\x00\x00\x14\x00\x01\x00\x09\x02\x02\x00\x1e\x07\x03\x00",
		"\x00\x3f\x00\x00\x01\x00\x3f\x01\x00\x01", "\x00\x0a\x00\x01\x02\x7f\xff\xff\xff\xff\xff\xff\xff\x7f",
		"\x00\x0a\x00\x00\x03\x7f\xff\xff\xff\xff\xff\xff\xff\x7f", "\x00\x0a\x00\x00\x05\x01", "\x00\x0a\x00\x00\x06\x02"} {
		for seed := range uint16(4) {
			f.Add([]byte(b), seed)
		}
	}
	own, part := strings.Repeat("0123456789", 8), strings.Repeat("ABCDEFGHIJKLM", 7)
	f.Fuzz(func(t *testing.T, b []byte, seed uint16) { fuzzPlan(t, b, seed, own, part) })
}

func fuzzPlan(t *testing.T, b []byte, seed uint16, own, part string) {
	m := decodePlan(b, own, part, tempFile(t, part))
	p := planOver(t, m.plan, own)
	defer p.close()
	rnd := rand.New(rand.NewPCG(uint64(seed), 1))
	for range 20 {
		off, n := rnd.Int64N(m.plan.Size+20), rnd.IntN(200)
		got, err := p.read(t, off, n)
		if err != nil {
			if m.right || toErrno(err) != syscall.EIO || p.fs.count.wrong.Load() == 0 {
				t.Fatalf("refused with %v; right: %v", err, m.right)
			}
			continue
		}
		if want := max(0, min(off+int64(n), m.plan.Size)-off); int64(len(got)) != want {
			t.Fatalf("%d bytes of %d from %d", len(got), want, off)
		}
		for i := range len(got) {
			if want, ok := m.at(off + int64(i)); !ok || got[i] != want {
				t.Fatalf("byte %d is %q, want %q, %v", off+int64(i), got[i], want, ok)
			}
		}
	}
}
