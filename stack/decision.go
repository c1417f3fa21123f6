// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"io"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A decision is what the policy says about an open of a file, checked. The
// zero decision is that of no policy.
type decision struct {
	why    string    // why the file is not passed through, "" if it may be
	plan   *planFile // nil: the file as it is
	from   Backing   // what is passed through, where that may be
	tag    uint64    // of what is shown, see planFile.tag; plainTag without a plan
	rule   string    // who decided
	gen    uint64    // of the policy
	caller Caller    // for whom; Nobody if for all
	data   *dataAsk  // reads and writes to be asked about
}

// dataAsk is what is asked about each read or write.
type dataAsk struct {
	q             FileQuery
	reads, writes bool
}

// asksReads tells whether the policy is asked about each read.
func (d *decision) asksReads() bool { return d.data != nil && d.data.reads }

// plainTag is the tag of a file as it is.
const plainTag = 1

// askHow says what a decision is for.
type askHow struct {
	write, copyUp bool
	who           Caller
}

// decideLocked asks the policy how a file is to be served.
// Precondition: n.mu is held.
func (fs *FS) decideLocked(n *node, how askHow) (decision, error) {
	d := decision{tag: plainTag, caller: Nobody}
	p := fs.pol()
	if p == nil {
		return d, nil
	}
	d.gen = p.gen
	if n.succ.Load() != nil {
		return d, nil
	}
	sc, place, err := fs.governedLocked(n)
	if err == nil && sc.broken {
		err = syscall.EIO
	}
	if err != nil || !sc.Files {
		return d, err
	}
	if sc.FilesByCaller && !how.copyUp {
		d.caller = how.who
	}
	q, st, err := fs.fileQueryLocked(n, place)
	if err != nil {
		return d, err
	}
	q.Write, q.CopyUp, q.Caller = how.write, how.copyUp, d.caller
	data := &lazyFile{fs: fs, n: n}
	defer data.close()
	q.Data = data
	a, err := fs.askFile(q)
	if err != nil {
		return d, err
	}
	d.rule = a.Rule
	if a.Server {
		d.why = "policy: " + a.Why
	}
	if sc.Reads || sc.Writes {
		d.why = "policy: " + a.Rule + " is asked about reads or writes"
		q.Data = nil
		d.data = &dataAsk{q: q, reads: sc.Reads, writes: sc.Writes}
	}
	if a.Plan != nil {
		err = fs.planDecisionLocked(n, &d, q, st, a.Plan, sc)
	}
	if sc.Reads {
		d.tag = 0 // who knows what the answers will be
	}
	return d, err
}

// planDecisionLocked puts a plan into a decision; it is released on an error,
// and where it says no more than that the file is as it is.
func (fs *FS) planDecisionLocked(n *node, d *decision, q FileQuery, st unix.Stat_t, p *Plan, sc Scope) error {
	f, err := fs.openPlan(q, p, fs.versionsOfLocked(n, q.Place))
	if err != nil {
		return err
	}
	if sc.FilesByCaller && p.Size != st.Size {
		f.close()
		return fs.wrongAnswer(q.Place, "the size depends on the caller")
	}
	from, same, err := f.identity()
	if err == nil && !(same && from == Self) {
		d.tag, err = f.tag()
	}
	if err != nil || same && from == Self {
		f.close()
		return err
	}
	d.plan = f
	if same {
		d.from = from
	} else if d.why == "" {
		d.why = "policy: " + d.rule + " makes it of several extents"
	}
	return nil
}

// fileQueryLocked begins a question about a file.
func (fs *FS) fileQueryLocked(n *node, place string) (q FileQuery, st unix.Stat_t, err error) {
	r, err := fs.refLocked(n)
	if err != nil {
		return q, st, err
	}
	if err := r.stat(&st); err != nil {
		return q, st, err
	}
	q = FileQuery{Place: place, Ino: n.ino, Size: st.Size, Mtime: st.Mtim.Nano(), Mode: st.Mode, Layers: len(fs.layers), Caller: Nobody}
	_, q.Name = splitPlace(place)
	if len(n.names) > 0 {
		q.Parent = n.names[0].parent.ino
	}
	if n.up {
		q.Holders = 1
		q.Copied, err = wasCopied(r)
		return q, st, err
	}
	q.Layer = n.low.d.Layer().Index
	q.Holders, err = fs.heldLocked(n, place)
	return q, st, err
}

// splitPlace cuts the last name off a place.
func splitPlace(place string) (dir, name string) {
	for i := len(place) - 1; i >= 0; i-- {
		if place[i] == '/' {
			return place[:i], place[i+1:]
		}
	}
	return "", place
}

// heldKnown is set in node.held once it was found out.
const heldKnown = 1 << 63

// heldLocked has a bit for each lower layer that holds a version of a lower
// file's path; lower layers do not change.
func (fs *FS) heldLocked(n *node, place string) (uint64, error) {
	if h := n.held.Load(); h&heldKnown != 0 {
		return h &^ heldKnown, nil
	}
	h := layerBit(n.low.d.Layer().Index)
	if at, ok := fs.nameAtLocked(n, place); ok {
		all, err := at.parent.dir.low.versions(fs, at.name)
		if err != nil {
			return 0, err
		}
		h |= holders(all)
	}
	if !n.hard { // whose names are paths of their own
		n.held.Store(h | heldKnown)
	}
	return h, nil
}

