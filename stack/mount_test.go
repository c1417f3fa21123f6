// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// needRoot skips a test that cannot mount.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it opens layers through mount clones, or mounts")
	}
}

// A mounted is a live mount for a test. Files on it are opened by plain system
// calls: os.Open would enter them into the runtime's poller by a call that
// does not let other goroutines run, and one of those may be the server.
type mounted struct {
	*FS
	t      testing.TB
	mnt    string
	upper  string
	work   string
	lowers []string
	log    *lockedBuffer

	ended       chan struct{}
	wantPanics  uint64
	unmountOnce sync.Once
	closed      bool
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// mountDirs makes the directories of a mount over the given lowers.
func mountDirs(t testing.TB, lowers ...string) Config {
	t.Helper()
	base := t.TempDir()
	cfg := Config{Lowers: lowers, Upper: base + "/upper", Work: base + "/work", Mountpoint: base + "/mnt"}
	for _, d := range []string{cfg.Upper, cfg.Work, cfg.Mountpoint} {
		mkdir(t, d)
	}
	return cfg
}

// mountOver mounts an upper over lowers.
func mountOver(t testing.TB, change func(*Config), lowers ...string) *mounted {
	t.Helper()
	needRoot(t)
	cfg := mountDirs(t, lowers...)
	if change != nil {
		change(&cfg)
	}
	return mountConfig(t, cfg)
}

// mountConfig mounts a configuration, unmounts it at the test's end and fails
// the test if a request panicked, or any server goroutine stays behind.
func mountConfig(t testing.TB, cfg Config) *mounted {
	t.Helper()
	needRoot(t)
	m := &mounted{t: t, mnt: cfg.Mountpoint, upper: cfg.Upper, work: cfg.Work, lowers: cfg.Lowers,
		log: &lockedBuffer{}, ended: make(chan struct{})}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	fs, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	m.FS = fs
	if err := fs.Mount(); err != nil {
		_ = fs.Close()
		t.Fatalf("Mount: %v", err)
	}
	go func() {
		_ = fs.Wait()
		close(m.ended)
	}()
	t.Cleanup(m.unmount)
	return m
}

// unmount ends the mount and closes the layers.
func (m *mounted) unmount() { m.unmountOnce.Do(m.unmountNow) }

func (m *mounted) unmountNow() {
	m.t.Helper()
	var err error
	for range 500 {
		if err = unix.Unmount(m.mnt, 0); err != unix.EBUSY {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		m.t.Errorf("unmount %s: %v", m.mnt, err)
		_ = unix.Unmount(m.mnt, unix.MNT_FORCE|unix.MNT_DETACH)
	}
	select {
	case <-m.ended:
	case <-time.After(patience):
		stacks := make([]byte, 64<<10)
		stacks = stacks[:runtime.Stack(stacks, true)]
		m.t.Errorf("the server did not end after the unmount; log:\n%s\n%s", m.log, stacks)
		return
	}
	if got := m.count.panics.Load(); got != m.wantPanics {
		m.t.Errorf("%d panics in requests, want %d; log:\n%s", got, m.wantPanics, m.log)
	}
	if err := m.Close(); err != nil {
		m.t.Errorf("Close: %v", err)
	}
	m.closed = true
	if m.t.Failed() && testing.Verbose() {
		m.t.Logf("log of the mount:\n%s", m.log)
	}
}

// remount mounts the same directories again.
func (m *mounted) remount(change func(*Config)) *mounted {
	m.t.Helper()
	closeUnder(m.mnt)
	m.unmount()
	cfg := Config{Lowers: m.lowers, Upper: m.upper, Work: m.work, Mountpoint: m.mnt}
	if change != nil {
		change(&cfg)
	}
	return mountConfig(m.t, cfg)
}

func (m *mounted) path(rel string) string { return filepath.Join(m.mnt, rel) }

// patience is for what certainly comes, on a busy machine late.
const patience = time.Minute

// within fails the test, and aborts the connection, if fn hangs.
func (m *mounted) within(what string, fn func()) {
	m.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		_ = unix.Unmount(m.mnt, unix.MNT_FORCE|unix.MNT_DETACH)
		m.t.Fatalf("%s: no answer within %v", what, patience)
	}
}

// eventually waits until a condition holds, and tells whether it does.
func eventually(ok func() bool) bool {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		late := time.Now().After(end)
		if ok() {
			return true
		}
		if late {
			return false
		}
	}
}

// leastOf3 is for what the kernel keeps: it drops that when memory gets short, or
// when somebody has it do so, but not each time.
func leastOf3(count func() int64) int64 { return min(count(), count(), count()) }

// still makes a mount that does nothing only because time has passed: for what is
// before a sync.
func still(c *Config) { c.still = true }

// must fails the test at once on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	must(t, os.MkdirAll(path, 0o755))
}

// openFD opens a file by a plain system call and closes it at the test's end.
func openFD(t testing.TB, path string, flags int) *testFD {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatalf("open %s (%#x): %v", path, flags, err)
	}
	f := &testFD{t: t, fd: fd, path: path}
	openFiles.Lock()
	openFiles.all = append(openFiles.all, f)
	openFiles.Unlock()
	t.Cleanup(f.release)
	return f
}

