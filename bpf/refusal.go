// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// VerifierRefusal is a program that the kernel's verifier does not let in.
type VerifierRefusal struct { //nolint:errname // it is no failure of plyfs
	Object  string   // the object's name
	Section string   // ply/...
	Program string   // the function
	Words   string   // the verifier's last words
	Source  string   // the line of C they are about, "" if compiled without -g
	Log     []string // all it said, line by line; empty if it was too much
	Cause   error    // the errno
}

// Error is Short.
func (e *VerifierRefusal) Error() string { return e.Short() }

// Unwrap gives the errno.
func (e *VerifierRefusal) Unwrap() error { return e.Cause }

// Short is one line.
func (e *VerifierRefusal) Short() string {
	s := fmt.Sprintf("%s: section %s (%s): refused by the verifier: %s", e.Object, e.Section, e.Program, e.Words)
	if e.Source != "" {
		s += ", at: " + e.Source
	}
	return s
}

// WriteLog writes the verifier's whole log.
func (e *VerifierRefusal) WriteLog(w io.Writer) error {
	_, err := io.WriteString(w, strings.Join(append(e.Log, ""), "\n"))
	return err
}

// refusal turns the library's error into ours: *VerifierRefusal if the verifier
// said something, else one line.
func (o *object) refusal(ps *ebpf.ProgramSpec, err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) && len(ve.Log) > 0 {
		return &VerifierRefusal{
			Object: o.name, Section: ps.SectionName, Program: ps.Name,
			Words: lastWords(ve.Log) + missingHint(), Source: lastSource(ve.Log), Log: ve.Log, Cause: ve.Cause,
		}
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: section %s (%s): %w", o.name, ps.SectionName, ps.Name, permissionError())
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fmt.Errorf("%s: section %s (%s): the kernel refuses it: %w", o.name, ps.SectionName, ps.Name, errno)
	}
	return fmt.Errorf("%s: section %s (%s): %w", o.name, ps.SectionName, ps.Name, oneLine(err))
}

// tooComplex is the refusal of a program whose paths are too many.
func (o *object) tooComplex(section, why string) error {
	words := "too complex, or an unbounded loop"
	if why != "" {
		words += " (" + why + ")"
	}
	r := &VerifierRefusal{Object: o.name, Section: section, Words: words, Cause: unix.E2BIG}
	if key, ok := parseSection(section); ok {
		r.Program = o.progs[key].Name
	}
	return r
}

// missingHint is for a refusal that has to do with a missing capability: with
// CAP_BPF alone the verifier runs, but allows less.
func missingHint() string {
	if caps, err := effectiveCaps(); err == nil {
		if missing := missingCaps(caps); len(missing) > 0 {
			return " (it allows more with " + strings.Join(missing, " and ") + ")"
		}
	}
	return ""
}

// lastWords is why the verifier refused: what it said last, but for its
// statistics, and for the states with which it shows a loop.
func lastWords(log []string) string {
	for i := len(log) - 1; i >= 0; i-- {
		line := strings.TrimSpace(log[i])
		if line == "" || isNoReason(line) || strings.HasPrefix(line, ";") {
			continue
		}
		if strings.HasPrefix(line, "[") { // of the type information, not of the program
			line += "; compile with -O2 -g"
		}
		return line
	}
	return "no reason given"
}

func isNoReason(line string) bool {
	for _, p := range []string{"processed ", "verification time ", "stack depth ", "cur state: ", "old state: "} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

// lastSource is the last line of C in the log, as "prog.c:12: return x[i];".
func lastSource(log []string) string {
	for i := len(log) - 1; i >= 0; i-- {
		line, ok := strings.CutPrefix(strings.TrimSpace(log[i]), "; ")
		if !ok {
			continue
		}
		if code, where, ok := cutLast(line, " @ "); ok {
			return where + ": " + strings.TrimSpace(code)
		}
		return line
	}
	return ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
