// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// makeImage makes an ext4 file system in a file, for what a copy-up costs is
// above all what its file system takes to sync it, and mounts it. It holds a
// large file, and many small ones.
func (in *inputs) makeImage() error {
	file := in.image + ".ext4"
	if err := os.Mkdir(in.image, 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(in.largeMiB)*3<<20 + 512<<20)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	// Without lazy initialization, which would write at the same time.
	if err := command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", file); err != nil {
		return err
	}
	if err := command("mount", "-o", "loop", file, in.image); err != nil {
		return err
	}
	if err := in.fillImage(); err != nil {
		in.end()
		return err
	}
	return nil
}

func (in *inputs) fillImage() error {
	for _, d := range []string{"first", "append"} {
		if err := os.Mkdir(in.image+"/"+d, 0o755); err != nil {
			return err
		}
	}
	data := make([]byte, 16<<10)
	for i := range data {
		data[i] = byte(i>>8 + i)
	}
	for i := range in.appended {
		if err := os.WriteFile(in.small(in.image+"/append", i), data, 0o644); err != nil {
			return err
		}
	}
	return makeLarge(in.image+"/first/large", in.largeMiB)
}

// small is the name of a small file.
func (in *inputs) small(root string, i int) string { return fmt.Sprintf("%s/f%04d", root, i) }

// end takes the file system away, if there is one.
func (in *inputs) end() { _ = unix.Unmount(in.image, 0) }

// dirFor is where the upper directory of a row is made.
func (in *inputs) dirFor(r row) string {
	if r.image {
		return in.image
	}
	return in.dir
}

// firstWrite writes a block in the middle of the large file.
func (in *inputs) firstWrite(sync bool) func(root string) error {
	return func(root string) error {
		f, err := os.OpenFile(root+"/large", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(make([]byte, 4096), int64(in.largeMiB)<<19)
		if err == nil && sync {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	}
}

// appendAll appends a byte to each small file.
func (in *inputs) appendAll(root string) error {
	for i := range in.appended {
		f, err := os.OpenFile(in.small(root, i), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.Write([]byte{'+'})
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
