// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// maxDepth is how deep lists and mappings may be nested.
const maxDepth = 32

const (
	minBudget = 10 * time.Microsecond
	maxBudget = time.Second
)

// A parser reads one file.
type parser struct {
	name  string // of the file, for errors
	dir   string // what names of files are relative to; absolute
	known Known
	errs  Errors
	refs  []ref // what the file names, in order
}

// errorAt says what is wrong in a line.
func (p *parser) errorAt(line, column int, format string, args ...any) {
	if len(p.errs) < maxErrors {
		text := strings.Map(printable, fmt.Sprintf(format, args...))
		p.errs = append(p.errs, Error{p.name, max(line, 1), column, text})
	}
}

// printable takes control characters out of errors, which are a line each.
func printable(r rune) rune {
	if unicode.IsControl(r) {
		return '?'
	}
	return r
}

// errorf says what is wrong with a node.
func (p *parser) errorf(n *yaml.Node, format string, args ...any) {
	p.errorAt(n.Line, n.Column, format, args...)
}

// result is f, or the errors.
func (p *parser) result(f *File) (*File, error) {
	if len(p.errs) > 0 {
		p.errs.sort()
		return nil, p.errs
	}
	return f, nil
}

// file reads a file.
func (p *parser) file(data []byte) *File {
	f := &File{}
	root := p.document(data)
	if root == nil {
		return f
	}
	p.plain(root)
	top, ok := p.fields(root, "the file", []string{"version", "rules", "fail", "budget"})
	if !ok {
		return f
	}
	p.version(top)
	f.Fail = p.fail(top.get("fail"))
	f.Budget = p.budget(top.get("budget"))
	f.Rules = p.rules(top)
	return f
}

// document reads the one YAML document of a file; nil, after an error, if there
// is none.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		p.errorAt(1, 0, "the file is larger than %d MiB; split it, or name fewer things", maxFile>>20)
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(limits{}))
	if err != nil {
		p.errorAt(1, 0, "%v", err)
		return nil
	}
	first, second := &yaml.Node{}, &yaml.Node{}
	if err := load(loader, first); err != nil {
		p.syntax(err)
		return nil
	}
	switch err := load(loader, second); {
	case err == nil:
		p.errorf(second, "a second document begins; remove it, a policy file is one document")
	case err != io.EOF:
		p.syntax(err)
	}
	if first.Kind == yaml.DocumentNode && len(first.Content) == 1 {
		return first.Content[0]
	}
	return first
}

// load reads a document. What the library does not expect is an error like
// others.
func load(loader *yaml.Loader, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not YAML: %v", r)
		}
	}()
	return loader.Load(n)
}

// limits are those of the YAML library.
type limits struct{}

// CheckDepth refuses deep nesting.
func (limits) CheckDepth(depth int, _ *yaml.DepthContext) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	return nil
}

// CheckAlias lets aliases be: they are not expanded in nodes, and plain refuses
// them.
func (limits) CheckAlias(int, int) error { return nil }

// syntax reports what the YAML library found wrong.
func (p *parser) syntax(err error) {
	var at *yaml.LoadError
	switch {
	case err == io.EOF:
		p.errorAt(1, 0, `the file is empty; begin it with "version: 1"`)
	case errors.As(err, &at):
		mark := at.Mark
		if mark.Line == 0 {
			mark = at.ContextMark
		}
		p.errorAt(mark.Line, mark.Column, "%s; %s", at.Message, syntaxMend(at.Message))
	default:
		p.errorAt(1, 0, "%v; see to it that the file is YAML", err)
	}
}

// syntaxMend is what to do about an error of the YAML library.
func syntaxMend(message string) string {
	switch {
	case strings.Contains(message, "anchor"), strings.Contains(message, "alphabetic or numeric"):
		return `put words that begin with * or & in quotes: "*.jpg"`
	case strings.Contains(message, "tab"):
		return "indent with spaces"
	case strings.Contains(message, "nested"), strings.Contains(message, "depth"):
		return "no policy needs that"
	}
	return "mend the YAML here or in the line before"
}

// plain refuses what makes YAML more than data: anchors, aliases, tags. Values
// with an alias are not looked at further.
func (p *parser) plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		p.errorf(n, `aliases are not used here; write the value out, or put it in quotes: %s`, quote("*"+n.Value))
		return
	case n.Anchor != "":
		p.errorf(n, "anchors are not used here; remove &%s, or put the word in quotes", cut(n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		p.errorf(n, "tags are not used here; remove %s, or put the word in quotes", cut(n.Tag))
	}
	for _, c := range n.Content {
		p.plain(c)
	}
}

// cut is quote without the quotes.
func cut(s string) string {
	q := quote(s)
	return q[1:strings.LastIndexByte(q, '"')]
}

// version checks the version of the file.
func (p *parser) version(top fields) {
	n := top.get("version")
	if n == nil {
		p.errorf(top.node, `version is missing; begin the file with "version: 1"`)
		return
	}
	if n.Kind != yaml.AliasNode && (n.Kind != yaml.ScalarNode || n.Value != "1" || tag(n) != "!!int") {
		p.errorf(n, `the version is not one that this plyfs knows; write "version: 1"`)
	}
}

// fail reads what happens when a program cannot be asked.
func (p *parser) fail(n *yaml.Node) string {
	return p.oneOf(n, "fail", FailClosed, FailOpen)
}

// budget reads how long a program may take.
func (p *parser) budget(n *yaml.Node) time.Duration {
	if n == nil || n.Kind == yaml.AliasNode {
		return 0
	}
	d, err := time.ParseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode || d < minBudget || d > maxBudget {
		p.errorf(n, "budget is not a time from 10us to 1s; write for example 5ms")
		return 0
	}
	return d
}

// rules reads the rules.
func (p *parser) rules(top fields) []Rule {
	n := top.get("rules")
	if n == nil {
		p.errorf(top.node, `rules is missing; add "rules:" and below it "- path: ..." for each rule`)
		return nil
	}
	list, ok := p.list(n, "rules")
	if !ok {
		return nil
	}
	rules := make([]Rule, len(list))
	for i, one := range list {
		p.readRule(one, &rules[i])
	}
	p.nameRules(rules)
	p.checkConflicts(rules)
	return rules
}
