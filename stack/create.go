// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"cmp"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/creds"
	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A maker makes a new inode under a name of a backing directory.
type maker func(d *layers.Dir, name string) error

// newEntry is a create, mkdir, mknod or symlink under way.
type newEntry struct {
	p        *node
	name     string
	uid, gid uint32
	make     maker
	dir      bool
}

// Create makes and opens a regular file.
func (fs *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	fd := -1
	e := newEntry{name: name, uid: in.Uid, gid: in.Gid}
	p, err := fs.beginCreate(in.NodeId)
	if err != nil {
		return fs.status(err)
	}
	defer p.mu.Unlock()
	mode, err := fs.modeFor(p, in.Mode, in.Umask)
	if err != nil {
		return fs.status(err)
	}
	e.p = p
	e.make = func(d *layers.Dir, nm string) (err error) {
		fd, err = d.Open(nm, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
		return err
	}
	if err := fs.makeEntry(&e); err != nil {
		return fs.status(err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := layers.FD(fd).Stat(&st); err != nil {
		return fs.status(err)
	}
	n := fs.installNew(p, name, &st)
	n.mu.Lock()
	defer n.mu.Unlock()
	err = fs.showAttr(n, &st, &out.Attr)
	if err == nil {
		err = fs.admitNewLocked(n, fd, in, &out.OpenOut)
	}
	if err != nil {
		fs.unmakeLocked(p, name, n)
		return fs.status(err)
	}
	n.noteOpenLocked(in.Flags)
	fs.entryHead(n, &out.EntryOut)
	out.SetAttrTimeout(fs.attrTimeoutLocked(n))
	return fuse.OK
}

// admitNewLocked is admitLocked for a file just made, whose open descriptor
// serves to register it.
func (fs *FS) admitNewLocked(n *node, fd int, in *fuse.CreateIn, out *fuse.OpenOut) error {
	if fs.keepFromPassthrough(n) == "" {
		_ = fs.registerLocked(n, fd, Self) // admitLocked tries again and keeps the reason
	}
	return fs.admitLocked(n, unix.O_RDWR|in.Flags&unix.O_DIRECT, callerOf(&in.InHeader), out)
}

// Mknod makes a file, fifo, socket or device: EPERM for a char device 0/0,
// which is a whiteout.
func (fs *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&unix.S_IFMT == unix.S_IFCHR && in.Rdev == 0 {
		return fuse.EPERM
	}
	return fs.create(in.NodeId, name, in.Uid, in.Gid, out, func(p *node) (maker, error) {
		mode, err := fs.modeFor(p, in.Mode, in.Umask)
		return func(d *layers.Dir, nm string) error { return d.Mknod(nm, mode, uint64(in.Rdev)) }, err
	})
}

// Symlink makes a symbolic link.
func (fs *FS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.create(h.NodeId, name, h.Uid, h.Gid, out, func(*node) (maker, error) {
		return func(d *layers.Dir, nm string) error { return d.Symlink(target, nm) }, nil
	})
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	p, err := fs.beginCreate(in.NodeId)
	if err != nil {
		return fs.status(err)
	}
	defer p.mu.Unlock()
	mode, err := fs.modeFor(p, in.Mode, in.Umask)
	if err != nil {
		return fs.status(err)
	}
	e := newEntry{p: p, name: name, uid: in.Uid, gid: in.Gid, dir: true}
	e.make = func(d *layers.Dir, nm string) error { return d.Mkdir(nm, mode&07777) }
	if err := fs.makeEntry(&e); err != nil {
		return fs.status(err)
	}
	return fs.answerNew(p, name, out)
}

// create is what mknod and symlink share.
func (fs *FS) create(id uint64, name string, uid, gid uint32, out *fuse.EntryOut,
	mk func(*node) (maker, error)) fuse.Status {
	p, err := fs.beginCreate(id)
	if err != nil {
		return fs.status(err)
	}
	defer p.mu.Unlock()
	e := newEntry{p: p, name: name, uid: uid, gid: gid}
	if e.make, err = mk(p); err != nil {
		return fs.status(err)
	}
	if err := fs.makeEntry(&e); err != nil {
		return fs.status(err)
	}
	return fs.answerNew(p, name, out)
}

// answerNew installs a new entry and answers about it.
// Precondition: p.mu is held for writing.
func (fs *FS) answerNew(p *node, name string, out *fuse.EntryOut) fuse.Status {
	var st unix.Stat_t
	if err := p.dir.upper().Stat(name, &st); err != nil {
		return fs.status(err)
	}
	n := fs.installNew(p, name, &st)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := fs.showAttr(n, &st, &out.Attr); err != nil {
		fs.unmakeLocked(p, name, n)
		return fs.status(err)
	}
	fs.entryHead(n, out)
	return fuse.OK
}

// unmakeLocked removes an entry just made that cannot be opened, and gives
// its reference back. Precondition: p.mu and n.mu are held for writing.
func (fs *FS) unmakeLocked(p *node, name string, n *node) {
	if err := fs.removeEntry(p, name, n); err != nil {
		fs.noteError("removing what was made and could not be opened", err)
	} else {
		fs.gone(p, name, n)
	}
	fs.unrefLater(n)
}

// beginCreate brings a directory to upper and locks it for a change of its
// entries. ENOENT if it was removed.
func (fs *FS) beginCreate(id uint64) (*node, error) {
	p := fs.node(id)
	if p == nil || p.dir == nil {
		return nil, syscall.ESTALE
	}
	if err := fs.copyUp(p, copyMeta); err != nil {
		return nil, err
	}
	p.mu.Lock()
	err := fs.loadCovers(p)
	if p.unlinked {
		err = syscall.ENOENT
	}
	if err != nil {
		p.mu.Unlock()
		return nil, err
	}
	return p, nil
}

// installNew makes the node of an entry just made in upper.
// Precondition: p.mu is held for writing.
func (fs *FS) installNew(p *node, name string, st *unix.Stat_t) *node {
	fs.at(cutMade)
	f := &found{up: true, st: *st, typ: st.Mode & unix.S_IFMT, ino: fs.inos.get(st.Dev, st.Ino)}
	if f.typ == unix.S_IFDIR {
		f.upDir = p.dir.upper().Child(name)
		if fs.madeOpaque(p, name) {
			f.mark.flags = markOpaque
		}
	}
	if p.dir.list != nil {
		p.dir.list.add(name, f.ino, uint8(f.typ>>12))
	}
	f.ruled = fs.namesRuled(p, name) // the policy is asked when the name is looked up
	return fs.install(p, name, f)
}

// namesRuled tells whether the policy has a say about a name: then the kernel
// must not keep one that has just been made.
func (fs *FS) namesRuled(p *node, name string) bool {
	return fs.pol() != nil && fs.scope(fs.placeOf(p, name)).Names
}

// madeOpaque tells whether a directory made under the name was marked opaque.
func (fs *FS) madeOpaque(p *node, name string) bool {
	has, err := p.dir.low.has(fs, name)
	return has || err != nil
}

// makeEntry makes the entry in upper under the caller's ids. Where the name is
// free in upper, in one step, and upper's own rules give it its group, mode
// and ACLs, for upper's directory has those of the merged one. Over a
// whiteout, and for a directory that must be opaque from the first moment, in
// the work directory, and published by a rename (dir.c:ovl_create_over_whiteout).
//
// Precondition: p.mu is held for writing, p is in upper, covers are loaded.
func (fs *FS) makeEntry(e *newEntry) error {
	shows, err := fs.lowerShows(e.p, e.name)
	if err != nil {
		return err
	}
	if shows {
		return syscall.EEXIST
	}
	if fs.foreign {
		if _, hidden := ociHidden(e.name); hidden {
			return syscall.EINVAL // it would hide another name at the next mount
		}
	}
	if e.dir && e.p.dir.low != nil && fs.madeOpaque(e.p, e.name) {
		return fs.makeInWork(e)
	}
	up := e.p.dir.upper()
	err = fs.asOwner(e.uid, e.gid, func() error { return e.make(up, e.name) })
	if err != syscall.EEXIST {
		return err
	}
	var st unix.Stat_t
	if up.Stat(e.name, &st) == nil && layers.IsWhiteoutStat(&st) {
		return fs.makeInWork(e)
	}
	return syscall.EEXIST
}

// asOwner runs fn with the file-system ids of the new inode's owner and the
// mounter's capabilities, as dir.c:ovl_create_or_link does. Creating as root
// and then changing the owner would cost less (4 µs to 10), but a crash
// between the two would leave a file of the wrong owner.
func (fs *FS) asOwner(uid, gid uint32, fn func() error) error {
	sw, err := creds.As(uid, gid)
	if err != nil {
		return err
	}
	defer sw.Restore()
	return fn()
}

// makeInWork makes the entry in the work directory and renames it into place,
// over a whiteout if there is one.
func (fs *FS) makeInWork(e *newEntry) error {
	cradle, nm, done, err := fs.cradle(e.p)
	if err != nil {
		return err
	}
	defer done()
	if err := fs.asOwner(e.uid, e.gid, func() error { return e.make(cradle, nm) }); err != nil {
		return err
	}
	fs.at(cutMadeInWork)
	if e.dir {
		err = cradle.Setxattr(nm, xattrDir, dirMark{flags: markOpaque}.encode(), 0)
		fs.at(cutMadeOpaque)
	}
	if err == nil {
		err = fs.publishOver(cradle, nm, e)
	}
	fs.at(cutMadePublished)
	if err != nil {
		_ = removeAny(cradle, nm, e.dir)
	}
	return err
}

// publishOver renames an entry from work to its name, where a whiteout may be.
func (fs *FS) publishOver(from *layers.Dir, nm string, e *newEntry) error {
	up := e.p.dir.upper()
	err := from.Rename(nm, up, e.name, unix.RENAME_NOREPLACE)
	if err != syscall.EEXIST {
		return err
	}
	if white, err := fs.whiteoutAt(e.p, e.name); err != nil || !white {
		return cmp.Or[error](err, syscall.EEXIST)
	}
	if !e.dir {
		return from.Rename(nm, up, e.name, 0)
	}
	if err := from.Rename(nm, up, e.name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	fs.at(cutMadeExchanged)
	return from.Unlink(nm) // the whiteout
}

func removeAny(d *layers.Dir, name string, dir bool) error {
	if dir {
		return d.Rmdir(name)
	}
	return d.Unlink(name)
}

// cradle is a directory in work from which a new inode inherits what it would
// inherit in p: the group of a set-group-ID directory, the default ACL.
func (fs *FS) cradle(p *node) (d *layers.Dir, entry string, done func(), err error) {
	name := fs.tmpName()
	var st unix.Stat_t
	up := p.dir.upper()
	if err := up.Stat("", &st); err != nil {
		return nil, "", nil, err
	}
	hasACL, err := fs.hasDefaultACL(p)
	if err != nil {
		return nil, "", nil, err
	}
	if !hasACL && st.Mode&unix.S_ISGID == 0 {
		return fs.tmp, name, func() {}, nil
	}
	if err := fs.tmp.Mkdir(name, 0o700); err != nil {
		return nil, "", nil, err
	}
	fs.at(cutCradleMade)
	d = fs.tmp.Child(name)
	done = func() {
		d.Forget()
		_ = fs.tmp.Rmdir(name)
	}
	if err := fs.dressCradle(up, d, &st); err != nil {
		done()
		return nil, "", nil, err
	}
	fs.at(cutCradleDressed)
	return d, "new", done, nil
}

func (fs *FS) dressCradle(up, d *layers.Dir, st *unix.Stat_t) error {
	err := layers.CopyXattrs(layers.At{Dir: up}, layers.At{Dir: d}, func(attr string) bool { return attr == xattrDefaultACL })
	if err != nil {
		return err
	}
	fs.at(cutCradleACL)
	if err := d.Chown("", -1, int(st.Gid)); err != nil {
		return err
	}
	fs.at(cutCradleGroup)
	return d.Chmod("", 0o700|st.Mode&unix.S_ISGID)
}

// modeFor applies the caller's umask, unless the directory has a default ACL,
// which stands in its place (posix_acl_create).
// Precondition: p.mu is held for writing and p is in upper.
func (fs *FS) modeFor(p *node, mode, umask uint32) (uint32, error) {
	acl, err := fs.hasDefaultACL(p)
	if err != nil {
		return 0, err
	}
	if !acl {
		mode &^= umask & 0o777
	}
	return mode, nil
}

func (fs *FS) hasDefaultACL(p *node) (bool, error) {
	if p.dir.defACL == unknown {
		_, err := p.dir.upper().Getxattr("", xattrDefaultACL, nil)
		switch err {
		case nil:
			p.dir.defACL = yes
		case syscall.ENODATA, syscall.EOPNOTSUPP:
			p.dir.defACL = no
		default:
			return false, err
		}
	}
	return p.dir.defACL == yes, nil
}

// Tmpfile makes and opens a file with no name.
func (fs *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	p, err := fs.beginCreate(in.NodeId)
	if err != nil {
		return fs.status(err)
	}
	mode, err := fs.modeFor(p, in.Mode, in.Umask)
	up := p.dir.upper()
	p.mu.Unlock()
	if err != nil {
		return fs.status(err)
	}
	fd := -1
	err = fs.asOwner(in.Uid, in.Gid, func() (err error) {
		fd, err = up.Tmpfile(unix.O_RDWR, mode&07777)
		return err
	})
	if err != nil {
		return fs.status(err)
	}
	var st unix.Stat_t
	if err := layers.FD(fd).Stat(&st); err != nil {
		_ = unix.Close(fd)
		return fs.status(err)
	}
	n := &node{ino: fs.inos.get(st.Dev, st.Ino), typ: unix.S_IFREG, up: true, orphan: layers.FD(fd), unlinked: true}
	fs.nodes.add(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	err = fs.showAttr(n, &st, &out.Attr)
	if err == nil {
		err = fs.admitNewLocked(n, fd, in, &out.OpenOut)
	}
	if err != nil {
		fs.unrefLater(n)
		return fs.status(err)
	}
	n.noteOpenLocked(in.Flags)
	fs.entryHead(n, &out.EntryOut)
	out.SetAttrTimeout(fs.attrTimeoutLocked(n))
	return fuse.OK
}
