// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/bpf/internal/config"
	"github.com/plyfs/plyfs/stack"
)

// model is a static policy with the meaning of a policy file. It knows nothing
// of programs.
type model struct {
	rules []config.Rule
	sizes map[string]int64 // of files that rules name
	lower map[string]int64 // of files of the lower layers, by path
}

// nearest has the rules of a set that govern a place.
func (m *model) nearest(place string, names bool) (list []*config.Rule) {
	best := ""
	for i := range m.rules {
		r := &m.rules[i]
		under := r.Path == "/" || place == r.Path || strings.HasPrefix(place, r.Path+"/")
		if !under || (r.Program == config.Select) != names || len(r.Path) < len(best) {
			continue
		}
		if len(r.Path) > len(best) {
			best, list = r.Path, nil
		}
		list = append(list, r)
	}
	return list
}

// byCaller tells whether a rule is about who asks.
func byCaller(r *config.Rule) bool {
	return slices.ContainsFunc(r.Clauses, func(c config.Clause) bool { return c.UID != nil || c.GID != nil })
}

// Name is the decision about a name.
func (m *model) Name(q stack.NameQuery) (a stack.NameAnswer) {
	for _, r := range m.nearest(q.Place, true) {
		who := q.Caller
		if !byCaller(r) {
			who = stack.Nobody
		}
		for i := range r.Clauses {
			if c := &r.Clauses[i]; clauseFits(c, q, who) {
				return clauseAnswer(c, q)
			}
		}
	}
	return a
}

func clauseFits(c *config.Clause, q stack.NameQuery, who stack.Caller) bool {
	unknown := c.Action == config.Hide || c.Action == config.Deny
	in := func(id uint32, r *config.IDRange) bool { return r == nil || r.First <= id && id <= r.Last }
	if c.UID != nil || c.GID != nil {
		fits := (in(who.UID, c.UID) && in(who.GID, c.GID)) != c.Not
		if who.UID == stack.NobodyID || who.GID == stack.NobodyID {
			fits = unknown
		}
		if !fits {
			return false
		}
	}
	typ := q.Mode & unix.S_IFMT
	if q.Listing {
		typ = q.Type
	}
	if c.Type != 0 && typ != c.Type && (typ != 0 || !unknown) {
		return false
	}
	return config.Match(c.Match, q.Name)
}

func clauseAnswer(c *config.Clause, q stack.NameQuery) (a stack.NameAnswer) {
	switch c.Action {
	case config.Hide:
		a.Hide = true
	case config.Deny:
		if !q.Listing {
			a.Errno = syscall.EACCES
		}
	case config.Skip:
		for _, k := range c.Skip {
			if !q.Listing {
				a.Skip |= 1 << k
			}
		}
	case config.Layer:
		switch {
		case q.Listing, q.Holders&1 == 1:
		case q.Holders>>c.Layer&1 == 1:
			a.Layer = c.Layer
		case c.OrHide:
			a.Hide = true
		}
	}
	return a
}

// piece is a run of a file's bytes: zeros, literal bytes, or of a named file.
type piece struct {
	off, len, src int64
	from          string // "self", "zero", "literal", or the path of a part
	bytes         string // literal ones
}

// shown is what a file is.
type shown struct {
	size   int64
	pieces []piece
	errno  syscall.Errno
}

// File is the decision about a file.
func (m *model) File(q stack.FileQuery) shown {
	for _, r := range m.nearest(q.Place, false) {
		if len(r.Match) > 0 && !slices.ContainsFunc(r.Match, func(p string) bool { return config.Match(p, q.Name) }) {
			continue
		}
		switch {
		case r.Program == config.Redact:
			return redacted(r, q)
		case q.Layer == 0:
			return asIs(q)
		case r.Program == config.Prepend:
			return m.prepended(r, q)
		default:
			return m.split(r, q)
		}
	}
	return asIs(q)
}

func asIs(q stack.FileQuery) shown { return madeOf(q.Size, piece{len: q.Size, from: "self"}) }

// madeOf drops what is empty, and joins what belongs together.
func madeOf(size int64, list ...piece) shown {
	s := shown{size: size}
	for _, p := range list {
		s.pieces = addPiece(s.pieces, p)
	}
	return s
}

func addPiece(list []piece, p piece) []piece {
	if p.len == 0 {
		return list
	}
	if p.from == "zero" || p.from == "literal" {
		p.src = 0
	}
	if n := len(list); n > 0 && list[n-1].from == p.from {
		last := &list[n-1]
		if p.from == "zero" || p.from == "literal" || last.src+last.len == p.src {
			last.len += p.len
			last.bytes += p.bytes
			return list
		}
	}
	return append(list, p)
}

