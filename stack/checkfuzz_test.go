// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/stack/journal"
	"golang.org/x/sys/unix"
)

// A fuzzed is a good pair of upper and work with a copy of both.
type fuzzed struct {
	t        testing.TB
	cfg      Config
	pristine string
	targets  []fuzzTarget
	view     string
}

// A fuzzTarget is a file of the journal, or a private xattr.
type fuzzTarget struct{ path, attr string }

// newFuzzed makes the directories once for a process. Their upper holds one
// partial file, too.
func newFuzzed(t testing.TB) *fuzzed {
	m := checkMade(t)
	plantPartial(t, m, "big", func(ino, size uint64) []byte { return partialOrigin(1, ino, size, "/big") })
	must(t, unix.Lsetxattr(m.upper+"/a/y", xattrPlace, []byte("/x/y"), 0))
	return fuzz(t, m)
}

// fuzz makes the directories of a mount that is over the ones to be spoiled.
func fuzz(t testing.TB, m *mounted) *fuzzed {
	f := &fuzzed{t: t, cfg: m.config(), pristine: t.TempDir()}
	f.copy([]string{m.upper, m.work}, f.pristine)
	for _, name := range []string{journal.DBName, "journal.log", "journal.alt"} {
		f.targets = append(f.targets, fuzzTarget{path: m.work + "/plyfs/" + name})
	}
	for _, root := range []string{m.upper, m.work} {
		must(t, filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
			list := make([]byte, 4096)
			n, _ := unix.Llistxattr(p, list)
			for _, a := range strings.Split(string(list[:max(n, 0)]), "\x00") {
				if strings.HasPrefix(a, xattrPrefix) {
					f.targets = append(f.targets, fuzzTarget{p, a})
				}
			}
			return err
		}))
	}
	f.view = f.look()
	f.restore()
	r, err := Check(f.cfg)
	must(t, err)
	wantClean(t, "the fixture", r)
	return f
}

func (f *fuzzed) copy(from []string, to string) {
	f.t.Helper()
	args := append([]string{"-a", "--sparse=always"}, from...)
	if out, err := exec.Command("cp", append(args, to)...).CombinedOutput(); err != nil {
		f.t.Fatalf("cp: %v: %s", err, out)
	}
}

// restore puts everything back, into the same root directories.
func (f *fuzzed) restore() {
	f.t.Helper()
	var from []string
	for _, d := range []string{f.cfg.Upper, f.cfg.Work} {
		for _, name := range names(f.t, d) {
			must(f.t, os.RemoveAll(d+"/"+name))
		}
		from = append(from, f.pristine+"/"+filepath.Base(d))
	}
	f.copy(from, filepath.Dir(f.cfg.Upper))
}

// bytes reads a target.
func (f *fuzzed) bytes(g fuzzTarget) []byte {
	f.t.Helper()
	if g.attr == "" {
		b, err := os.ReadFile(g.path)
		must(f.t, err)
		return b
	}
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(g.path, g.attr, buf)
	must(f.t, err)
	return buf[:n]
}

// put writes a target.
func (f *fuzzed) put(g fuzzTarget, b []byte) {
	f.t.Helper()
	if g.attr == "" {
		must(f.t, os.WriteFile(g.path, b, 0o600))
		return
	}
	must(f.t, unix.Lsetxattr(g.path, g.attr, b, 0))
}

// look gives what a mount would show, without mounting: names, kinds, modes,
// contents, and the errors in their place.
func (f *fuzzed) look() string {
	cfg := f.cfg
	cfg.Volatile = true
	cfg.Logger = slog.New(slog.DiscardHandler)
	fs, err := Open(cfg)
	if err != nil {
		return "refused: " + err.Error()
	}
	fs.mounted = true // Close is to leave everything there
	var b strings.Builder
	fs.lookAt(&b, fs.root, "")
	if err := fs.Close(); err != nil {
		fmt.Fprintf(&b, "close: %v\n", err)
	}
	return b.String()
}

