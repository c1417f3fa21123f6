// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/bpf/internal/location"
	"github.com/plyfs/plyfs/stack"
)

// A handler is asked once for a plan, however many windows that has, and each
// window shows the program what there is from its offset on.
func TestHandlerWindows(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "handler: test"))
	h := handlerOf(p)
	const count, size = 1000, 100_000
	for i := range int64(count) {
		h.ranges = append(h.ranges, location.Range{Off: 7 + i*100, Len: 1 + i%50})
	}
	q := fileOf("/image", size)
	q.Data = strings.NewReader("")
	plan := mustFile(t, p, q).Plan
	var zeros []location.Range
	windows := 0
	for at := int64(0); at < size; windows++ {
		w, err := plan.Window(at)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range w.Extents {
			if e.Off != at {
				t.Fatalf("an extent at %d follows the end %d", e.Off, at)
			}
			if at += e.Len; e.Kind == stack.ExtentZero {
				zeros = append(zeros, location.Range{Off: e.Off, Len: e.Len})
			}
		}
	}
	if !slices.Equal(zeros, h.ranges) {
		t.Errorf("%d ranges, want %d", len(zeros), count)
	}
	if windows < count/maxHints || len(h.calls) != 1 {
		t.Errorf("%d windows, the handler was asked %d times", windows, len(h.calls))
	}
	c := h.calls[0]
	if c.Section != "ply/file/open/pre" || c.Place != "/image" || c.Name != "image" || c.Size != size || c.Data == nil || !c.Lower || c.Ino != 9 || c.Mtime != 77 {
		t.Errorf("%+v", c)
	}
	wantWrong(t, p, "", 0)
}

// What the program is shown of hints: those that end behind the offset, cut
// there, and no more than there is room for.
func TestHints(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040), "handler: test")
	h := handlerOf(p)
	for i := range int64(20) {
		h.ranges = append(h.ranges, location.Range{Off: 10 + i*10, Len: 5})
	}
	say(t, p, opOpen, pre, 0, reply{action: actUserPrefilter})
	say(t, p, opOpen, pre, lineHandled, reply{out: oneExtent(0, 12)})
	say(t, p, opOpen, pre, lineLater+lineHandled, reply{out: oneExtent(12, 988)})
	plan := mustFile(t, p, fileOf("/x", 1000)).Plan
	_, in := asked(t, p, opOpen, pre, lineHandled)
	if in.NHints != maxHints || in.Hints[0] != (byteRange{10, 5}) || in.Hints[15] != (byteRange{160, 5}) {
		t.Errorf("%d hints %v", in.NHints, in.Hints)
	}
	if _, err := plan.Window(12); err != nil {
		t.Fatal(err)
	}
	_, in = asked(t, p, opOpen, pre, lineLater+lineHandled)
	if in.NHints != maxHints || in.Hints[0] != (byteRange{12, 3}) || in.Hints[15] != (byteRange{160, 5}) || in.Offset != 12 || in.Length != 988 {
		t.Errorf("%d hints %v", in.NHints, in.Hints)
	}
	if len(h.calls) != 1 {
		t.Errorf("the handler was asked %d times", len(h.calls))
	}
}

// oneExtent answers with one extent of the file itself.
func oneExtent(off, n uint64) (out output) {
	out.NExtents = 1
	out.Extents[0] = extent{Off: off, Len: n, Src: off, Backing: backingSelf}
	return out
}

// Asking for the handler after it was asked, or without one, is wrong.
func TestHandlerWrong(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040), "handler: test")
	say(t, p, opOpen, pre, 0, reply{action: actUserPrefilter})
	say(t, p, opOpen, pre, lineHandled, reply{action: actUserPrefilter})
	if a := p.File(fileOf("/x", 10)); a.Errno != syscall.EIO {
		t.Errorf("%+v", a)
	}
	wantWrong(t, p, "ply/file/open/pre", 1)
	without := scripted(t, Options{}, script(t, 0x540))
	for _, o := range []op{opOpen, opRead, opWrite} {
		say(t, without, o, pre, 0, reply{action: actUserPrefilter})
	}
	errnos := []syscall.Errno{without.File(fileOf("/x", 10)).Errno, without.Data(dataOf("/x", false)).Errno, without.Data(dataOf("/x", true)).Errno}
	for i, e := range errnos {
		if e != syscall.EIO {
			t.Errorf("%d: %v", i, e)
		}
	}
	if s := without.Status(); s.WrongAnswers != 3 || !strings.Contains(s.LastErrors[0], "the rule names none (handler: ") {
		t.Errorf("%+v", s)
	}
}

