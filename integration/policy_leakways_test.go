// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/fs.h: ioctls that tell where the blocks of a file are, and
// the flag that dump(8) goes by.
const (
	fsIocFiemap = 0xc020660b
	fsIocFibmap = 1
	fsNodump    = 0x40
)

// fiemap asks for the extents of a file.
func fiemap(f *os.File) unix.Errno {
	buf := make([]uint64, 128)
	buf[1] = 1 << 40 // fm_length
	buf[3] = 10      // fm_extent_count
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(&buf[0])))
	return e
}

// fibmap asks for the block of a file's third.
func fibmap(f *os.File) (block int32, err error) {
	block = 2
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFibmap, uintptr(unsafe.Pointer(&block)))
	if e != 0 {
		return 0, e
	}
	return block, nil
}

// A readWay is one way to get at the bytes of a file.
type readWay struct {
	name    string
	read    func(s *secret, path string) ([]byte, error)
	refused [4]unix.Errno // by which it may be refused
}

func isOneOf(err error, list [4]unix.Errno) bool {
	return slices.ContainsFunc(list[:], func(e unix.Errno) bool { return e != 0 && errors.Is(err, e) })
}

// errNotTried is of a way for which a program is missing.
var errNotTried = errors.New("the program for it is not installed")

// noClone are the errors of file systems and mounts that do not clone.
var noClone = [4]unix.Errno{unix.EOPNOTSUPP, unix.EXDEV, unix.ENOTTY, unix.EINVAL}

// readWays are all of them that change nothing.
var readWays = []readWay{
	{name: "read", read: func(_ *secret, p string) ([]byte, error) { return os.ReadFile(p) }},
	{name: "pread", read: byDescriptor(readPieces)},
	{name: "preadv", read: byDescriptor(readVector)},
	{name: "shared mapping", read: byDescriptor(readMapping(unix.MAP_SHARED))},
	{name: "private mapping", read: byDescriptor(readMapping(unix.MAP_PRIVATE))},
	{name: "populated mapping", read: byDescriptor(readMapping(unix.MAP_PRIVATE | unix.MAP_POPULATE))},
	{name: "O_DIRECT", read: readDirect},
	{name: "splice", read: byDescriptor(readSplice)},
	{name: "sendfile", read: byDescriptor(readSendfile)},
	{name: "copy_file_range out of the mount", read: readRange(false), refused: [4]unix.Errno{unix.EXDEV, unix.EOPNOTSUPP}},
	{name: "copy_file_range inside the mount", read: readRange(true)},
	{name: "FICLONE out of the mount", read: readClone(false), refused: noClone},
	{name: "FICLONE inside the mount", read: readClone(true), refused: noClone},
	{name: "cp --reflink=auto", read: readByCommand("cp", "--reflink=auto")},
	{name: "cp --sparse=always", read: readByCommand("cp", "--sparse=always")},
	{name: "cp -a", read: readByCommand("cp", "-a")},
	{name: "rsync", read: readByCommand("rsync", "-a")},
	{name: "tar", read: readTar},
	{name: "dd", read: readDD},
	{name: "/proc/self/fd", read: byDescriptor(func(f *os.File) ([]byte, error) { return os.ReadFile("/proc/self/fd/" + itoa(int(f.Fd()))) })},
	{name: "O_PATH and /proc/self/fd", read: readPathFD},
	{name: "file handle", read: readHandle, refused: [4]unix.Errno{unix.EOPNOTSUPP, unix.ESTALE, unix.EOVERFLOW}},
	{name: "bind mount of the file", read: readBind},
	{name: "loop device", read: readLoop},
	{name: "process_vm_readv of a mapping", read: byDescriptor(readOtherProcess)},
}

// byDescriptor opens the file for a way that needs no name.
func byDescriptor(f func(*os.File) ([]byte, error)) func(*secret, string) ([]byte, error) {
	return func(_ *secret, p string) (b []byte, err error) {
		err = withFile(p, os.O_RDONLY, func(file *os.File) error {
			b, err = f(file)
			return err
		})
		return b, err
	}
}

