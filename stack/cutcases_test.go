// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A cutOp is one operation on a tree, a mount or a plain directory.
type cutOp func(root string) error

// A cutStage is what is under way when the cut comes.
type cutStage string

const (
	stageDo      cutStage = "" // the operation
	stageSync    cutStage = "sync"
	stageWhole   cutStage = "complete" // make partial files whole
	stageUnmount cutStage = "unmount"
	stageMount   cutStage = "mount"
	stageUnmake  cutStage = "unmake" // Open, and Close without a mount
)

// A cutCase is an operation to be cut, and what goes before it. What it holds
// is apart from other cases, so trees are compared with models of a few files.
type cutCase struct {
	name     string
	lower    []string                // as for layer
	dress    func(root string) error // what layer cannot say of the lower tree
	below    []string                // a second lower layer
	setup    cutOp                   // done, and made durable
	unsynced []cutOp                 // done, and not made durable
	do       cutOp
	stage    cutStage
	crashAt  CutPoint // for stageMount: where the mount before was killed
	clean    bool     // nothing unsynced before
	change   func(*Config)
	tweak    func(*FS)
}

func (c *cutCase) steps() []cutOp {
	s := append([]cutOp{}, c.unsynced...)
	if c.do != nil {
		s = append(s, c.do)
	}
	return s
}

// Operations.

func opWrite(path, content string) cutOp {
	return func(root string) error { return pwriteNew(filepath.Join(root, path), content, unix.O_WRONLY) }
}

func opTruncate(path string) cutOp {
	return func(root string) error { return pwriteNew(filepath.Join(root, path), "", unix.O_WRONLY|unix.O_TRUNC) }
}

func opCreate(path string) cutOp {
	return func(root string) error {
		return pwriteNew(filepath.Join(root, path), "", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	}
}

func pwriteNew(path, content string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if content == "" {
		return nil
	}
	_, err = unix.Pwrite(fd, []byte(content), 0)
	return err
}

func opUnlink(path string) cutOp {
	return func(root string) error { return unix.Unlink(filepath.Join(root, path)) }
}

func opRmdir(path string) cutOp {
	return func(root string) error { return unix.Rmdir(filepath.Join(root, path)) }
}

func opMkdir(path string) cutOp {
	return func(root string) error { return unix.Mkdir(filepath.Join(root, path), 0o750) }
}

func opSymlink(target, path string) cutOp {
	return func(root string) error { return unix.Symlink(target, filepath.Join(root, path)) }
}

func opMknod(path string, mode uint32) cutOp {
	return func(root string) error { return unix.Mknod(filepath.Join(root, path), mode, 0) }
}

func opLink(from, to string) cutOp {
	return func(root string) error { return unix.Link(filepath.Join(root, from), filepath.Join(root, to)) }
}

func opRename(from, to string) cutOp { return opRename2(from, to, 0) }

func opExchange(from, to string) cutOp { return opRename2(from, to, unix.RENAME_EXCHANGE) }

func opRename2(from, to string, flags uint) cutOp {
	return func(root string) error {
		return unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, from), unix.AT_FDCWD, filepath.Join(root, to), flags)
	}
}

func opChmod(path string, mode uint32) cutOp {
	return func(root string) error { return unix.Chmod(filepath.Join(root, path), mode) }
}

func opChown(path string, uid, gid int) cutOp {
	return func(root string) error { return unix.Lchown(filepath.Join(root, path), uid, gid) }
}

func opSetxattr(path, name, value string) cutOp {
	return func(root string) error { return unix.Lsetxattr(filepath.Join(root, path), name, []byte(value), 0) }
}

func opTruncateTo(path string, size int64) cutOp {
	return func(root string) error { return unix.Truncate(filepath.Join(root, path), size) }
}

