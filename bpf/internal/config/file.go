// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"
)

// maxFile is the size of the largest policy file that is read.
const maxFile = 4 << 20

// What happens to an operation whose program cannot be asked.
const (
	FailClosed = "closed" // it fails
	FailOpen   = "open"   // it is done as if there were no program
)

// A File is what a policy file says.
type File struct {
	Path   string        // absolute if the file was loaded, else the name given to Parse
	Rules  []Rule        // as in the file; never empty
	Fail   string        // FailClosed, FailOpen; "": not said
	Budget time.Duration // how long a program may take for a call, 10µs to 1s; 0: not said
}

// Known is what the surroundings have, against which names and numbers of a
// file are checked.
type Known struct {
	Handlers []string // the registered handlers
	Layers   int      // how many lower layers the mount has; 0: unknown
}

// Load reads the policy file at path. It, and every file that it names, must
// be trusted as CheckTrusted has it. What is wrong with the file's words or the
// files that it names is reported as Errors.
func Load(path string, known Known) (*File, error) {
	data, err := readTrusted(path)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	p := &parser{name: path, dir: filepath.Dir(abs), known: known}
	f := p.file(data)
	p.checkRefs()
	f.Path = abs
	return p.result(f)
}

// Parse reads a policy from data. Errors call it name; names of files are
// relative to dir. Of those files only directories are looked at, for patterns.
func Parse(name string, dir string, data []byte, known Known) (*File, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &parser{name: name, dir: abs, known: known}
	f := p.file(data)
	f.Path = name
	return p.result(f)
}

// readTrusted is the content of the policy file.
func readTrusted(path string) ([]byte, error) {
	f, err := OpenTrusted(path)
	if err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return data, errors.Join(err, f.Close())
}

// A ref is a file that the policy names.
type ref struct {
	line int
	path string
}

// checkRefs checks that nobody else can change a file that the policy names.
func (p *parser) checkRefs() {
	done := make(map[string]bool)
	for _, r := range p.refs {
		if done[r.path] || len(p.errs) >= maxErrors {
			continue
		}
		done[r.path] = true
		err := CheckTrusted(r.path)
		if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
			err = fmt.Errorf("%w; mend the name, or make the file", err)
		}
		if err != nil {
			p.errorAt(r.line, 0, "%v", err)
		}
	}
}
