// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// funcPolicy is a policy out of functions.
type funcPolicy struct {
	OnlyNames
	scope func(string) Scope
	name  func(NameQuery) NameAnswer
	file  func(FileQuery) FileAnswer
}

func (p *funcPolicy) Scope(place string) Scope {
	if p.scope == nil {
		return Scope{Names: p.name != nil, Files: p.file != nil}
	}
	return p.scope(place)
}

func (p *funcPolicy) Name(q NameQuery) NameAnswer {
	if p.name == nil {
		return NameAnswer{}
	}
	return p.name(q)
}

func (p *funcPolicy) File(q FileQuery) FileAnswer {
	if p.file == nil {
		return FileAnswer{}
	}
	return p.file(q)
}

// A wrong answer is EIO. FUSE takes errnos up to 511 as an answer; a larger
// one it refuses, and the process that asked waits for ever.
func TestPolicyNameAnswersAreChecked(t *testing.T) {
	minus := func(n int) syscall.Errno { return syscall.Errno(-n) }
	for _, c := range []struct {
		a    NameAnswer
		want syscall.Errno
	}{
		{NameAnswer{}, 0},
		{NameAnswer{Hide: true}, unix.ENOENT},
		{NameAnswer{Errno: unix.EACCES}, unix.EACCES},
		{NameAnswer{Hide: true, Errno: unix.EPERM}, unix.EPERM},
		{NameAnswer{Errno: 133}, 133},
		{NameAnswer{Errno: 512}, unix.EIO},
		{NameAnswer{Errno: 4095}, unix.EIO},
		{NameAnswer{Errno: 4096}, unix.EIO},
		{NameAnswer{Errno: minus(1)}, unix.EIO},
		{NameAnswer{Errno: 1 << 40}, unix.EIO},
	} {
		fs := policyFS(&funcPolicy{name: func(NameQuery) NameAnswer { return c.a }})
		if _, err := fs.decide(NameQuery{}); toErr(err) != c.want {
			t.Errorf("%+v became %v, want %v", c.a, err, c.want)
		}
	}
	if _, err := new(FS).decide(NameQuery{}); err != nil {
		t.Errorf("no policy: %v", err)
	}
}

// policyFS is enough of a file system to ask a policy.
func policyFS(p Policy) *FS {
	fs := &FS{log: slog.New(slog.DiscardHandler)}
	fs.count.init()
	fs.policy.Store(&policyState{Policy: p, gen: 1})
	return fs
}

func TestPolicyFileAnswersAreChecked(t *testing.T) {
	for _, c := range []struct {
		a    FileAnswer
		want syscall.Errno
	}{
		{FileAnswer{}, 0},
		{FileAnswer{Why: "no matter"}, 0},
		{FileAnswer{Server: true, Why: "so"}, 0},
		{FileAnswer{Errno: unix.EACCES, Server: true}, unix.EACCES},
		{FileAnswer{Errno: 512}, unix.EIO},
		{FileAnswer{Errno: 4095}, unix.EIO},
		{FileAnswer{Errno: 4096}, unix.EIO},
	} {
		released := 0
		c.a.Plan = &Plan{Release: func() { released++ }}
		fs := policyFS(&funcPolicy{file: func(FileQuery) FileAnswer { return c.a }})
		a, err := fs.askFile(FileQuery{})
		if toErr(err) != c.want {
			t.Errorf("%+v: %v, want %v", c.a, err, c.want)
		}
		if (a.Plan == nil) != (err != nil) || (released == 1) != (err != nil) {
			t.Errorf("%+v: the plan was released %d times", c.a, released)
		}
	}
}

