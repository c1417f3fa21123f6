// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"log/slog"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// defaultTimeout is how long the kernel keeps entries and attributes.
const defaultTimeout = 24 * time.Hour

// Open checks a configuration, opens and locks the layers and the journal.
// Nothing is mounted, and nothing is created but WORK/plyfs. Its errors are
// *Error.
func Open(cfg Config) (*FS, error) {
	fs := &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), cfg: cfg, started: time.Now(), syncFD: -1,
		stop: make(chan struct{}), notices: make(chan notice, 1024), pagesWake: make(chan struct{}, 1),
		completer: completer{wake: make(chan struct{}, 1)}}
	fs.setDefaults()
	if err := fs.checkConfig(); err != nil {
		return nil, err
	}
	if err := fs.open(); err != nil {
		_ = fs.Close()
		return nil, err
	}
	if fs.cfg.Policy != nil { // not before: recounting wants to see all names
		fs.policy.Store(&policyState{Policy: fs.cfg.Policy, gen: 1, epoch: fs.cfg.Policy.Epoch()})
		fs.answersOpenDir = true
	}
	return fs, nil
}

func (fs *FS) setDefaults() {
	fs.log = fs.cfg.Logger
	if fs.log == nil {
		fs.log = slog.Default()
	}
	if fs.timeout = fs.cfg.Timeout; fs.timeout == 0 {
		fs.timeout = defaultTimeout
	}
	if fs.cfg.IO == "" {
		fs.cfg.IO = IOPassthrough
	}
	if fs.cfg.Passthrough == "" {
		fs.cfg.Passthrough = PassthroughAuto
	}
	if fs.cfg.CopyUp == "" {
		fs.cfg.CopyUp = CopyUpAuto
	}
	if fs.cfg.AfterVolatile == "" {
		fs.cfg.AfterVolatile = AfterVolatileRefuse
	}
	if fs.cfg.CopyUpThreshold == 0 {
		fs.cfg.CopyUpThreshold = DefaultCopyUpThreshold
	}
	if fs.cfg.CompleteRate == 0 {
		fs.cfg.CompleteRate = DefaultCompleteRate
	}
	fs.coherent = fs.cfg.IO == IOCoherent && fs.cfg.Upper != ""
	fs.nodes.init()
	fs.inos.init()
	fs.hard.init()
	fs.count.init()
	max := fs.cfg.FDCache
	if max == 0 {
		max = fdBudget()
	}
	fs.cache = layers.NewCache(max)
}

// fdBudget is how many directories are kept open: a quarter of what the
// process may open, for open files and the rest need room too.
func fdBudget() int {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 256
	}
	return int(max(64, min(r.Cur/4, 4096)))
}

// open does the work of Open; what it leaves behind on failure Close removes.
func (fs *FS) open() error {
	if err := fs.checkDirs(); err != nil {
		return err
	}
	if err := fs.openLayers(); err != nil {
		return err
	}
	if err := fs.lockLayers(); err != nil {
		return err
	}
	if err := fs.chooseDepth(); err != nil {
		return err
	}
	if fs.upper != nil {
		if err := fs.openWork(); err != nil {
			return err
		}
	}
	if err := fs.openRoot(); err != nil || fs.upper == nil {
		return err
	}
	var st unix.Stat_t
	if fs.work.Stat(partialMark, &st) == nil {
		fs.partialFound = true
		fs.partialMarked.Store(true)
		fs.completer.marks.Add(1)
	}
	crashed, err := fs.markLive()
	fs.at(cutLiveMarked)
	if err == nil && crashed {
		err = fs.recount()
	}
	if err == nil {
		err = fs.takeVolatile()
	}
	if err != nil {
		return &Error{Kind: KindIO, Path: fs.work.Path(), Msg: "the state of the last mount cannot be taken up", Err: err,
			Mend: "mend what the error names, and mount again"}
	}
	fs.live = true
	fs.at(cutOpen)
	return nil
}

func (fs *FS) openLayers() error {
	fs.layers = make([]*layers.Layer, 1, len(fs.cfg.Lowers)+1)
	if fs.cfg.Upper != "" {
		l, err := layers.OpenUpper(fs.cfg.Upper, fs.cache)
		if err != nil {
			return openError(fs.cfg.Upper, err)
		}
		fs.upper, fs.layers[0] = l, l
		if err := fs.openSync(); err != nil {
			return openError(fs.cfg.Upper, err)
		}
		if fs.workLayer, err = layers.OpenUpper(fs.cfg.Work, fs.cache); err != nil {
			return openError(fs.cfg.Work, err)
		}
		fs.own = []inoKey{{l.Dev, l.RootIno}, {fs.workLayer.Dev, fs.workLayer.RootIno}}
		fs.inos.get(l.Dev, 0)
	}
	for i, path := range fs.cfg.Lowers {
		l, err := layers.OpenLower(path, i+1, fs.cache)
		if err != nil {
			return openError(path, err)
		}
		fs.layers = append(fs.layers, l)
		fs.inos.get(l.Dev, 0)
		if l.CloneErr != nil {
			return &Error{Kind: KindEnvironment, Path: path, Msg: "the lower layer cannot be reached through a private read-only mount", Err: l.CloneErr,
				Mend: "mount as root (CAP_SYS_ADMIN) on Linux 5.12 or newer"}
		}
	}
	fs.bottom = len(fs.cfg.Lowers)
	return nil
}