func opFallocate(path string, mode uint32, off, length int64) cutOp {
	return func(root string) error {
		fd, err := unix.Open(filepath.Join(root, path), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fallocate(fd, mode, off, length)
	}
}

// filled writes all of a lower file.
func filled(path string) func(string) error {
	return func(root string) error {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		for i := range b {
			b[i] = byte(1 + i*7%255)
		}
		return os.WriteFile(filepath.Join(root, path), b, 0o644)
	}
}

// opRemovedChmod changes the mode of what has been removed meanwhile. The
// removal is the operation that is seen.
func opRemovedChmod(path string, flags int) cutOp {
	return func(root string) error {
		path := filepath.Join(root, path)
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if flags&unix.O_DIRECTORY != 0 {
			err = unix.Rmdir(path)
		} else {
			err = unix.Unlink(path)
		}
		if err != nil {
			return err
		}
		return unix.Fchmod(fd, 0o600)
	}
}

// inTurn makes one step of several, for what comes before the cut.
func inTurn(ops ...cutOp) cutOp {
	return func(root string) error {
		for _, op := range ops {
			if err := op(root); err != nil {
				return err
			}
		}
		return nil
	}
}

// dressFile gives a lower file all that a copy-up has to carry over.
func dressFile(path string) func(string) error {
	return func(root string) error {
		p := filepath.Join(root, path)
		if err := unix.Chown(p, 1001, 1002); err != nil {
			return err
		}
		if err := unix.Chmod(p, 0o750); err != nil {
			return err
		}
		if err := unix.Setxattr(p, "user.mine", []byte("v"), 0); err != nil {
			return err
		}
		// VFS_CAP_REVISION_2, cap_net_raw permitted and effective.
		b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
		b = binary.LittleEndian.AppendUint32(b, 1<<13)
		return unix.Setxattr(p, "security.capability", append(b, make([]byte, 12)...), 0)
	}
}

// defaultACL is user::rwx, user:1001:r-x, group::r-x, mask::r-x, other::---.
func defaultACL() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{1, 7, ^uint32(0)}, {2, 5, 1001}, {4, 5, ^uint32(0)}, {0x10, 5, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		b = le.AppendUint16(b, uint16(e[0]))
		b = le.AppendUint16(b, uint16(e[1]))
		b = le.AppendUint32(b, e[2])
	}
	return b
}

// dressDir gives a directory what new entries inherit.
func dressDir(path string) func(string) error {
	return func(root string) error {
		p := filepath.Join(root, path)
		if err := unix.Chown(p, 0, 1003); err != nil {
			return err
		}
		if err := unix.Chmod(p, 0o2775); err != nil {
			return err
		}
		return unix.Setxattr(p, xattrDefaultACL, defaultACL(), 0)
	}
}

// blankPolicy blanks the first four bytes of the files below /c, which are
// zero: it changes how files are copied and what is written on them, and not
// what is seen.
func blankPolicy(c *Config) {
	p := blankAt("/c")
	p.file = func(q FileQuery) FileAnswer {
		if !strings.HasPrefix(q.Place, "/c/") {
			return FileAnswer{}
		}
		return FileAnswer{Plan: blankPlan(q.Size, []Range{{0, 4}}), Rule: "blank"}
	}
	c.Policy = p
}

// zeroed begins the lower file c/f by the bytes that the policy blanks.
func zeroed(root string) error {
	return os.WriteFile(root+"/c/f", []byte("\x00\x00\x00\x00rest"), 0o644)
}

// noWhiteouts has the mount believe that upper cannot hold whiteouts.
func noWhiteouts(fs *FS) {
	fs.canWhiteout = false
	fs.caps.RenameWhiteout = false
}

// long is content of several blocks.
var long = strings.Repeat("0123456789abcdef", 1000)

