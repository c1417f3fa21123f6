// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/bpf/internal/config"
	"github.com/plyfs/plyfs/stack"
	"golang.org/x/sys/unix"
)

var (
	sameSeed   = flag.Uint64("seed", 1, "of the random policies")
	sameRounds = flag.Int("rounds", 12, "how many random policies")
)

// ---- the model -------------------------------------------------------------

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

// ---- what the programs say -------------------------------------------------

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

// ---- random policies -------------------------------------------------------

// sameCase makes random policies and questions.
type sameCase struct {
	*rand.Rand
	dir   string
	parts []string // files that rules name
	model *model
}

var (
	sameDirs  = []string{"/", "/d", "/d/e", "/d/e/d", "/de", "/f"}
	sameNames = []string{"a", "b", "ab", "aab", "a.b", ".a", "a*", "[a]", "x-y", "\\", "d", "e", "ü", "zzzzzzzzzz.txt"}
)

// one takes one of a list.
func one[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func newSameCase(t *testing.T, seed, n uint64) *sameCase {
	t.Helper()
	c := &sameCase{Rand: rand.New(rand.NewPCG(seed, n)), dir: t.TempDir()}
	c.model = &model{sizes: map[string]int64{}, lower: map[string]int64{}}
	for i, size := range []int{0, 1, 7, 100, 4096, 5000, 65536} {
		name := filepath.Join(c.dir, fmt.Sprintf("part%d", i))
		writeFile(t, name, strings.Repeat(string(rune('A'+i)), size))
		c.parts = append(c.parts, name)
		c.model.sizes[name] = int64(size)
	}
	return c
}

// rules is the text of a random policy.
func (c *sameCase) rules(t *testing.T) string {
	var b strings.Builder
	places := append(slices.Clone(sameDirs), "/d/a", "/d/e/ab", "/a.b")
	c.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	for i, place := range append([]string{"/"}, slices.DeleteFunc(places, func(s string) bool { return s == "/" })[:1+c.IntN(4)]...) {
		if i == 0 || c.IntN(2) > 0 {
			b.WriteString(ruleText(place, "select", "clauses:"+c.clauses()))
		}
		switch {
		case c.IntN(3) > 0:
			for range 1 + c.IntN(3) {
				b.WriteString(c.fileRule(place, "match: ["+c.patterns()+"]"))
			}
		case c.IntN(3) > 0:
			b.WriteString(c.splitRule(t, place))
		default:
			b.WriteString(c.fileRule(place, ""))
		}
	}
	return b.String()
}

// pattern is a random pattern that a policy file may have. Classes like
// "[[:alpha:]]" are none that programs take.
func (c *sameCase) pattern() string {
	if c.IntN(2) == 0 {
		return one(c.Rand, []string{"*", "a*", "*b*", "?", "[ab]*", "[!ab]*", `[\[\\]*`, "*.*"})
	}
	for {
		var b strings.Builder
		for range 1 + c.IntN(8) {
			b.WriteString(one(c.Rand, []string{"a", "b", ".", "*", "*", "?", "[", "]", "!", "^", "-", `\`, "x", "ü", "[ab]", "[!a]", "[^.]", "[]-]", "[a-z]"}))
		}
		if s := b.String(); config.CheckPattern(s) == nil {
			return s
		}
	}
}

// quoted writes a string as YAML has it.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (c *sameCase) patterns() string {
	var list []string
	for range 1 + c.IntN(3) {
		list = append(list, quoted(c.pattern()))
	}
	return strings.Join(list, ", ")
}

// offset is a random place in a file, near to where something happens.
func (c *sameCase) offset() int64 {
	switch c.IntN(4) {
	case 0:
		return int64(c.IntN(20))
	case 1:
		return 4096 - 3 + int64(c.IntN(6))
	case 2:
		return int64(c.IntN(1 << 17))
	}
	return int64(1)<<c.IntN(40) + int64(c.IntN(3)) - 1
}

func (c *sameCase) ranges() string {
	var list []string
	n := one(c.Rand, []int{1, 2, 16, 17, 60, 300})
	for range n {
		off := c.offset()
		if n > 10 {
			off = int64(c.IntN(n * 40))
		}
		list = append(list, fmt.Sprintf("\"%d+%d\"", off, 1+c.IntN(30)))
	}
	return strings.Join(list, ", ")
}

// fileRule is a rule for redact or prepend.
func (c *sameCase) fileRule(place, match string) string {
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a' + byte(c.IntN(26))
		}
		return "text: " + string(b)
	}
	switch c.IntN(6) {
	case 0:
		return ruleText(place, "redact", match, "whole: true")
	case 1:
		return ruleText(place, "prepend", match, text(1+c.IntN(20)))
	case 2:
		return ruleText(place, "prepend", match, text(one(c.Rand, []int{4095, 4096, 4097, 9000})))
	case 3:
		return ruleText(place, "prepend", match, "file: "+one(c.Rand, c.parts[1:]))
	}
	return ruleText(place, "redact", match, "ranges: ["+c.ranges()+"]")
}

// splitRule is a rule for split: parts, or patches over a base.
func (c *sameCase) splitRule(t *testing.T, place string) string {
	more := []string{}
	if c.IntN(2) == 0 {
		list := []string{c.parts[2]}
		for range c.IntN(40) {
			list = append(list, one(c.Rand, c.parts))
		}
		more = append(more, "parts: ["+strings.Join(list, ", ")+"]")
		if c.IntN(3) == 0 {
			more = append(more, fmt.Sprintf("size: %d", 1+c.IntN(1000)))
		}
		return ruleText(place, "split", more...)
	}
	more = append(more, "patches: ["+c.patches()+"]")
	switch c.IntN(3) {
	case 0:
		more = append(more, "base: "+one(c.Rand, c.parts[1:]))
	case 1:
		if slices.Contains(sameDirs, place) {
			break // a size of its own is for one file
		}
		c.lowerFile(t, place)
		more = append(more, fmt.Sprintf("size: %d", 1+c.IntN(10_000)))
	}
	return ruleText(place, "split", more...)
}

func (c *sameCase) patches() string {
	var list []string
	for range 1 + c.IntN(40) {
		i := 1 + c.IntN(len(c.parts)-1)
		size := c.model.sizes[c.parts[i]]
		from := c.Int64N(size)
		list = append(list, fmt.Sprintf("{offset: %d, file: %s, from: %d, length: %d}", c.IntN(20_000), c.parts[i], from, 1+c.Int64N(size-from)))
	}
	return strings.Join(list, ", ")
}

// lowerFile makes the file of a place in a lower layer.
func (c *sameCase) lowerFile(t *testing.T, place string) {
	name := filepath.Join(c.dir, "lower", place)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	c.model.lower[place] = int64(c.IntN(9000))
	writeFile(t, name, strings.Repeat("l", int(c.model.lower[place])))
}

// clauses is a random list of them.
func (c *sameCase) clauses() string {
	var b strings.Builder
	b.WriteByte('\n')
	for range one(c.Rand, []int{2, 5, 20, 64}) {
		fmt.Fprintf(&b, "      - {match: %s, %s", quoted(c.pattern()), one(c.Rand, []string{
			"hide: true", "deny: true", "show: true", "skip: 1", "skip: [1, 3]", "layer: 1", "layer: 2", "layer: 3, or: hide", "layer: 2, or: leave"}))
		if c.IntN(3) == 0 {
			fmt.Fprintf(&b, ", type: %s", one(c.Rand, []string{"file", "dir", "symlink"}))
		}
		ids := c.IntN(6)
		if ids&1 == 1 {
			fmt.Fprintf(&b, ", uid: %s", one(c.Rand, []string{"0", "1000-1999", "1005"}))
		}
		if ids&2 == 2 {
			fmt.Fprintf(&b, ", gid: %s", one(c.Rand, []string{"0", "1000-1999", "5"}))
		}
		if ids&3 > 0 && c.IntN(2) == 0 {
			b.WriteString(", not: true")
		}
		b.WriteString("}\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// ---- random questions ------------------------------------------------------

func (c *sameCase) place() string { return path.Join(one(c.Rand, sameDirs), one(c.Rand, sameNames)) }

func (c *sameCase) who() stack.Caller {
	id := func() uint32 { return one(c.Rand, []uint32{0, 5, 999, 1000, 1005, 1999, 2000, stack.NobodyID}) }
	return stack.Caller{UID: id(), GID: id(), PID: 1}
}

func (c *sameCase) nameQuery() stack.NameQuery {
	q := nameOf(c.place())
	typ := one(c.Rand, []uint32{unix.S_IFREG, unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, 0})
	q.Caller, q.Type, q.Mode, q.Layers = c.who(), typ, typ|0o644, 5
	q.Holders = uint64(1 + c.IntN(31))
	q.Layer = slices.IndexFunc([]int{0, 1, 2, 3, 4}, func(k int) bool { return q.Holders>>k&1 == 1 })
	if c.IntN(3) == 0 {
		q.Listing, q.Layer, q.Holders, q.Mode, q.Size = true, -1, 0, 0, 0
	}
	return q
}

func (c *sameCase) fileQuery() stack.FileQuery {
	q := fileOf(c.place(), c.offset())
	switch c.IntN(20) {
	case 0:
		q.Size = 0
	case 1:
		q.Size = math.MaxInt64
	}
	q.Caller, q.Data = c.who(), strings.NewReader("")
	if c.IntN(5) == 0 {
		q.Layer, q.Holders = 0, 1
	}
	return q
}

// ---- the tests -------------------------------------------------------------

// What programs decide is what the policy file means, whoever asks about
// whatever.
func TestSameDecisions(t *testing.T) {
	t.Logf("seed %d", *sameSeed)
	for n := range *sameRounds {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := newSameCase(t, *sameSeed, uint64(n))
			text := c.rules(t)
			p := mustPolicy(t, Options{Lowers: []string{c.dir + "/none", c.dir + "/lower", c.dir, c.dir}}, text)
			for _, r := range p.rules {
				c.model.rules = append(c.model.rules, *r.Rule)
			}
			for range 400 {
				c.sameName(t, p)
				c.sameFile(t, p)
			}
			if t.Failed() {
				t.Logf("the policy:\n%s", text)
			}
		})
	}
}

func (c *sameCase) sameName(t *testing.T, p *Policy) {
	t.Helper()
	q := c.nameQuery()
	if got, want := p.Name(q), c.model.Name(q); got != want {
		t.Errorf("%+v:\n%+v, want\n%+v; %v", q, got, want, p.Rules(q.Place))
	}
}

func (c *sameCase) sameFile(t *testing.T, p *Policy) {
	t.Helper()
	q := c.fileQuery()
	want := c.model.File(q)
	a := p.File(q)
	got := shownBy(t, a, q)
	if got.size != want.size || got.errno != want.errno || !slices.Equal(got.pieces, want.pieces) {
		t.Errorf("%+v:\n%.600s, want\n%.600s; %v", q, fmt.Sprint(got), fmt.Sprint(want), p.Rules(q.Place))
	}
	if a.Plan != nil {
		c.samePieces(t, a.Plan, want)
		a.Plan.Release()
	}
	c.sameSize(t, p, q, want)
}

// samePieces asks for windows that begin anywhere.
func (c *sameCase) samePieces(t *testing.T, plan *stack.Plan, want shown) {
	t.Helper()
	for range min(3, plan.Size) {
		off := c.Int64N(plan.Size)
		w, err := plan.Window(off)
		if err != nil || len(w.Extents) == 0 || w.Extents[0].Off != off {
			t.Errorf("window at %d: %+v, %v", off, w, err)
			return
		}
		i := slices.IndexFunc(want.pieces, func(p piece) bool { return p.off <= off && off-p.off < p.len })
		got, expect := pieceOf(t, plan, w, w.Extents[0]), want.pieces[i]
		skip := off - expect.off
		switch {
		case got.from != expect.from:
		case got.from == "zero", got.from == "literal" && strings.HasPrefix(expect.bytes[skip:], got.bytes), got.from != "literal" && got.src == expect.src+skip:
			continue
		}
		t.Errorf("byte %d: %.300s, want %.300s", off, fmt.Sprint(got), fmt.Sprint(expect))
	}
}

// sameSize compares what is told to those who only ask for the size.
func (c *sameCase) sameSize(t *testing.T, p *Policy, q stack.FileQuery, want shown) {
	t.Helper()
	q.AttrOnly, q.Data = true, nil
	a := p.File(q)
	size := q.Size
	if a.Plan != nil {
		size = a.Plan.Size
		a.Plan.Release()
	}
	if a.Errno != want.errno || a.Errno == 0 && size != want.size {
		t.Errorf("size of %+v: %d, %v, want %d, %v; %v", q, size, a.Errno, want.size, want.errno, p.Rules(q.Place))
	}
}

// What stack.TablePolicy can say, programs say alike.
func TestSameAsTable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(*sameSeed, 1<<32))
	t.Logf("seed %d", *sameSeed)
	table := &stack.TablePolicy{Hide: map[string]bool{}, Layer: map[string]int{}, Blank: map[string][]stack.Range{}, Prepend: map[string][]byte{}}
	names := []string{}
	clauses, rules := "", ""
	for i := range 30 {
		name := fmt.Sprintf("n%d", i)
		names = append(names, name)
		switch i % 3 {
		case 0:
			table.Hide[name] = true
			clauses += fmt.Sprintf("\n      - {match: %s, hide: true}", name)
		case 1:
			table.Layer[name] = 1 + i%4
			clauses += fmt.Sprintf("\n      - {match: %s, layer: %d}", name, 1+i%4)
		}
		if i%2 == 0 {
			table.Blank[name] = []stack.Range{{Off: int64(i), Len: 3}, {Off: int64(i) + 100, Len: 1}, {Off: 5000, Len: 1 << 20}}
			rules += ruleText("/", "redact", "match: "+name, fmt.Sprintf("ranges: [%d+3, %d+1, 5000+1M]", i, i+100))
		} else {
			table.Prepend[name] = []byte(strings.Repeat("p", i*200))
			rules += ruleText("/", "prepend", "match: "+name, "text: "+strings.Repeat("p", i*200))
		}
	}
	p := mustPolicy(t, Options{}, ruleText("/", "select", "clauses:"+clauses)+rules)
	c := &sameCase{Rand: rnd}
	for range 2000 {
		n, f := c.nameQuery(), c.fileQuery()
		name := one(rnd, names)
		n.Place, n.Name, f.Place, f.Name = "/x/"+name, name, "/x/"+name, name
		if n.Holders &^= 1; n.Layer == 0 { // what is in upper stays there: stack sees to that for a table
			n.Layer = 1
		}
		if got, want := p.Name(n), table.Name(n); got != want {
			t.Errorf("%+v: %+v, want %+v", n, got, want)
		}
		if f.Size == math.MaxInt64 {
			continue // a table's prefix would overflow
		}
		a := p.File(f)
		got, want := shownBy(t, a, f), shownBy(t, table.File(f), f)
		if got.size != want.size || got.errno != want.errno || !slices.Equal(got.pieces, want.pieces) {
			t.Errorf("%+v: %.300s, want %.300s", f, fmt.Sprint(got), fmt.Sprint(want))
		}
		if a.Plan != nil {
			a.Plan.Release()
		}
	}
}