type testFD struct {
	t    testing.TB
	fd   int
	path string
	maps [][]byte
}

// openFiles are the files that tests have opened and not released.
var openFiles struct {
	sync.Mutex
	all []*testFD
}

// closeUnder closes and unmaps what is open below a directory, so that it can
// be unmounted.
func closeUnder(dir string) {
	openFiles.Lock()
	all := slices.Clone(openFiles.all)
	openFiles.Unlock()
	for _, f := range all {
		if strings.HasPrefix(f.path, dir+"/") || strings.HasPrefix(f.path, "/proc/") {
			f.release()
		}
	}
}

// release closes the file and ends its mappings.
func (f *testFD) release() {
	f.close()
	for _, b := range f.maps {
		_ = unix.Munmap(b)
	}
	f.maps = nil
	openFiles.Lock()
	openFiles.all = slices.DeleteFunc(openFiles.all, func(o *testFD) bool { return o == f })
	openFiles.Unlock()
}

func (f *testFD) close() {
	if f.fd >= 0 {
		_ = unix.Close(f.fd)
		f.fd = -1
	}
}

// content is the whole file as the descriptor shows it.
func (f *testFD) content() string {
	f.t.Helper()
	s, err := f.tryContent()
	if err != nil {
		f.t.Fatalf("read %s: %v", f.path, err)
	}
	return s
}

func (f *testFD) tryContent() (string, error) {
	var out []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Pread(f.fd, buf, int64(len(out)))
		if err != nil {
			return "", err
		}
		if n == 0 {
			return string(out), nil
		}
		out = append(out, buf[:n]...)
	}
}

func (f *testFD) writeAt(s string, off int64) {
	f.t.Helper()
	if n, err := unix.Pwrite(f.fd, []byte(s), off); err != nil || n != len(s) {
		f.t.Fatalf("write %s: %d, %v", f.path, n, err)
	}
}

// readPath is the content of a file.
func readPath(t testing.TB, path string) string {
	t.Helper()
	s, err := tryRead(path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return s
}

func tryRead(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return (&testFD{fd: fd}).tryContent()
}

// writePath makes a file, or gives it a new content.
func writePath(t testing.TB, path, content string) {
	t.Helper()
	if err := tryWrite(path, content); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func tryWrite(path, content string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for b := []byte(content); len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// names lists a directory, sorted.
func names(t testing.TB, dir string) []string {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range ents {
		out = append(out, e.Name())
	}
	slices.Sort(out)
	return out
}

func wantNames(t testing.TB, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func wantErrno(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	if toErr(err) != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func toErr(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return toErrno(err)
}

func statOf(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("stat %s: %v", path, err)
	}
	return st
}

// layer makes a directory out of a description, one entry a line:
//
//	dir PATH
//	file PATH [CONTENT]
//	link OLD NEW
//	symlink TARGET PATH
//	whiteout PATH              character device 0/0
//	xattr PATH NAME [VALUE]
//	size PATH BYTES            truncate
//
// Parents are made as needed.
func layer(t testing.TB, lines ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, line := range lines {
		addEntry(t, root, strings.Fields(line))
	}
	return root
}

func addEntry(t testing.TB, root string, f []string) {
	t.Helper()
	at := func(i int) string {
		p := filepath.Join(root, f[i])
		mkdir(t, filepath.Dir(p))
		return p
	}
	value := func(i int) string { return strings.Join(f[min(i, len(f)):], " ") }
	var err error
	switch f[0] {
	case "dir":
		mkdir(t, at(1))
	case "file":
		err = os.WriteFile(at(1), []byte(value(2)), 0o644)
	case "link":
		err = os.Link(at(1), at(2))
	case "symlink":
		err = os.Symlink(f[1], at(2))
	case "whiteout":
		err = unix.Mknod(at(1), unix.S_IFCHR, 0)
	case "xattr":
		err = unix.Lsetxattr(at(1), f[2], []byte(value(3)), 0)
	case "size":
		var n int64
		if _, err = fmt.Sscan(f[2], &n); err == nil {
			err = os.Truncate(at(1), n)
		}
	default:
		t.Fatalf("layer: %q", f)
	}
	if err != nil {
		t.Fatalf("layer: %q: %v", f, err)
	}
}

// openFS opens a configuration without mounting it.
func openFS(t testing.TB, cfg Config) *FS {
	t.Helper()
	needRoot(t)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	fs, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return fs
}

// TestOnMount: OnMount comes when the mount is in the mount table, and the
// mount answers nobody before OnMount is done.
func TestOnMount(t *testing.T) {
	needRoot(t)
	cfg := mountDirs(t, t.TempDir())
	var done atomic.Bool
	early := make(chan bool, 1)
	cfg.OnMount = func() {
		// (mountinfo.Mounted would ask the mount.)
		if table, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(cfg.Mountpoint)); err != nil || len(table) != 1 {
			t.Errorf("in the mount table: %v, %v", table, err)
		}
		go func() {
			var st unix.Statfs_t
			err := unix.Statfs(cfg.Mountpoint, &st)
			early <- err != nil || !done.Load()
		}()
		time.Sleep(100 * time.Millisecond)
		done.Store(true)
	}
	mountConfig(t, cfg)
	if <-early {
		t.Error("the mount answered before OnMount was done")
	}
}
