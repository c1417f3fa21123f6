// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// op is one step of a sequence: a system call or a few, by one user, on paths
// relative to the root of a tree or on a descriptor kept in a slot.
type op struct {
	Kind  string `json:"k"`
	User  int    `json:"u,omitempty"` // index in users
	A     string `json:"a,omitempty"` // path
	B     string `json:"b,omitempty"` // second path, link target, attribute name
	Slot  int    `json:"s,omitempty"`
	Slot2 int    `json:"s2,omitempty"`
	Flags int    `json:"f,omitempty"`
	Mode  uint32 `json:"m,omitempty"`
	Umask int    `json:"um,omitempty"`
	Off   int64  `json:"o,omitempty"`
	Len   int64  `json:"n,omitempty"`
	Seed  int64  `json:"d,omitempty"` // of the data written
	Data  []byte `json:"x,omitempty"` // value of an attribute
}

func (o op) String() string {
	b, _ := json.Marshal(o)
	return string(b)
}

// opTree is one of the trees that the operations are run on.
type opTree struct {
	name string
	root string
	fds  map[int]int
}

// opFuncs holds the executor of each kind of operation. It returns what the
// caller saw beyond the error.
var opFuncs = map[string]func(*opTree, *op) (string, error){
	"create":    (*opTree).opCreate,
	"open":      (*opTree).opOpen,
	"close":     (*opTree).opClose,
	"pread":     (*opTree).opPread,
	"pwrite":    (*opTree).opPwrite,
	"append":    (*opTree).opAppend,
	"writefile": (*opTree).opWriteFile,
	"readfile":  (*opTree).opReadFile,
	"truncate":  func(t *opTree, o *op) (string, error) { return "", unix.Truncate(t.path(o.A), o.Len) },
	"ftruncate": fdOp(func(fd int, o *op) error { return unix.Ftruncate(fd, o.Len) }),
	"mkdir":     func(t *opTree, o *op) (string, error) { return "", unix.Mkdir(t.path(o.A), o.Mode) },
	"mknod":     func(t *opTree, o *op) (string, error) { return "", unix.Mknod(t.path(o.A), o.Mode, int(o.Len)) },
	"symlink":   func(t *opTree, o *op) (string, error) { return "", unix.Symlink(o.B, t.path(o.A)) },
	"link":      (*opTree).opLink,
	"unlink":    func(t *opTree, o *op) (string, error) { return "", unix.Unlink(t.path(o.A)) },
	"rmdir":     func(t *opTree, o *op) (string, error) { return "", unix.Rmdir(t.path(o.A)) },
	"rmrf":      func(t *opTree, o *op) (string, error) { return "", removeTree(t.path(o.A)) },
	"rename":    (*opTree).opRename,
	"chmod":     func(t *opTree, o *op) (string, error) { return "", unix.Chmod(t.path(o.A), o.Mode) },
	"fchmod":    fdOp(func(fd int, o *op) error { return unix.Fchmod(fd, o.Mode) }),
	"chown":     func(t *opTree, o *op) (string, error) { return "", unix.Lchown(t.path(o.A), int(o.Off), int(o.Len)) },
	"fchown":    fdOp(func(fd int, o *op) error { return unix.Fchown(fd, int(o.Off), int(o.Len)) }),
	"utimens":   (*opTree).opUtimens,
	"setxattr":  func(t *opTree, o *op) (string, error) { return "", unix.Lsetxattr(t.path(o.A), o.B, o.Data, o.Flags) },
	"rmxattr":   func(t *opTree, o *op) (string, error) { return "", unix.Lremovexattr(t.path(o.A), o.B) },
	"getxattr":  func(t *opTree, o *op) (string, error) { return quoted(lgetxattr(t.path(o.A), o.B)) },
	"listxattr": (*opTree).opListxattr,
	"fsetxattr": fdOp(func(fd int, o *op) error { return unix.Fsetxattr(fd, o.B, o.Data, o.Flags) }),
	"fallocate": fdOp(func(fd int, o *op) error { return unix.Fallocate(fd, uint32(o.Flags), o.Off, o.Len) }),
	"seek":      (*opTree).opSeek,
	"mmapwrite": (*opTree).opMmapWrite,
	"mmapread":  (*opTree).opMmapRead,
	"readdir":   (*opTree).opReaddir,
	"stat":      (*opTree).opStat,
	"fstat":     (*opTree).opFstat,
	"readlink":  func(t *opTree, o *op) (string, error) { return quoted(os.Readlink(t.path(o.A))) },
	"access":    (*opTree).opAccess,
	"tmpfile":   (*opTree).opTmpfile,
	"linkfd":    (*opTree).opLinkFD,
	"copyrange": (*opTree).opCopyRange,
	"fsync":     fdOp(func(fd int, _ *op) error { return unix.Fsync(fd) }),
}

// errNoSlot is the result of an operation on an empty slot.
var errNoSlot = errors.New("no descriptor")

