// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import "strconv"

// checkRule checks what a rule needs. A key that is there, if with a wrong
// value, is not missing.
func (p *parser) checkRule(r *Rule, f fields) {
	if f.get("path") == nil {
		p.errorf(f.node, `path is missing; add it, "path: /" is the whole mount`)
	}
	if f.get("program") == nil {
		p.errorf(f.node, "program is missing; add redact, prepend, split, select or the path of an object (./FILE.o)")
	}
	switch r.kind() {
	case Redact:
		p.checkRedact(r, f)
	case Prepend:
		p.checkPrepend(f)
	case Split:
		p.checkSplit(f)
	case Select:
		if f.get("clauses") == nil {
			p.errorf(f.node, "select needs clauses; add them")
		}
	}
}

// checkRedact checks that there is something to redact.
func (p *parser) checkRedact(r *Rule, f fields) {
	ranges, handler, whole := f.get("ranges"), f.get("handler"), f.get("whole")
	if ranges == nil && handler == nil && whole == nil {
		p.errorf(f.node, `redact needs ranges, handler or "whole: true"; add one`)
		return
	}
	if r.Whole && (ranges != nil || handler != nil) {
		p.errorf(whole, "whole leaves nothing for ranges or handler; remove it or them")
	}
	if whole != nil && whole.Value == "false" && ranges == nil && handler == nil {
		p.errorf(whole, `"whole: false" redacts nothing; add ranges or handler, or remove the rule`)
	}
}

// checkPrepend checks that there is one text.
func (p *parser) checkPrepend(f fields) {
	switch text, file := f.get("text"), f.get("file"); {
	case text == nil && file == nil:
		p.errorf(f.node, "prepend needs text or file; add one")
	case text != nil && file != nil:
		p.errorf(file, "prepend takes text or file, not both; remove one")
	}
}

// checkSplit checks that there are parts or patches.
func (p *parser) checkSplit(f fields) {
	parts, patches, base := f.get("parts"), f.get("patches"), f.get("base")
	switch {
	case parts == nil && patches == nil:
		p.errorf(f.node, "split needs parts or patches; add them")
	case parts != nil && patches != nil:
		p.errorf(patches, "split takes parts or patches, not both; remove one")
	case parts != nil && base != nil:
		p.errorf(base, "base belongs to patches, this rule has parts; remove it, or make it the first part")
	}
}

// nameRules gives each rule a name and checks that no other has it.
func (p *parser) nameRules(rules []Rule) {
	lines := make(map[string]int)
	for i := range rules {
		r := &rules[i]
		if r.Name == "" {
			continue
		}
		if line, ok := lines[r.Name]; ok {
			p.errorAt(r.Line, 0, "the rule is named %s as that in line %d is; give it another name", quote(r.Name), line)
		} else {
			lines[r.Name] = r.Line
		}
	}
	count := make(map[string]int)
	for i := range rules {
		if rules[i].Name == "" {
			rules[i].Name = freeName(rules[i].defaultName(), lines, count)
			lines[rules[i].Name] = rules[i].Line
		}
	}
}

// freeName is name, with a number behind it if it is taken.
func freeName(name string, taken map[string]int, count map[string]int) string {
	try := name
	for taken[try] != 0 {
		count[name]++
		try = name + "#" + strconv.Itoa(count[name]+1)
	}
	return try
}

// A claim is how a rule claims a path.
type claim int

const (
	claimNames   claim = iota // the inode programs: select
	claimFile                 // the file programs, for all names
	claimMatched              // the file programs, for names that match
	claimBoth                 // both: nobody knows here what an object has
	claims
)

// claim is how r claims its path.
func (r *Rule) claim() claim {
	switch {
	case r.Object != "":
		return claimBoth
	case r.Program == Select:
		return claimNames
	case len(r.Match) > 0:
		return claimMatched
	}
	return claimFile
}

// meets reports whether two claims cannot be of one path.
func (c claim) meets(d claim) bool {
	switch {
	case c == claimBoth || d == claimBoth:
		return true
	case c == claimMatched && d == claimMatched:
		return false
	}
	return (c == claimNames) == (d == claimNames)
}

// checkConflicts checks that no two rules have the say about one path.
func (p *parser) checkConflicts(rules []Rule) {
	first := make(map[string]*[claims]int) // the lines of the first claims of a path
	for i := range rules {
		r := &rules[i]
		if r.Path == "" || r.Program == "" {
			continue
		}
		lines := first[r.Path]
		if lines == nil {
			lines = new([claims]int)
			first[r.Path] = lines
		}
		p.checkClaim(r, lines)
	}
}

// checkClaim checks a rule's claim against those before it.
func (p *parser) checkClaim(r *Rule, lines *[claims]int) {
	mine := r.claim()
	for other, line := range lines {
		if line != 0 && mine.meets(claim(other)) {
			p.errorAt(r.Line, 0, "the rule in line %d and that in line %d both govern %s; %s",
				line, r.Line, quote(r.Path), conflictMend(mine, claim(other)))
			break
		}
	}
	if lines[mine] == 0 {
		lines[mine] = r.Line
	}
}

// conflictMend is what to do about rules with one path.
func conflictMend(a, b claim) string {
	if a == claimMatched || b == claimMatched || a == claimFile && b == claimFile {
		return `give both a match ("*": all names), remove one, or change its path`
	}
	return "remove one, put them into one, or change the path of one"
}
