// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import "time"

// policyOptions are the options of -o that are about programs.
type policyOptions struct {
	object string        // bpf=
	file   string        // policy=
	fail   string        // bpf_fail=
	budget time.Duration // bpf_budget=
	pin    string        // bpf_pin=
}

// any tells whether there is a policy.
func (p *policyOptions) any() bool { return p.object != "" || p.file != "" }

// check refuses what contradicts itself.
func (p *policyOptions) check() error {
	switch {
	case p.object != "" && p.file != "":
		return usagef("bpf=%s and policy=%s: give one; a policy file can name the object for path /", p.object, p.file)
	case !p.any() && p.pin != "":
		return usagef("bpf_pin=%s without a program; add bpf=OBJECT or policy=FILE", p.pin)
	}
	return nil
}

// absolute makes the paths independent of the working directory.
func (p *policyOptions) absolute() (err error) {
	for _, path := range []*string{&p.object, &p.file, &p.pin} {
		if *path != "" && err == nil {
			*path, err = absolute(*path)
		}
	}
	return err
}

const (
	minBudget = 10 * time.Microsecond
	maxBudget = time.Second
)

// bpfBudget reads bpf_budget=DURATION.
func bpfBudget(m *mountOptions, o option) error {
	d, err := time.ParseDuration(o.value)
	if err != nil || d < minBudget || d > maxBudget {
		return usagef("option %s=%s: a time from %v to %v is needed, such as 5ms", o.name, o.value, minBudget, maxBudget)
	}
	m.policy.budget = d
	return nil
}