// cutCases are the operations that have more than one step, and those of one
// that others are built of.
var cutCases = []cutCase{
	// Copy-up.
	{name: "write lower", lower: []string{"file a/b/f " + long}, dress: dressFile("a/b/f"), do: opWrite("a/b/f", "new")},
	{name: "truncate lower", lower: []string{"file a/f " + long}, do: opTruncate("a/f")},
	{name: "chmod lower", lower: []string{"file a/f 1"}, dress: dressFile("a/f"), do: opChmod("a/f", 0o600)},
	{name: "chown lower", lower: []string{"file a/f " + long}, do: opChown("a/f", 1005, 1006)},
	{name: "setxattr lower", lower: []string{"file a/f 1"}, do: opSetxattr("a/f", "user.k", "v")},
	{name: "chown lower symlink", lower: []string{"symlink target a/l"}, do: opChown("a/l", 1005, 1006)},
	{name: "chmod lower fifo", lower: []string{"dir a"}, dress: opMknod("a/p", unix.S_IFIFO|0o644), do: opChmod("a/p", 0o600)},
	{name: "chmod lower directory", lower: []string{"file a/b/f 1"}, dress: dressDir("a/b"), do: opChmod("a/b", 0o700)},
	{name: "chmod merged directory", lower: []string{"file a/b/f 1"}, below: []string{"file a/b/g 2"}, do: opChmod("a/b", 0o700)},
	{name: "chmod removed file", lower: []string{"file a/f 1"}, do: opRemovedChmod("a/f", unix.O_RDONLY)},
	{name: "chmod removed directory", lower: []string{"dir a/d"}, do: opRemovedChmod("a/d", unix.O_RDONLY|unix.O_DIRECTORY)},
	{name: "write through a plan", lower: []string{"dir c"}, dress: zeroed, change: blankPolicy, do: opChmod("c/f", 0o600)},

	// Partial files.
	{name: "write partial", lower: []string{"file a/f 1", "size a/f 300000"}, dress: filled("a/f"), change: inPart, do: opWrite("a/f", "new")},
	{name: "truncate partial", lower: []string{"file a/f 1", "size a/f 300000"}, dress: filled("a/f"), change: inPart, do: opTruncateTo("a/f", 70_001)},
	{name: "truncate partial to nothing", lower: []string{"file a/f 1", "size a/f 300000"}, dress: filled("a/f"), change: inPart, setup: opWrite("a/f", "2"), do: opTruncateTo("a/f", 0)},
	{name: "truncate small copy", lower: []string{"file a/f 1", "size a/f 30000"}, dress: filled("a/f"), setup: opChmod("a/f", 0o600), do: opTruncateTo("a/f", 10_001)},
	{name: "grow cut partial", lower: []string{"file a/f 1", "size a/f 300000"}, dress: filled("a/f"), change: inPart, unsynced: []cutOp{opTruncateTo("a/f", 70_001)}, do: opTruncateTo("a/f", 90_000)},
	{name: "punch partial", lower: []string{"file a/f 1", "size a/f 300000"}, dress: filled("a/f"), change: inPart, do: opFallocate("a/f", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096)},
	{name: "punch partial to the end", lower: []string{"file a/f 1", "size a/f 2097152"}, dress: filled("a/f"), change: inPart, do: opFallocate("a/f", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 2093056)},
	{name: "complete partial", lower: []string{"file a/f 1", "size a/f 300000"}, dress: filled("a/f"), change: inPart, unsynced: []cutOp{opWrite("a/f", "2")}, stage: stageWhole},
	{name: "rename partial", lower: []string{"file a/f 1", "size a/f 300000", "dir b"}, dress: filled("a/f"), change: inPart, setup: opWrite("a/f", "2"), do: opRename("a/f", "b/g")},
	{name: "rename fresh copy", lower: []string{"file a/f " + long, "dir b"}, unsynced: []cutOp{opChmod("a/f", 0o600)}, do: opRename("a/f", "b/g")},
	{name: "link partial", lower: []string{"file a/f 1", "size a/f 300000"}, dress: filled("a/f"), change: inPart, do: opLink("a/f", "a/g")},
	{name: "sync of a copy", lower: []string{"file a/f " + long}, unsynced: []cutOp{opWrite("a/f", "2")}, stage: stageSync},

	// Unlink and rmdir.
	{name: "unlink lower", lower: []string{"file a/f 1"}, do: opUnlink("a/f")},
	{name: "unlink lower in two layers", lower: []string{"file a/f 1"}, below: []string{"file a/f 2"}, do: opUnlink("a/f")},
	{name: "unlink upper", lower: []string{"dir a"}, setup: opCreate("a/f"), do: opUnlink("a/f")},
	{name: "unlink upper over lower", lower: []string{"file a/f 1"}, setup: opWrite("a/f", "2"), do: opUnlink("a/f")},
	{name: "unlink unsynced upper over lower", lower: []string{"file a/f 1"}, unsynced: []cutOp{opWrite("a/f", "2")}, do: opUnlink("a/f")},
	{name: "unlink over a durable cover", lower: []string{"file a/f 1"}, setup: inTurn(opUnlink("a/f"), opCreate("a/f")), clean: true, do: opUnlink("a/f")},
	{name: "unlink over a cover that is not durable", lower: []string{"file a/f 1"}, unsynced: []cutOp{opUnlink("a/f"), opCreate("a/f")}, do: opUnlink("a/f")},
	{name: "rmdir lower", lower: []string{"dir a/d"}, do: opRmdir("a/d")},
	{name: "rmdir of covered names", lower: []string{"file a/d/f 1"}, unsynced: []cutOp{opUnlink("a/d/f")}, do: opRmdir("a/d")},
	{name: "rmdir of whiteouts", lower: []string{"file a/d/f 1", "file a/d/g 1"}, setup: inTurn(opWrite("a/d/f", "2"), opWrite("a/d/g", "2")),
		unsynced: []cutOp{opUnlink("a/d/f"), opUnlink("a/d/g")}, do: opRmdir("a/d")},
	{name: "rmdir of whiteouts, upper alone", lower: []string{"file d/f 1"}, setup: inTurn(opWrite("d/f", "2"), opMkdir("a"), opRename("d", "a/d")),
		unsynced: []cutOp{opUnlink("a/d/f")}, do: opRmdir("a/d")},
	{name: "rmdir upper", lower: []string{"dir a"}, setup: opMkdir("a/d"), do: opRmdir("a/d")},
	{name: "rmdir opaque", lower: []string{"file a/d/f 1"}, setup: inTurn(opUnlink("a/d/f"), opRmdir("a/d"), opMkdir("a/d")), clean: true, do: opRmdir("a/d")},
	{name: "unlink without whiteouts", lower: []string{"file a/f 1"}, setup: opWrite("a/f", "2"), tweak: noWhiteouts, do: opUnlink("a/f")},
	{name: "rmdir without whiteouts", lower: []string{"dir a/d"}, setup: opChmod("a/d", 0o700), tweak: noWhiteouts, do: opRmdir("a/d")},

	// Rename.
	{name: "rename lower file", lower: []string{"file a/f 1"}, do: opRename("a/f", "a/g")},
	{name: "rename upper file", lower: []string{"dir a"}, setup: opCreate("a/f"), do: opRename("a/f", "a/g")},
	{name: "rename copied file", lower: []string{"file a/f 1", "dir b"}, setup: opWrite("a/f", "2"), do: opRename("a/f", "b/g")},
	{name: "rename over lower", lower: []string{"file a/f 1", "file b/g 2"}, do: opRename("a/f", "b/g")},
	{name: "rename over upper", lower: []string{"file a/f 1", "file b/g 2"}, setup: inTurn(opWrite("a/f", "3"), opWrite("b/g", "4")), do: opRename("a/f", "b/g")},
	{name: "rename over a cover", lower: []string{"file a/f 1", "file b/g 2"}, setup: opUnlink("b/g"), do: opRename("a/f", "b/g")},
	{name: "rename over a whiteout", lower: []string{"file a/f 1", "file b/g 2"}, setup: opWrite("b/g", "3"),
		unsynced: []cutOp{opUnlink("b/g")}, do: opRename("a/f", "b/g")},
	{name: "rename and back", lower: []string{"file a/f 1"}, unsynced: []cutOp{opRename("a/f", "a/g")}, do: opRename("a/g", "a/f")},
	{name: "rename into an upper directory", lower: []string{"file a/f 1"}, setup: opMkdir("n"), do: opRename("a/f", "n/f")},
	{name: "rename without whiteouts", lower: []string{"file a/f 1"}, setup: opWrite("a/f", "2"), tweak: noWhiteouts, do: opRename("a/f", "a/g")},
	{name: "rename lower directory", lower: []string{"file a/d/f 1", "dir b"}, do: opRename("a/d", "b/e")},
	{name: "rename merged directory", lower: []string{"file a/d/f 1"}, below: []string{"file a/d/g 2"}, setup: opWrite("a/d/f", "3"), do: opRename("a/d", "a/e")},
	{name: "rename renamed directory", lower: []string{"file a/d/f 1"}, setup: opRename("a/d", "a/e"), do: opRename("a/e", "a/g")},
	{name: "rename renamed directory at once", lower: []string{"file a/d/f 1"}, unsynced: []cutOp{opRename("a/d", "a/e")}, do: opRename("a/e", "a/d")},
	{name: "rename upper directory into a cover", lower: []string{"dir a/d"}, setup: inTurn(opRmdir("a/d"), opMkdir("n"), opCreate("n/x")), do: opRename("n", "a/d")},
	{name: "rename upper directory over a whiteout", lower: []string{"file a/f 1"}, setup: inTurn(opWrite("a/f", "2"), opMkdir("n"), opCreate("n/x")),
		unsynced: []cutOp{opUnlink("a/f")}, do: opRename("n", "a/f")},
	{name: "rename lower directory over a whiteout", lower: []string{"file a/f 1", "file d/x 1"}, setup: opWrite("a/f", "2"),
		unsynced: []cutOp{opUnlink("a/f")}, do: opRename("d", "a/f")},
	{name: "rename over an empty lower directory", lower: []string{"file a/d/x 1", "dir a/e"}, do: opRename("a/d", "a/e")},
	{name: "rename over a directory of whiteouts", lower: []string{"file a/d/x 1", "file a/e/f 1", "file a/e/g 1"},
		setup: inTurn(opWrite("a/e/f", "2"), opWrite("a/e/g", "2")), unsynced: []cutOp{opUnlink("a/e/f"), opUnlink("a/e/g")}, do: opRename("a/d", "a/e")},
	{name: "exchange files", lower: []string{"file a/f 1", "file b/g 2"}, do: opExchange("a/f", "b/g")},
	{name: "exchange directories", lower: []string{"file a/d/x 1", "file b/e/y 2"}, do: opExchange("a/d", "b/e")},
	{name: "exchange directory and file", lower: []string{"file a/d/x 1", "file b/f 2"}, do: opExchange("a/d", "b/f")},
	{name: "exchange upper and lower directory", lower: []string{"file a/d/x 1"}, setup: inTurn(opMkdir("n"), opCreate("n/y")), do: opExchange("n", "a/d")},

	// Places.
	{name: "rename out of a policy", lower: []string{"dir c", "dir free"}, dress: zeroed, change: blankPolicy, do: opRename("c/f", "free/f")},
	{name: "rename new directory out of a policy", lower: []string{"dir c", "dir free"}, dress: zeroed, change: blankPolicy,
		setup: inTurn(opMkdir("c/n"), opCreate("c/n/x")), do: opRename("c/n", "free/n")},
	{name: "link out of a policy", lower: []string{"dir c", "dir free"}, dress: zeroed, change: blankPolicy, do: opLink("c/f", "free/f")},

	// Create and link.
	{name: "create", lower: []string{"dir a/b"}, do: opCreate("a/b/n")},
	{name: "create over a cover", lower: []string{"file a/f 1"}, setup: opUnlink("a/f"), do: opCreate("a/f")},
	{name: "create over a whiteout", lower: []string{"file a/f 1"}, setup: opWrite("a/f", "2"), unsynced: []cutOp{opUnlink("a/f")}, do: opCreate("a/f")},
	{name: "create over a whiteout with a cradle", lower: []string{"file a/f 1"}, dress: dressDir("a"), setup: opWrite("a/f", "2"),
		unsynced: []cutOp{opUnlink("a/f")}, do: opCreate("a/f")},
	{name: "symlink over a whiteout", lower: []string{"file a/f 1"}, setup: opWrite("a/f", "2"), unsynced: []cutOp{opUnlink("a/f")}, do: opSymlink("t", "a/f")},
	{name: "mkdir", lower: []string{"dir a"}, do: opMkdir("a/n")},
	{name: "mkdir over a cover", lower: []string{"file a/d/x 1"}, setup: inTurn(opUnlink("a/d/x"), opRmdir("a/d")), do: opMkdir("a/d")},
	{name: "mkdir over a cover that is not durable", lower: []string{"dir a/d"}, unsynced: []cutOp{opRmdir("a/d")}, do: opMkdir("a/d")},
	{name: "mkdir over a whiteout", lower: []string{"file a/d/x 1"}, setup: opWrite("a/d/x", "2"),
		unsynced: []cutOp{opUnlink("a/d/x"), opRmdir("a/d")}, do: opMkdir("a/d")},
	{name: "mkdir over a whiteout with a cradle", lower: []string{"dir a/d"}, dress: dressDir("a"), setup: opChmod("a/d", 0o700),
		unsynced: []cutOp{opRmdir("a/d")}, do: opMkdir("a/d")},
	{name: "link lower", lower: []string{"file a/f 1"}, do: opLink("a/f", "a/g")},
	{name: "link into an upper directory", lower: []string{"file a/f 1"}, setup: opMkdir("n"), do: opLink("a/f", "n/g")},
	{name: "link over a whiteout", lower: []string{"file a/f 1", "file a/g 1"}, setup: opWrite("a/g", "2"), unsynced: []cutOp{opUnlink("a/g")}, do: opLink("a/f", "a/g")},

	// Hard-linked lower files.
	{name: "write hard link", lower: []string{"file a/f 1", "link a/f b/g"}, do: opWrite("a/f", "2")},
	{name: "unlink lower hard link", lower: []string{"file a/f 1", "link a/f b/g"}, do: opUnlink("a/f")},
	{name: "rename over lower hard link", lower: []string{"file a/f 1", "link a/f b/g", "file n 2"}, do: opRename("n", "b/g")},
	{name: "unlink indexed lower hard link", lower: []string{"file a/f 1", "link a/f b/g"}, setup: opWrite("a/f", "2"), do: opUnlink("b/g")},
	{name: "unlink upper hard link", lower: []string{"file a/f 1", "link a/f b/g"}, setup: opWrite("a/f", "2"), do: opUnlink("a/f")},
	{name: "unlink unsynced hard link", lower: []string{"file a/f 1", "link a/f b/g"}, unsynced: []cutOp{opWrite("a/f", "2")}, do: opUnlink("a/f")},
	{name: "unlink last hard link", lower: []string{"file a/f 1", "link a/f b/g"}, setup: inTurn(opWrite("a/f", "2"), opUnlink("a/f")), do: opUnlink("b/g")},
	{name: "sync after the last hard link went", lower: []string{"file a/f 1", "link a/f b/g"}, setup: inTurn(opWrite("a/f", "2"), opUnlink("a/f")),
		unsynced: []cutOp{opUnlink("b/g")}, stage: stageSync},
	{name: "rename hard link", lower: []string{"file a/f 1", "link a/f b/g", "link a/f b/h"}, do: opRename("a/f", "b/n")},
	{name: "rename over hard link", lower: []string{"file a/f 1", "link a/f b/g", "file b/h 2"}, setup: opWrite("a/f", "2"), do: opRename("b/h", "b/g")},
	{name: "rename over whiteout of a hard link", lower: []string{"file a/f 1", "link a/f b/g", "file b/h 2"}, setup: opWrite("a/f", "2"),
		unsynced: []cutOp{opUnlink("a/f")}, do: opRename("b/h", "a/f")},
	{name: "link hard link", lower: []string{"file a/f 1", "link a/f b/g"}, do: opLink("a/f", "b/n")},
	{name: "unlink hard link without whiteouts", lower: []string{"file a/f 1", "link a/f b/g"}, setup: opWrite("a/f", "2"), tweak: noWhiteouts, do: opUnlink("a/f")},

	// Sync, unmount, mount.
	{name: "sync", lower: []string{"file a/f 1", "file a/d/x 1", "file b/g 1", "link b/g b/h", "file b/i 1"},
		setup: inTurn(opWrite("a/f", "2"), opWrite("a/d/x", "2"), opWrite("b/g", "2")), unsynced: []cutOp{
			opUnlink("a/f"), opRename("a/d", "a/e"), opUnlink("b/g"), opUnlink("b/i")}, stage: stageSync},
	{name: "unmount", lower: []string{"file a/f 1", "file a/d/x 1"},
		setup: inTurn(opWrite("a/f", "2"), opWrite("a/d/x", "2")), unsynced: []cutOp{
			opUnlink("a/f"), opUnlink("a/d/x"), opRmdir("a/d")}, stage: stageUnmount},
	{name: "first mount", lower: []string{"file a/f 1"}, stage: stageMount},
	{name: "mount that does not come about", lower: []string{"file a/f 1"}, stage: stageUnmake},
	{name: "second mount", lower: []string{"file a/f 1"}, setup: inTurn(opUnlink("a/f"), opCreate("a/f")), stage: stageMount, crashAt: cutAtEnd},
	{name: "mount after a crash", lower: []string{"file a/f 1", "link a/f b/g", "link a/f b/h", "file b/i 1", "file d/x 1"}, setup: opWrite("a/f", "2"),
		unsynced: []cutOp{opUnlink("a/f"), opLink("b/g", "b/n"), opUnlink("b/i"), opRename("d", "e")}, stage: stageMount, crashAt: cutAtEnd},
	{name: "mount after a copy-up was cut", lower: []string{"file a/f 1"}, do: opWrite("a/f", "2"), stage: stageMount, crashAt: cutMetaDone},
	{name: "mount after a cradle was left", lower: []string{"file a/f 1"}, dress: dressDir("a"), setup: opWrite("a/f", "2"),
		unsynced: []cutOp{opUnlink("a/f")}, do: opCreate("a/f"), stage: stageMount, crashAt: cutMadeInWork},
	{name: "mount after a hard link was hidden", lower: []string{"file a/f 1", "link a/f b/g"}, setup: opWrite("a/f", "2"),
		do: opUnlink("a/f"), stage: stageMount, crashAt: cutWhitedOut},
	{name: "mount after a hard link was made", lower: []string{"file a/f 1", "link a/f b/g"},
		do: opChmod("a/f", 0o600), stage: stageMount, crashAt: cutNameLinked},
	{name: "mount after the last hard link went", lower: []string{"file a/f 1", "link a/f b/g"}, setup: inTurn(opWrite("a/f", "2"), opUnlink("a/f")),
		do: opUnlink("b/g"), stage: stageMount, crashAt: cutRemoved},
}

