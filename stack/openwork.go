// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// openWork prepares the work directory and opens the journal.
func (fs *FS) openWork() error {
	if err := fs.findAttrStore(); err != nil {
		return err
	}
	caps, err := fs.probeUpper()
	if err != nil {
		return err
	}
	fs.caps = caps
	if err := fs.choosePartial(); err != nil {
		return err
	}
	if err := fs.makeWork(); err != nil {
		return err
	}
	if fs.rootMark, err = readMark(fs.upper.Root()); err != nil {
		return &Error{Kind: KindJournal, Path: fs.cfg.Upper, Msg: "upperdir cannot be used", Err: err,
			Mend: "use a plyfs that is not older than the one that wrote it, or a fresh upperdir and workdir"}
	}
	pair, err := fs.checkPair()
	if err != nil {
		return err
	}
	if err := fs.checkVolatile(); err != nil {
		return err
	}
	if err := fs.markVolatile(); err != nil {
		return err
	}
	if err := fs.openJournal(pair.fresh); err != nil {
		return err
	}
	fs.at(cutJournalOpen)
	if err := fs.finishPair(pair); err != nil {
		return err
	}
	fs.rememberCaps()
	if err := fs.clearTmp(fs.tmp); err != nil {
		return &Error{Kind: KindIO, Path: fs.tmp.Path(), Msg: "leftovers cannot be removed", Err: err}
	}
	err = fs.tmp.Mknod(sharedWhiteout, unix.S_IFCHR, 0)
	fs.at(cutSharedWhiteout)
	fs.canWhiteout = err == nil || err == syscall.EEXIST
	if err := fs.loadHard(); err != nil {
		return &Error{Kind: KindJournal, Path: fs.work.Path(), Msg: "the index cannot be read", Err: err}
	}
	return nil
}

// makeWork makes what is missing of the directories in work.
func (fs *FS) makeWork() error {
	names := []string{"plyfs", "plyfs/tmp", "plyfs/index"}
	newStore := fs.attrs == nil && !fs.caps.TrustedXattr
	if newStore {
		names = append(names, "plyfs/"+attrsName)
	}
	wr := fs.workLayer.Root()
	for _, name := range names {
		d := wr
		if dir, base := filepath.Split(name); dir != "" {
			d, name = wr.Child(filepath.Clean(dir)), base
		}
		err := d.Mkdir(name, 0o700)
		if err != nil && err != syscall.EEXIST {
			return &Error{Kind: KindIO, Path: fs.cfg.Work, Msg: "cannot prepare the work directory", Err: err}
		}
		if err == nil {
			fs.at(cutWorkMade)
			fs.made = append(fs.made, madeDir{d, name})
		}
		if err := ownDir(d, name); err != nil {
			return &Error{Kind: KindIO, Path: fs.cfg.Work, Msg: "cannot prepare the work directory", Err: err}
		}
		fs.at(cutWorkOwned)
	}
	fs.work = wr.Child("plyfs")
	fs.tmp, fs.index = fs.work.Child("tmp"), fs.work.Child("index")
	if newStore {
		return fs.openAttrStore(fs.work)
	}
	return nil
}

// choosePartial finds out whether files can be copied up in part.
func (fs *FS) choosePartial() error {
	var st unix.Statfs_t
	if err := fs.upper.Root().Statfs(&st); err != nil {
		return &Error{Kind: KindIO, Path: fs.cfg.Upper, Msg: "cannot be examined", Err: err}
	}
	fs.block = layers.BlockSize(&st)
	hint, err := fs.workLayer.Root().ExtentHint()
	if err != nil {
		return &Error{Kind: KindIO, Path: fs.cfg.Work, Msg: "cannot be examined", Err: err}
	}
	fs.losesSizes = int64(st.Type) == unix.BTRFS_SUPER_MAGIC
	switch {
	case fs.attrs != nil || !fs.caps.TrustedXattr:
		fs.noPartial = "its file system has no xattrs, which would say what is still in lower"
	case !fs.caps.Sparse:
		fs.noPartial = fs.caps.Why["Sparse"]
	case hint:
		fs.noPartial = "the work directory has an extent size hint: files get more blocks than are written"
	case fs.block > fillChunk:
		fs.noPartial = fmt.Sprintf("its blocks are of %d bytes", fs.block)
	}
	return nil
}

