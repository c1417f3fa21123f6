// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A volatile mount syncs nothing. If the machine goes down, what is in upper
// and in the journal is any mixture of old and new, and nothing there tells.
// So it leaves a mark in the work directory, on the disk before the first
// change, and the next mount is refused until the user has said that what is
// there shall be kept. A clean unmount does not take the mark away: it synced
// nothing either. Container engines mount a container several times, volatile or
// not; for them there is AfterVolatileAuto: while the machine runs on, all is
// there, in the page cache at least (but on a disk that was pulled out).

// volatileMark is the mark: a file in WORK/plyfs, two lines of text.
//
//	boot c5a7f0a2-...             /proc/sys/kernel/random/boot_id
//	mounted 2026-01-02T03:04:05Z
const volatileMark = "volatile"

// Kernel overlayfs has WORK/work/incompat/volatile/dirty for the same purpose
// (super.c:ovl_create_volatile_dirty), and refuses an upper whose incompat
// directory holds anything.
var overlayIncompat = []string{"work", "incompat"}

const overlayVolatile = "volatile"

// What is done with what a volatile mount left, see Config.
const (
	AfterVolatileRefuse = "refuse" // not mounted
	AfterVolatileAuto   = "auto"   // kept if the machine has run on since
	AfterVolatileKeep   = "keep"   // kept as it is
)

// checkVolatile refuses directories that the last mount did not sync, or
// syncs them if they shall be kept. The marks go later: see takeVolatile.
// Precondition: the work directory is locked, nothing in it has been changed.
func (fs *FS) checkVolatile() error {
	mark, err := readVolatile(fs.work)
	if err != nil {
		return &Error{Kind: KindIO, Path: fs.work.Path(), Msg: "cannot be read", Err: err}
	}
	others, err := overlayFeatures(fs.workLayer.Root())
	if err != nil {
		return &Error{Kind: KindIO, Path: fs.cfg.Work, Msg: "cannot be read", Err: err}
	}
	for _, f := range others {
		if f != overlayVolatile {
			return &Error{Kind: KindJournal, Path: fs.cfg.Work, Msg: fmt.Sprintf("an overlayfs with the feature %q wrote here, which plyfs does not know", f),
				Mend: "give an empty workdir, if upperdir can be read without that feature"}
		}
	}
	if mark == nil && len(others) == 0 {
		return nil
	}
	since := rebooted(mark)
	if len(others) > 0 {
		since = "unknown" // kernel overlayfs was here, perhaps later
	}
	ranOn := since == "no"
	switch {
	case fs.cfg.AfterVolatile == AfterVolatileKeep:
	case fs.cfg.AfterVolatile == AfterVolatileAuto && ranOn:
	default:
		return fs.refuseVolatile(since)
	}
	if ranOn && fs.cfg.Volatile {
		return nil // one volatile mount after the other, with the same mark
	}
	fs.log.Warn("the last mount of these directories was volatile and synced nothing; they are kept as they are",
		"upper", fs.cfg.Upper, "restarted since", since)
	if err := fs.syncUpper(); err != nil {
		return &Error{Kind: KindIO, Path: fs.cfg.Upper, Msg: "what the last, volatile mount wrote cannot be synced", Err: err,
			Mend: "make new directories for upperdir and workdir; these may be damaged"}
	}
	return nil
}

// refuseVolatile says what is known about the last mount, and whether the
// machine was restarted since, as rebooted says it.
func (fs *FS) refuseVolatile(since string) error {
	msg := "the last mount of this upperdir was volatile: it synced nothing, and "
	switch since {
	case "no":
		msg += "a power cut would leave upperdir and workdir damaged (the machine has run on since, so they should be whole)"
	case "yes":
		msg += "the machine has been started anew since, so upperdir and workdir may be damaged"
	default:
		msg += "after a power cut upperdir and workdir may be damaged"
	}
	return &Error{Kind: KindJournal, Path: fs.cfg.Work, Msg: msg,
		Mend: "use new directories for both, or mount with -o after_volatile=keep to sync and keep what is there"}
}

