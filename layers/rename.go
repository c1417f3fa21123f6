// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import "golang.org/x/sys/unix"

// Rename renames name in d to nname in nd by renameat2, with flags
// RENAME_NOREPLACE, RENAME_EXCHANGE or RENAME_WHITEOUT. It knows nothing of
// Dirs made for the names: for a directory that has one use [Dir.RenameTo], or
// [Dir.Move] afterwards.
func (d *Dir) Rename(name string, nd *Dir, nname string, flags uint) error {
	do := func() error {
		return d.pair(name, nd, nname, func(fd, nfd int) error {
			return unix.Renameat2(fd, name, nfd, nname, flags)
		})
	}
	if flags&(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return do()
	}
	return nd.withVictim(nname, do)
}

// RenameTo renames the directory d itself to name in parent and records the
// move, in one step for everybody who has to open d or something below it.
// other is the Dir of what is exchanged with RENAME_EXCHANGE, nil if that is
// no directory or nobody has a Dir for it. It is EXDEV if parent belongs to
// another layer, EBUSY for the root of a layer.
func (d *Dir) RenameTo(parent *Dir, name string, flags uint, other *Dir) error {
	if parent.layer != d.layer || other != nil && other.layer != d.layer {
		return unix.EXDEV
	}
	if err := checkComponent(name); err != nil {
		return err
	}
	nfd, err := parent.Acquire()
	if err != nil {
		return err
	}
	defer parent.Release()
	do := func() error {
		for {
			done, err := d.tryRename(nfd, parent, name, flags, other)
			if done {
				return err
			}
		}
	}
	if flags&(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return do()
	}
	return parent.withVictim(name, do)
}

// tryRename is one attempt of RenameTo; it is not done if d was moved away
// between finding its parent and pinning that.
func (d *Dir) tryRename(nfd int, parent *Dir, name string, flags uint, other *Dir) (done bool, err error) {
	topo := &d.layer.topo
	topo.RLock()
	old := d.parent
	topo.RUnlock()
	if old == nil {
		return true, unix.EBUSY
	}
	// Pinned before the lock: opening takes the lock too.
	fd, err := old.Acquire()
	if err != nil {
		return true, err
	}
	defer old.Release()
	topo.Lock()
	defer topo.Unlock()
	if d.parent != old {
		return false, nil
	}
	err = retry(func() error { return unix.Renameat2(fd, d.name, nfd, name, flags) })
	if err != nil {
		return true, err
	}
	if other != nil && flags&unix.RENAME_EXCHANGE != 0 {
		other.parent, other.name = old, d.name
	}
	d.parent, d.name = parent, name
	return true, nil
}
