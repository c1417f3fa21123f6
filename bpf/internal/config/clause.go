// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"errors"
	"fmt"
	"math"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"
)

// maxLayer is the last layer that programs can name.
const maxLayer = 62

// actions are the keys of a clause that say what it does.
var actions = []string{"hide", "layer", "skip", "show", "deny"}

// clauseKeys are the keys of a clause.
var clauseKeys = append([]string{"match", "type", "uid", "gid", "not", "or"}, actions...)

// fileTypes are the types that a clause can ask for.
var fileTypes = map[string]uint32{"file": unix.S_IFREG, "dir": unix.S_IFDIR, "symlink": unix.S_IFLNK}

// readClauses reads the clauses of a rule.
func (p *parser) readClauses(r *Rule, n *yaml.Node) {
	list, ok := p.list(n, "clauses")
	if ok && len(list) > maxClauses {
		p.errorf(n, "clauses has %d members, the most is %d; put some together, or divide them between rules", len(list), maxClauses)
		return
	}
	for _, one := range list {
		if f, ok := p.fields(one, "a clause", clauseKeys); ok {
			r.Clauses = append(r.Clauses, p.clause(f))
		}
	}
}

// clause reads one clause.
func (p *parser) clause(f fields) (c Clause) {
	c.Line = f.node.Line
	if n := f.get("match"); n != nil {
		c.Match, _ = p.pattern(n)
	} else {
		p.errorf(f.node, `match is missing; add it, "*" matches all names`)
	}
	c.Type = fileTypes[p.oneOf(f.get("type"), "type", "file", "dir", "symlink")]
	p.callers(f, &c)
	p.action(f, &c)
	return c
}

// callers reads whom a clause is about.
func (p *parser) callers(f fields, c *Clause) {
	uid, gid, not := f.get("uid"), f.get("gid"), f.get("not")
	if uid != nil {
		c.UID = p.ids(uid, "uid", lookupUser)
	}
	if gid != nil {
		c.GID = p.ids(gid, "gid", lookupGroup)
	}
	if not == nil {
		return
	}
	c.Not = p.boolean(not, "not")
	if uid == nil && gid == nil {
		p.errorf(not, "not is about uid and gid, of which there is none; add one, or remove it")
	}
}

// action reads what a clause does.
func (p *parser) action(f fields, c *Clause) {
	for _, one := range f.list {
		i := slices.Index(actions, one.name)
		if i < 0 {
			continue
		}
		if c.Action != 0 {
			p.errorf(one.key, "%s: the clause does %s already; remove one, or make two clauses", one.name, c.Action)
			continue
		}
		c.Action = Action(i + 1)
		p.actionValue(one, c)
	}
	if c.Action == 0 {
		p.errorf(f.node, "the clause does nothing; add hide, layer, skip, show or deny")
	}
	p.orElse(f.get("or"), c)
}

// actionValue reads the value behind an action.
func (p *parser) actionValue(one field, c *Clause) {
	switch c.Action {
	case Layer:
		c.Layer, _ = p.layer(one.value)
	case Skip:
		for _, n := range p.items(one.value, "skip", maxLayer) {
			if k, ok := p.layer(n); ok {
				c.Skip = append(c.Skip, k)
			}
		}
		slices.Sort(c.Skip)
		c.Skip = slices.Compact(c.Skip)
	default:
		p.only(one.value, one.name)
	}
}

// orElse reads what happens when the layer lacks the name.
func (p *parser) orElse(n *yaml.Node, c *Clause) {
	c.OrHide = p.oneOf(n, "or", "hide", "leave") == "hide"
	if n != nil && c.Action != Layer {
		p.errorf(n, "or belongs to layer, which this clause does not have; remove it")
	}
}

// layer reads the number of a lower layer.
func (p *parser) layer(n *yaml.Node) (int, bool) {
	if n.Kind != yaml.ScalarNode || tag(n) != "!!int" {
		p.wrong(n, "a layer", "a number", "count the lower layers from the top, 1 is the topmost")
		return 0, false
	}
	k, err := parseNumber(n.Value)
	switch {
	case err != nil || k < 1 || k > maxLayer:
		p.errorf(n, "there is no lower layer %s that a program can name; use 1, the topmost, to %d", cut(n.Value), maxLayer)
	case p.known.Layers > 0 && k > uint64(p.known.Layers):
		p.errorf(n, "there is no lower layer %d; the mount has %d of them, 1 is the topmost", k, p.known.Layers)
	default:
		return int(k), true
	}
	return 0, false
}

// ids reads a number, a range of numbers or a name.
func (p *parser) ids(n *yaml.Node, what string, lookup func(string) (string, error)) *IDRange {
	if n.Kind != yaml.ScalarNode || tag(n) != "!!int" && tag(n) != "!!str" {
		p.wrong(n, what, "a number, a range or a name", "write for example 1000, 1000-1999 or www-data")
		return nil
	}
	r, err := parseIDs(n.Value)
	if errors.Is(err, errNoID) && tag(n) == "!!str" {
		r, err = lookupIDs(n.Value, lookup)
	}
	if err != nil {
		p.errorf(n, "%s: %v", what, err)
		return nil
	}
	return &r
}

var errNoID = errors.New("is no id; write for example 1000, 1000-1999 or a name")

// parseIDs reads a number or a range; errNoID if it is neither.
func parseIDs(s string) (IDRange, error) {
	low, high, ok := strings.Cut(s, "-")
	if !ok {
		high = low
	}
	first, err := strconv.ParseUint(low, 10, 64)
	last, err2 := strconv.ParseUint(high, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrSyntax) || errors.Is(err2, strconv.ErrSyntax):
		return IDRange{}, fmt.Errorf("%s %w", quote(s), errNoID)
	case last >= math.MaxUint32 || first >= math.MaxUint32:
		return IDRange{}, fmt.Errorf("%s is too large; the last id is %d", quote(s), uint32(math.MaxUint32-1))
	case last < first:
		return IDRange{}, fmt.Errorf("range %s ends before it begins; swap its numbers", quote(s))
	}
	return IDRange{uint32(first), uint32(last)}, nil
}

// lookupIDs looks a name up.
func lookupIDs(name string, lookup func(string) (string, error)) (IDRange, error) {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == ':' }) {
		return IDRange{}, fmt.Errorf("%s is no name; write a number, a range or a name", quote(name))
	}
	id, err := lookup(name)
	if err != nil {
		return IDRange{}, fmt.Errorf("%s is not known on this host; write the number", quote(name))
	}
	return parseIDs(id)
}

func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}