// nameAtLocked is the name of a lower file that has a place, or another one of
// it. Precondition: n.mu is held.
func (fs *FS) nameAtLocked(n *node, place string) (at nameRef, ok bool) {
	for _, a := range n.names {
		if len(n.names) == 1 || fs.placeOf(a.parent, a.name) == place {
			return a, true
		}
	}
	if len(n.names) > 0 {
		return n.names[0], true
	}
	return nameRef{}, false
}

// versionsOfLocked finds the lower layers' versions of a lower file's path.
func (fs *FS) versionsOfLocked(n *node, place string) func(int) (ref, error) {
	at, ok := fs.nameAtLocked(n, place)
	if n.up || !ok {
		return nil
	}
	dir, name := at.parent.dir.low, at.name
	return func(layer int) (ref, error) {
		all, err := dir.versions(fs, name)
		if err != nil {
			return ref{}, err
		}
		for _, v := range all {
			if v.layer == layer && v.typ == unix.S_IFREG {
				file := v.file
				if fs.maybeMetacopy(file.d, &v.st, v.imp) {
					if file.data, err = dir.metacopyData(file.d, name); err != nil {
						return ref{}, err
					}
				}
				return file.ref(true), nil
			}
		}
		return ref{}, &wrongError{msg: "that layer holds no file of this path"}
	}
}

// lazyFile reads a node's own file, which is opened at the first read. It is
// used while the node's lock is held.
type lazyFile struct {
	fs   *FS
	n    *node
	self selfFile
	open bool
}

// ReadAt implements io.ReaderAt.
func (l *lazyFile) ReadAt(b []byte, off int64) (int, error) {
	if !l.open {
		r, err := l.fs.dataRefLocked(l.n)
		if err != nil {
			return 0, err
		}
		if l.self, err = l.fs.openSelfLocked(l.n, r, unix.O_RDONLY); err != nil {
			return 0, err
		}
		l.open = true
		l.fs.takesLong()
	}
	n, err := l.self.readAt(b, off)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return n, err
}

func (l *lazyFile) close() {
	if l.open {
		l.self.close()
		l.open = false
	}
}

// showAttr shows a backing inode's attributes as the merged tree's, as the
// policy wants it. Precondition: n.mu is held.
func (fs *FS) showAttr(n *node, st *unix.Stat_t, a *fuse.Attr) error {
	fs.toAttr(n, st, a)
	p := fs.pol()
	if p == nil {
		return nil
	}
	sc, place, err := fs.attrScopeLocked(n)
	if err == nil && sc.broken {
		err = syscall.EIO
	}
	if err != nil {
		return err
	}
	if sc.Files && n.isReg() {
		if err := fs.showSizeLocked(n, place, sc, a); err != nil {
			return err
		}
	}
	if n.isReg() {
		n.shown.Store(int64(a.Size) + 1)
	}
	if sc.Attrs {
		return fs.ruleAttr(n, place, a)
	}
	return nil
}

// attrScopeLocked is the scope of any inode.
func (fs *FS) attrScopeLocked(n *node) (Scope, string, error) {
	if !n.isDir() {
		return fs.governedLocked(n)
	}
	place := fs.placeOfDir(n)
	return fs.scope(place), place, nil
}

// showSizeLocked asks for the size of the file that is shown.
func (fs *FS) showSizeLocked(n *node, place string, sc Scope, a *fuse.Attr) error {
	if n.up || sc.FilesByCaller || n.succ.Load() != nil {
		return nil // it may not change
	}
	q, _, err := fs.fileQueryLocked(n, place)
	if err != nil {
		return err
	}
	q.AttrOnly = true
	ans, err := fs.askFile(q)
	switch {
	case err != nil:
		// That the file cannot be read is told by open; a name that cannot
		// even be listed would take its directory with it.
		if toErrno(err) == syscall.EIO {
			return err
		}
		return nil
	case ans.Plan == nil:
		return nil
	}
	size := ans.Plan.Size
	fs.releasePlan(ans.Plan)
	if size < 0 {
		return fs.wrongAnswer(place, "size %d is negative", size)
	}
	a.Size = uint64(size)
	return nil
}

// ruleAttr lets the policy change attributes.
func (fs *FS) ruleAttr(n *node, place string, a *fuse.Attr) (err error) {
	p := fs.usePolicy()
	if p == nil {
		return nil
	}
	defer p.using.RUnlock()
	defer fs.policyPanics(func() { err = syscall.EIO })
	q := AttrQuery{Place: place, Ino: n.ino, Mode: a.Mode, Size: int64(a.Size), Mtime: int64(a.Mtime)*1e9 + int64(a.Mtimensec)}
	if !n.inUpper() {
		if r, err := fs.refLocked(n); err == nil && r.d != nil {
			q.Layer = r.d.Layer().Index
		}
	}
	ans := p.Attr(q)
	switch {
	case wrongErrno(ans.Errno):
		return fs.wrongAnswer(place, "it may not fail with errno %d", uintptr(ans.Errno))
	case ans.Errno != 0:
		return ans.Errno
	case ans.ClearMode&^07777 != 0:
		return fs.wrongAnswer(place, "mode bits %o cannot be cleared", ans.ClearMode)
	}
	a.Mode &^= ans.ClearMode
	if ans.SetMtime {
		ts := unix.NsecToTimespec(ans.Mtime)
		a.Mtime, a.Mtimensec = uint64(ts.Sec), uint32(ts.Nsec)
	}
	return nil
}