// readPieces reads pieces that are no pages, backwards.
func readPieces(f *os.File) ([]byte, error) {
	b := make([]byte, secretSize)
	const piece = 1237
	for off := secretSize / piece * piece; off >= 0; off -= piece {
		if _, err := f.ReadAt(b[off:min(off+piece, secretSize)], int64(off)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func readVector(f *os.File) ([]byte, error) {
	b := make([]byte, secretSize)
	n, err := unix.Preadv(int(f.Fd()), [][]byte{b[:3], b[3:5000], b[5000:5001], b[5001:]}, 0)
	return b[:max(n, 0)], err
}

func readMapping(flags int) func(*os.File) ([]byte, error) {
	return func(f *os.File) ([]byte, error) {
		m, err := unix.Mmap(int(f.Fd()), 0, secretSize, unix.PROT_READ, flags)
		if err != nil {
			return nil, err
		}
		defer unix.Munmap(m)
		return slices.Clone(m), nil
	}
}

// readDirect reads past the page cache.
func readDirect(_ *secret, p string) (b []byte, err error) {
	err = withFile(p, os.O_RDONLY|unix.O_DIRECT, func(f *os.File) error {
		const size = 1 << 16
		m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		defer unix.Munmap(m)
		for off := 0; off < size; off += 8192 {
			n, err := unix.Pread(int(f.Fd()), m[off:off+8192], int64(off))
			if err != nil {
				return err
			}
			b = append(b, m[off:off+n]...)
		}
		return nil
	})
	return b, err
}

func readSplice(f *os.File) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	var all []byte
	for {
		n, err := unix.Splice(int(f.Fd()), nil, int(w.Fd()), nil, 1<<14, 0)
		if err != nil || n == 0 {
			return all, err
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
}

func readSendfile(f *os.File) ([]byte, error) {
	out, err := os.CreateTemp("", "plyfs-sendfile")
	if err != nil {
		return nil, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	for {
		n, err := unix.Sendfile(int(out.Fd()), int(f.Fd()), nil, 1<<20)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return os.ReadFile(out.Name())
		}
	}
}

// target is a file that a way may copy to, inside the mount or beside its
// layers.
func (s *secret) target(inside bool) string {
	if inside {
		return s.path("open/copied")
	}
	return filepath.Join(s.dir, "copied")
}

// into copies with a function of the two descriptors, and reads the copy.
func (s *secret) into(p string, inside bool, f func(dst, src int) error) ([]byte, error) {
	to := s.target(inside)
	defer os.Remove(to)
	err := withFile(p, os.O_RDONLY, func(src *os.File) error {
		return withFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, func(dst *os.File) error { return f(int(dst.Fd()), int(src.Fd())) })
	})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(to)
}

func readRange(inside bool) func(*secret, string) ([]byte, error) {
	return func(s *secret, p string) ([]byte, error) {
		return s.into(p, inside, func(dst, src int) error {
			for {
				n, err := unix.CopyFileRange(src, nil, dst, nil, 1<<20, 0)
				if err != nil || n == 0 {
					return err
				}
			}
		})
	}
}

func readClone(inside bool) func(*secret, string) ([]byte, error) {
	return func(s *secret, p string) ([]byte, error) {
		return s.into(p, inside, unix.IoctlFileClone)
	}
}

// readByCommand copies with a command.
func readByCommand(name string, args ...string) func(*secret, string) ([]byte, error) {
	return func(s *secret, p string) ([]byte, error) {
		if _, err := exec.LookPath(name); err != nil {
			return nil, errNotTried
		}
		to := s.target(false)
		defer os.Remove(to)
		out, err := exec.Command(name, append(args, p, to)...).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		return os.ReadFile(to)
	}
}

func readTar(_ *secret, p string) ([]byte, error) {
	return exec.Command("sh", "-c", `tar -C "$1" -cf - --sparse "$2" | tar -xOf -`, "sh", filepath.Dir(p), filepath.Base(p)).Output()
}

func readDD(_ *secret, p string) ([]byte, error) {
	return exec.Command("dd", "if="+p, "bs=777", "status=none").Output()
}

// readPathFD reopens a descriptor that was opened with O_PATH.
func readPathFD(_ *secret, p string) ([]byte, error) {
	fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return os.ReadFile("/proc/self/fd/" + itoa(fd))
}

// readHandle opens by file handle, as an NFS server does.
func readHandle(s *secret, p string) ([]byte, error) {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, p, 0)
	if err != nil {
		return nil, err
	}
	mfd, err := unix.Open(s.mp, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mfd)
	fd, err := unix.OpenByHandleAt(mfd, h, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	return io.ReadAll(f)
}

// readBind reads a bind mount of the file alone.
func readBind(s *secret, p string) (b []byte, err error) {
	at := filepath.Join(s.dir, "bound")
	if err := os.WriteFile(at, nil, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(at)
	if err := unix.Mount(p, at, "", unix.MS_BIND, ""); err != nil {
		return nil, err
	}
	b, err = os.ReadFile(at)
	return b, errors.Join(err, unix.Unmount(at, 0))
}

// readLoop reads a loop device on the file, which ends at a sector.
func readLoop(s *secret, p string) ([]byte, error) {
	out, err := exec.Command("losetup", "-r", "-f", "--show", p).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	dev := strings.TrimSpace(string(out[strings.LastIndex(strings.TrimSpace(string(out)), "\n")+1:]))
	b, err := os.ReadFile(dev)
	if e := exec.Command("losetup", "-d", dev).Run(); e != nil {
		return nil, e
	}
	// It goes when its last user does: udev may be looking at it.
	waitFor(s, "the loop device lets the file go", patience, func() bool {
		backing, err := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/loop/backing_file")
		return err != nil || strings.TrimSpace(string(backing)) != p
	})
	tail := make([]byte, secretSize%512)
	e := withFile(p, os.O_RDONLY, func(f *os.File) error { _, err := f.ReadAt(tail, secretSize/512*512); return err })
	return append(b, tail...), errors.Join(err, e)
}

// readOtherProcess reads a mapping that was never touched as a debugger does.
func readOtherProcess(f *os.File) ([]byte, error) {
	m, err := unix.Mmap(int(f.Fd()), 0, secretSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(m)
	b := make([]byte, secretSize)
	local := []unix.Iovec{{Base: &b[0], Len: secretSize}}
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&m[0])), Len: secretSize}}
	n, err := unix.ProcessVMReadv(os.Getpid(), local, remote, 0)
	return b[:max(n, 0)], err
}