// do runs an operation as its user and says all that came of it in a line.
func (t *opTree) do(o *op, workers []*worker) (string, bool) {
	f, ok := opFuncs[o.Kind]
	if !ok {
		return "unknown operation " + o.Kind, true
	}
	w := workers[o.User]
	var out string
	w.work <- func() {
		unix.RawSyscall(unix.SYS_UMASK, uintptr(o.Umask), 0, 0)
		res, err := f(t, o)
		out = outcome(res, err)
	}
	select {
	case <-w.done:
		return out, true
	case <-time.After(commandTimeout):
		return "hangs", false
	}
}

// outcome is a result as a line.
func outcome(res string, err error) string {
	var errno unix.Errno
	switch {
	case err == nil && res == "":
		return "ok"
	case err == nil:
		return res
	case errors.As(err, &errno):
		return strings.TrimSpace(unix.ErrnoName(errno) + " " + res)
	}
	return err.Error()
}

func quoted(s string, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%q", s), nil
}

func (t *opTree) path(p string) string { return filepath.Join(t.root, p) }

// fd is the descriptor of a slot.
func (t *opTree) fd(slot int) (int, error) {
	if fd, ok := t.fds[slot]; ok {
		return fd, nil
	}
	return -1, errNoSlot
}

// keep puts a descriptor into a slot in place of what was there.
func (t *opTree) keep(slot, fd int) {
	if old, ok := t.fds[slot]; ok {
		unix.Close(old)
	}
	t.fds[slot] = fd
}

// closeAll empties all slots.
func (t *opTree) closeAll() {
	for s, fd := range t.fds {
		unix.Close(fd)
		delete(t.fds, s)
	}
}

// fdOp makes an executor of a call on the descriptor of a slot.
func fdOp(f func(fd int, o *op) error) func(*opTree, *op) (string, error) {
	return func(t *opTree, o *op) (string, error) {
		fd, err := t.fd(o.Slot)
		if err != nil {
			return "", err
		}
		return "", f(fd, o)
	}
}

const openAlways = unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

func (t *opTree) opCreate(o *op) (string, error) {
	fd, err := unix.Open(t.path(o.A), o.Flags|unix.O_CREAT|openAlways, o.Mode)
	if err != nil {
		return "", err
	}
	t.keep(o.Slot, fd)
	if o.Len == 0 {
		return "", nil
	}
	n, err := unix.Write(fd, pattern(int(o.Len), o.Seed))
	return fmt.Sprint(n), err
}

func (t *opTree) opOpen(o *op) (string, error) {
	fd, err := unix.Open(t.path(o.A), o.Flags|openAlways, 0)
	if err != nil {
		return "", err
	}
	t.keep(o.Slot, fd)
	return "", nil
}

func (t *opTree) opClose(o *op) (string, error) {
	fd, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	delete(t.fds, o.Slot)
	return "", unix.Close(fd)
}

func (t *opTree) opPread(o *op) (string, error) {
	fd, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	b := make([]byte, o.Len)
	n, err := unix.Pread(fd, b, o.Off)
	if err != nil {
		return "", err
	}
	return sum(b[:n]), nil
}

func (t *opTree) opPwrite(o *op) (string, error) {
	fd, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	n, err := unix.Pwrite(fd, pattern(int(o.Len), o.Seed), o.Off)
	return fmt.Sprint(n), err
}

func (t *opTree) opAppend(o *op) (string, error) {
	fd, err := unix.Open(t.path(o.A), unix.O_WRONLY|unix.O_APPEND|openAlways, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n, err := unix.Write(fd, pattern(int(o.Len), o.Seed))
	return fmt.Sprint(n), err
}

func (t *opTree) opWriteFile(o *op) (string, error) {
	fd, err := unix.Open(t.path(o.A), o.Flags|openAlways, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n, err := unix.Pwrite(fd, pattern(int(o.Len), o.Seed), o.Off)
	return fmt.Sprint(n), err
}

func (t *opTree) opReadFile(o *op) (string, error) {
	fd, err := unix.Open(t.path(o.A), unix.O_RDONLY|openAlways, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), o.A)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<22))
	if err != nil {
		return "", err
	}
	return sum(b), nil
}

// sum is the length and the hash of bytes read.
func sum(b []byte) string {
	h := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes %x", len(b), h[:6])
}

func (t *opTree) opLink(o *op) (string, error) {
	return "", unix.Linkat(unix.AT_FDCWD, t.path(o.A), unix.AT_FDCWD, t.path(o.B), o.Flags)
}

func (t *opTree) opRename(o *op) (string, error) {
	return "", unix.Renameat2(unix.AT_FDCWD, t.path(o.A), unix.AT_FDCWD, t.path(o.B), uint(o.Flags))
}

func (t *opTree) opUtimens(o *op) (string, error) {
	ts := []unix.Timespec{{Sec: o.Off, Nsec: 5}, {Sec: o.Off, Nsec: o.Len}}
	return "", unix.UtimesNanoAt(unix.AT_FDCWD, t.path(o.A), ts, unix.AT_SYMLINK_NOFOLLOW)
}

