// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"slices"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// A place is what a policy goes by: a path that sticks to an inode, so that
// nothing done inside the mount can take a file out of what the policy says
// about it. It is
//
//   - for what has lower parts, its path in the merged view of the lower layers,
//     wherever it has been renamed to;
//   - for what is in upper alone, and for a copy, the place that is written on
//     it (trusted.plyfs.place), if there is one, else its name below the place
//     of its directory. A rename or a link that would take it from where the
//     policy has something to say writes the old place down first.
//
// So once the policy has a say about an inode it keeps it, by the first place;
// and what it had no say about comes under its sway where it is moved to.
//
// Places are told without a lock, from the directory upwards: see dirAt.

// dirAt is where a directory is, for those who hold no lock of its parent.
type dirAt struct {
	parent *node
	name   string
}

// placeOf is the place of a name in a directory.
func (fs *FS) placeOf(p *node, name string) string {
	return joinPlace(fs.placeOfDir(p), name)
}

func joinPlace(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// placeOfDir is the place of a directory.
func (fs *FS) placeOfDir(n *node) string {
	var below []string
	base := "/"
	for n != nil && n != fs.root {
		if low := n.dir.low; low != nil {
			base = low.path()
			break
		}
		// A rename writes the place before it moves the directory, so it is
		// read after where the directory is.
		at := n.dir.at.Load()
		if s := fs.stuckDir(n); s != "" {
			base = s
			break
		}
		if at == nil {
			break
		}
		below = append(below, at.name)
		n = at.parent
	}
	slices.Reverse(below)
	if len(below) == 0 {
		return base
	}
	return joinPlace(base, strings.Join(below, "/"))
}

// stuckDir is the place written on an upper directory, "" if there is none. It
// is read once.
func (fs *FS) stuckDir(n *node) string {
	if s := n.dir.stuck.Load(); s != nil {
		return *s
	}
	s := ""
	if up := n.dir.upper(); up != nil {
		var err error
		if s, err = readPlace(ref{d: up, fd: -1}); err != nil {
			fs.noteError("reading a place", err)
			return unknownPlace
		}
	}
	if n.dir.stuck.CompareAndSwap(nil, &s) {
		return s
	}
	return *n.dir.stuck.Load() // a rename has just written it
}

// unknownPlace begins those that could not be read: whatever the policy may
// have to say there, the answer is EIO. They are read again the next time.
const unknownPlace = "\x00"

// xattrPlace holds a place, as it is; xattrCopied is on copies that were made
// through a plan. See mark.go for the others.
const (
	xattrPlace  = xattrPrefix + "place"
	xattrCopied = xattrPrefix + "copied"

	maxPlace = 4096
)

// readPlace reads the place written on an upper inode, "" for none.
func readPlace(r ref) (string, error) {
	var small [256]byte
	buf := small[:]
	n, err := r.getxattr(xattrPlace, buf)
	if err == syscall.ERANGE {
		buf = make([]byte, maxPlace+1)
		n, err = r.getxattr(xattrPlace, buf)
	}
	switch err {
	case nil:
		return string(buf[:n]), nil
	case syscall.ENODATA, syscall.EOPNOTSUPP:
		return "", nil
	}
	return "", err
}

// stick writes the place of an inode on it if the policy has a say about it
// there, before it gets another name. Directories with lower parts have their
// lower path; symbolic links cannot hold one. Precondition: n.mu is held for
// writing; n is in upper.
func (fs *FS) stick(n *node, place string) error {
	if fs.pol() == nil || place == "" || n.isDir() && n.dir.low != nil || n.typ == unix.S_IFLNK {
		return nil
	}
	r, err := fs.refLocked(n)
	if err != nil {
		return err
	}
	if old, err := readPlace(r); err != nil || old != "" {
		return err
	}
	if s := fs.scope(place); !s.any() && !(n.isDir() && s.Below) {
		return nil
	}
	if len(place) > maxPlace {
		return syscall.ENAMETOOLONG
	}
	if err := r.setxattr(xattrPlace, []byte(place), 0); err != nil {
		return err
	}
	fs.at(cutPlaceWritten)
	if n.isDir() {
		n.dir.stuck.Store(&place)
	}
	return nil
}

// placesLocked are the places of a file: of each name that is known, or the
// one written on it, or, when it has no name left, the last one.
// Precondition: n.mu is held.
func (fs *FS) placesLocked(n *node) ([]string, error) {
	if n.up {
		r, err := fs.refLocked(n)
		if err != nil {
			return nil, err
		}
		s, err := readPlace(r)
		if err != nil {
			return nil, err
		}
		if s != "" {
			return []string{s}, nil
		}
	}
	var all []string
	for _, a := range n.names {
		all = append(all, fs.placeOf(a.parent, a.name))
	}
	if len(all) == 0 && n.lastPlace != "" {
		all = append(all, n.lastPlace)
	}
	return all, nil
}

// governedLocked is the scope of a file and the place that it comes from; the
// first of its places about which the policy has a say. Without one, no scope.
// Precondition: n.mu is held.
func (fs *FS) governedLocked(n *node) (s Scope, place string, err error) {
	if fs.pol() == nil {
		return Scope{}, "", nil
	}
	places, err := fs.placesLocked(n)
	if err != nil {
		return Scope{}, "", err
	}
	for _, place := range places {
		if s := fs.scope(place); s.Files || s.Attrs {
			return s, place, nil
		}
	}
	return Scope{}, "", nil
}

// ruledPlaceLocked is the place of an inode at which the policy has a say about
// it, else any. Precondition: n.mu is held.
func (fs *FS) ruledPlaceLocked(n *node) string {
	if fs.pol() == nil {
		return ""
	}
	if _, place, err := fs.governedLocked(n); err == nil && place != "" {
		return place
	}
	if len(n.names) > 0 {
		return fs.placeOf(n.names[0].parent, n.names[0].name)
	}
	return n.lastPlace
}

// noteLastPlace keeps the place of a name that is about to be dropped, if it
// is the last one. Precondition: n.mu is held for writing.
func (fs *FS) noteLastPlace(n, p *node, name string) {
	if len(n.names) == 1 && !n.isDir() { // a policy may come later
		n.lastPlace = fs.placeOf(p, name)
	}
}

// wasCopied tells whether an upper file was copied up through a plan.
func wasCopied(r ref) (bool, error) {
	_, err := r.getxattr(xattrCopied, nil)
	switch err {
	case nil:
		return true, nil
	case syscall.ENODATA, syscall.EOPNOTSUPP:
		return false, nil
	}
	return false, err
}

// A version is what one lower layer holds under a name.
type version struct {
	layer int
	file  lowerFile
	typ   uint32
	st    unix.Stat_t
	imp   bool
}

// versions are what the directories of a lowerStack hold under a name, topmost
// first, down to the whiteout that hides the rest.
func (s *lowerStack) versions(fs *FS, name string) ([]version, error) {
	if s == nil {
		return nil, nil
	}
	if _, hidden := ociHidden(name); hidden {
		return nil, nil
	}
	if err := s.load(fs); err != nil {
		return nil, err
	}
	if _, ok := s.idx[name]; s.idx != nil && !ok {
		return nil, nil
	}
	var all []version
	for i, d := range s.dirs {
		v, stop, err := s.versionIn(fs, i, d, name)
		if err != nil {
			return nil, err
		}
		if v != nil {
			all = append(all, *v)
		}
		if stop {
			break
		}
	}
	return all, nil
}

// versionIn is what directory i holds under a name, nil if nothing; stop is
// set where a whiteout hides the directories below.
func (s *lowerStack) versionIn(fs *FS, i int, d *layers.Dir, name string) (v *version, stop bool, err error) {
	var st unix.Stat_t
	err = d.Stat(name, &st)
	if err == syscall.ENOENT {
		stop, err = ociHides(d, name)
		return nil, stop, err
	}
	if err != nil {
		return nil, false, err
	}
	typ, err := entryType(fs, d, name, uint8(st.Mode>>12&15), st.Ino, s.marks[i].XWhiteouts)
	if err != nil || typ == dtUnseen {
		return nil, false, err
	}
	if typ == dtWhiteout || layers.IsWhiteoutStat(&st) {
		return nil, true, nil
	}
	stop, err = ociHides(d, name)
	return &version{layer: d.Layer().Index, file: lowerFile{d: d, name: name}, typ: st.Mode & unix.S_IFMT, st: st,
		imp: s.marks[i].Impure}, stop, err
}

// holders has a bit for each layer of the versions.
func holders(all []version) (mask uint64) {
	for _, v := range all {
		mask |= layerBit(v.layer)
	}
	return mask
}

// layerBit is the bit of a layer in a mask; layers from 63 on have none.
func layerBit(k int) uint64 {
	if k > 62 {
		return 0
	}
	return 1 << k
}
