// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Remove takes the files of a journal away that was made for nothing. It is
// closed, so its logs are folded. They are emptied before the database goes, and
// go after it, for Open takes an empty log without a database, but neither a
// database without logs nor the other way round: a cut leaves what it opens.
func Remove(dir string, o Options) error {
	var errs []error
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
