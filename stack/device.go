// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// device is the open /dev/fuse of a mount.
type device struct {
	fd     int
	closed atomic.Bool
}

func openDevice() (*device, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, &Error{Kind: KindEnvironment, Path: "/dev/fuse", Msg: "there is no FUSE device", Mend: "load the module (modprobe fuse), or make the device known to the container (--device /dev/fuse)"}
	case err != nil:
		return nil, &Error{Kind: KindEnvironment, Path: "/dev/fuse", Msg: "cannot be opened", Err: err, Mend: "run as root, or mend the permissions of the device"}
	}
	return &device{fd: fd}, nil
}

func (d *device) close() {
	if !d.closed.Swap(true) {
		_ = unix.Close(d.fd)
	}
}

// mount mounts the device over a directory.
func (d *device) mount(cfg *Config, target string) error {
	source := cfg.Source
	if source == "" {
		source = "plyfs"
	}
	data := append([]string{
		fmt.Sprintf("fd=%d", d.fd), "rootmode=40000",
		fmt.Sprintf("user_id=%d", unix.Getuid()), fmt.Sprintf("group_id=%d", unix.Getgid()),
		"default_permissions", "allow_other", fmt.Sprintf("max_read=%d", maxWrite),
	}, cfg.MountData...)
	flags := cfg.MountFlags
	if cfg.Upper == "" {
		flags |= unix.MS_RDONLY
	}
	err := unix.Mount(source, target, "fuse.plyfs", flags, strings.Join(data, ","))
	switch err {
	case nil:
		return nil
	case unix.EPERM, unix.EACCES:
		return &Error{Kind: KindEnvironment, Path: target, Msg: "not permitted to mount here", Err: err, Mend: "run as root (CAP_SYS_ADMIN)"}
	case unix.ENOENT, unix.ENOTDIR:
		return &Error{Kind: KindUsage, Path: target, Msg: "is no directory to mount over", Err: err, Mend: "create it, or mend the path"}
	}
	return &Error{Kind: KindIO, Path: target, Msg: "mount(2) failed", Err: err, Mend: "the kernel's log (dmesg) may say more"}
}

// setPropagation sets how mounts below a mount spread. The mount is served
// already, for the kernel may ask it (see Config.OnMount).
func setPropagation(target string, how uintptr) error {
	if how == 0 {
		return nil
	}
	err := unix.Mount("", target, "", how, "")
	if err == nil {
		return nil
	}
	return &Error{Kind: KindIO, Path: target, Msg: "the propagation of the mount cannot be set", Err: err, Mend: "leave the option private, shared, slave or unbindable out"}
}

const (
	devIocBackingOpen  = 0x4010e501 // _IOW(229, 1, struct fuse_backing_map)
	devIocBackingClose = 0x4004e502 // _IOW(229, 2, uint32_t)
)

// backingOpen registers a descriptor for passthrough and returns its id. The
// descriptor may be closed then. Errors: ELOOP stacked too deep, EPERM without
// privilege in the initial user namespace, EINVAL no regular file.
func (d *device) backingOpen(fd int) (int32, error) {
	m := fuse.BackingMap{Fd: int32(fd)}
	id, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), devIocBackingOpen, uintptr(unsafe.Pointer(&m)))
	if e != 0 {
		return 0, e
	}
	return int32(id), nil
}

func (d *device) backingClose(id int32) {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), devIocBackingClose, uintptr(unsafe.Pointer(&id)))
}

const notifyInvalInode = 2 // FUSE_NOTIFY_INVAL_INODE

// invalAttr makes the kernel forget a node's attributes.
//
//	struct fuse_out_header { u32 len; s32 error = code; u64 unique = 0 }
//	struct fuse_notify_inval_inode_out { u64 ino; s64 off; s64 len }
//
// A negative offset leaves the pages alone.
func (d *device) invalAttr(id uint64) error { return d.invalInode(id, ^uint64(0)) }

// invalPages makes the kernel forget a node's attributes and all its pages, of
// a directory the listing. It waits for reads of them that are under way, so
// no lock that a read needs may be held.
func (d *device) invalPages(id uint64) error { return d.invalInode(id, 0) }

