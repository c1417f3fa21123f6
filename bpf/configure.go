// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/plyfs/plyfs/bpf/internal/config"
	"github.com/plyfs/plyfs/stack"
	"golang.org/x/sys/unix"
)

// A setting is what a rule's object is loaded with: constants, sizes of maps,
// and then the maps' contents.
type setting struct {
	vars  map[string]uint64
	sizes map[string]uint32
	fill  map[string]any // a slice of values, by index
	parts []string       // files
	text  []byte         // a part made of bytes
}

// loadRule loads the object of a rule for itself. named is set where the
// policy has rules with names of their own.
func (p *Policy) loadRule(c *config.Rule, opt Options, named bool) (_ *rule, err error) {
	r := &rule{Rule: c, policy: p}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	o, err := openObject(c, opt)
	if err != nil {
		return nil, err
	}
	s, err := settingOf(c, opt)
	if err != nil {
		return nil, err
	}
	if c.Program == config.Select && c.Object == "" && !asksCaller(c.Clauses) {
		o.sharedByAll()
	}
	if err := r.openParts(s, opt); err != nil {
		return nil, err
	}
	pin, err := pinDir(c, opt, named)
	if err == nil {
		err = p.pinFree(pin)
	}
	if err != nil {
		return nil, err
	}
	if r.progs, err = o.load(loadOptions{vars: s.vars, sizes: s.sizes, pinTo: pin}); err != nil {
		return nil, err
	}
	r.caller = o.caller
	r.progs.setBudget(p.budget)
	if c.Handler != "" {
		r.handler = handlers[c.Handler](p)
	}
	return r, r.fillMaps(s)
}

// openObject reads the rule's object: its own, or one that plyfs brings along.
func openObject(c *config.Rule, opt Options) (*object, error) {
	if c.Object == "" {
		data, err := shipped.ReadFile("progs/" + c.Program + ".o")
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", c.Program, err)
		}
		o, err := readObject(c.Program, bytes.NewReader(data))
		if err == nil {
			o.own = true
		}
		return o, err
	}
	f, err := config.OpenTrusted(c.Object)
	if err != nil {
		return nil, fmt.Errorf("object: %w", err)
	}
	defer f.Close()
	if err := notWritten(f.Name(), opt); err != nil {
		return nil, fmt.Errorf("object: %w", err)
	}
	return readObject(c.Object, f)
}

// sharedByAll takes an object's PLY_CALLER back.
func (o *object) sharedByAll() {
	if v := o.spec.Variables[callVar]; v != nil {
		v.Value = make([]byte, len(v.Value))
		o.caller = false
	}
}

