// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layers"
)

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
	case c.AfterVolatile != AfterVolatileAuto && c.AfterVolatile != AfterVolatileKeep && c.AfterVolatile != AfterVolatileRefuse:
		return usage("", fmt.Sprintf("after_volatile=%s is no choice", c.AfterVolatile), "use after_volatile=auto, keep or refuse")
	case c.MaxStackDepth < 0 || c.MaxStackDepth > kernelMaxDepth:
		return usage("", fmt.Sprintf("max_stack_depth=%d", c.MaxStackDepth), "the kernel takes 1 or 2; leave it out to let plyfs choose")
	}
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
		if isProc(m) {
			return &Error{Kind: KindUsage, Path: m, Msg: "cannot be mounted over, for plyfs itself needs /proc", Mend: "choose another mount point"}
		}
	}
	return fs.checkOverlap()
}

// isProc says whether a directory is the root of a proc file system. A daemon
// whose requests look at /proc in its own mount would wait for itself.
func isProc(dir string) bool {
	const rootIno = 1 // PROC_ROOT_INO
	var fs unix.Statfs_t
	var st unix.Stat_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC && unix.Stat(dir, &st) == nil && st.Ino == rootIno
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