// A handler that fails is no wrong answer: EIO, and its words.
func TestHandlerFails(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "handler: test"))
	handlerOf(p).pre = errors.New("no such luck")
	if a := p.File(fileOf("/x", 10)); a.Errno != syscall.EIO {
		t.Errorf("%+v", a)
	}
	wantWrong(t, p, "", 0)
	if s := p.Status(); len(s.LastErrors) != 1 || !strings.Contains(s.LastErrors[0], "no such luck") {
		t.Errorf("%+v", s.LastErrors)
	}
}

// For its size alone a file is not searched: it does not change.
func TestHandlerAttrOnly(t *testing.T) {
	p := scripted(t, Options{}, script(t, 0x040), "handler: test")
	say(t, p, opOpen, pre, 0, reply{action: actUserPrefilter})
	if size := statSize(t, p, fileOf("/x", 10)); size != 10 || len(handlerOf(p).calls) != 0 {
		t.Errorf("%d bytes, %+v", size, handlerOf(p).calls)
	}
}

// A program that asks for the handler in the middle of a file asks too late:
// the file cannot be searched any more, and must not be shown as if nothing
// had been found.
func TestHandlerLate(t *testing.T) {
	for _, name := range []string{"test", "image-location"} {
		p := scripted(t, Options{}, script(t, 0x040), "handler: "+name)
		say(t, p, opOpen, pre, 0, reply{out: oneExtent(0, 10)})
		say(t, p, opOpen, pre, lineLater, reply{action: actUserPrefilter})
		say(t, p, opOpen, pre, lineLater+lineHandled, reply{out: oneExtent(10, 90)})
		q := fileOf("/x", 100)
		q.Data = strings.NewReader(strings.Repeat("x", 100))
		plan := mustFile(t, p, q).Plan
		if w, err := plan.Window(10); err == nil {
			t.Errorf("%s: %+v", name, w)
		}
		wantWrong(t, p, "ply/file/open/pre", 1)
	}
}

// countingReader counts reads.
type countingReader struct {
	r     io.ReaderAt
	reads int
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	c.reads++
	return c.r.ReadAt(b, off)
}

// An image in a lower layer is searched once, while it stays what it is; one
// in upper each time.
func TestFoundCache(t *testing.T) {
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "handler: image-location"))
	data := &countingReader{r: strings.NewReader("no image, and longer than the head of one")}
	for _, c := range []struct {
		what     string
		change   func(*stack.FileQuery)
		searched bool
	}{
		{"first", func(*stack.FileQuery) {}, true},
		{"again", func(*stack.FileQuery) {}, false},
		{"another mtime", func(q *stack.FileQuery) { q.Mtime++ }, true},
		{"another size", func(q *stack.FileQuery) { q.Size-- }, true},
		{"another inode", func(q *stack.FileQuery) { q.Ino++ }, true},
		{"in upper", func(q *stack.FileQuery) { q.Layer = 0 }, true},
		{"in upper again", func(q *stack.FileQuery) { q.Layer = 0 }, true},
		{"the first, still", func(*stack.FileQuery) {}, false},
	} {
		q := fileOf("/image", 41)
		q.Data = data
		c.change(&q)
		data.reads = 0
		if a := p.File(q); a.Errno != 0 || a.Plan != nil || (data.reads > 0) != c.searched {
			t.Errorf("%s: %+v, %d reads", c.what, a, data.reads)
		}
	}
}

// What was found is remembered up to a number of ranges, and damage is not.
func TestFoundCacheBounds(t *testing.T) {
	var f foundCache
	f.put(foundKey{1, 1, 1}, make([]location.Range, foundMax-2))
	if _, ok := f.get(foundKey{1, 1, 1}); !ok || f.n != foundMax-1 {
		t.Error(f.n)
	}
	f.put(foundKey{2, 1, 1}, make([]location.Range, 1))
	if _, ok := f.get(foundKey{1, 1, 1}); ok || f.n != 2 {
		t.Errorf("%d", f.n)
	}
	p := mustPolicy(t, Options{}, ruleText("/", "redact", "handler: image-location"))
	damaged := "II*\x00\xff\xff\xff\x7f\x00\x00\x00\x00\x00\x00\x00\x00"
	for range 2 {
		q := fileOf("/image", int64(len(damaged)))
		q.Data = strings.NewReader(damaged)
		if a := p.File(q); a.Errno != syscall.EIO {
			t.Errorf("%+v", a)
		}
	}
	if len(p.found.m) != 0 {
		t.Error("damage was remembered")
	}
}
