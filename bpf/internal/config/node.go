// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// fields are the entries of a mapping whose keys are known, each once.
type fields struct {
	node *yaml.Node
	list []field // in the order of the file
}

// A field is a key and its value.
type field struct {
	name       string
	key, value *yaml.Node
}

// get is the value of a key, nil if it is not given.
func (f fields) get(name string) *yaml.Node {
	for _, one := range f.list {
		if one.name == name {
			return one.value
		}
	}
	return nil
}

// fields reads a mapping. What is the mapping in words.
func (p *parser) fields(n *yaml.Node, what string, known []string) (fields, bool) {
	f := fields{node: n}
	if !p.isMapping(n, what) {
		return f, false
	}
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			continue
		}
		if !slices.Contains(known, key.Value) || key.Kind != yaml.ScalarNode {
			p.errorf(key, "unknown key %s in %s; %s", quote(key.Value), what, didYouMean(key.Value, known))
			continue
		}
		if line, ok := first[key.Value]; ok {
			p.errorf(key, "%s is given twice, first in line %d; remove one", key.Value, line)
			continue
		}
		first[key.Value] = key.Line
		f.list = append(f.list, field{key.Value, key, value})
	}
	return f, true
}

// wrong says that a value is of another type than it must be.
func (p *parser) wrong(n *yaml.Node, what, want, mend string) {
	if n.Kind != yaml.AliasNode {
		p.errorf(n, "%s must be %s, this is %s; %s", what, want, describe(n), mend)
	}
}

// tag is the type of a scalar. The library has whole numbers that are too large
// for it as !!float.
func tag(n *yaml.Node) string {
	t := n.ShortTag()
	if t == "!!float" && strings.Trim(n.Value, "+-0123456789") == "" {
		return "!!int"
	}
	return t
}

// describe says what a node is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	}
	switch tag(n) {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "true or false"
	case "!!int":
		return "a number"
	case "!!float":
		return "a number with a fraction"
	case "!!timestamp":
		return "a date"
	}
	return "a string"
}

// isMapping checks that n is a mapping.
func (p *parser) isMapping(n *yaml.Node, what string) bool {
	if n.Kind == yaml.MappingNode {
		return true
	}
	p.wrong(n, what, "a mapping", `write "key: value" lines, or {key: value}`)
	return false
}

// list reads a list that is not empty.
func (p *parser) list(n *yaml.Node, what string) ([]*yaml.Node, bool) {
	if n.Kind != yaml.SequenceNode {
		p.wrong(n, what, "a list", `write a line "- ..." for each member, or [a, b]`)
		return nil, false
	}
	if len(n.Content) == 0 {
		p.errorf(n, "%s is empty; put something into it, or remove it", what)
		return nil, false
	}
	return n.Content, true
}

// items is list, where a member alone is a list of one.
func (p *parser) items(n *yaml.Node, what string, most int) []*yaml.Node {
	if n.Kind == yaml.ScalarNode && tag(n) != "!!null" {
		return []*yaml.Node{n}
	}
	list, _ := p.list(n, what)
	if len(list) > most {
		p.errorf(n, "%s has %d members, the most is %d; remove some", what, len(list), most)
		return nil
	}
	return list
}

// str reads a string.
func (p *parser) str(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || tag(n) == "!!null" {
		p.wrong(n, what, "a string", "write one")
		return "", false
	}
	if tag(n) != "!!str" {
		p.wrong(n, what, "a string", "put it in quotes")
		return "", false
	}
	return n.Value, true
}

// word reads a string that is not empty and has no control characters.
func (p *parser) word(n *yaml.Node, what string) (string, bool) {
	s, ok := p.str(n, what)
	if !ok {
		return "", false
	}
	if s == "" {
		p.errorf(n, "%s is empty; write something, or remove it", what)
		return "", false
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		p.errorf(n, "%s has the control character %q in it; remove it", what, s[i])
		return "", false
	}
	return s, true
}

// oneOf reads one of some words; "" for none.
func (p *parser) oneOf(n *yaml.Node, what string, words ...string) string {
	if n == nil {
		return ""
	}
	s, ok := p.str(n, what)
	if ok && !slices.Contains(words, s) {
		p.errorf(n, "%s cannot be %s; %s", what, quote(s), didYouMean(s, words))
		return ""
	}
	return s
}

// boolean reads true or false.
func (p *parser) boolean(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || tag(n) != "!!bool" {
		p.wrong(n, what, "true or false", "write true or false")
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// only reads what can only be true.
func (p *parser) only(n *yaml.Node, what string) {
	if n.Kind == yaml.ScalarNode && tag(n) == "!!bool" && !p.boolean(n, what) {
		p.errorf(n, "%s can only be true; remove it", what)
		return
	}
	p.boolean(n, what)
}

// offset reads a number of bytes or a place in a file.
func (p *parser) offset(n *yaml.Node, what string) (uint64, bool) {
	if n.Kind != yaml.ScalarNode || tag(n) == "!!null" || tag(n) == "!!bool" {
		p.wrong(n, what, "a number of bytes", "write for example 4096 or 4K")
		return 0, false
	}
	v, err := parseOffset(n.Value)
	if err != nil {
		p.errorf(n, "%s: %v", what, err)
		return 0, false
	}
	return v, true
}

// path reads the name of a file of the host and notes that it is one.
func (p *parser) path(n *yaml.Node, what string) string {
	s, ok := p.word(n, what)
	if !ok {
		return ""
	}
	return p.refer(n, s)
}

// refer makes the name of a file absolute and notes that the policy names it.
func (p *parser) refer(n *yaml.Node, name string) string {
	if !filepath.IsAbs(name) {
		name = p.dir + "/" + name
	}
	name = filepath.Clean(name)
	p.refs = append(p.refs, ref{n.Line, name})
	return name
}
