// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
)

// inputs are the lower layers that the jobs work on.
type inputs struct {
	files, few int      // files in the large and in the small tree
	largeMiB   int      // size of the large file
	tree       string   // the large tree, 20 files a directory
	layers     []string // the same over 20 layers
	fewTree    string   // the small tree
	large      string   // has the large file
	empty      string
	tar        string // the small tree as an archive
	dir        string // all of it is here
	image      string // mount point of a file system for the layers of copy-up rows
	appended   int    // small files that are written to
}

// newInputs says which there are to be.
func newInputs(dir string, c *config) *inputs {
	in := &inputs{files: 50_000, few: 20_000, largeMiB: 1024, tree: dir + "/tree", fewTree: dir + "/few",
		large: dir + "/large", empty: dir + "/empty", tar: dir + "/few.tar", dir: dir, image: dir + "/image", appended: 2000}
	if c.quick {
		in.files, in.few, in.largeMiB, in.appended = in.files/20, in.few/20, in.largeMiB/20, in.appended/20
	}
	for i := range 20 {
		in.layers = append(in.layers, fmt.Sprintf("%s/layer%02d", dir, i))
	}
	return in
}

// make makes those that the rows need.
func (in *inputs) make(list []row) error {
	onImage := func(r row) bool { return r.image }
	if slices.ContainsFunc(list, onImage) {
		if err := in.makeImage(); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(list, func(r row) bool { return !onImage(r) }) {
		return nil
	}
	return in.makeTrees()
}

// makeTrees makes all that does not need a file system of its own.
func (in *inputs) makeTrees() error {
	if err := makeTree(in.files, func(int) string { return in.tree }); err != nil {
		return err
	}
	if err := makeTree(in.files, func(i int) string { return in.layers[i%20] }); err != nil {
		return err
	}
	if err := makeTree(in.few, func(int) string { return in.fewTree + "/t" }); err != nil {
		return err
	}
	for _, d := range []string{in.large, in.empty} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := command("tar", "-cf", in.tar, "-C", in.fewTree, "t"); err != nil {
		return err
	}
	return makeLarge(in.large+"/large", in.largeMiB)
}

// makeTree makes files of 100 bytes, 20 in each directory; root chooses where
// the i-th is made.
func makeTree(n int, root func(i int) string) error {
	data := make([]byte, 100)
	for i := range n {
		d := fmt.Sprintf("%s/%02d/d%d", root(i), i/20%50, i/20)
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", d, i), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeLarge writes a file without holes.
func makeLarge(path string, mib int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(rand.Uint32())
	}
	for range mib {
		if _, err := f.Write(block); err != nil {
			f.Close()
			return err
		}
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
