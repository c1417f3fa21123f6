// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"fmt"
	"math"
	"strings"

	"go.yaml.in/yaml/v4"
)

// readParams reads the constants of an object.
func (p *parser) readParams(r *Rule, n *yaml.Node) {
	r.Params = make(map[string]uint64)
	p.symbols(n, "params", func(key string, value *yaml.Node) {
		if v, ok := p.param(value, key); ok {
			r.Params[key] = v
		}
	})
}

// readMaps reads the contents of an object's maps.
func (p *parser) readMaps(r *Rule, n *yaml.Node) {
	r.Maps = make(map[string]Map)
	p.symbols(n, "maps", func(key string, value *yaml.Node) {
		if p.isMapping(value, "map "+key) {
			r.Maps[key] = Map{value.Line, p.entries(value)}
		}
	})
}

// symbols reads a mapping whose keys are names of the object.
func (p *parser) symbols(n *yaml.Node, what string, read func(key string, value *yaml.Node)) {
	if !p.isMapping(n, what) {
		return
	}
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if !p.symbol(key, what) {
			continue
		}
		if line, ok := first[key.Value]; ok {
			p.errorf(key, "%s is given twice, first in line %d; remove one", cut(key.Value), line)
			continue
		}
		first[key.Value] = key.Line
		read(key.Value, n.Content[i+1])
	}
}

// symbol checks that a key is a name that an object can have, and that is not
// plyfs's own.
func (p *parser) symbol(n *yaml.Node, what string) bool {
	const letters = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	s := n.Value
	switch {
	case n.Kind == yaml.AliasNode:
		return false
	case n.Kind != yaml.ScalarNode || s == "" || strings.Trim(s, letters+"0123456789") != "" || !strings.ContainsRune(letters, rune(s[0])):
		p.errorf(n, "%s is no name that %s of an object can have; write that of the source", quote(s), what)
	case strings.HasPrefix(s, "ply_"):
		p.errorf(n, "%s is plyfs's own; remove it", quote(s))
	default:
		return true
	}
	return false
}

// param reads the value of a constant.
func (p *parser) param(n *yaml.Node, what string) (uint64, bool) {
	switch {
	case n.Kind != yaml.ScalarNode || tag(n) == "!!null" || tag(n) == "!!float":
		p.wrong(n, what, "a whole number, true or false", "write for example 42, 4K or true")
		return 0, false
	case tag(n) == "!!bool":
		if p.boolean(n, what) {
			return 1, true
		}
		return 0, true
	}
	positive, negative := strings.CutPrefix(n.Value, "-")
	v, err := ParseSize(positive)
	if err == nil && negative && v > 1<<63 {
		err = fmt.Errorf("is too small; the smallest number is %d", math.MinInt64)
	}
	if err != nil {
		p.errorf(n, "%s: %s %v", what, quote(n.Value), err)
		return 0, false
	}
	if negative {
		v = -v
	}
	return v, true
}

// entries reads the entries of a mapping with any keys.
func (p *parser) entries(n *yaml.Node) []MapEntry {
	var out []MapEntry
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, ok1 := p.value(n.Content[i])
		value, ok2 := p.value(n.Content[i+1])
		if !ok1 || !ok2 {
			continue
		}
		line, id := n.Content[i].Line, identity(key)
		if before, ok := first[id]; ok {
			p.errorf(n.Content[i], "key %s is given twice, first in line %d; remove one", cut(id), before)
			continue
		}
		first[id] = line
		out = append(out, MapEntry{line, key, value})
	}
	return out
}

// value reads a value of a map as MapEntry has it.
func (p *parser) value(n *yaml.Node) (any, bool) {
	switch n.Kind {
	case yaml.MappingNode:
		return p.entries(n), true
	case yaml.SequenceNode:
		return p.values(n)
	case yaml.ScalarNode:
		return p.scalar(n)
	}
	return nil, false
}

// values reads a list.
func (p *parser) values(n *yaml.Node) (any, bool) {
	out := make([]any, 0, len(n.Content))
	for _, c := range n.Content {
		v, ok := p.value(c)
		if !ok {
			return nil, false
		}
		out = append(out, v)
	}
	return out, true
}

// scalar reads a number, a boolean or a string.
func (p *parser) scalar(n *yaml.Node) (any, bool) {
	switch tag(n) {
	case "!!null", "!!float":
		p.wrong(n, "keys and values of maps", "whole numbers, strings, true or false", "write one of them")
		return nil, false
	case "!!bool":
		return p.boolean(n, "a value"), true
	case "!!int":
		return p.integer(n)
	}
	return n.Value, true
}

// integer reads a number.
func (p *parser) integer(n *yaml.Node) (any, bool) {
	v, ok := p.param(n, "a number of a map")
	if strings.HasPrefix(n.Value, "-") || v <= math.MaxInt64 {
		return int64(v), ok
	}
	return v, ok
}

// identity is a string that equal values share, and no others.
func identity(v any) string {
	var b strings.Builder
	writeIdentity(&b, v)
	return b.String()
}

// writeIdentity writes it.
func writeIdentity(b *strings.Builder, v any) {
	switch v := v.(type) {
	case []any:
		b.WriteByte('[')
		for _, one := range v {
			writeIdentity(b, one)
			b.WriteByte(',')
		}
		b.WriteByte(']')
	case []MapEntry:
		b.WriteByte('{')
		for _, one := range v {
			writeIdentity(b, one.Key)
			b.WriteByte(':')
			writeIdentity(b, one.Value)
			b.WriteByte(',')
		}
		b.WriteByte('}')
	case string:
		fmt.Fprintf(b, "%q", v)
	default:
		fmt.Fprint(b, v)
	}
}