// Every mount that is to be cut has other changes behind it, some made durable
// and some not, in a directory of their own.

const commonDir = "pre"

var commonLower = []string{"file pre/rm 1", "file pre/gone 1", "file pre/ren 1", "file pre/kept 1"}

func (c *cutCase) lowerLines() []string { return append(slices.Clone(commonLower), c.lower...) }

// fresh tells whether the first mount is what is cut.
func (c *cutCase) fresh() bool {
	return c.stage == stageUnmake || c.stage == stageMount && c.crashAt == ""
}

func (c *cutCase) commonSetup() cutOp {
	if c.fresh() {
		return inTurn()
	}
	return inTurn(opWrite("pre/ren", "2"), opWrite("pre/kept", "2"), opUnlink("pre/gone"))
}

func (c *cutCase) commonUnsynced() []cutOp {
	if c.fresh() || c.clean {
		return nil
	}
	return []cutOp{opUnlink("pre/rm"), opRename("pre/ren", "pre/ren2"), opCreate("pre/new")}
}

// allSetup is what is done and made durable.
func (c *cutCase) allSetup() cutOp {
	if c.setup == nil {
		return c.commonSetup()
	}
	return inTurn(c.commonSetup(), c.setup)
}

// allUnsynced is what is done then, and not made durable.
func (c *cutCase) allUnsynced() []cutOp { return append(c.commonUnsynced(), c.unsynced...) }
