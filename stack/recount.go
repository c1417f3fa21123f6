// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"syscall"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// liveMark is a file in WORK/plyfs while a mount lives. A mount that finds it
// follows one that was killed or cut off. It is empty until a move replaces a
// name of a hard-linked lower inode that has no copy in the index.
const liveMark = "live"

// markLive leaves the mark and tells whether there was one.
func (fs *FS) markLive() (crashed bool, err error) {
	err = fs.work.Mknod(liveMark, unix.S_IFREG|0o600, 0)
	switch err {
	case syscall.EEXIST:
		var st unix.Stat_t
		if err := fs.work.Stat(liveMark, &st); err != nil {
			return true, err
		}
		fs.hard.marked.Store(st.Size > 0)
		return true, nil
	case syscall.ENOSPC, syscall.EDQUOT: // the mount is how space is made
		fs.log.Warn("the mount is not marked as live", "err", err)
		return false, nil
	}
	return false, err
}

// markUncounted has the live mark say, before a name of a hard-linked lower inode
// is replaced, that this may go uncounted. Without the mark, which a full disk may
// not have had room for, the other names would only show one link more.
// Precondition: p.mu is held for writing.
func (fs *FS) markUncounted(p *node, name string, o journal.Origin) error {
	if fs.hard.marked.Load() {
		return nil
	}
	if nlink, err := fs.linksAt(p, name, o); err != nil || nlink == 0 {
		return err
	}
	fd, err := fs.work.Open(liveMark, unix.O_WRONLY, 0)
	if err == nil {
		err = unix.Ftruncate(fd, 1)
		unix.Close(fd)
	}
	if err != nil {
		fs.log.Warn("the mark of a live mount cannot be changed", "err", err)
		return nil
	}
	fs.hard.marked.Store(true)
	fs.at(cutUncountedMarked)
	return nil
}

// recount finds, after a crash, the names of hard-linked lower inodes that
// upper hides and that had not been counted when the mount was cut off: an
// upper link to a copy in the index, a whiteout, or what was moved there. It
// walks upper once, and only if there are copies in the index, or the mark says
// that there may be such names without.
func (fs *FS) recount() error {
	if len(fs.hard.index) == 0 && !fs.hard.marked.Load() {
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
