// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"sort"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A listing is the merged list of a directory. It is made at the first readdir
// and kept up to date until the kernel forgets the directory. There is no
// OPENDIR, so a readdir under way is known by its offset alone: each name has
// a cookie of its own that never changes and is never given again, and new
// names get larger ones. So whoever reads on from a cookie sees each name that
// was there all the time once, whatever is added and removed meanwhile.
//
// Guarded by the node's mu.
type listing struct {
	ents   []listEnt      // ascending cookies
	byName map[string]int // index in ents; nil until needed
	next   uint64
	live   int
}

type listEnt struct {
	name   string
	cookie uint64
	ino    uint64
	typ    uint8
	dead   bool
}

// Cookies 1 and 2 are those of "." and "..".
const firstCookie = 3

func (l *listing) names() map[string]int {
	if l.byName == nil {
		l.byName = make(map[string]int, len(l.ents))
		for i := range l.ents {
			if !l.ents[i].dead {
				l.byName[l.ents[i].name] = i
			}
		}
	}
	return l.byName
}

func (l *listing) absent(name string) bool {
	_, ok := l.names()[name]
	return !ok
}

func (l *listing) add(name string, ino uint64, typ uint8) {
	if i, ok := l.names()[name]; ok {
		l.ents[i].ino, l.ents[i].typ = ino, typ
		return
	}
	l.byName[name] = len(l.ents)
	l.ents = append(l.ents, listEnt{name: name, cookie: l.next, ino: ino, typ: typ})
	l.next++
	l.live++
}

func (l *listing) remove(name string) {
	i, ok := l.names()[name]
	if !ok {
		return
	}
	delete(l.byName, name)
	l.ents[i].dead = true
	l.ents[i].name = ""
	l.live--
	l.compact()
}

// compact drops dead entries once they are most of the list. Cookies stay.
func (l *listing) compact() {
	if dead := len(l.ents) - l.live; dead < 1024 || dead < l.live {
		return
	}
	kept := make([]listEnt, 0, l.live)
	for _, e := range l.ents {
		if !e.dead {
			kept = append(kept, e)
		}
	}
	l.ents, l.byName = kept, nil
}

// after is the index of the first entry behind a cookie.
func (l *listing) after(cookie uint64) int {
	if n := len(l.ents); n == 0 || l.ents[n-1].cookie <= cookie {
		return n
	}
	return sort.Search(len(l.ents), func(i int) bool { return l.ents[i].cookie > cookie })
}

// loadList makes the listing. Precondition: n.mu is held for writing.
func (fs *FS) loadList(n *node) error {
	if n.dir.list != nil {
		return nil
	}
	if err := fs.loadCovers(n); err != nil {
		return err
	}
	l := &listing{next: firstCookie}
	put := func(name string, ino uint64, typ uint8) {
		l.ents = append(l.ents, listEnt{name: name, cookie: l.next, ino: ino, typ: typ})
		l.next++
	}
	seen, err := fs.listUpper(n, put)
	if err != nil {
		return err
	}
	if n.dir.low != nil {
		err = n.dir.low.list(fs, func(name string, ino uint64, typ uint8) {
			if _, ours := seen[name]; !ours && !n.dir.covered(name) {
				put(name, ino, typ)
			}
		})
	}
	if err != nil {
		return err
	}
	l.live = len(l.ents)
	n.dir.list = l
	return nil
}

// makeList is loadList for callers without the lock.
func (fs *FS) makeList(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fs.loadList(n)
}

// shown asks the policy whether a listing may show a name. A name whose lookup
// the policy refuses is listed; a policy that gives no answer fails the
// listing with EIO, for it may have meant to hide the name.
func (fs *FS) shown(n *node, dirPlace string, e *listEnt, who Caller) (bool, error) {
	place := joinPlace(dirPlace, e.name)
	sc := fs.scope(place)
	switch {
	case sc.broken:
		return false, syscall.EIO
	case !sc.Names:
		return true, nil
	}
	if !sc.NamesByCaller {
		who = Nobody
	}
	_, err := fs.decide(NameQuery{Place: place, Parent: n.ino, Name: e.name, Type: uint32(e.typ) << 12, Layer: -1,
		Layers: len(fs.layers), Listing: true, Caller: who})
	switch {
	case err == errHidden:
		return false, nil
	case err != nil && toErrno(err) == syscall.EIO:
		return false, err
	}
	return true, nil
}

// listUpper puts what the upper directory shows, and returns all names about
// which upper has a say, whiteouts among them.
func (fs *FS) listUpper(n *node, put func(string, uint64, uint8)) (map[string]struct{}, error) {
	up := n.dir.upper()
	if up == nil || n.unlinked {
		return nil, nil
	}
	seen := make(map[string]struct{})
	var hidden []string
	err := up.List(func(name []byte, ino uint64, typ uint8) error {
		s := string(name)
		if t, ok := ociHidden(s); ok && fs.foreign {
			hidden = append(hidden, t)
			return nil
		}
		typ, err := entryType(fs, up, s, typ, ino, false)
		if err != nil {
			if err == syscall.ENOENT {
				return nil
			}
			return err
		}
		seen[s] = struct{}{}
		if typ == dtWhiteout {
			return nil
		}
		put(s, ino, typ)
		return nil
	})
	for _, name := range hidden {
		seen[name] = struct{}{}
	}
	return seen, err
}

