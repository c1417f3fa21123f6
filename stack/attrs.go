// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/hex"
	"errors"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// An upper whose file system has no xattrs (ramfs) gets a store for the private
// ones, WORK/plyfs/attrs (layers.AttrStore). All else goes on as if the file
// system had them, but that
//
//   - copy-ups are whole and synced: a partial file is marked through its
//     descriptor, step by step with its data (partial.go);
//   - upper's half of the pair (pair.go) is the name of a whiteout;
//   - a mark is durable once it is written, where an xattr would wait for the next sync.
//
// Kernel overlayfs keeps no such store: there renaming a lower directory is EXDEV,
// and making one over a removed one EIO (dir.c:ovl_set_opaque_xerr).
const attrsName = "attrs"

// findAttrStore opens the store of an earlier mount, if there is one.
func (fs *FS) findAttrStore() error {
	var st unix.Stat_t
	d := fs.workLayer.Root().Child("plyfs")
	switch err := d.Stat(attrsName, &st); {
	case err == syscall.ENOENT || err == syscall.ENOTDIR:
		return nil
	case err != nil:
		return &Error{Kind: KindIO, Path: d.Path(), Msg: "cannot be read", Err: err}
	}
	return fs.openAttrStore(d)
}

// openAttrStore opens the store below a directory of work, and has it keep the
// private xattrs of upper and work.
func (fs *FS) openAttrStore(d *layers.Dir) error {
	at := d.Child(attrsName)
	s, err := layers.OpenAttrStore(at, layers.AttrStoreOptions{NoSync: fs.cfg.Volatile, CutPoint: fs.attrStoreAt()})
	if err != nil {
		return &Error{Kind: KindIO, Path: at.Path(), Msg: "cannot be read", Err: err}
	}
	fs.attrs = s
	fs.upper.UseAttrStore(s)
	fs.workLayer.UseAttrStore(s)
	return nil
}

// attrStoreAt passes the store's cut points on.
func (fs *FS) attrStoreAt() func(layers.AttrStoreStep) {
	if fs.cfg.cutPoint == nil {
		return nil
	}
	return func(s layers.AttrStoreStep) { fs.cfg.cutPoint(CutPoint(s)) }
}

// wantsAttrStore finds out whether an upper without trusted.* xattrs can be
// served by a store.
func (fs *FS) wantsAttrStore(caps layers.Caps) error {
	if fs.cfg.noXattrs {
		return nil
	}
	why, err := layers.WantsAttrStore(fs.workLayer.Root(), caps)
	if err != nil {
		return &Error{Kind: KindIO, Path: fs.cfg.Work, Msg: "cannot be examined", Err: err}
	}
	if why != "" {
		return &Error{Kind: KindEnvironment, Path: fs.cfg.Upper, Msg: "upperdir's file system cannot hold trusted.* xattrs (" + why + ")",
			Mend: "mount as root, with upperdir on ext4, xfs, btrfs or tmpfs"}
	}
	return nil
}

// pairPrefix begins the name of the whiteout in upper's root that stands for
// xattrPair where there is no xattr: the rest is its value in hexadecimal. The
// store would not do: it is in work, and it is for the case that another work
// directory is given. It hides nothing, and like all whiteouts it is not seen.
const pairPrefix = ".plyfs.pair-"

// upperPair is upper's half of the pair, nil if it is not marked.
func (fs *FS) upperPair() (id []byte, err error) {
	if fs.attrs == nil {
		if id, err := readPair(fs.upper.Root()); err != syscall.EOPNOTSUPP {
			return id, err
		}
		// A check of an upper whose store is not there.
	}
	names, err := fs.pairNames()
	for _, name := range names {
		b, err := hex.DecodeString(strings.TrimPrefix(name, pairPrefix))
		if err != nil || len(b) != pairBytes {
			return nil, syscall.ERANGE
		}
		id = append(id, b...) // more than one is none that would fit
	}
	return id, err
}

// pairNames are the names of the whiteouts that mark upper.
func (fs *FS) pairNames() (names []string, err error) {
	up := fs.upper.Root()
	err = up.List(func(name []byte, _ uint64, _ uint8) error {
		if s := string(name); strings.HasPrefix(s, pairPrefix) && isWhiteout(up, s) {
			names = append(names, s)
		}
		return nil
	})
	return names, err
}

// markUpper marks upper as one half of a pair.
func (fs *FS) markUpper(id []byte) error {
	if fs.attrs == nil {
		return fs.upper.Root().Setxattr("", xattrPair, id, 0)
	}
	return fs.upper.Root().Mknod(pairPrefix+hex.EncodeToString(id), unix.S_IFCHR, 0)
}

// unmarkUpper takes the mark back.
func (fs *FS) unmarkUpper() error {
	if fs.attrs == nil {
		return fs.upper.Root().Removexattr("", xattrPair)
	}
	names, err := fs.pairNames()
	for _, name := range names {
		err = errors.Join(err, fs.upper.Root().Unlink(name))
	}
	return err
}

// howToUnmark is the command that makes upper one that was never mounted.
func (fs *FS) howToUnmark() string {
	if fs.attrs == nil {
		return "setfattr -x " + xattrPair + " " + fs.cfg.Upper
	}
	return "rm " + fs.cfg.Upper + "/" + pairPrefix + "*"
}

// strangeRecords tells whether the store knows of more than of the work
// directory itself.
func (fs *FS) strangeRecords() bool { return fs.attrs != nil && fs.attrs.Len() > 1 }

// clearAttrStore takes the store's records back.
func (fs *FS) clearAttrStore() error {
	if fs.attrs == nil {
		return nil
	}
	return fs.attrs.Clear()
}
