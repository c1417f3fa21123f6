// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"errors"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// PrivateAttrs begins the names of the extended attributes that an [AttrStore]
// keeps.
const PrivateAttrs = "trusted.plyfs."

// An AttrStore keeps the private extended attributes of a file system that
// cannot hold any: in a directory of it, one small file for each inode that has
// some, named after the inode's file handle (attrrecord.go), which lasts as long
// as the inode and is never given to another one.
//
// What is set is durable when the call returns; what is removed is so with the
// next sync. So a new entry that is marked before
// it is renamed into place is never found without its mark after a power cut,
// which is what an xattr would promise; a mark whose inode did not last is left
// over, and no other inode takes it.
type AttrStore struct {
	dir  *Dir
	opts AttrStoreOptions

	mu   sync.RWMutex          // a leaf: nothing else is locked below it but the descriptor cache
	have map[string]attrRecord // by handle; nil: there is one, which was not read yet
}

// AttrStoreOptions are those of [OpenAttrStore].
type AttrStoreOptions struct {
	NoSync   bool                // changes are not made durable
	CutPoint func(AttrStoreStep) // called after each step that changes the store's directory; may be nil
}

// An AttrStoreStep is a step that changes the directory of an [AttrStore].
type AttrStoreStep string

// The steps of a change, in their order.
const (
	StoreWritten AttrStoreStep = "attributes: record written"
	StoreNamed   AttrStoreStep = "attributes: record has its name"
	StoreDropped AttrStoreStep = "attributes: record removed"
)

func (s *AttrStore) at(step AttrStoreStep) {
	if s.opts.CutPoint != nil {
		s.opts.CutPoint(step)
	}
}

// storeTemp is where a record is written before it gets its name.
const storeTemp = "new"

