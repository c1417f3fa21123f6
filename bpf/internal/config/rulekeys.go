// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	maxRanges  = 1 << 20
	maxFiles   = 4096    // parts of a rule
	maxPatches = 1 << 16 // of a rule
	maxClauses = 64      // of a rule
)

// A ruleKey is a key of a rule.
type ruleKey struct {
	name   string
	owners []string // the programs that it belongs to; none: all
	read   func(p *parser, r *Rule, n *yaml.Node)
}

// ruleKeys are the keys of a rule.
var ruleKeys = []ruleKey{
	{"path", nil, (*parser).readPath},
	{"program", nil, (*parser).readProgram},
	{"name", nil, (*parser).readName},
	{"match", []string{Redact, Prepend}, (*parser).readMatch},
	{"handler", []string{Redact, object}, (*parser).readHandler},
	{"ranges", []string{Redact}, (*parser).readRanges},
	{"whole", []string{Redact}, (*parser).readWhole},
	{"text", []string{Prepend}, (*parser).readText},
	{"file", []string{Prepend}, (*parser).readPrefixFile},
	{"parts", []string{Split, object}, (*parser).readParts},
	{"base", []string{Split}, (*parser).readBase},
	{"patches", []string{Split}, (*parser).readPatches},
	{"size", []string{Split}, (*parser).readSize},
	{"clauses", []string{Select}, (*parser).readClauses},
	{"params", []string{object}, (*parser).readParams},
	{"maps", []string{object}, (*parser).readMaps},
}

// ruleKeyNames are their names.
var ruleKeyNames = func() []string {
	var names []string
	for _, k := range ruleKeys {
		names = append(names, k.name)
	}
	return names
}()

// readRule reads a rule.
func (p *parser) readRule(n *yaml.Node, r *Rule) {
	r.Line = n.Line
	f, ok := p.fields(n, "a rule", ruleKeyNames)
	if !ok {
		return
	}
	if program := f.get("program"); program != nil {
		p.readProgram(r, program)
	}
	for _, one := range f.list {
		i := slices.Index(ruleKeyNames, one.name)
		if one.name == "program" || !p.belongs(r, one, ruleKeys[i].owners) {
			continue
		}
		ruleKeys[i].read(p, r, one.value)
	}
	p.checkRule(r, f)
}

// belongs checks that a key is one of the rule's program.
func (p *parser) belongs(r *Rule, one field, owners []string) bool {
	if r.Program == "" || owners == nil || slices.Contains(owners, r.kind()) {
		return true
	}
	whose := strings.Join(owners, " and ")
	whose = strings.Replace(whose, object, "objects (./FILE.o)", 1)
	p.errorf(one.key, "%s belongs to %s, this rule's program is %s; remove it, or name another program", one.name, whose, cut(r.Program))
	return false
}

// readPath reads where a rule holds.
func (p *parser) readPath(r *Rule, n *yaml.Node) {
	s, ok := p.str(n, "path")
	if !ok {
		return
	}
	names := strings.Split(s, "/")
	switch {
	case !strings.HasPrefix(s, "/"):
		p.errorf(n, "path %s is not absolute; begin it with /, which is the root of the mount", quote(s))
	case strings.ContainsRune(s, 0):
		p.errorf(n, "path %s has a zero byte; no name has one", quote(s))
	case slices.Contains(names, ".."):
		p.errorf(n, `path %s has ".." in it; write the path without`, quote(s))
	case len(s) > 4095 || slices.ContainsFunc(names, func(name string) bool { return len(name) > 255 }):
		p.errorf(n, "path %s is longer than a path or a name can be; no file has it", quote(s))
	default:
		r.Path = path.Clean(s)
	}
}

// readProgram reads which program a rule is about.
func (p *parser) readProgram(r *Rule, n *yaml.Node) {
	s, ok := p.word(n, "program")
	if !ok {
		return
	}
	builtin := []string{Redact, Prepend, Split, Select}
	switch {
	case slices.Contains(builtin, s):
		r.Program = s
	case strings.Contains(s, "/") || strings.HasSuffix(s, ".o"):
		r.Program, r.Object = s, p.refer(n, s)
	default:
		p.errorf(n, "there is no program %s; %s, or the path of an object (./FILE.o)", quote(s),
			strings.TrimSuffix(didYouMean(s, builtin), "?"))
	}
}

// readName reads the label of a rule.
func (p *parser) readName(r *Rule, n *yaml.Node) {
	s, ok := p.word(n, "name")
	if ok && len(s) > 64 {
		p.errorf(n, "name %s is longer than 64 bytes; shorten it", quote(s))
		return
	}
	r.Name = s
}

// readMatch reads which names a rule is about.
func (p *parser) readMatch(r *Rule, n *yaml.Node) {
	for _, one := range p.items(n, "match", maxPatterns) {
		if s, ok := p.pattern(one); ok {
			r.Match = append(r.Match, s)
		}
	}
}

