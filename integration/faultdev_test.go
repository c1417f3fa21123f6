// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A faultDev is a disk that fails on command: a FUSE file system with one file,
// the image, under a loop device. A process of its own serves it, for the one
// that mounts what is on it must not be the one that it waits for.
type faultDev struct {
	testing.TB
	mp       string // where its file system is mounted
	fstype   string
	cmd      *exec.Cmd
	commands io.WriteCloser
	answers  *bufio.Reader
	image    string
	loop     string
	mounted  bool
}

// faultStats counts what reached the disk.
type faultStats struct{ reads, writes, flushes, failed int }

// faultEnv makes the test binary the server of a disk.
const faultEnv = "PLYFS_TEST_FAULTDEV"

func init() {
	if dir := os.Getenv(faultEnv); dir != "" {
		if err := serveFaultDev(dir); err != nil {
			fmt.Fprintln(os.Stderr, "fault device:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// newFaultDev makes a disk of size MiB with a file system and mounts it with
// the options.
func newFaultDev(t testing.TB, fstype string, size int64, options string) *faultDev {
	t.Helper()
	requireRoot(t)
	mkfs, err := exec.LookPath("mkfs." + fstype)
	if err != nil {
		t.Skipf("mkfs.%s is not installed", fstype)
	}
	dir := tempDir(t)
	d := &faultDev{TB: t, fstype: fstype, mp: makeTree(t, filepath.Join(dir, "fs"), nil)}
	must(t, os.WriteFile(filepath.Join(dir, "backing"), nil, 0o600))
	must(t, os.Truncate(filepath.Join(dir, "backing"), size<<20))
	run(t, "", mkfs, "-q", filepath.Join(dir, "backing"))
	makeTree(t, filepath.Join(dir, "dev"), nil)
	d.start(dir)
	d.image = filepath.Join(dir, "dev", "image")
	d.loop = strings.TrimSpace(run(t, "", "losetup", "--show", "-f", d.image))
	t.Cleanup(d.end)
	d.mount(options)
	return d
}

// start starts the server.
func (d *faultDev) start(dir string) {
	d.Helper()
	self, err := os.Executable()
	must(d, err)
	d.cmd = exec.Command(self)
	d.cmd.Env = append(os.Environ(), faultEnv+"="+dir)
	d.cmd.Stderr = os.Stderr
	d.commands, err = d.cmd.StdinPipe()
	must(d, err)
	out, err := d.cmd.StdoutPipe()
	must(d, err)
	must(d, d.cmd.Start())
	d.answers = bufio.NewReader(out)
	if line, err := d.answers.ReadString('\n'); line != "ready\n" {
		d.Fatalf("the fault device says %q, %v", line, err)
	}
}

// mount mounts the file system.
func (d *faultDev) mount(options string) {
	d.Helper()
	if options == "" {
		options = "rw"
	}
	run(d, "", "mount", "-t", d.fstype, "-o", options, d.loop, d.mp)
	d.mounted = true
}

// unmount unmounts the file system, which may take a moment after a lazily
// detached mount on it has ended.
func (d *faultDev) unmount() {
	d.Helper()
	if err := unmountSoon(d.mp); err != nil {
		d.Errorf("unmounting the %s of the test: %v", d.fstype, err)
		unix.Unmount(d.mp, unix.MNT_DETACH)
	}
	d.mounted = false
}

func (d *faultDev) end() {
	d.heal()
	if d.mounted {
		d.unmount()
	}
	if out, err := exec.Command("losetup", "-d", d.loop).CombinedOutput(); err != nil {
		d.Errorf("losetup -d: %v\n%s", err, out)
	}
	// The loop device lets the image go a moment later.
	dir := filepath.Dir(d.image)
	if err := unmountSoon(dir); err != nil {
		d.Errorf("unmounting the fault device: %v", err)
		unix.Unmount(dir, unix.MNT_DETACH)
	}
	d.commands.Close()
	if err := d.cmd.Wait(); err != nil {
		d.Errorf("the fault device: %v", err)
	}
}

// tell sends a command and returns the answer.
func (d *faultDev) tell(format string, args ...any) string {
	d.Helper()
	fmt.Fprintf(d.commands, format+"\n", args...)
	line, err := d.answers.ReadString('\n')
	if err != nil {
		d.Fatalf("the fault device: %v", err)
	}
	return strings.TrimSpace(line)
}

// fail makes operations ("read", "write", "flush") fail with EIO: after the
// next so many, and then so many (-1: all).
func (d *faultDev) fail(op string, after, count int) {
	d.Helper()
	d.tell("fail %s %d %d 0 0", op, after, count)
}

// failRange fails all operations that touch a range of the disk, besides those
// that fail already.
func (d *faultDev) failRange(op string, offset, length int64) {
	d.Helper()
	d.tell("fail %s 0 -1 %d %d", op, offset, length)
}

// heal ends all failures.
func (d *faultDev) heal() {
	d.Helper()
	d.tell("heal")
}

func (d *faultDev) stats() (s faultStats) {
	d.Helper()
	if _, err := fmt.Sscan(d.tell("stats"), &s.reads, &s.writes, &s.flushes, &s.failed); err != nil {
		d.Fatal(err)
	}
	return s
}

// A fault is a kind of operation that fails.
type fault struct {
	after, count  int
	first, length int64
}

// faultServer is the other process.
type faultServer struct {
	mu     sync.Mutex
	faults map[string][]*fault
	stats  faultStats
	f      *os.File
}

// serveFaultDev serves DIR/backing as DIR/dev/image until it is unmounted.
func serveFaultDev(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "backing"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s := &faultServer{f: f, faults: map[string][]*fault{}}
	root := &fs.Inode{}
	server, err := fs.Mount(filepath.Join(dir, "dev"), root, &fs.Options{
		OnAdd: func(ctx context.Context) {
			root.AddChild("image", root.NewPersistentInode(ctx, &faultImage{s: s}, fs.StableAttr{Mode: unix.S_IFREG}), true)
		},
		MountOptions: fuse.MountOptions{FsName: "fault", DirectMount: true, MaxWrite: 1 << 20},
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go s.obey()
	server.Wait()
	return nil
}

// obey carries out commands.
func (s *faultServer) obey() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		s.mu.Lock()
		w := strings.Fields(in.Text())
		switch w[0] {
		case "fail":
			f := &fault{}
			fmt.Sscan(strings.Join(w[2:], " "), &f.after, &f.count, &f.first, &f.length)
			s.faults[w[1]] = append(s.faults[w[1]], f)
		case "heal":
			clear(s.faults)
		}
		fmt.Println(s.stats.reads, s.stats.writes, s.stats.flushes, s.stats.failed)
		s.mu.Unlock()
	}
}

// fails counts an operation and says whether it fails.
func (s *faultServer) fails(op string, counter *int, off, length int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	*counter++
	for _, f := range s.faults[op] {
		if f.hits(off, length) {
			s.stats.failed++
			return true
		}
	}
	return false
}

// hits says whether an operation fails by f.
func (f *fault) hits(off, length int64) bool {
	switch {
	case f.count == 0:
		return false
	case f.length > 0 && (off >= f.first+f.length || off+length <= f.first):
		return false
	case f.after > 0:
		f.after--
		return false
	}
	if f.count > 0 {
		f.count--
	}
	return true
}

// faultImage is the file.
type faultImage struct {
	fs.Inode
	s *faultServer
}

var (
	_ fs.NodeOpener    = (*faultImage)(nil)
	_ fs.NodeReader    = (*faultImage)(nil)
	_ fs.NodeWriter    = (*faultImage)(nil)
	_ fs.NodeFsyncer   = (*faultImage)(nil)
	_ fs.NodeGetattrer = (*faultImage)(nil)
	_ fs.NodeAllocater = (*faultImage)(nil)
)

func (n *faultImage) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (n *faultImage) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if n.s.fails("read", &n.s.stats.reads, off, int64(len(dest))) {
		return nil, syscall.EIO
	}
	got, err := n.s.f.ReadAt(dest, off)
	if err != nil && err != io.EOF {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest[:got]), 0
}

func (n *faultImage) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if n.s.fails("write", &n.s.stats.writes, off, int64(len(data))) {
		return 0, syscall.EIO
	}
	got, err := n.s.f.WriteAt(data, off)
	if err != nil {
		return 0, syscall.EIO
	}
	return uint32(got), 0
}

// Fsync keeps nothing back: the backing file need not survive a power cut.
func (n *faultImage) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if n.s.fails("flush", &n.s.stats.flushes, 0, 0) {
		return syscall.EIO
	}
	return 0
}

func (n *faultImage) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	st, err := n.s.f.Stat()
	if err != nil {
		return syscall.EIO
	}
	out.Mode, out.Size = unix.S_IFREG|0o600, uint64(st.Size())
	return 0
}

// Allocate refuses: the loop device then has no discard.
func (n *faultImage) Allocate(context.Context, fs.FileHandle, uint64, uint64, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}
