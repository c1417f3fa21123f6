// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Command bench measures union file systems side by side: plyfs, kernel
// overlayfs and fuse-overlayfs, each job on each of them in turn, several
// times over, so that a noisy machine is noisy for all alike. It prints a
// table in Markdown: the smallest and the middle of the times in milliseconds,
// and the ratio to kernel overlayfs. A second table is about plyfs alone: what
// is read of a file that a policy makes of parts (rows "plan").
//
//	go run ./integration/bench [-quick] [-rows REGEXP] [-rounds N] [-dir DIR] [-plyfs BINARY]
//
// It needs root, and room for some GiB in DIR.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
)

// config is what the command line asks for.
type config struct {
	quick  bool
	rounds int
	dir    string
	plyfs  string
	rows   *regexp.Regexp
}

func main() {
	c := config{}
	flag.BoolVar(&c.quick, "quick", false, "a twentieth of the work, one round: a check that all runs")
	flag.IntVar(&c.rounds, "rounds", 5, "how often each job is done on each system")
	flag.StringVar(&c.dir, "dir", os.TempDir(), "where the layers are made")
	flag.StringVar(&c.plyfs, "plyfs", "plyfs", "the plyfs binary")
	rows := flag.String("rows", ".", "run only the rows whose name matches")
	flag.Parse()
	var err error
	if c.rows, err = regexp.Compile(*rows); err == nil {
		err = run(&c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures all rows and prints the tables.
func run(c *config) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("mounting needs root")
	}
	if c.quick {
		c.rounds = 1
	}
	dir, err := os.MkdirTemp(c.dir, "plyfs-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	in := newInputs(dir, c)
	if err := runRows(c, in); err != nil {
		return err
	}
	return runPlans(c, dir, in.largeMiB)
}

// runRows measures the rows that are asked for on each system.
func runRows(c *config, in *inputs) error {
	list := slices.DeleteFunc(rows(in), func(r row) bool { return !c.rows.MatchString(r.name) })
	if len(list) == 0 {
		return nil
	}
	if err := in.make(list); err != nil {
		return err
	}
	defer in.end()
	systems := available(c)
	table := newTable(systems)
	for _, r := range list {
		if err := measure(c, r, systems, in.dirFor(r), table); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		table.print(os.Stdout, r.name)
	}
	table.printMemory(os.Stdout)
	return nil
}