func (d *device) invalInode(id, off uint64) error {
	var b [40]byte
	binary.NativeEndian.PutUint32(b[4:], notifyInvalInode)
	binary.NativeEndian.PutUint64(b[16:], id)
	binary.NativeEndian.PutUint64(b[24:], off)
	return d.notify(b[:])
}

// Of FUSE_NOTIFY_INVAL_ENTRY (3): with FUSE_EXPIRE_ONLY a name is looked up
// again at its next use, and what is mounted on it stays.
const (
	notifyInvalEntry = 3
	expireOnly       = 1
)

// expireEntry makes the kernel look a name up again at its next use. It waits
// for changes of the directory that are under way, so no lock may be held. A
// caller who is just about to take note of an answer, having asked whether the
// name still leads where it did, makes it valid again.
func (d *device) expireEntry(parent uint64, name string) error {
	return d.invalEntry(parent, name, expireOnly)
}

// dropEntry makes the kernel forget a name, whoever is asking about it: what is
// mounted on it goes, as it does when a name turns out to lead elsewhere. It
// waits as expireEntry does.
func (d *device) dropEntry(parent uint64, name string) error {
	return d.invalEntry(parent, name, 0)
}

// invalEntry writes
//
//	struct fuse_notify_inval_entry_out { u64 parent; u32 namelen; u32 flags }
//
// followed by the name and a NUL.
func (d *device) invalEntry(parent uint64, name string, flags uint32) error {
	b := make([]byte, 32+len(name)+1)
	binary.NativeEndian.PutUint32(b[4:], notifyInvalEntry)
	binary.NativeEndian.PutUint64(b[16:], parent)
	binary.NativeEndian.PutUint32(b[24:], uint32(len(name)))
	binary.NativeEndian.PutUint32(b[28:], flags)
	copy(b[32:], name)
	return d.notify(b)
}

// notify writes a notification.
func (d *device) notify(b []byte) error {
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	_, err := unix.Write(d.fd, b)
	if err == syscall.ENOENT { // it forgot the node meanwhile
		return nil
	}
	return err
}

// notifyAttr has a node's attributes dropped soon. Not by the serving thread:
// the kernel may hold what it waits for.
func (fs *FS) notifyAttr(id uint64) {
	select {
	case fs.notices <- notice{id: id}:
	default: // the attributes of a retired node are not kept anyway
	}
}

// notifyEntry has a name looked up again at its next use, soon: not by the
// serving thread, for the kernel has the directory locked.
func (fs *FS) notifyEntry(parent uint64, name string) {
	select {
	case fs.notices <- notice{id: parent, name: name}:
	default:
		go func() {
			select {
			case fs.notices <- notice{id: parent, name: name}:
			case <-fs.stop:
			}
		}()
	}
}

// notifyPages has a node's pages dropped soon: not by the serving thread, which
// may be needed for reads of them that are under way, and not by the notifier,
// for which others wait.
func (fs *FS) notifyPages(id uint64) {
	fs.pagesMu.Lock()
	fs.pages = append(fs.pages, id)
	fs.pagesMu.Unlock()
	select {
	case fs.pagesWake <- struct{}{}:
	default: // it is awake
	}
}

// pageDropper sends what notifyPages collects.
func (fs *FS) pageDropper(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-fs.pagesWake:
		}
		fs.pagesMu.Lock()
		ids := fs.pages
		fs.pages = nil
		fs.pagesMu.Unlock()
		for _, id := range ids {
			if err := fs.dev.invalPages(id); err != nil {
				fs.log.Debug("notify", "node", id, "err", err)
			}
		}
	}
}

// notice is a notification on its way: of a name, or of a node's attributes.
type notice struct {
	id   uint64
	name string // in the directory; "" for attributes
}

func (d *device) send(n notice) error {
	if n.name != "" {
		return d.expireEntry(n.id, n.name)
	}
	return d.invalAttr(n.id)
}

func (fs *FS) notifier(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case n := <-fs.notices:
			if err := fs.dev.send(n); err != nil {
				fs.log.Debug("notify", "node", n.id, "err", err)
			}
		}
	}
}