// ReadDir lists names. The kernel asks for ReadDirPlus instead.
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readdir(in, func(n *node, name string, e fuse.DirEntry) (bool, error) {
		c, err := fs.child(n, name, callerOf(&in.InHeader))
		if err != nil {
			return true, err
		}
		e.Ino, e.Mode = c.ino, c.typ
		fs.Forget(c.id, 1)
		return out.AddDirEntry(e), nil
	}, out.AddDirEntry)
}

// ReadDirPlus lists names with their attributes, each a lookup.
func (fs *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readdir(in, func(n *node, name string, e fuse.DirEntry) (bool, error) {
		c, err := fs.child(n, name, callerOf(&in.InHeader))
		if err != nil {
			return true, err
		}
		e.Ino, e.Mode = c.ino, c.typ
		var a fuse.Attr
		c.mu.RLock()
		err = fs.fillAttrLocked(c, &a)
		timeout := fs.attrTimeoutLocked(c)
		c.mu.RUnlock()
		if err != nil {
			fs.Forget(c.id, 1)
			return true, err
		}
		slot := out.AddDirLookupEntry(e)
		if slot == nil {
			fs.Forget(c.id, 1)
			return false, nil
		}
		slot.Attr = a
		fs.entryHead(c, slot)
		slot.SetAttrTimeout(timeout)
		return true, nil
	}, func(e fuse.DirEntry) bool { return out.AddDirLookupEntry(e) != nil })
}

// readdir walks the listing from an offset. one adds an entry of a name and
// reports whether it fitted; dot adds one that is not looked up: ".", "..", and
// what cannot be.
func (fs *FS) readdir(in *fuse.ReadIn, one func(*node, string, fuse.DirEntry) (bool, error),
	dot func(fuse.DirEntry) bool) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil || n.dir == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if n.isDetached() {
		return fuse.Status(syscall.ESTALE)
	}
	cookie, added := in.Offset, false
	if cookie < firstCookie-1 && !fs.addDots(n, &cookie, dot) {
		return fuse.OK
	}
	dirPlace := ""
	if fs.pol() != nil {
		dirPlace = fs.placeOfDir(n)
	}
	for {
		batch, err := fs.listFrom(n, cookie)
		if err != nil {
			return fs.status(err)
		}
		if len(batch) == 0 {
			return fuse.OK
		}
		for i := range batch {
			e := &batch[i]
			if dirPlace != "" {
				show, err := fs.shown(n, dirPlace, e, callerOf(&in.InHeader))
				if err != nil && added {
					return fuse.OK // what is there is taken first; then the kernel comes back here
				}
				if err != nil {
					return fs.status(err)
				}
				if !show {
					cookie = e.cookie
					continue
				}
			}
			de := fuse.DirEntry{Name: e.name, Off: e.cookie, Ino: e.ino, Mode: uint32(e.typ) << 12}
			ok, err := one(n, e.name, de)
			if err != nil && err != syscall.ENOENT && err != errHidden { // ENOENT: removed since
				// The name is shown all the same: one damaged inode must
				// not make its directory unreadable.
				fs.status(err)
				ok = dot(de)
			}
			if !ok {
				return fuse.OK
			}
			cookie, added = e.cookie, true
		}
	}
}

// addDots adds "." and "..".
func (fs *FS) addDots(n *node, cookie *uint64, dot func(fuse.DirEntry) bool) bool {
	up := n.ino
	n.mu.RLock()
	if len(n.names) > 0 {
		up = n.names[0].parent.ino
	}
	n.mu.RUnlock()
	if *cookie == 0 {
		if !dot(fuse.DirEntry{Name: ".", Ino: n.ino, Mode: unix.S_IFDIR, Off: 1}) {
			return false
		}
		*cookie = 1
	}
	if !dot(fuse.DirEntry{Name: "..", Ino: up, Mode: unix.S_IFDIR, Off: 2}) {
		return false
	}
	*cookie = 2
	return true
}

// listBatch is how many entries are looked at under one lock.
const listBatch = 64

// listFrom copies the next entries of the listing.
func (fs *FS) listFrom(n *node, cookie uint64) ([]listEnt, error) {
	n.mu.RLock()
	l := n.dir.list
	if l == nil {
		n.mu.RUnlock()
		if err := fs.makeList(n); err != nil {
			return nil, err
		}
		n.mu.RLock()
		l = n.dir.list
	}
	defer n.mu.RUnlock()
	batch := make([]listEnt, 0, listBatch)
	for i := l.after(cookie); i < len(l.ents) && len(batch) < listBatch; i++ {
		if !l.ents[i].dead {
			batch = append(batch, l.ents[i])
		}
	}
	return batch, nil
}
