// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// Header is include/plyfs.h, what programs are written against.
//
//go:embed include/plyfs.h
var Header string

// RuleMaps are the maps of one rule's object.
type RuleMaps struct {
	Rule string    `json:"rule"`
	Path string    `json:"path"`
	Maps []MapInfo `json:"maps"`
}

// Maps lists the maps of all rules.
func (p *Policy) Maps() []RuleMaps {
	list := []RuleMaps{}
	for _, r := range p.rules {
		list = append(list, RuleMaps{Rule: r.Name, Path: r.Path, Maps: r.progs.mapInfo()})
	}
	return list
}

// rule finds a rule by its name; "" is the only one.
func (p *Policy) rule(name string) (*rule, error) {
	if name == "" && len(p.rules) == 1 {
		return p.rules[0], nil
	}
	var names []string
	for _, r := range p.rules {
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	return nil, fmt.Errorf("no rule %q; there %s", name, listOf(names))
}

// MapDump lists up to limit entries of a rule's map, and says whether there are
// more.
func (p *Policy) MapDump(rule, name string, limit int) ([]MapEntry, bool, error) {
	r, err := p.rule(rule)
	if err != nil {
		return nil, false, err
	}
	return r.progs.mapDump(name, limit)
}

// MapSet makes or changes an entry of a rule's map. Key and value are integers
// (decimal, 0x...), "str:text", "hex:0011aa", or JSON for arrays and structs.
// What the mount shows follows at once: the epoch is bumped.
func (p *Policy) MapSet(rule, name, key, value string) error {
	r, err := p.rule(rule)
	if err != nil {
		return err
	}
	k, err := mapText(key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	v, err := mapText(value)
	if err != nil {
		return fmt.Errorf("value: %w", err)
	}
	return r.progs.mapSet(name, k, v)
}

// MapDelete removes an entry of a rule's map.
func (p *Policy) MapDelete(rule, name, key string) error {
	r, err := p.rule(rule)
	if err != nil {
		return err
	}
	k, err := mapText(key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	return r.progs.mapDelete(name, k)
}

// mapText reads JSON where the text is an object or array.
func mapText(s string) (any, error) {
	if !strings.HasPrefix(s, "{") && !strings.HasPrefix(s, "[") {
		return s, nil
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("%q is no JSON: %w", s, err)
	}
	return v, nil
}