func redacted(r *config.Rule, q stack.FileQuery) shown {
	ranges := r.Ranges
	if r.Whole {
		ranges = []config.Range{{Off: 0, Len: math.MaxInt64}}
	}
	at, list := int64(0), []piece{}
	for _, x := range ranges {
		off, end := min(int64(x.Off), q.Size), min(int64(x.Off+x.Len), q.Size)
		list = append(list, piece{off: at, len: off - at, src: at, from: "self"}, piece{off: off, len: end - off, from: "zero"})
		at = end
	}
	return madeOf(q.Size, append(list, piece{off: at, len: q.Size - at, src: at, from: "self"})...)
}

func (m *model) prepended(r *config.Rule, q stack.FileQuery) shown {
	head := piece{len: int64(len(r.Prefix)), from: "literal", bytes: string(r.Prefix)}
	if r.PrefixFile != "" {
		head = piece{len: m.sizes[r.PrefixFile], from: r.PrefixFile}
	}
	if head.len > math.MaxInt64-q.Size {
		return shown{errno: syscall.EIO}
	}
	return madeOf(head.len+q.Size, head, piece{off: head.len, len: q.Size, from: "self"})
}

func (m *model) split(r *config.Rule, q stack.FileQuery) shown {
	self := q.Size
	if r.Size != nil {
		self = m.lower[r.Path]
	}
	table, err := config.Layout(r, func(name string) (int64, error) {
		if name == "" {
			return self, nil
		}
		return m.sizes[name], nil
	})
	if err != nil {
		return shown{errno: syscall.EIO}
	}
	var list []piece
	for _, e := range table.Extents {
		p := piece{off: int64(e.Off), len: int64(e.Len), src: int64(e.Src), from: "zero"}
		if e.Kind == config.KindBacking && e.Backing == config.BackingSelf {
			p.from = "self"
		} else if e.Kind == config.KindBacking {
			p.from = table.Parts[e.Backing-config.BackingPart]
		}
		list = append(list, p)
	}
	return madeOf(int64(table.Total), list...)
}

// shownBy is what a policy's plan comes to, window by window.
func shownBy(t *testing.T, a stack.FileAnswer, q stack.FileQuery) shown {
	t.Helper()
	switch {
	case a.Errno != 0:
		return shown{errno: a.Errno}
	case a.Plan == nil:
		return asIs(q)
	}
	var list []piece
	for at := int64(0); at < a.Plan.Size; {
		w, err := a.Plan.Window(at)
		if err != nil || len(w.Extents) == 0 {
			t.Fatalf("%s at %d of %d: %+v, %v", q.Place, at, a.Plan.Size, w, err)
		}
		for _, e := range w.Extents {
			if e.Off != at || e.Len <= 0 || e.Len > a.Plan.Size-at {
				t.Fatalf("%s at %d of %d: extent %+v", q.Place, at, a.Plan.Size, e)
			}
			list = append(list, pieceOf(t, a.Plan, w, e))
			at += e.Len
		}
	}
	return madeOf(a.Plan.Size, list...)
}

func pieceOf(t *testing.T, plan *stack.Plan, w stack.Window, e stack.Extent) piece {
	t.Helper()
	p := piece{off: e.Off, len: e.Len, src: e.Src}
	switch e.Kind {
	case stack.ExtentZero:
		p.from = "zero"
	case stack.ExtentInline:
		p.from, p.bytes = "literal", string(w.Data[e.Src:e.Src+e.Len])
	case stack.ExtentBacking:
		p.from = "self"
		for i, part := range plan.Parts {
			if e.Backing != stack.PartBacking(i) {
				continue
			}
			if p.from = part.Name; part.Name == "text" {
				p.from, p.bytes = "literal", readPart(t, part.FD, e.Src, e.Len)
			}
		}
		if p.from == "self" && e.Backing != stack.Self {
			t.Fatalf("extent %+v: no such part", e)
		}
	default:
		t.Fatalf("extent %+v", e)
	}
	return p
}

func readPart(t *testing.T, fd int, off, n int64) string {
	t.Helper()
	b := make([]byte, n)
	if got, err := unix.Pread(fd, b, off); err != nil || int64(got) != n {
		t.Fatalf("%d bytes of %d, %v", got, n, err)
	}
	return string(b)
}