// pinDir makes the directory in which the maps of a user's object are pinned.
func pinDir(c *config.Rule, opt Options, named bool) (string, error) {
	if opt.Pin == "" || c.Object == "" {
		return "", nil
	}
	dir := opt.Pin
	if named {
		dir = filepath.Join(dir, strings.NewReplacer("/", "_", ".", "_").Replace(c.Name))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(opt.Pin, &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
		if parent := filepath.Dir(opt.Pin); unix.Statfs(parent, &st) != nil || st.Type != unix.BPF_FS_MAGIC {
			return "", fmt.Errorf("%s: not on a bpffs, where maps can be pinned; mount -t bpf bpf %s", opt.Pin, parent)
		}
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// pinFree refuses a directory in which another rule's maps are pinned: those of
// the same name would be one map.
func (p *Policy) pinFree(dir string) error {
	for _, r := range p.rules {
		if dir != "" && r.progs.pinTo == dir {
			return fmt.Errorf("its maps would be pinned in %s, where those of rule %s are; give it another name", dir, r.Name)
		}
	}
	return nil
}

// settingOf says what the object of a rule is loaded with.
func settingOf(c *config.Rule, opt Options) (*setting, error) {
	s := &setting{vars: map[string]uint64{}, sizes: map[string]uint32{}, fill: map[string]any{}}
	var err error
	switch {
	case c.Object != "":
		s.vars, s.parts = c.Params, c.Parts
	case c.Program == config.Redact:
		s.redact(c)
	case c.Program == config.Prepend:
		err = s.prepend(c)
	case c.Program == config.Split:
		err = s.split(c, opt)
	case c.Program == config.Select:
		s.selectNames(c)
	}
	if len(c.Match) > 0 && c.Object == "" {
		s.match(c.Match)
	}
	return s, err
}

// pattern is struct ply_pattern of progs/match.h.
type pattern struct {
	Text [64]byte
	Len  uint32
	_    uint32
}

func makePattern(text string) (p pattern) {
	p.Len = uint32(copy(p.Text[:], text))
	return p
}

func (s *setting) match(list []string) {
	var all []pattern
	for _, m := range list {
		all = append(all, makePattern(m))
	}
	s.vars["n_patterns"], s.fill["patterns"] = uint64(len(all)), all
}

func (s *setting) redact(c *config.Rule) {
	if c.Whole {
		s.vars["whole"] = 1
	}
	if c.Handler != "" {
		s.vars["use_handler"] = 1
	}
	if n := len(c.Ranges); n > 0 {
		all := make([]byteRange, n)
		for i, r := range c.Ranges {
			all[i] = byteRange{Off: r.Off, Len: r.Len}
		}
		s.vars["n_ranges"], s.sizes["ranges"], s.fill["ranges"] = uint64(n), uint32(n), all
	}
}

func (s *setting) prepend(c *config.Rule) error {
	text := c.Prefix
	if c.PrefixFile != "" {
		st, err := os.Stat(c.PrefixFile)
		if err != nil {
			return err
		}
		s.vars["prefix_len"], s.vars["prefix_part"] = uint64(st.Size()), 1
		s.parts = []string{c.PrefixFile}
		return nil
	}
	s.vars["prefix_len"] = uint64(len(text))
	if len(text) > inlineBytes {
		s.vars["prefix_part"], s.text = 1, text
		return nil
	}
	var all [1][inlineBytes]byte
	copy(all[0][:], text)
	s.fill["prefix"] = all[:]
	return nil
}

// endless is the size for which the table of a file with patches is made when
// the file keeps its size, which the program cuts it at.
const endless = 1 << 62

func (s *setting) split(c *config.Rule, opt Options) error {
	self := len(c.Parts) == 0 && c.Base == "" && c.Size == nil
	t, err := config.Layout(c, func(path string) (int64, error) {
		switch {
		case path == "" && self:
			return endless, nil
		case path == "":
			return lowerSize(c.Path, opt.Lowers)
		}
		return fileSize(path)
	})
	if err != nil {
		return err
	}
	if self {
		s.vars["size_from_self"] = 1
	}
	if len(t.Extents) == 0 && !self {
		return errors.New("the file would be empty; name parts that are not, or a size")
	}
	s.vars["total"], s.vars["n_table"] = t.Total, uint64(len(t.Extents))
	s.parts = t.Parts
	if n := len(t.Extents); n > 0 {
		s.sizes["table"], s.fill["table"] = uint32(n), t.Extents
	}
	return nil
}

func fileSize(path string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// lowerSize is the size of the file of a path as the lower layers have it.
func lowerSize(path string, lowers []string) (int64, error) {
	for _, l := range lowers {
		if st, err := os.Lstat(filepath.Join(l, path)); err == nil && st.Mode().IsRegular() {
			return st.Size(), nil
		}
	}
	return 0, fmt.Errorf("no lower directory has a file %s; make one, of which the pieces are shown", path)
}

// clause is struct ply_clause of progs/select.c.
type clause struct {
	Pattern                    pattern
	Flags, Action, Layer       uint32
	UIDLo, UIDHi, GIDLo, GIDHi uint32
	Type                       uint32
	Skip                       uint64
}

// Flags of a clause.
const (
	clauseUID    = 1
	clauseGID    = 2
	clauseInvert = 4
	clauseOrHide = 8
)

func (s *setting) selectNames(c *config.Rule) {
	all := make([]clause, len(c.Clauses))
	for i := range c.Clauses {
		all[i] = makeClause(&c.Clauses[i])
	}
	s.vars["n_clauses"], s.fill["clauses"] = uint64(len(all)), all
}

func makeClause(c *config.Clause) clause {
	k := clause{Pattern: makePattern(c.Match), Action: uint32(c.Action), Layer: uint32(c.Layer), Type: c.Type,
		Flags: flagIf(c.UID != nil, clauseUID) | flagIf(c.GID != nil, clauseGID) | flagIf(c.Not, clauseInvert) | flagIf(c.OrHide, clauseOrHide)}
	if c.UID != nil {
		k.UIDLo, k.UIDHi = c.UID.First, c.UID.Last
	}
	if c.GID != nil {
		k.GIDLo, k.GIDHi = c.GID.First, c.GID.Last
	}
	for _, l := range c.Skip {
		if l < 63 {
			k.Skip |= 1 << l
		}
	}
	return k
}

// asksCaller tells whether a clause depends on who asks.
func asksCaller(list []config.Clause) bool {
	for _, c := range list {
		if c.UID != nil || c.GID != nil {
			return true
		}
	}
	return false
}

// openParts opens the files that the rule names.
func (r *rule) openParts(s *setting, opt Options) error {
	if s.text != nil {
		fd, err := memoryPart(s.text)
		if err != nil {
			return err
		}
		r.parts = append(r.parts, stack.Part{Name: "text", FD: fd})
	}
	for _, path := range s.parts {
		part, err := openPart(path, opt)
		if err != nil {
			return err
		}
		r.parts = append(r.parts, part)
	}
	return nil
}

// memoryPart is a sealed file in memory.
func memoryPart(text []byte) (int, error) {
	fd, err := unix.MemfdCreate("plyfs-text", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "text")
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return -1, err
	}
	seals := unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return -1, os.NewSyscallError("fcntl F_ADD_SEALS", err)
	}
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
}

// fillMaps fills the maps of a rule's object.
func (r *rule) fillMaps(s *setting) error {
	for name, values := range s.fill {
		if err := fillArray(r.progs.maps[name], values); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	for name, m := range r.Maps {
		for _, e := range m.Entries {
			if err := r.progs.mapSet(name, plainValue(e.Key), plainValue(e.Value)); err != nil {
				return fmt.Errorf("line %d: %w", e.Line, err)
			}
		}
	}
	return nil
}

// fillArray writes a slice of values into an array map.
func fillArray(m *ebpf.Map, values any) error {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, values); err != nil {
		return err
	}
	data, size := b.Bytes(), int(m.ValueSize())
	if size == 0 || len(data)%size != 0 || len(data)/size > int(m.MaxEntries()) {
		return fmt.Errorf("%d bytes do not fit %d values of %d", len(data), m.MaxEntries(), size)
	}
	for i := 0; i*size < len(data); i++ {
		if err := m.Update(uint32(i), data[i*size:(i+1)*size], ebpf.UpdateAny); err != nil {
			return err
		}
	}
	return nil
}

// plainValue turns the mappings of a policy file into Go's.
func plainValue(v any) any {
	switch v := v.(type) {
	case []config.MapEntry:
		m := make(map[string]any, len(v))
		for _, e := range v {
			m[fmt.Sprint(e.Key)] = plainValue(e.Value)
		}
		return m
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plainValue(v[i])
		}
		return out
	}
	return v
}