func (fs *FS) lookAt(b *strings.Builder, n *node, path string) {
	if err := fs.makeList(n); err != nil {
		fmt.Fprintf(b, "%s: list: %v\n", path, toErrno(err))
		return
	}
	listed := map[string]bool{}
	for _, e := range n.dir.list.ents {
		if !e.dead {
			listed[e.name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		c, err := fs.child(n, name, mounter)
		p := path + "/" + name
		if err != nil {
			fmt.Fprintf(b, "%s: %v\n", p, toErrno(err))
			continue
		}
		fmt.Fprintf(b, "%s: %o%s\n", p, c.typ, fs.lookContent(c))
		if c.isDir() {
			fs.lookAt(b, c, p)
		}
		fs.Forget(c.id, 1)
	}
}

func (fs *FS) lookContent(n *node) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, err := fs.refLocked(n)
	if err != nil {
		return fmt.Sprint(" ", toErrno(err))
	}
	var st unix.Stat_t
	if err := r.stat(&st); err != nil {
		return fmt.Sprint(" ", toErrno(err))
	}
	s := fmt.Sprintf(" %o", st.Mode&0o7777)
	if n.typ != unix.S_IFREG {
		return s
	}
	fd, err := r.open(unix.O_RDONLY)
	if err != nil {
		return fmt.Sprint(s, " ", toErrno(err))
	}
	defer unix.Close(fd)
	buf := make([]byte, 128<<10)
	got, err := unix.Pread(fd, buf, 0)
	if err != nil {
		return fmt.Sprint(s, " ", err)
	}
	return fmt.Sprintf("%s %x", s, buf[:got])
}

// damageBytes spoils b as the fuzzer says.
func damageBytes(b []byte, how uint8, at uint32, with byte) []byte {
	if len(b) == 0 {
		return b
	}
	out, i := slices.Clone(b), int(at)%len(b)
	switch how % 4 {
	case 0:
		out[i] ^= 1 << (with % 8)
	case 1:
		out[i] = with
	case 2:
		return out[:i]
	case 3:
		clear(out[i:min(i+1+int(with), len(out))])
	}
	return out
}

// FuzzCheck spoils a file of the journal or a private xattr. Whatever comes,
// the check does not panic, changes nothing, and if it says clean, a mount
// shows what it showed before.
func FuzzCheck(f *testing.F) {
	needRoot(f)
	fz := newFuzzed(f)
	for i := range fz.targets {
		for how := range uint8(4) {
			f.Add(uint8(i), how, uint32(3), byte(1))
		}
	}
	for at := uint32(0); at < 32; at++ {
		f.Add(uint8(at), uint8(0), at, byte(at))
	}
	f.Fuzz(func(t *testing.T, target, how uint8, at uint32, with byte) {
		fz.t = t
		fz.try(t, fz.targets[int(target)%len(fz.targets)], how, at, with)
	})
}

// try spoils one target and tells whether the check said clean all the same.
func (f *fuzzed) try(t testing.TB, g fuzzTarget, how uint8, at uint32, with byte) (clean bool) {
	good := f.bytes(g)
	bad := damageBytes(good, how, at, with)
	f.put(g, bad)
	defer func() {
		if g.attr != "" {
			f.put(g, good)
		} else {
			f.restore()
		}
	}()
	r, err := Check(f.cfg)
	if now := f.bytes(g); !slices.Equal(now, bad) {
		t.Error("the check has changed what it was to check")
	}
	if err != nil || !r.Clean {
		return false
	}
	if got := f.look(); got != f.view {
		t.Errorf("%s %s: %q became %q (way %d, at %d): clean, and the mount shows\n%s\ninstead of\n%s", g.path, g.attr,
			short(good), short(bad), how%4, int(at)%len(good), got, f.view)
	}
	f.restore()
	return true
}

func short(b []byte) []byte { return b[:min(len(b), 64)] }

// TestCheckEveryBit flips every bit of every private xattr, and cuts them at
// every length.
func TestCheckEveryBit(t *testing.T) {
	needRoot(t)
	f := newFuzzed(t)
	clean, all := map[string]int{}, map[string]int{}
	for _, g := range f.targets {
		if g.attr == "" {
			continue
		}
		for at := range len(f.bytes(g)) {
			for bit := range 9 {
				how := uint8(0)
				if bit == 8 {
					how = 2 // cut it here
				}
				all[g.attr]++
				if f.try(t, g, how, uint32(at), byte(bit)) {
					clean[g.attr]++
				}
			}
		}
	}
	t.Logf("clean, for the mount shows the same: %v of %v", clean, all)
	// What is clean is an id of a directory about which there are no records, an
	// inode number, a letter of a place: the mount shows the same, says try.
	if all[xattrDir] < 500 || clean[xattrDir] > all[xattrDir]/4 || clean[xattrPair] > 0 {
		t.Errorf("damage was overlooked, or there was none: %v of %v", clean, all)
	}
}

// TestCheckEveryByteOfTheLog spoils each byte of the log that a killed mount
// left, and cuts it everywhere. Records at its end that nothing says were
// durable may be lost by that, as by a power cut; nothing else may.
func TestCheckEveryByteOfTheLog(t *testing.T) {
	m := mountOver(t, still, checkLower(t))
	workload(t, m)
	must(t, m.Sync())
	for _, name := range []string{"keep", "a/y", "plain/v"} {
		must(t, unix.Unlink(m.path(name)))
	}
	back := m.freeze()
	m.unmount()
	back()
	f := fuzz(t, m)
	log := f.targets[1]
	if alt := f.targets[2]; len(f.bytes(alt)) > len(f.bytes(log)) {
		log = alt
	}
	good := f.bytes(log)
	legal := map[string]bool{f.view: true}
	ends := 0
	for end := 0; end+40 <= len(good); end += 40 + int(binary.LittleEndian.Uint32(good[end+8:])) {
		f.put(log, good[:end])
		legal[f.look()] = true
		f.restore()
		ends++
	}
	if ends < 5 || len(legal) < 3 {
		t.Fatalf("%d frames, %d states: this test proves nothing", ends, len(legal))
	}
	clean := 0
	for at := range good {
		for _, how := range []uint8{0, 2} {
			f.put(log, damageBytes(good, how, uint32(at), byte(at)))
			if r, err := Check(f.cfg); err == nil && r.Clean {
				clean++
				if got := f.look(); !legal[got] {
					t.Errorf("way %d at %d of %d: clean, and the mount shows\n%s", how, at, len(good), got)
				}
				f.restore()
			}
		}
	}
	f.put(log, good)
	t.Logf("%d bytes, %d frames; clean %d of %d times", len(good), ends, clean, 2*len(good))
}
