// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Remove takes the files of a journal away that was made for nothing. It is
// closed, so its logs are folded. They are emptied before the database goes, and
// go after it, for Open takes an empty log without a database, but neither a
// database without logs nor the other way round: a cut leaves what it opens.
func Remove(dir string, o Options) error {
	var errs []error
	// The witness first: it would speak for a journal that is not there.
	err := unix.Removexattr(dir, witnessAttr)
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP && err != unix.ENOENT {
		errs = append(errs, err)
	}
	o.at(cutWitnessRemoved)
	for _, name := range []string{logName, altName} {
		if err := os.Truncate(filepath.Join(dir, name), 0); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		o.at(cutLogCleared)
	}
	for _, name := range Files() {
		if err := os.Remove(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		o.at(cutFileRemoved)
	}
	return errors.Join(errs...)
}