// rebooted says whether the machine was started anew since the mark was left:
// "yes", "no" or "unknown".
func rebooted(mark []byte) string {
	boot, ok := strings.CutPrefix(firstLine(mark), "boot ")
	now := bootID()
	switch {
	case !ok || boot == "" || now == "":
		return "unknown"
	case boot == now:
		return "no"
	}
	return "yes"
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(line)
}

// bootID is different after each start of the machine, "" if it is not known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// markVolatile leaves the mark and makes it durable, if this mount is volatile.
// Precondition: nothing has been changed without a sync yet.
func (fs *FS) markVolatile() error {
	if !fs.cfg.Volatile {
		return nil
	}
	err := fs.writeVolatile()
	if err != nil {
		return &Error{Kind: KindIO, Path: fs.work.Path(), Msg: "the mount cannot be marked as volatile", Err: err,
			Mend: "make space on the file system of workdir, or mount without volatile"}
	}
	return nil
}

func (fs *FS) writeVolatile() error {
	fd, err := fs.work.Open(volatileMark, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	fs.volatileMade = err == nil
	if err == syscall.EEXIST { // of a mount before, and what it left is kept
		mark, readErr := readVolatile(fs.work)
		if readErr == nil && rebooted(mark) == "no" {
			return nil
		}
		fd, err = fs.work.Open(volatileMark, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), volatileMark)
	_, err = fmt.Fprintf(f, "boot %s\nmounted %s\n", bootID(), time.Now().UTC().Format(time.RFC3339))
	err = errors.Join(err, f.Sync(), f.Close())
	for _, d := range []*layers.Dir{fs.work, fs.workLayer.Root()} {
		if err == nil {
			err = d.Fsync()
		}
	}
	return err
}

// takeVolatile takes the marks away after a mount has come about that is not
// volatile itself. The mark of kernel overlayfs goes in any case: ours says as
// much, and the upper is ours from here on.
func (fs *FS) takeVolatile() error {
	if err := removeOverlayVolatile(fs.workLayer.Root()); err != nil {
		return err
	}
	if fs.cfg.Volatile {
		return nil
	}
	err := fs.work.Unlink(volatileMark)
	if err == syscall.ENOENT {
		return nil
	}
	if err == nil {
		err = fs.work.Fsync()
	}
	return err
}

// unmarkVolatile takes the mark back that this mount left, if it did not come
// about. What it did before that failed is synced: so little that it does not
// matter.
func (fs *FS) unmarkVolatile() error {
	if !fs.volatileMade {
		return nil
	}
	if err := fs.syncUpper(); err != nil {
		return err
	}
	return fs.work.Unlink(volatileMark)
}

// readVolatile reads the mark, nil if there is none.
func readVolatile(work *layers.Dir) ([]byte, error) {
	fd, err := work.Open(volatileMark, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err == syscall.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	return buf[:max(n, 0)], err // empty, but not nil, if it was cut off
}

// overlayFeatures lists what kernel overlayfs says must be known.
func overlayFeatures(work *layers.Dir) (names []string, err error) {
	d := incompatDir(work)
	defer d.Forget()
	err = d.List(func(name []byte, _ uint64, _ uint8) error {
		names = append(names, string(name))
		return nil
	})
	if err == syscall.ENOENT || err == syscall.ENOTDIR {
		return nil, nil
	}
	return names, err
}

func incompatDir(work *layers.Dir) *layers.Dir {
	d := work
	for _, name := range overlayIncompat {
		d = d.Child(name)
	}
	return d
}

// removeOverlayVolatile removes the mark of kernel overlayfs.
func removeOverlayVolatile(work *layers.Dir) error {
	features, err := overlayFeatures(work)
	if err != nil || len(features) == 0 {
		return err
	}
	d := incompatDir(work)
	defer d.Forget()
	if err := d.Child(overlayVolatile).Unlink("dirty"); err != nil && err != syscall.ENOENT {
		return err
	}
	if err := d.Rmdir(overlayVolatile); err != nil {
		return err
	}
	return d.Fsync()
}
