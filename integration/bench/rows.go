// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// row is a job to measure. prepare, if there is one, is done before the clock
// starts, on the same mount.
type row struct {
	name    string
	lowers  []string
	image   bool // all layers are on a file system of their own
	memory  bool // note the daemon's memory after it
	prepare func(root string) error
	job     func(root string) error
}

// rows are all jobs.
func rows(in *inputs) []row {
	tree, many, large := []string{in.tree}, in.layers, []string{in.large}
	first, appended := []string{in.image + "/first"}, []string{in.image + "/append"}
	return []row{
		{name: fmt.Sprintf("find+stat %d files, 1 layer, fresh", in.files), lowers: tree, job: find, memory: true},
		{name: fmt.Sprintf("find+stat %d files, 1 layer, warm", in.files), lowers: tree, prepare: find, job: find},
		{name: fmt.Sprintf("find+stat %d files, 20 layers, fresh", in.files), lowers: many, job: find, memory: true},
		{name: fmt.Sprintf("find+stat %d files, 20 layers, warm", in.files), lowers: many, prepare: find, job: find},
		{name: fmt.Sprintf("read %d MiB, cold", in.largeMiB), lowers: large, prepare: dropCaches, job: readLarge},
		{name: fmt.Sprintf("read %d MiB, warm", in.largeMiB), lowers: large, prepare: readLarge, job: readLarge},
		{name: fmt.Sprintf("untar %d files", in.few), lowers: []string{in.empty}, job: func(r string) error { return command("tar", "-xf", in.tar, "-C", r) }},
		{name: fmt.Sprintf("rm -rf %d lower files", in.few), lowers: []string{in.fewTree}, job: func(r string) error { return command("rm", "-rf", r+"/t") }},
		{name: fmt.Sprintf("create, stat, unlink %d files", in.few), lowers: []string{in.empty}, job: func(r string) error { return churn(r, in.few) }},
		{name: fmt.Sprintf("firstwrite: 4 KiB into a lower file of %d MiB", in.largeMiB), lowers: first, image: true, job: in.firstWrite(false)},
		{name: fmt.Sprintf("firstwrite: 4 KiB into a lower file of %d MiB, fsync", in.largeMiB), lowers: first, image: true, job: in.firstWrite(true)},
		{name: fmt.Sprintf("append: a byte to each of %d lower files of 16 KiB", in.appended), lowers: appended, image: true, job: in.appendAll},
	}
}

// find walks the tree and asks for the attributes of all there is.
func find(root string) error {
	return filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, err = d.Info()
		return err
	})
}

// dropCaches empties the kernel's caches.
func dropCaches(string) error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// readLarge reads the large file.
func readLarge(root string) error { return readFile(root+"/large", make([]byte, 1<<20)) }

func readFile(path string, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// churn makes, looks at and removes files.
func churn(root string, n int) error {
	for i := range n {
		p := fmt.Sprintf("%s/f%d", root, i)
		fd, err := unix.Open(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if err := unix.Unlink(p); err != nil {
			return err
		}
	}
	return nil
}

// measure does the job on each system in turn, as often as asked.
func measure(c *config, r row, systems []system, dir string, t *table) error {
	for range c.rounds {
		for _, s := range systems {
			if err := once(c, r, s, dir, t); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return nil
}

// once does the job on a new mount.
func once(c *config, r row, s system, dir string, t *table) (err error) {
	m, err := newMount(c, s, dir, r.lowers)
	if err != nil {
		return err
	}
	defer func() {
		if e := m.end(); err == nil {
			err = e
		}
	}()
	unix.Sync()
	if r.prepare != nil {
		if err := r.prepare(m.path); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := r.job(m.path); err != nil {
		return err
	}
	t.add(r.name, s.name, time.Since(start))
	if pid := daemonOf(m.path); r.memory && pid != 0 {
		t.addMemory(s.name, residentKiB(pid))
	}
	return nil
}
