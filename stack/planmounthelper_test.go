// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// A rulePolicy is a policy out of functions that can be changed under way. It
// counts what it is asked and gives, and whether it is asked after its end.
type rulePolicy struct {
	scope func(string) Scope
	name  func(NameQuery) NameAnswer
	file  func(FileQuery) FileAnswer
	attr  func(AttrQuery) AttrAnswer
	data  func(DataQuery) DataAnswer
	epoch atomic.Uint64

	closed, late, plans, released atomic.Int64
}

func (p *rulePolicy) asked() {
	if p.closed.Load() > 0 {
		p.late.Add(1)
	}
}

func (p *rulePolicy) Scope(place string) Scope {
	p.asked()
	if p.scope != nil {
		return p.scope(place)
	}
	return Scope{Names: p.name != nil, Files: p.file != nil, Attrs: p.attr != nil, Below: true}
}

func (p *rulePolicy) Name(q NameQuery) NameAnswer {
	p.asked()
	if p.name == nil {
		return NameAnswer{}
	}
	return p.name(q)
}

func (p *rulePolicy) File(q FileQuery) FileAnswer {
	p.asked()
	if p.file == nil {
		return FileAnswer{}
	}
	a := p.file(q)
	if a.Plan != nil {
		plan := *a.Plan
		p.plans.Add(1)
		plan.Release = func() { p.released.Add(1) }
		a.Plan = &plan
	}
	return a
}

func (p *rulePolicy) Attr(q AttrQuery) AttrAnswer {
	p.asked()
	if p.attr == nil {
		return AttrAnswer{}
	}
	return p.attr(q)
}

func (p *rulePolicy) Data(q DataQuery) DataAnswer {
	p.asked()
	if p.data == nil {
		return DataAnswer{}
	}
	return p.data(q)
}

func (p *rulePolicy) Epoch() uint64 { p.asked(); return p.epoch.Load() }

func (p *rulePolicy) Close() { p.closed.Add(1) }

// wantEnded: closed once, every plan released once, and not asked any more.
func (p *rulePolicy) wantEnded(t testing.TB, what string) {
	t.Helper()
	if c, l := p.closed.Load(), p.late.Load(); c != 1 || l != 0 {
		t.Errorf("%s: closed %d times, asked %d times after that", what, c, l)
	}
	if g, r := p.plans.Load(), p.released.Load(); g != r {
		t.Errorf("%s: %d plans were given, %d released", what, g, r)
	}
}

// secret must be found nowhere that a plan blanks it.
const secret = "TOP-SECRET-MARKER-0x5eed"

// Where the secret is in secretContent, and what is blanked of it: over the
// boundary of a page.
const (
	secretAt   = 4096 - 10
	secretFrom = secretAt - 3
	secretLen  = int64(len(secret)) + 7
)

// secretContent is a file with a secret in it.
func secretContent() string {
	b := make([]byte, 20000)
	for i := range b {
		b[i] = byte('a' + i%23)
	}
	copy(b[secretAt:], secret)
	return string(b)
}

// blanked is what a file shows with a range blanked.
func blanked(s string, off, n int64) string {
	b := []byte(s)
	clear(b[min(off, int64(len(b))):min(off+n, int64(len(b)))])
	return string(b)
}

func blankedSecret() string { return blanked(secretContent(), secretFrom, secretLen) }

// secretRanges are the ranges of a TablePolicy that hide the secret.
func secretRanges() []Range { return []Range{{secretFrom, secretLen}} }

// blankAt blanks the secret of the files at places.
func blankAt(places ...string) *rulePolicy {
	return &rulePolicy{file: func(q FileQuery) FileAnswer {
		for _, p := range places {
			if q.Place == p || strings.HasPrefix(q.Place, p+"/") {
				return FileAnswer{Plan: blankPlan(q.Size, secretRanges()), Rule: "blank"}
			}
		}
		return FileAnswer{}
	}, scope: func(place string) Scope {
		var s Scope
		for _, p := range places {
			s.Files = s.Files || place == p || strings.HasPrefix(place, p+"/")
			s.Below = s.Below || place == "/" || strings.HasPrefix(p, place+"/")
		}
		return s
	}}
}

// noSecret looks for the secret in every file below directories.
func noSecret(t testing.TB, what string, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(secret[:10])) {
				t.Errorf("%s: the secret is in %s", what, path)
			}
			return err
		})
		must(t, err)
	}
}

// ioModes are the ways in which files are served.
var ioModes = []struct {
	name   string
	change func(*Config)
}{
	{"passthrough", func(c *Config) { c.IO = IOPassthrough }},
	{"coherent", func(c *Config) { c.IO = IOCoherent }},
	{"server", func(c *Config) { c.Passthrough = PassthroughOff }},
}

// secretMount mounts one file f with a secret, and d/f, under a policy, in a
// way of serving.
func secretMount(t testing.TB, p Policy, change func(*Config), lines ...string) *mounted {
	t.Helper()
	low := layer(t, append([]string{"file f", "file d/f", "file other other"}, lines...)...)
	must(t, os.WriteFile(low+"/f", []byte(secretContent()), 0o644))
	must(t, os.WriteFile(low+"/d/f", []byte(secretContent()), 0o644))
	return mountOver(t, func(c *Config) {
		c.Policy = p
		if change != nil {
			change(c)
		}
	}, low)
}

// planViews are the plans of TablePolicy, and what they make of the content.
var planViews = []struct {
	name   string
	policy func() Policy
	view   func() string
}{
	{"blank", func() Policy { return &TablePolicy{Blank: map[string][]Range{"f": secretRanges()}} }, blankedSecret},
	{"prepend", func() Policy { return &TablePolicy{Prepend: map[string][]byte{"f": []byte("#!/bin/sh\n")}} },
		func() string { return "#!/bin/sh\n" + secretContent() }},
	{"blank by place", func() Policy { return blankAt("/f", "/d/f") }, blankedSecret},
}

func eachView(t *testing.T, fn func(t *testing.T, m *mounted, view string)) {
	for _, mode := range ioModes {
		for _, v := range planViews {
			t.Run(mode.name+"/"+v.name, func(t *testing.T) {
				fn(t, secretMount(t, v.policy(), mode.change), v.view())
			})
		}
	}
}
