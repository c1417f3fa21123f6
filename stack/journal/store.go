// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// guard runs fn, which calls bbolt or reads a mapping of its file, and turns a panic
// or a fault (a file cut short under the mapping, an I/O error) into [ErrDamaged].
func guard(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damaged(path, "reading it failed (%v)", r)
		}
	}()
	return fn()
}

const (
	// mapSize is the address space reserved for the database, so that a commit which
	// grows the file does not wait for readers to map it again.
	mapSize = 256 << 20
	// allocSize is the step in which the file grows.
	allocSize = 1 << 20
	// lockTimeout is how long to wait for the lock of a process that is ending.
	lockTimeout = time.Second
)

// store is an open database.
type store struct {
	*bbolt.DB
	path   string
	file   *os.File // bbolt's own
	broken bool     // a write panicked: bbolt's locks may be held for ever
}

// close gives the file and its lock back.
func (s *store) close() error {
	if s.broken {
		return s.file.Close()
	}
	return guard(s.path, s.Close)
}

// update runs a write transaction.
func (s *store) update(fn func(tx *bbolt.Tx) error) error {
	done := false
	err := guard(s.path, func() error {
		err := s.Update(fn)
		done = true
		return err
	})
	s.broken = s.broken || !done
	return err
}

// openBolt opens a database that verifyDB found sound. If bbolt panics all the same,
// its file and lock are not left behind.
func openBolt(path string, readOnly, noSync bool) (*store, error) {
	var file *os.File
	var db *bbolt.DB
	opts := &bbolt.Options{
		Timeout: lockTimeout, ReadOnly: readOnly, NoSync: noSync, NoGrowSync: false,
		FreelistType: bbolt.FreelistMapType, NoFreelistSync: true,
		InitialMmapSize: mapSize, NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			file = f
			return f, err
		},
	}
	err := guard(path, func() (err error) {
		db, err = bbolt.Open(path, 0o600, opts)
		return err
	})
	switch {
	case err == nil:
		db.AllocSize = allocSize
		return &store{DB: db, path: path, file: file}, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, lockedError(path, file)
	case isDamage(err) && file != nil:
		file.Close()
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, damaged(path, "%v", err)
	}
	if isDamage(err) {
		return nil, err
	}
	return nil, ioError(path, "the journal cannot be opened", err)
}

// createDB makes the database of a new journal, whole or not at all.
func createDB(dir string, meta Meta, o *Options) error {
	tmp := filepath.Join(dir, newDBName)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ioError(tmp, "a leftover cannot be removed", err)
	}
	db, err := openBolt(tmp, false, false)
	if err != nil {
		return err
	}
	o.at(cutDBMade)
	err = db.update(func(tx *bbolt.Tx) error { return initDB(tx, meta) })
	o.at(cutDBFilled)
	if cerr := db.close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, dbPath(dir))
	}
	if err != nil {
		os.Remove(tmp)
		return ioError(dbPath(dir), "the journal cannot be made", err)
	}
	o.at(cutDBNamed)
	err = syncDir(dir)
	o.at(cutDBDurable)
	return err
}

// initDB fills an empty database. The first directory id is random in its upper half:
// should an upper layer outlive its journal, then the ids on its directories mean
// nothing in the next journal.
func initDB(tx *bbolt.Tx, meta Meta) error {
	for _, name := range bucketNames {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	if _, err := tx.CreateBucket([]byte(metaBucket)); err != nil {
		return err
	}
	layers, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	if err := putMeta(tx, layersKey, layers); err != nil {
		return err
	}
	s := state{reserved: DirID(1+rand.Uint64N(1<<31)) << 24}
	return putMeta(tx, stateKey, s.encode())
}

func putMeta(tx *bbolt.Tx, key string, payload []byte) error {
	return tx.Bucket([]byte(metaBucket)).Put([]byte(key), seal(metaBucket, []byte(key), payload))
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return ioError(dir, "the directory cannot be opened", err)
	}
	defer f.Close()
	if err := unix.Fsync(int(f.Fd())); err != nil {
		return ioError(dir, "the directory cannot be synced", err)
	}
	return nil
}
