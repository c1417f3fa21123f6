// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// panicAt panics in one kind of question while it is armed.
type panicAt struct {
	rulePolicy
	where atomic.Pointer[string]
}

func (p *panicAt) at(where string) {
	if w := p.where.Load(); w != nil && *w == where {
		panic("the policy is wrong in " + where)
	}
}

func (p *panicAt) Scope(place string) Scope {
	p.at("Scope")
	return Scope{Names: true, Files: true, Attrs: true, Reads: strings.HasSuffix(place, "asked"), Writes: strings.HasSuffix(place, "asked")}
}

func (p *panicAt) Name(NameQuery) NameAnswer { p.at("Name"); return NameAnswer{} }

func (p *panicAt) Attr(AttrQuery) AttrAnswer { p.at("Attr"); return AttrAnswer{} }

func (p *panicAt) Data(DataQuery) DataAnswer { p.at("Data"); return DataAnswer{} }

func (p *panicAt) Epoch() uint64 { p.at("Epoch"); return p.rulePolicy.Epoch() }

func (p *panicAt) Close() { p.rulePolicy.Close(); p.at("Close") }

func (p *panicAt) File(q FileQuery) FileAnswer {
	p.at("File")
	if q.Layer == 0 || q.Name == "asked" {
		return FileAnswer{}
	}
	return FileAnswer{Plan: &Plan{Size: 10, Release: func() { p.at("Release") },
		Serve: func(b []byte, _ int64) error { p.at("Serve"); return serveOffsets(b, 0) },
		Window: func(off int64) (Window, error) {
			p.at("Window")
			return Window{Extents: []Extent{extServer(off, 10-off)}}, nil
		}}}
}

// A panic, wherever the policy is asked, is EIO for who asked, and leaves no
// lock, no plan and no daemon behind.
func TestPlanMountedPanics(t *testing.T) {
	for _, where := range []string{"Scope", "Name", "File", "Window", "Serve", "Attr", "Data", "Release", "Epoch"} {
		t.Run(where, func(t *testing.T) {
			p := &panicAt{}
			m := mountOver(t, func(c *Config) { c.Policy = p; c.Passthrough = PassthroughOff },
				layer(t, "file f 0123456789", "file asked 0123456789", "file d/g 1"))
			all := func() (failed bool) {
				for _, err := range []error{
					func() error { _, err := tryRead(m.path("f")); return err }(),
					func() error { _, err := tryRead(m.path("asked")); return err }(),
					func() error { var st unix.Stat_t; return unix.Stat(m.path("d/g"), &st) }(),
					func() error { _, err := os.ReadDir(m.path("d")); return err }(),
				} {
					if err != nil && toErr(err) != unix.EIO {
						t.Errorf("%v", err)
					}
					failed = failed || err != nil
				}
				return failed
			}
			if where == "Serve" || where == "Window" || where == "Data" || where == "File" || where == "Release" {
				if all() {
					t.Error("it fails before the panics")
				}
			}
			p.where.Store(&where)
			m.within("requests that panic", func() {
				failed := all()
				must(t, errOf(m.Explain("f")))
				_ = m.Status()
				m.RefreshPolicy()
				if !failed && where != "Release" && where != "Epoch" && where != "Name" {
					t.Error("no request failed")
				}
			})
			// Some come later: at a release, or when the epoch is looked at.
			if where != "Name" && !eventually(func() bool { return m.Status().Panics > 0 }) {
				t.Error("no panic was counted")
			}
			none := ""
			p.where.Store(&none)
			m.within("requests after the panics", func() {
				m.RefreshPolicy()
				if all() {
					t.Error("it fails after the panics")
				}
				must(t, unix.Chmod(m.path("f"), 0o600))
				must(t, m.SetPolicy(nil))
				if all() {
					t.Error("it fails without the policy")
				}
			})
			m.wantPanics = m.Status().Panics
		})
	}
}

func errOf(_ any, err error) error {
	if toErr(err) == unix.EIO {
		return nil
	}
	return err
}

// SetPolicy asks too, outside any request: neither policy may end the daemon.
func TestSetPolicyPanics(t *testing.T) {
	for _, where := range []string{"Scope", "Name", "File", "Close"} {
		t.Run(where, func(t *testing.T) {
			p, q := &panicAt{}, &panicAt{}
			m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789", "file d/g 1"))
			f := openFD(t, m.path("f"), unix.O_RDONLY)
			readPath(t, m.path("d/g"))
			p.where.Store(&where)
			q.where.Store(&where)
			m.within("SetPolicy with panics", func() {
				_ = m.SetPolicy(q)
				_ = m.SetPolicy(nil)
			})
			wantContent(t, "the open file", f, "0123456789")
			wantSame(t, "the file", readPath(t, m.path("d/g")), "1")
			m.wantPanics = m.Status().Panics
		})
	}
}