// ownDir takes from a directory in work what new entries would inherit: a
// default ACL, a set-group-ID bit (super.c:ovl_workdir_create). What is so
// already is not written again, for which a full btrfs has no room.
func ownDir(d *layers.Dir, name string) error {
	for _, attr := range []string{xattrDefaultACL, xattrAccessACL} {
		_, err := d.Getxattr(name, attr, nil)
		if err == nil {
			err = d.Removexattr(name, attr)
		}
		if err != nil && err != syscall.ENODATA && err != syscall.EOPNOTSUPP {
			return err
		}
	}
	var st unix.Stat_t
	if err := d.Stat(name, &st); err != nil {
		return err
	}
	if uid, gid := unix.Getuid(), unix.Getgid(); int(st.Uid) != uid || int(st.Gid) != gid {
		if err := d.Chown(name, uid, gid); err != nil {
			return err
		}
	}
	if st.Mode&0o7777 == 0o700 {
		return nil
	}
	return d.Chmod(name, 0o700)
}

// probeUpper checks what upper's file system must be able to do.
func (fs *FS) probeUpper() (layers.Caps, error) {
	wr := fs.workLayer.Root()
	same, err := layers.SameMount(fs.upper.Root(), wr)
	if err == nil && !same {
		return layers.Caps{}, &Error{Kind: KindUsage, Path: fs.cfg.Work, Msg: "workdir is not on the same mount as upperdir " + fs.cfg.Upper,
			Mend: "put both on one mounted file system"}
	}
	caps, err := layers.ProbeUpper(fs.upper.Root(), wr)
	caps.TrustedXattr = caps.TrustedXattr && !fs.cfg.noXattrs
	if isFull(err) {
		if known, ok := rememberedCaps(wr); ok {
			fs.log.Warn("the file system of upperdir is full", "err", err)
			caps, err = known, nil
		}
	}
	switch {
	case isFull(err):
		return caps, &Error{Kind: KindIO, Path: fs.cfg.Work, Msg: "there is no space for a first mount", Err: err, Mend: "make space on the file system of workdir"}
	case errors.Is(err, syscall.EROFS):
		return caps, &Error{Kind: KindUsage, Path: fs.cfg.Upper, Msg: "upperdir is on a read-only file system", Mend: "use a writable one, or mount without upperdir"}
	case err != nil:
		return caps, &Error{Kind: KindIO, Path: fs.cfg.Work, Msg: "upperdir and workdir cannot be used", Err: err}
	case !caps.TrustedXattr && fs.attrs == nil:
		return caps, fs.wantsAttrStore(caps)
	}
	return caps, nil
}

func layerID(l *layers.Layer) journal.LayerID {
	return journal.LayerID{Path: l.Path, FSType: l.FSType, UUID: l.FSUUID, RootIno: l.RootIno}
}

func (fs *FS) openJournal(fresh bool) error {
	foreign, err := fs.upperIsForeign()
	if err != nil {
		return &Error{Kind: KindIO, Path: fs.cfg.Upper, Msg: "cannot be read", Err: err}
	}
	foreign = foreign && fresh
	meta := journal.Meta{Upper: layerID(fs.upper), ForeignUpper: foreign}
	for _, l := range fs.layers[1:] {
		meta.Lowers = append(meta.Lowers, layerID(l))
	}
	opts := journal.Options{NoSync: fs.cfg.Volatile, Logger: fs.log, CutPoint: fs.journalAt()}
	if fs.cfg.still {
		opts.FoldInterval = -1
	}
	j, err := journal.Open(fs.work.Path(), meta, opts)
	if err != nil {
		kind := KindJournal
		if errors.Is(err, journal.ErrLocked) {
			kind = KindBusy
		}
		return &Error{Kind: kind, Msg: err.Error(), Err: nil}
	}
	fs.j = j
	fs.foreign = j.Meta().ForeignUpper
	return nil
}

// upperIsForeign tells whether upper holds anything: if there is no journal
// yet, another tool wrote it.
func (fs *FS) upperIsForeign() (bool, error) {
	found := errors.New("found")
	err := fs.upper.Root().List(func([]byte, uint64, uint8) error { return found })
	if err == found {
		return true, nil
	}
	return false, err
}

// clearTmp removes what a mount that was cut off left in the work directory,
// and leaves the whiteout that others are links to.
func (fs *FS) clearTmp(d *layers.Dir) error {
	var names []string
	var types []uint8
	err := d.List(func(name []byte, _ uint64, typ uint8) error {
		names, types = append(names, string(name)), append(types, typ)
		return nil
	})
	if err != nil {
		return err
	}
	for i, name := range names {
		if d == fs.tmp && name == sharedWhiteout && isWhiteout(d, name) {
			continue
		}
		if types[i] != unix.DT_DIR {
			if err := d.Unlink(name); err == nil {
				fs.at(cutTmpUnlinked)
				continue
			}
		}
		sub := d.Child(name)
		if err := fs.clearTmp(sub); err != nil && err != syscall.ENOTDIR {
			return err
		}
		sub.Forget()
		if err := d.Rmdir(name); err != nil {
			return err
		}
		fs.at(cutTmpRemoved)
	}
	return nil
}
