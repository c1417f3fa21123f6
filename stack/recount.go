// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// liveMark is a file in WORK/plyfs while a mount lives. A mount that finds it
// follows one that was killed or cut off.
const liveMark = "live"

// markLive leaves the mark and tells whether there was one.
func (fs *FS) markLive() (crashed bool, err error) {
	err = fs.work.Mknod(liveMark, unix.S_IFREG|0o600, 0)
	switch err {
	case syscall.EEXIST:
		return true, nil
	case syscall.ENOSPC, syscall.EDQUOT: // the mount is how space is made
		fs.log.Warn("the mount is not marked as live", "err", err)
		return false, nil
	}
	return false, err
}

// recount finds, after a crash, the names of hard-linked lower inodes that
// upper hides and that had not been counted when the mount was cut off: an
// upper link to a copy in the index, or a whiteout. It walks upper once, and
// only if there are copies in the index.
func (fs *FS) recount() error {
	if len(fs.hard.index) == 0 {
		return nil
	}
	fs.log.Info("the last mount was cut off: counting the links of copied-up hard links again")
	return fs.recountDir(fs.root)
}

func (fs *FS) recountDir(n *node) error {
	up := n.dir.upper()
	if up == nil {
		return nil
	}
	var dirs, others []string
	err := up.List(func(name []byte, _ uint64, typ uint8) error {
		if typ == unix.DT_DIR {
			dirs = append(dirs, string(name))
		} else {
			others = append(others, string(name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n.dir.low != nil {
		for _, name := range others {
			if err := fs.recountName(n, name); err != nil {
				return err
			}
			fs.at(cutRecounted)
		}
	}
	for _, name := range dirs {
		c, err := fs.child(n, name, mounter)
		if err != nil {
			if err != syscall.ENOENT {
				fs.noteError("counting hard links again", err)
			}
			continue
		}
		if err := fs.recountDir(c); err != nil {
			fs.noteError("counting hard links again", err) // a name not counted only shows one link more
		}
		fs.Forget(c.id, 1)
	}
	return nil
}

// recountName counts what one upper entry hides.
func (fs *FS) recountName(n *node, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := fs.loadCovers(n); err != nil {
		return err
	}
	h, err := n.dir.low.lookup(fs, name)
	if err != nil || h == nil || h.dirs != nil || h.st.Nlink < 2 {
		return err
	}
	o, err := h.originOf(fs)
	if err != nil {
		return err
	}
	return fs.countHidden(n, name, o)
}
