// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

// mountOptions is what -o says.
type mountOptions struct {
	stack.Config
	policy   policyOptions
	logLevel string // from log_level= or debug
	logFile  string
	notes    []string // what was accepted without having a meaning
	seen     map[string]string
}

// optionFunc puts one option into the mount's options.
type optionFunc func(m *mountOptions, o option) error

// parseOptions reads all arguments of -o. With sloppy, unknown options are
// noted instead of refused, as mount -s wants it.
func parseOptions(args []string, sloppy bool) (*mountOptions, error) {
	m := &mountOptions{seen: map[string]string{}}
	for _, arg := range args {
		list, err := splitOptions(arg)
		if err != nil {
			return nil, err
		}
		for _, o := range list {
			if err := m.add(o, sloppy); err != nil {
				return nil, err
			}
		}
	}
	return m, m.check()
}

// add puts one option in.
func (m *mountOptions) add(o option, sloppy bool) error {
	if strings.HasPrefix(o.name, "x-") || strings.HasPrefix(o.name, "X-") {
		return nil // comments of mount(8)
	}
	if fn, ok := optionTable[o.name]; ok {
		return fn(m, o)
	}
	if sloppy {
		m.note("unknown option %s ignored", o.name)
		return nil
	}
	return unknownOption(o.name)
}

// unknownOption names the option and what may have been meant.
func unknownOption(name string) error {
	if near := nearest(name, slices.Sorted(maps.Keys(optionTable))); near != "" {
		return usagef("unknown option %q; did you mean %q? (plyfs help options)", name, near)
	}
	return usagef("unknown option %q; plyfs help options lists them", name)
}

// note keeps a remark for the log.
func (m *mountOptions) note(format string, args ...any) {
	m.notes = append(m.notes, fmt.Sprintf(format, args...))
}

// check refuses options that contradict each other.
func (m *mountOptions) check() error {
	switch {
	case m.Upper != "" && m.Work == "":
		return usagef("upperdir without workdir; add workdir=DIR, an empty directory on the file system of %s", m.Upper)
	case m.Work != "" && m.Upper == "":
		return usagef("workdir without upperdir; add upperdir=DIR, or leave workdir out for a read-only mount")
	}
	return m.policy.check()
}

// absolute makes the directories independent of the working directory, and
// those of the layers of symbolic links: the journal knows layers by their
// paths where file systems have no UUID, and engines give links.
func (m *mountOptions) absolute() error {
	layers := []*string{&m.Upper, &m.Work}
	for i := range m.Lowers {
		layers = append(layers, &m.Lowers[i])
	}
	for _, p := range append(layers, &m.Mountpoint, &m.logFile) {
		if *p == "" {
			continue
		}
		abs, err := absolute(*p)
		if err != nil {
			return fail(exitFailure, "%s: the working directory cannot be told: %w", *p, err)
		}
		*p = abs
	}
	for _, p := range layers {
		if real, err := filepath.EvalSymlinks(*p); err == nil && *p != "" {
			*p = real
		} // what is wrong with a layer, stack.Open says
	}
	return m.policy.absolute()
}

// once refuses an option that is given twice with different values.
func (m *mountOptions) once(o option) error {
	if old, ok := m.seen[o.name]; ok && old != o.value {
		return usagef("option %s is given twice: %q and %q", o.name, old, o.value)
	}
	m.seen[o.name] = o.value
	return nil
}

// flag sets and clears bits of mount(2); the last one of a pair wins.
func flag(set, clear uintptr) optionFunc {
	return plain(func(m *mountOptions) { m.MountFlags = m.MountFlags&^clear | set })
}

// propagation is an option for how mounts below spread; the last one wins. A
// new mount has none below, so the recursive ones say the same.
func propagation(how uintptr) optionFunc {
	return plain(func(m *mountOptions) { m.Propagation = how })
}

// plain is an option that takes no value.
func plain(fn func(m *mountOptions)) optionFunc {
	return func(m *mountOptions, o option) error {
		if o.hasValue {
			return usagef("option %s takes no value; write %s alone", o.name, o.name)
		}
		fn(m)
		return nil
	}
}

// secure is what mount(8) implies for mounts that users may make.
const secure = unix.MS_NOSUID | unix.MS_NODEV