func TestTablePolicy(t *testing.T) {
	p := &TablePolicy{Hide: map[string]bool{"secret": true}}
	if a := p.Name(NameQuery{Name: "secret"}); !a.Hide {
		t.Error("shown")
	}
	if a := p.Name(NameQuery{Name: "open"}); a != (NameAnswer{}) {
		t.Errorf("%+v", a)
	}
	if a := p.File(FileQuery{}); a != (FileAnswer{Rule: "table"}) {
		t.Errorf("%+v", a)
	}
	p.Server = "why"
	if a := p.File(FileQuery{}); a != (FileAnswer{Server: true, Why: "why", Rule: "table"}) {
		t.Errorf("%+v", a)
	}
}

func TestTablePolicyMounted(t *testing.T) {
	m := mountOver(t, func(c *Config) {
		c.Policy = &TablePolicy{Hide: map[string]bool{"secret": true}, Server: "the table says so"}
	}, layer(t, "file a 1", "file secret 1", "file d/secret/x 1", "file d/b 2"))
	wantNames(t, m.mnt, "a", "d")
	wantNames(t, m.path("d"), "b")
	for _, p := range []string{"secret", "d/secret", "d/secret/x"} {
		var st unix.Stat_t
		wantErrno(t, p, unix.Lstat(m.path(p), &st), unix.ENOENT)
	}
	f := openFD(t, m.path("a"), unix.O_RDWR)
	f.writeAt("new", 0)
	if got := f.content(); got != "new" {
		t.Errorf("a served file holds %q", got)
	}
	f.close()
	s := m.Status()
	if s.Opens.Passthrough != 0 || s.Opens.Server == 0 || s.Opens.Refusals["policy: the table says so"] != s.Opens.Server {
		t.Errorf("opens: %+v", s.Opens)
	}
	if e, err := m.Explain("a"); err != nil || e.IOMode != "server" || e.IOWhy != "policy: the table says so" {
		t.Errorf("explained as %+v, %v", e, err)
	}
}

func TestPolicyErrnosMounted(t *testing.T) {
	var queries atomic.Int64
	m := mountOver(t, func(c *Config) {
		c.Policy = &funcPolicy{
			name: func(q NameQuery) NameAnswer {
				queries.Add(1)
				switch q.Name {
				case "denied":
					return NameAnswer{Errno: unix.EACCES}
				case "wrong":
					return NameAnswer{Errno: 1 << 20}
				}
				return NameAnswer{}
			},
			file: func(q FileQuery) FileAnswer {
				if q.Write && q.Layer == 0 {
					return FileAnswer{Errno: unix.EPERM}
				}
				return FileAnswer{}
			},
		}
	}, layer(t, "file a 1", "file denied 1", "file wrong 1"))
	var st unix.Stat_t
	wantErrno(t, "denied", unix.Lstat(m.path("denied"), &st), unix.EACCES)
	wantErrno(t, "wrong", unix.Lstat(m.path("wrong"), &st), unix.EIO)
	if got := readPath(t, m.path("a")); got != "1" {
		t.Errorf("a: %q", got)
	}
	_, err := unix.Open(m.path("a"), unix.O_RDWR, 0)
	wantErrno(t, "open for writing", err, unix.EPERM)
	must(t, unix.Lstat(m.path("a"), &st))
	if n := leastOf3(func() int64 {
		before := queries.Load()
		for range 50 {
			must(t, unix.Lstat(m.path("a"), &st))
		}
		return queries.Load() - before
	}); n != 0 {
		t.Errorf("the policy was asked %d times more for a name that it had decided about", n)
	}
	if s := m.Status(); s.Errors["EACCES"] == 0 || s.Errors["EIO"] == 0 || s.Errors["EPERM"] == 0 {
		t.Errorf("errors: %v", s.Errors)
	}
}

