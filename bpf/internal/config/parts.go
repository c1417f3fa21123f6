// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"
)

// readParts reads the files that a rule names as its parts.
func (p *parser) readParts(r *Rule, n *yaml.Node) {
	for _, one := range p.items(n, "parts", maxFiles) {
		name, ok := p.word(one, "parts")
		if !ok {
			continue
		}
		r.Parts = append(r.Parts, p.part(one, name)...)
		if len(r.Parts) > maxFiles {
			p.errorf(one, "parts are more than %d files; put some together", maxFiles)
			return
		}
	}
}

// part is the file of a name, or those of a pattern, sorted.
func (p *parser) part(n *yaml.Node, name string) []string {
	const special = `*?[\`
	dir, pattern := filepath.Split(name)
	if strings.ContainsAny(dir, special) {
		p.errorf(n, "parts: %s has a pattern in place of a directory; only the name behind the last / can be one", quote(name))
		return nil
	}
	if !strings.ContainsAny(pattern, special) {
		return []string{p.refer(n, name)}
	}
	if err := CheckPattern(pattern); err != nil {
		p.errorf(n, "parts: %v", err)
		return nil
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(p.dir, dir)
	}
	names, err := expand(dir, pattern)
	if err != nil {
		p.errorf(n, "parts: %v; mend the name, or make the directory", err)
		return nil
	}
	if len(names) == 0 {
		p.errorf(n, "parts: no file matches %s; mend the pattern, or make the files", quote(name))
	}
	return p.referAll(n, dir, names)
}

// referAll makes names of files in dir absolute.
func (p *parser) referAll(n *yaml.Node, dir string, names []string) []string {
	out := make([]string, 0, len(names))
	for _, name := range names[:min(len(names), maxFiles+1)] {
		out = append(out, p.refer(n, filepath.Join(dir, name)))
	}
	return out
}

// expand has the names in dir that match, sorted byte by byte. Names with a
// leading dot are meant only by a pattern that has one.
func expand(dir, pattern string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) && len(at.Path) > 255 {
			err = at.Err
		}
		return nil, err
	}
	var out []string
	for _, e := range entries {
		hidden := strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(pattern, ".")
		if !hidden && Match(pattern, e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
