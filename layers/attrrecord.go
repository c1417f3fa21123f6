// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// An attrRecord is the private attributes of one inode, by name. In its file:
//
//	+---------+------------+----------+--------+----------+-------+-----------+
//	| version | attributes | name's   | name   | value's  | value | CRC-32C   |
//	| 1 byte  | 2          | length 1 |        | length 2 |       | of all    |
//	| = 1     |            |                                     | before, 4 |
//	+---------+------------+----------+--------+----------+-------+-----------+
//	                       |<------- once for each attribute ---->|
//
// in order of the names; numbers are big-endian. The file is named after the
// inode: the type of its file handle (4 bytes) and the handle, in hexadecimal.
type attrRecord map[string]string

const (
	recordVersion  = 1
	recordHeader   = 3
	recordSum      = 4
	maxRecordName  = 1<<8 - 1
	maxRecordValue = 1<<16 - 1
	maxRecord      = 1 << 20 // more is damage
)

// ErrAttrRecord is a record of an [AttrStore] that cannot be read: it is damaged
// or a newer plyfs wrote it.
var ErrAttrRecord = errors.New("record of private attributes is damaged or of a newer plyfs")

func (r attrRecord) names() []string { return slices.Sorted(maps.Keys(r)) }

// clone is a copy, which is never nil.
func (r attrRecord) clone() attrRecord {
	c := make(attrRecord, len(r)+1)
	maps.Copy(c, r)
	return c
}

func (r attrRecord) encode() []byte {
	b := binary.BigEndian.AppendUint16([]byte{recordVersion}, uint16(len(r)))
	for _, attr := range r.names() {
		b = append(append(b, byte(len(attr))), attr...)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(r[attr]))), r[attr]...)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func decodeRecord(b []byte) (attrRecord, error) {
	if len(b) < recordHeader+recordSum || b[0] != recordVersion {
		return nil, ErrAttrRecord
	}
	body, sum := b[:len(b)-recordSum], binary.BigEndian.Uint32(b[len(b)-recordSum:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, ErrAttrRecord
	}
	rec := attrRecord{}
	left := body[recordHeader:]
	take := func(n int) (got []byte, ok bool) {
		if len(left) < n {
			return nil, false
		}
		got, left = left[:n], left[n:]
		return got, true
	}
	for range binary.BigEndian.Uint16(body[1:]) {
		size, ok1 := take(1)
		if !ok1 {
			return nil, ErrAttrRecord
		}
		attr, ok1 := take(int(size[0]))
		size, ok2 := take(2)
		if !ok1 || !ok2 {
			return nil, ErrAttrRecord
		}
		val, ok := take(int(binary.BigEndian.Uint16(size)))
		if !ok {
			return nil, ErrAttrRecord
		}
		rec[string(attr)] = string(val)
	}
	if len(left) != 0 || len(rec) != int(binary.BigEndian.Uint16(body[1:])) {
		return nil, ErrAttrRecord
	}
	return rec, nil
}

// read reads the record of a handle.
func (s *AttrStore) read(key string) (attrRecord, error) {
	fd, err := s.dir.Open(key, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := FD(fd).Stat(&st); err != nil {
		return nil, err
	}
	if st.Size > maxRecord {
		return nil, fmt.Errorf("%s/%s: %w", s.dir.Path(), key, ErrAttrRecord)
	}
	b := make([]byte, st.Size)
	n, err := FD(fd).ReadAt(b, 0)
	if err != nil {
		return nil, err
	}
	rec, err := decodeRecord(b[:n])
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", s.dir.Path(), key, err)
	}
	return rec, nil
}

// write makes rec the record of a handle, durably. Precondition: mu is held for
// writing.
func (s *AttrStore) write(key string, rec attrRecord) error {
	if err := s.writeTemp(rec.encode()); err != nil {
		return err
	}
	s.at(StoreWritten)
	if err := s.dir.Rename(storeTemp, s.dir, key, 0); err != nil {
		return err
	}
	s.at(StoreNamed)
	if s.opts.NoSync {
		return nil
	}
	return s.dir.Fsync()
}

func (s *AttrStore) writeTemp(b []byte) error {
	fd, err := s.dir.Open(storeTemp, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if s.opts.NoSync {
		return nil
	}
	return retry(func() error { return unix.Fdatasync(fd) })
}

const atHandleFID = 0x200 // AT_HANDLE_FID of linux/fcntl.h

// handleAt is the key of what has a name in a directory, without following it.
// Where the kernel cannot open handles of a file system it makes some that tell
// inodes apart all the same (AT_HANDLE_FID, Linux 6.5).
func handleAt(dirfd int, name string) (string, error) {
	h, _, err := unix.NameToHandleAt(dirfd, name, 0)
	if err == unix.EOPNOTSUPP {
		h, _, err = unix.NameToHandleAt(dirfd, name, atHandleFID)
	}
	if err != nil {
		return "", err
	}
	key := binary.BigEndian.AppendUint32(nil, uint32(h.Type()))
	key = append(key, h.Bytes()...)
	if hex.EncodedLen(len(key)) > unix.NAME_MAX {
		return "", unix.ENAMETOOLONG
	}
	return hex.EncodeToString(key), nil
}
