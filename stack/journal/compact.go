// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Compact writes the database in dir (WORK/plyfs) anew, without the room that removed
// records have left, and gives its size before and after. The logs stay: the new
// database says the same of them. It takes the place of the old one in one step, once
// it is on the disk. Errors are those of [Open]; [ErrLocked] for a live mount.
func Compact(dir string) (before, after int64, err error) { return rewrite(dir, false) }

// Rebuild is Compact for a database whose records are all there and sound, but whose
// bookkeeping of pages is not: see [CanRebuild].
func Rebuild(dir string) error {
	_, _, err := rewrite(dir, true)
	return err
}

// CanRebuild tells whether all that is wrong with the journal in dir is what [Rebuild]
// mends: every record can be read, none is missing, and the logs are sound.
func CanRebuild(dir string) bool {
	logs, err := openLogsOnly(dir, unix.LOCK_SH)
	if err != nil {
		return false
	}
	defer closeLogs(logs)
	_, v, err := readRecords(dbPath(dir), true)
	if err != nil {
		return false
	}
	_, _, err = replay(v.state, logs)
	return err == nil
}

// rewrite is Compact, with a look at the structure that may be loose.
func rewrite(dir string, loose bool) (before, after int64, err error) {
	logs, err := openLogsOnly(dir, unix.LOCK_EX)
	if err != nil {
		return 0, 0, err
	}
	defer closeLogs(logs)
	path := dbPath(dir)
	if before, err = fileSize(path); err != nil {
		return 0, 0, err
	}
	all, v, err := readRecords(path, loose)
	if err == nil {
		_, _, err = replay(v.state, logs)
	}
	if err != nil {
		return before, before, err
	}
	tmp := filepath.Join(dir, newDBName)
	if err = writeRecords(tmp, all); err == nil {
		if _, err = verifyDB(tmp, nil); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		os.Remove(tmp)
		return before, before, ioError(path, "the journal cannot be written anew", err)
	}
	if err = syncDir(dir); err != nil {
		return before, before, err
	}
	after, err = fileSize(path)
	return before, after, err
}

func fileSize(path string) (int64, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, ioError(path, "the journal cannot be read", err)
	}
	return fi.Size(), nil
}

// record is a key and a value of a bucket, as they are in the file.
type record struct {
	bucket     string
	key, value []byte
}

// readRecords gives all that the database at path holds, in order, each record
// verified and their account too.
func readRecords(path string, loose bool) ([]record, content, error) {
	var all []record
	v := verifier{path: path, entered: make(map[string]bool)}
	w := boltWalk{path: path, loose: loose, enter: func(b string) { v.entered[b] = true }}
	w.visit = func(bucket string, key, value []byte) error {
		all = append(all, record{bucket, bytes.Clone(key), bytes.Clone(value)})
		return v.visit(bucket, key, value)
	}
	if err := w.file(); err != nil {
		return nil, content{}, err
	}
	return all, v.found, v.finish()
}

// writeRecords makes a synced database of records, as small as it can be.
func writeRecords(path string, all []record) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openBolt(path, false, true)
	if err != nil {
		return err
	}
	db.AllocSize = 0 // not more than is needed
	err = db.update(func(tx *bbolt.Tx) error {
		for _, name := range append(bucketNames[:], metaBucket) {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	const batch = 20_000 // records in one transaction, for the sake of memory
	for len(all) > 0 && err == nil {
		n := min(batch, len(all))
		err = db.update(func(tx *bbolt.Tx) error { return putAll(tx, all[:n]) })
		all = all[n:]
	}
	if err == nil {
		err = unix.Fsync(int(db.file.Fd()))
	}
	return errors.Join(err, db.close())
}

func putAll(tx *bbolt.Tx, some []record) error {
	for _, r := range some {
		b := tx.Bucket([]byte(r.bucket))
		b.FillPercent = 0.95 // the keys come in order
		if err := b.Put(r.key, r.value); err != nil {
			return err
		}
	}
	return nil
}

// Backup copies the files of the journal in dir, as they are, into a new directory
// beside them, durably. The journal must not be in use.
func Backup(dir, name string) (path string, err error) {
	path = filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		return path, ioError(path, "the copy of the journal cannot be made", err)
	}
	for _, f := range Files() {
		err := copyFile(filepath.Join(dir, f), filepath.Join(path, f))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return path, ioError(path, "the copy of the journal cannot be made", err)
		}
	}
	if err := syncDir(path); err != nil {
		return path, err
	}
	return path, syncDir(dir)
}

// copyFile copies a file durably.
func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}