// pattern reads a pattern of names.
func (p *parser) pattern(n *yaml.Node) (string, bool) {
	s, ok := p.str(n, "match")
	if !ok {
		return "", false
	}
	if err := CheckPattern(s); err != nil {
		p.errorf(n, "match: %v", err)
		return "", false
	}
	return s, true
}

// readHandler reads which handler helps a program.
func (p *parser) readHandler(r *Rule, n *yaml.Node) {
	s, ok := p.word(n, "handler")
	switch {
	case !ok:
	case len(p.known.Handlers) == 0:
		p.errorf(n, "there is no handler %s, nor any other; remove it", quote(s))
	default:
		if !slices.Contains(p.known.Handlers, s) {
			p.errorf(n, "there is no handler %s; %s", quote(s), didYouMean(s, p.known.Handlers))
		}
		r.Handler = s
	}
}

// readRanges reads what reads as zeros.
func (p *parser) readRanges(r *Rule, n *yaml.Node) {
	for _, one := range p.items(n, "ranges", maxRanges) {
		if got, ok := p.byteRange(one); ok {
			r.Ranges = append(r.Ranges, got)
		}
	}
	r.Ranges = Normalize(r.Ranges)
}

// byteRange reads one range.
func (p *parser) byteRange(n *yaml.Node) (r Range, ok bool) {
	var err error
	switch n.Kind {
	case yaml.MappingNode:
		f, _ := p.fields(n, "a range", []string{"offset", "length"})
		off, ok1 := p.required(f, "offset")
		length, ok2 := p.required(f, "length")
		if !ok1 || !ok2 {
			return r, false
		}
		r, err = newRange(off, length)
	case yaml.ScalarNode:
		r, err = parseRange(n.Value)
	default:
		p.wrong(n, "a range", "a mapping or a string", "write FIRST-LAST, OFFSET+LENGTH or {offset: N, length: N}")
		return r, false
	}
	if err != nil {
		p.errorf(n, "%v", err)
	}
	return r, err == nil
}

// required reads a number that must be there.
func (p *parser) required(f fields, name string) (uint64, bool) {
	n := f.get(name)
	if n == nil {
		p.errorf(f.node, "%s is missing; add it", name)
		return 0, false
	}
	return p.offset(n, name)
}

// readWhole reads whether all of a file reads as zeros.
func (p *parser) readWhole(r *Rule, n *yaml.Node) { r.Whole = p.boolean(n, "whole") }

// readText reads what is put before a file.
func (p *parser) readText(r *Rule, n *yaml.Node) {
	s, ok := p.str(n, "text")
	if ok && s == "" {
		p.errorf(n, "text is empty; write something, or remove the rule")
		return
	}
	r.Prefix = []byte(s)
}

// readPrefixFile reads the name of a file that is put before a file.
func (p *parser) readPrefixFile(r *Rule, n *yaml.Node) { r.PrefixFile = p.path(n, "file") }

// readBase reads what patches lie over.
func (p *parser) readBase(r *Rule, n *yaml.Node) { r.Base = p.path(n, "base") }

// readSize reads how large the file is.
func (p *parser) readSize(r *Rule, n *yaml.Node) {
	if v, ok := p.offset(n, "size"); ok {
		r.Size = &v
	}
}

// readPatches reads what lies over the base.
func (p *parser) readPatches(r *Rule, n *yaml.Node) {
	list, _ := p.list(n, "patches")
	if len(list) > maxPatches {
		p.errorf(n, "patches has %d members, the most is %d; remove some", len(list), maxPatches)
		return
	}
	files := make(map[string]bool)
	for _, one := range list {
		patch := p.readPatch(one)
		files[patch.File] = true
		r.Patches = append(r.Patches, patch)
	}
	if len(files) > maxFiles {
		p.errorf(n, "patches are of %d files, the most is %d; put some together", len(files), maxFiles)
	}
}

// readPatch reads one patch.
func (p *parser) readPatch(n *yaml.Node) (patch Patch) {
	patch.Line = n.Line
	f, ok := p.fields(n, "a patch", []string{"offset", "file", "from", "length"})
	if !ok {
		return patch
	}
	if file := f.get("file"); file != nil {
		patch.File = p.path(file, "file")
	} else {
		p.errorf(n, "file is missing; add it")
	}
	patch.Offset, _ = p.required(f, "offset")
	if from := f.get("from"); from != nil {
		patch.From, _ = p.offset(from, "from")
	}
	if length := f.get("length"); length != nil {
		patch.Length = p.patchLength(length, patch)
	}
	return patch
}

// patchLength reads how long a patch is.
func (p *parser) patchLength(n *yaml.Node, patch Patch) *uint64 {
	v, ok := p.offset(n, "length")
	if !ok {
		return nil
	}
	for _, off := range []uint64{patch.Offset, patch.From} {
		if _, err := newRange(off, v); err != nil {
			p.errorf(n, "%v", err)
			break
		}
	}
	return &v
}
