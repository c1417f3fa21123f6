// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// planRow is a read of a file that a policy makes of parts, beside a read of
// the parts themselves.
type planRow struct {
	name    string
	parts   int // one is passed through
	cold    bool
	through []time.Duration // by the mount
	direct  []time.Duration
}

// planRows are all of them; their names begin with "plan".
func planRows() (list []*planRow) {
	for _, parts := range []int{1, 64, 4096} {
		list = append(list, &planRow{name: fmt.Sprintf("plan of %d extents, cold", parts), parts: parts, cold: true},
			&planRow{name: fmt.Sprintf("plan of %d extents, warm", parts), parts: parts})
	}
	return list
}

// runPlans measures the rows that are asked for, and prints their table.
func runPlans(c *config, dir string, mib int) error {
	if _, err := exec.LookPath(c.plyfs); err != nil {
		return nil
	}
	headed := false
	for _, r := range planRows() {
		if !c.rows.MatchString(r.name) {
			continue
		}
		if !headed {
			headed = true
			fmt.Print("\n| GB/s: most / median (of the parts') | the parts | plyfs |\n|---|---|---|\n")
		}
		if err := r.run(c, dir, mib<<20/r.parts); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// run measures one row: the parts and the mount in turn.
func (r *planRow) run(c *config, dir string, size int) error {
	d, err := os.MkdirTemp(dir, "plan")
	if err != nil {
		return err
	}
	defer os.RemoveAll(d)
	if err := r.make(d, size); err != nil {
		return err
	}
	for range c.rounds {
		if err := r.once(c, d); err != nil {
			return err
		}
	}
	r.print(os.Stdout, int64(size)*int64(r.parts))
	return nil
}

// make writes the parts, the policy, and the file in whose place they are shown.
func (r *planRow) make(d string, size int) error {
	for _, sub := range []string{"parts", "lower"} {
		if err := os.Mkdir(d+"/"+sub, 0o755); err != nil {
			return err
		}
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i>>12 + i)
	}
	for i := range r.parts {
		if err := os.WriteFile(fmt.Sprintf("%s/parts/%05d", d, i), data, 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(d+"/lower/large", nil, 0o644); err != nil {
		return err
	}
	policy := "version: 1\nbudget: 1s\nrules:\n  - path: /large\n    program: split\n    parts: [parts/*]\n"
	return os.WriteFile(d+"/policy", []byte(policy), 0o644)
}

// once reads the parts, and then the same through a new mount.
func (r *planRow) once(c *config, d string) (err error) {
	took, err := r.read(d+"/parts", r.readParts)
	if err != nil {
		return err
	}
	r.direct = append(r.direct, took)
	s := system{"plyfs", func(c *config, m *mountpoint) error {
		return command(c.plyfs, "mount", "-o", m.options()+",policy="+d+"/policy", m.path)
	}}
	m, err := newMount(c, s, d, []string{d + "/lower"})
	if err != nil {
		return err
	}
	defer func() {
		if e := m.end(); err == nil {
			err = e
		}
	}()
	if took, err = r.read(m.path, readLarge); err == nil {
		r.through = append(r.through, took)
	}
	return err
}

// read times a job; a warm one is done before, too.
func (r *planRow) read(root string, job func(string) error) (time.Duration, error) {
	prepare := job
	if r.cold {
		prepare = dropCaches
	}
	unix.Sync()
	if err := prepare(root); err != nil {
		return 0, err
	}
	start := time.Now()
	err := job(root)
	return time.Since(start), err
}

// readParts reads the parts one after the other.
func (r *planRow) readParts(root string) error {
	buf := make([]byte, 1<<20)
	for i := range r.parts {
		if err := readFile(fmt.Sprintf("%s/%05d", root, i), buf); err != nil {
			return err
		}
	}
	return nil
}

// print writes the row.
func (r *planRow) print(w io.Writer, size int64) {
	rate := func(d time.Duration) float64 { return float64(size) / float64(d.Nanoseconds()) }
	direct, directMedian := leastAndMedian(r.direct)
	through, throughMedian := leastAndMedian(r.through)
	fmt.Fprintf(w, "| %s | %.2f / %.2f | %.2f / %.2f (%.2f) |\n", r.name, rate(direct), rate(directMedian),
		rate(through), rate(throughMedian), rate(through)/rate(direct))
}