// OpenAttrStore opens the store in a directory, which must be of the file system
// whose attributes it keeps. Nothing is written yet.
func OpenAttrStore(dir *Dir, opts AttrStoreOptions) (*AttrStore, error) {
	s := &AttrStore{dir: dir, opts: opts, have: map[string]attrRecord{}}
	err := dir.List(func(name []byte, _ uint64, _ uint8) error {
		if string(name) != storeTemp {
			s.have[string(name)] = nil
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// WantsAttrStore tells whether dir's file system, which caps describes, has no
// xattrs and can be served by an [AttrStore] instead; why says what speaks
// against it, "" for nothing. It must be one of this machine's own, whose inodes
// have handles that last.
func WantsAttrStore(dir *Dir, caps Caps) (why string, err error) {
	if _, err := dir.Getxattr("", probeTrusted, nil); err != unix.EOPNOTSUPP {
		return caps.Why["TrustedXattr"], nil
	}
	var st unix.Statfs_t
	if err := dir.Statfs(&st); err != nil {
		return "", err
	}
	switch {
	case st.Type == ramfsMagic: // its handles cannot be opened, but its inodes last as long as it does
		return "", nil
	case isRemote(st.Type):
		return "it has no xattrs, and another process or machine numbers its inodes", nil
	case st.Type == unix.MSDOS_SUPER_MAGIC, st.Type == unix.EXFAT_SUPER_MAGIC: // iunique(), fs/fat/inode.c:fat_build_inode
		return "it has no xattrs, and numbers its inodes anew at each mount", nil
	case !caps.FileHandles:
		return "it has neither xattrs nor file handles", nil
	}
	return "", nil
}

const ramfsMagic = 0x858458f6

// isRemote tells whether a kind of file system lets others say which inode is
// which.
func isRemote(kind int64) bool {
	switch kind {
	case unix.FUSE_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.V9FS_MAGIC, unix.SMB_SUPER_MAGIC,
		unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.CODA_SUPER_MAGIC:
		return true
	}
	return false
}

// UseAttrStore lets a store keep the private attributes of everything in l.
// Precondition: l is not in use yet.
func (l *Layer) UseAttrStore(s *AttrStore) { l.attrs = s }

// storeOf is the store that keeps an attribute of what is in d, nil if it is the
// file system.
func (d *Dir) storeOf(attr string) *AttrStore {
	if d.layer.attrs == nil || !strings.HasPrefix(attr, PrivateAttrs) {
		return nil
	}
	return d.layer.attrs
}

// Handle names the inode of an entry, or of d for "": the type of its file
// handle and the handle, in hexadecimal. It lasts as long as the inode.
func (d *Dir) Handle(name string) (key string, err error) {
	err = d.at(name, func(fd int) (err error) {
		key, err = handleAt(fd, self(name))
		return err
	})
	return key, err
}

// get reads an attribute, as [Dir.Getxattr] does.
func (s *AttrStore) get(d *Dir, name, attr string, buf []byte) (int, error) {
	rec, err := s.record(d, name)
	if err != nil {
		return 0, err
	}
	val, ok := rec[attr]
	switch {
	case !ok:
		return 0, unix.ENODATA
	case len(buf) == 0:
		return len(val), nil
	case len(buf) < len(val):
		return 0, unix.ERANGE
	}
	return copy(buf, val), nil
}

// names are those of an inode's private attributes, each ended by a NUL.
func (s *AttrStore) names(d *Dir, name string) ([]byte, error) {
	rec, err := s.record(d, name)
	if err != nil {
		return nil, err
	}
	var list []byte
	for _, attr := range rec.names() {
		list = append(append(list, attr...), 0)
	}
	return list, nil
}

// set sets an attribute, as [Dir.Setxattr] does.
func (s *AttrStore) set(d *Dir, name, attr string, val []byte, flags int) error {
	return s.change(d, name, func(rec attrRecord) error {
		_, there := rec[attr]
		switch {
		case flags == unix.XATTR_CREATE && there:
			return unix.EEXIST
		case flags == unix.XATTR_REPLACE && !there:
			return unix.ENODATA
		case len(attr) > maxRecordName || len(val) > maxRecordValue:
			return unix.E2BIG
		}
		rec[attr] = string(val)
		return nil
	})
}

// remove removes an attribute, as [Dir.Removexattr] does.
func (s *AttrStore) remove(d *Dir, name, attr string) error {
	return s.change(d, name, func(rec attrRecord) error {
		if _, there := rec[attr]; !there {
			return unix.ENODATA
		}
		delete(rec, attr)
		return nil
	})
}

// change changes the record of an inode.
func (s *AttrStore) change(d *Dir, name string, do func(attrRecord) error) error {
	key, err := d.Handle(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.load(key)
	if err != nil {
		return err
	}
	rec := old.clone()
	if err := do(rec); err != nil {
		return err
	}
	if len(rec) == 0 {
		return s.drop(key)
	}
	if err := s.write(key, rec); err != nil {
		s.doubt(key)
		return err
	}
	s.have[key] = rec
	return nil
}

// doubt forgets what is known of a record that may or may not have been written,
// so that it is read again. Precondition: mu is held for writing.
func (s *AttrStore) doubt(key string) {
	var st unix.Stat_t
	if s.dir.Stat(key, &st) == unix.ENOENT {
		delete(s.have, key)
		return
	}
	s.have[key] = nil
}

// record is the record of an inode; it must not be changed.
func (s *AttrStore) record(d *Dir, name string) (attrRecord, error) {
	key, err := d.Handle(name)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	rec, there := s.have[key]
	s.mu.RUnlock()
	if rec != nil || !there {
		return rec, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(key)
}

// load is the record of a handle, read if it has not been.
// Precondition: mu is held for writing.
func (s *AttrStore) load(key string) (attrRecord, error) {
	rec, there := s.have[key]
	if rec != nil || !there {
		return rec, nil
	}
	rec, err := s.read(key)
	if err != nil {
		return nil, err
	}
	s.have[key] = rec
	return rec, nil
}

// victim is what an entry's inode will have been if the entry is removed, ""
// if the inode lives on or has no record.
func (s *AttrStore) victim(d *Dir, name string) string {
	var st unix.Stat_t
	if d.Stat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		return ""
	}
	key, err := d.Handle(name)
	if err != nil {
		return ""
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if _, there := s.have[key]; !there {
		return ""
	}
	return key
}

// forget drops the record of an inode whose last name is gone. What cannot be
// dropped is left over, and harms nobody.
func (s *AttrStore) forget(key string) {
	if key == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.drop(key)
}

// drop removes a record. Precondition: mu is held for writing.
func (s *AttrStore) drop(key string) error {
	if err := s.dir.Unlink(key); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	delete(s.have, key)
	s.at(StoreDropped)
	return nil
}

// Clear drops all records, those that could not be written completely too.
func (s *AttrStore) Clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.drop(storeTemp)
	for key := range s.have {
		err = errors.Join(err, s.drop(key))
	}
	return err
}

// Len is the number of inodes that have private attributes.
func (s *AttrStore) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.have)
}

// withVictim does what may remove the last name of an inode, which is name in d.
func (d *Dir) withVictim(name string, do func() error) error {
	s := d.layer.attrs
	if s == nil || d == s.dir { // its own records have no records
		return do()
	}
	key := s.victim(d, name)
	err := do()
	if err == nil {
		s.forget(key)
	}
	return err
}