func openError(path string, err error) error {
	return &Error{Kind: KindUsage, Path: path, Msg: "cannot be opened as a layer", Err: toErrno(err), Mend: "mend the path or its permissions"}
}

// lockLayers refuses layers that another live mount writes, and an upper or
// work directory that another uses at all.
func (fs *FS) lockLayers() error {
	lock := func(l *layers.Layer, take func(*layers.Dir) (*layers.Lock, error)) error {
		k, err := take(l.Root())
		if err != nil {
			return &Error{Kind: KindBusy, Path: l.Path, Msg: "is in use by another live plyfs mount", Mend: "unmount that one first (plyfs status lists them)"}
		}
		fs.locks = append(fs.locks, k)
		return nil
	}
	if fs.upper != nil {
		for _, l := range []*layers.Layer{fs.upper, fs.workLayer} {
			if err := lock(l, layers.LockUpper); err != nil {
				return err
			}
		}
	}
	for _, l := range fs.layers[1:] {
		if err := lock(l, layers.LockLower); err != nil {
			return err
		}
	}
	return nil
}

// openRoot makes the root node.
func (fs *FS) openRoot() error {
	fs.lowRoot = &lowerStack{}
	for _, l := range fs.layers[1:] {
		if err := checkPaired(l); err != nil {
			return err
		}
		marks, err := l.Root().Marks(lowerDialects)
		if err != nil {
			return &Error{Kind: KindIO, Path: l.Path, Msg: "cannot be read", Err: err}
		}
		fs.lowRoot.add(l.Root(), marks)
		if marks.Opaque {
			break
		}
	}
	st := unix.Stat_t{}
	if err := fs.lowRoot.dirs[0].Stat("", &st); err != nil {
		return &Error{Kind: KindIO, Path: fs.cfg.Lowers[0], Msg: "cannot be read", Err: err}
	}
	n := &node{id: rootID, ino: fs.inos.get(st.Dev, st.Ino), typ: unix.S_IFDIR, orphan: -1, pinned: true, lookups: 1}
	n.dir = &dirState{low: fs.lowRoot}
	if fs.upper != nil {
		n.dir.upDir.Store(fs.upper.Root())
		n.dir.mark = fs.rootMark
	}
	fs.root = n
	fs.nodes.put(n)
	return nil
}

// syncUpper makes upper's file system durable.
func (fs *FS) syncUpper() error {
	fs.takesLong()
	number := fs.syncs.begun.Add(1)
	if err := unix.Syncfs(fs.syncFD); err != nil {
		return err
	}
	fs.syncs.over(number)
	return nil
}

// openSync opens the descriptor that upper's file system is synced through. It
// is kept for the time of the mount: one that was opened later would not be
// told of a failed write that somebody else has been told of meanwhile.
func (fs *FS) openSync() (err error) {
	fs.syncFD, err = fs.upper.Root().Open("", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return err
}

// Close makes the journal durable and lets the layers go. The mount must be
// over.
func (fs *FS) Close() error {
	var errs []error
	if fs.j != nil {
		err := fs.settle()
		fs.at(cutCloseSettled)
		if err == nil {
			err = fs.unmarkPartial()
		}
		if err == nil && fs.live {
			if err = fs.work.Unlink(liveMark); err == syscall.ENOENT {
				err = nil // it could not be made: see markLive
			}
		}
		fs.at(cutLiveRemoved)
		errs = append(errs, err, fs.j.Close())
		fs.at(cutJournalClosed)
	}
	if fs.dev != nil {
		fs.dev.close()
	}
	if !fs.mounted {
		errs = append(errs, fs.unmarkVolatile())
		fs.unmake()
	}
	fs.nodes.each(func(n *node) {
		n.mu.Lock()
		if n.orphan >= 0 {
			_ = unix.Close(int(n.orphan))
			n.orphan = -1
		}
		fs.closeServerFilesLocked(n)
		n.mu.Unlock()
	})
	if p := fs.policy.Swap(nil); p != nil {
		fs.closePolicy(p)
	}
	if fs.syncFD >= 0 {
		_ = unix.Close(fs.syncFD)
	}
	for _, k := range fs.locks {
		errs = append(errs, k.Close())
	}
	for _, l := range append(fs.layers, fs.workLayer) {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	fs.cache.Close()
	return errors.Join(errs...)
}