func (t *opTree) opListxattr(o *op) (string, error) {
	buf := make([]byte, 65536)
	n, err := unix.Llistxattr(t.path(o.A), buf)
	if err != nil {
		return "", err
	}
	ns := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(ns)
	return strings.Join(ns, " "), nil
}

// opSeek checks SEEK_DATA and SEEK_HOLE by what they promise, for the blocks
// of a copy may differ: nothing but zeros is skipped as a hole, a hole begins
// with a zero or is the end.
func (t *opTree) opSeek(o *op) (string, error) {
	fd, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	if _, err = unix.Pread(fd, make([]byte, 1), 0); err != nil {
		return "", err // not readable, not a file
	}
	to, err := unix.Seek(fd, o.Off, o.Flags)
	if err != nil && !(errors.Is(err, unix.ENXIO) && o.Flags == unix.SEEK_DATA) {
		return "", err
	}
	end := to
	if err != nil { // no data after the offset, or past the end
		end = 1 << 22
	}
	if o.Flags == unix.SEEK_HOLE {
		o = &op{Off: to}
		end = to + 1
	}
	b := make([]byte, max(end-o.Off, 0))
	n, rerr := unix.Pread(fd, b, o.Off)
	for i := range max(n, 0) {
		if b[i] != 0 {
			return fmt.Sprintf("seek(%d) to %d (%v) takes byte %d for a hole", o.Off, to, err, o.Off+int64(i)), nil
		}
	}
	return "", rerr
}

func (t *opTree) opMmapWrite(o *op) (res string, err error) {
	defer catchFault(&err)()
	fd, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return "nothing to map", nil
	}
	m, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(m)
	off := o.Off % st.Size
	copy(m[off:], pattern(int(o.Len), o.Seed))
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		return "msync", err
	}
	return "", nil
}

func (t *opTree) opMmapRead(o *op) (res string, err error) {
	defer catchFault(&err)()
	fd, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return "nothing to map", nil
	}
	m, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, o.Flags)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(m)
	return sum(m), nil
}

// catchFault turns a bus error in a mapping into an error. Use it as
// `defer catchFault(&err)()`.
func catchFault(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = errors.New("fault in the mapping")
		}
	}
}

func (t *opTree) opReaddir(o *op) (string, error) {
	es, err := os.ReadDir(t.path(o.A))
	if err != nil {
		return "", err
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name()+":"+e.Type().String())
	}
	return strings.Join(out, " "), nil
}

func (t *opTree) opStat(o *op) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(unix.AT_FDCWD, t.path(o.A), &st, o.Flags); err != nil {
		return "", err
	}
	return statLine(&st), nil
}

func (t *opTree) opFstat(o *op) (string, error) {
	fd, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	return statLine(&st), nil
}

// statLine is what can be compared of an inode, in a line.
func statLine(st *unix.Stat_t) string {
	f := seeStat(st, dumpOptions{})
	var out []string
	for _, k := range sortedKeys(f, nil) {
		out = append(out, k+"="+f[k])
	}
	return strings.Join(out, " ")
}

func (t *opTree) opAccess(o *op) (string, error) {
	return "", unix.Faccessat2(unix.AT_FDCWD, t.path(o.A), o.Mode, unix.AT_EACCESS)
}

func (t *opTree) opTmpfile(o *op) (string, error) {
	fd, err := unix.Open(t.path(o.A), unix.O_TMPFILE|unix.O_RDWR|openAlways, o.Mode)
	if err != nil {
		return "", err
	}
	t.keep(o.Slot, fd)
	n, err := unix.Write(fd, pattern(int(o.Len), o.Seed))
	return fmt.Sprint(n), err
}

func (t *opTree) opLinkFD(o *op) (string, error) {
	fd, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	return "", unix.Linkat(fd, "", unix.AT_FDCWD, t.path(o.B), unix.AT_EMPTY_PATH)
}

func (t *opTree) opCopyRange(o *op) (string, error) {
	src, err := t.fd(o.Slot)
	if err != nil {
		return "", err
	}
	dst, err := t.fd(o.Slot2)
	if err != nil {
		return "", err
	}
	from, to, total := o.Off, o.Seed, 0
	for left := int(o.Len); left > 0; {
		n, err := unix.CopyFileRange(src, &from, dst, &to, left, 0)
		if err != nil {
			return fmt.Sprint(total), err
		}
		if n == 0 {
			break
		}
		total += n
		left -= n
	}
	return fmt.Sprint(total), nil
}

// removeTree is rm -rf that stops at the first error.
func removeTree(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.Unlink(path)
	}
	ns, err := readNames(path)
	if err != nil {
		return err
	}
	sort.Strings(ns)
	for _, n := range ns {
		if err := removeTree(filepath.Join(path, n)); err != nil {
			return err
		}
	}
	return unix.Rmdir(path)
}
