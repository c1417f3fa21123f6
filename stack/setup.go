// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/layers"
	"github.com/plyfs/plyfs/stack/journal"
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

func (fs *FS) checkConfig() error {
	c := &fs.cfg
	usage := func(path, msg, mend string) error {
		return &Error{Kind: KindUsage, Path: path, Msg: msg, Mend: mend}
	}
	switch {
	case len(c.Lowers) == 0:
		return usage("", "no lower directory", "give at least one with -o lowerdir=DIR")
	case c.Upper != "" && c.Work == "":
		return usage(c.Upper, "upperdir without workdir", "give -o workdir=DIR, an empty directory on the same file system as upperdir")
	case c.Upper == "" && c.Work != "":
		return usage(c.Work, "workdir without upperdir", "give -o upperdir=DIR, or leave workdir out for a read-only mount")
	case c.IO != IOPassthrough && c.IO != IOCoherent:
		return usage("", fmt.Sprintf("io=%s is no I/O mode", c.IO), "use io=passthrough or io=coherent")
	case c.Passthrough != PassthroughAuto && c.Passthrough != PassthroughRequire && c.Passthrough != PassthroughOff:
		return usage("", fmt.Sprintf("passthrough=%s is no choice", c.Passthrough), "use passthrough=auto, require or off")
	case c.CopyUp != CopyUpAuto && c.CopyUp != CopyUpPartial && c.CopyUp != CopyUpWhole:
		return usage("", fmt.Sprintf("copyup=%s is no choice", c.CopyUp), "use copyup=auto, partial or whole")
	case c.MaxStackDepth < 0 || c.MaxStackDepth > kernelMaxDepth:
		return usage("", fmt.Sprintf("max_stack_depth=%d", c.MaxStackDepth), "the kernel takes 1 or 2; leave it out to let plyfs choose")
	}
	return nil
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

// checkDirs finds what is wrong with the directories before any is opened.
func (fs *FS) checkDirs() error {
	dirs := append([]string{}, fs.cfg.Lowers...)
	if fs.cfg.Upper != "" {
		dirs = append(dirs, fs.cfg.Upper, fs.cfg.Work)
	}
	for i, d := range dirs {
		st, err := os.Stat(d)
		role := "lowerdir"
		if i >= len(fs.cfg.Lowers) {
			role = []string{"upperdir", "workdir"}[i-len(fs.cfg.Lowers)]
		}
		switch {
		case errors.Is(err, os.ErrNotExist):
			return &Error{Kind: KindUsage, Path: d, Msg: role + " does not exist", Mend: "create it, or mend the path"}
		case err != nil:
			return &Error{Kind: KindUsage, Path: d, Msg: role + " cannot be used", Err: errors.Unwrap(err), Mend: "mend the path"}
		case !st.IsDir():
			return &Error{Kind: KindUsage, Path: d, Msg: role + " is not a directory", Mend: "give a directory"}
		}
	}
	if m := fs.cfg.Mountpoint; m != "" {
		if st, err := os.Stat(m); err != nil || !st.IsDir() {
			return &Error{Kind: KindUsage, Path: m, Msg: "is no directory to mount over", Err: errors.Unwrap(err), Mend: "create it, or mend the path"}
		}
	}
	return fs.checkOverlap()
}

// checkOverlap refuses directories that are one, or of which one would change
// under the other. Upper and work may lie in a lower (an overlay of / with a
// scratch directory in /var/tmp): the mount does not show them.
func (fs *FS) checkOverlap() error {
	overlap := func(a, b, how string) error {
		return &Error{Kind: KindUsage, Path: a, Msg: "overlaps: it " + how + " " + b, Mend: "give directories apart from each other"}
	}
	c := &fs.cfg
	if c.Upper != "" {
		for _, p := range [][2]string{{c.Upper, c.Work}, {c.Work, c.Upper}} {
			in, err := layers.Inside(p[0], p[1])
			if err != nil {
				return &Error{Kind: KindIO, Path: p[0], Msg: "cannot be examined", Err: err}
			}
			if in {
				return overlap(p[0], p[1], "is or lies inside")
			}
		}
	}
	for i, l := range c.Lowers {
		for _, u := range []string{c.Upper, c.Work} {
			if u == "" {
				continue
			}
			in, err := layers.Inside(l, u)
			if err != nil {
				return &Error{Kind: KindIO, Path: l, Msg: "cannot be examined", Err: err}
			}
			if in {
				return overlap(l, u, "is or lies inside")
			}
		}
		for _, other := range c.Lowers[:i] {
			if sameDir(l, other) {
				return overlap(l, other, "is the same directory as")
			}
		}
	}
	return nil
}

func sameDir(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
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

// madeDir is a directory that Open made in work.
type madeDir struct {
	d    *layers.Dir
	name string
}

// unmake removes what a mount that did not come about made in the work
// directory: all of it, or, if an earlier mount had made the directory, the
// empty directories that were missing. Precondition: the journal is closed.
func (fs *FS) unmake() {
	if len(fs.made) > 0 && fs.made[0].name == "plyfs" {
		fs.unmakeFiles()
	}
	for i := len(fs.made) - 1; i >= 0; i-- {
		_ = fs.made[i].d.Rmdir(fs.made[i].name)
		fs.at(cutUnmadeDir)
	}
	fs.made = nil
}

// unmakeFiles removes all but directories.
func (fs *FS) unmakeFiles() {
	if fs.tmp != nil {
		_ = fs.tmp.Unlink(sharedWhiteout)
		fs.at(cutUnmadeWhiteout)
	}
	fs.unpair()
	if fs.work != nil {
		_ = journal.Remove(fs.work.Path(), journal.Options{CutPoint: fs.journalAt()})
		_ = fs.work.Unlink(liveMark)
		_ = fs.work.Unlink(partialMark)
		fs.at(cutUnmadeLive)
		_ = fs.clearAttrStore()
	}
}

// unpair takes upper's pair mark back. It goes before the journal, for a marked
// upper is refused without one.
func (fs *FS) unpair() {
	up, err := fs.upperPair()
	if err != nil || up == nil || fs.work == nil {
		return
	}
	if wk, err := readPair(fs.work); err == nil && bytes.Equal(up, wk) {
		_ = fs.unmarkUpper()
		fs.at(cutUnmadePair)
	}
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
	j, err := journal.Open(fs.work.Path(), meta, journal.Options{NoSync: fs.cfg.Volatile, Logger: fs.log, CutPoint: fs.journalAt()})
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

// openRoot makes the root node.
func (fs *FS) openRoot() error {
	fs.lowRoot = &lowerStack{}
	for _, l := range fs.layers[1:] {
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