// A program cannot crash the daemon, nor leave a lock behind.
func TestPolicyPanics(t *testing.T) {
	var armed atomic.Bool
	armed.Store(true)
	boom := func(hit bool) {
		if hit && armed.Load() {
			panic("the policy is wrong")
		}
	}
	m := mountOver(t, func(c *Config) {
		c.Policy = &funcPolicy{
			name: func(q NameQuery) NameAnswer { boom(q.Name == "boom"); return NameAnswer{} },
			file: func(q FileQuery) FileAnswer { boom(q.Write); return FileAnswer{} },
		}
	}, layer(t, "file boom 1", "file a 1", "file d/boom 1", "file d/b 1"))
	var st unix.Stat_t
	m.within("a lookup that panics", func() {
		wantErrno(t, "lookup", unix.Lstat(m.path("boom"), &st), unix.EIO)
	})
	m.within("the next lookup in the directory", func() {
		if got := readPath(t, m.path("a")); got != "1" {
			t.Errorf("a: %q", got)
		}
	})
	m.within("an open that panics", func() {
		_, err := unix.Open(m.path("a"), unix.O_RDWR, 0)
		wantErrno(t, "open", err, unix.EIO)
	})
	m.within("the next open of the file", func() {
		if got := readPath(t, m.path("a")); got != "1" {
			t.Errorf("a: %q", got)
		}
	})
	m.wantPanics = m.Status().Panics
	if m.wantPanics < 2 {
		t.Errorf("%d panics counted, want 2 or more", m.wantPanics)
	}
	armed.Store(false)
	m.within("reading once the policy is mended", func() {
		if got := readPath(t, m.path("boom")); got != "1" {
			t.Errorf("boom: %q", got)
		}
	})
}

// A panic while a listing is made must not keep the directory locked.
func TestPolicyPanicsInReaddir(t *testing.T) {
	var armed atomic.Bool
	armed.Store(true)
	m := mountOver(t, func(c *Config) {
		c.Policy = &funcPolicy{name: func(q NameQuery) NameAnswer {
			if q.Name == "boom" && armed.Load() {
				panic("the policy is wrong")
			}
			return NameAnswer{}
		}}
	}, layer(t, "file d/boom 1", "file d/b 1"))
	d := openFD(t, m.path("d"), unix.O_RDONLY|unix.O_DIRECTORY)
	m.within("a listing that panics", func() {
		n, err := 1, error(nil)
		for n > 0 && err == nil { // names before the one that fails come first
			n, err = unix.Getdents(d.fd, make([]byte, 4096))
		}
		wantErrno(t, "getdents", err, unix.EIO)
	})
	m.wantPanics = m.Status().Panics
	if m.wantPanics == 0 {
		t.Error("no panic was counted")
	}
	armed.Store(false)
	m.within("a lookup in the directory after that", func() {
		if got := readPath(t, m.path("d/b")); got != "1" {
			t.Errorf("b: %q", got)
		}
	})
	m.within("the next listing", func() { wantNames(t, m.path("d"), "b", "boom") })
}

// Status, explain and changes ask the policy too, outside any request.
func TestPolicyPanicsInExplain(t *testing.T) {
	cfg := mountDirs(t, layer(t, "file boom 1"))
	cfg.Policy = &funcPolicy{name: func(NameQuery) NameAnswer { panic("the policy is wrong") }}
	fs := openFS(t, cfg)
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("a panicking policy would end the daemon: %v", r)
		}
	}()
	if _, err := fs.Explain("boom"); toErr(err) != unix.EIO {
		t.Errorf("Explain: %v, want EIO", err)
	}
}

// What a policy refuses to open leaves nothing behind in memory.
func TestPolicyRefusesCreate(t *testing.T) {
	m := mountOver(t, func(c *Config) {
		c.Policy = &funcPolicy{file: func(FileQuery) FileAnswer { return FileAnswer{Errno: unix.EPERM} }}
	}, layer(t, "file a 1"))
	for range 5 {
		_, err := unix.Open(m.path("new"), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
		if e := toErr(err); e != unix.EPERM && e != unix.EEXIST {
			t.Errorf("create: %v", err)
		}
	}
	m.wantForgotten()
}
