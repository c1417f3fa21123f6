// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Caps is what the file system of the upper and work directory can do, found
// by doing it.
type Caps struct {
	DType          bool // listings tell the type of entries
	Tmpfile        bool // O_TMPFILE, and giving it a name
	RenameWhiteout bool // RENAME_WHITEOUT
	RenameExchange bool // RENAME_EXCHANGE
	TrustedXattr   bool // trusted.* (needs CAP_SYS_ADMIN too)
	UserXattr      bool // user.*
	POSIXACL       bool // system.posix_acl_access
	Reflink        bool // FICLONE
	CopyFileRange  bool // copy_file_range
	FileHandles    bool // name_to_handle_at and open_by_handle_at (needs CAP_DAC_READ_SEARCH too)
	Sparse         bool // SEEK_DATA and SEEK_HOLE tell exactly the blocks that were written

	Why map[string]string // for each that is false, by field name: the reason
}

// capProbe is one named probe: do works in the empty directory of the prober.
type capProbe struct {
	name string
	cap  func(*Caps) *bool
	do   func(*prober) error
}

var capProbes = []capProbe{
	{"DType", func(c *Caps) *bool { return &c.DType }, (*prober).dtype},
	{"Tmpfile", func(c *Caps) *bool { return &c.Tmpfile }, (*prober).tmpfile},
	{"RenameWhiteout", func(c *Caps) *bool { return &c.RenameWhiteout }, (*prober).renameWhiteout},
	{"RenameExchange", func(c *Caps) *bool { return &c.RenameExchange }, (*prober).renameExchange},
	{"TrustedXattr", func(c *Caps) *bool { return &c.TrustedXattr }, (*prober).trustedXattr},
	{"UserXattr", func(c *Caps) *bool { return &c.UserXattr }, (*prober).userXattr},
	{"POSIXACL", func(c *Caps) *bool { return &c.POSIXACL }, (*prober).posixACL},
	{"Reflink", func(c *Caps) *bool { return &c.Reflink }, (*prober).reflink},
	{"CopyFileRange", func(c *Caps) *bool { return &c.CopyFileRange }, (*prober).copyFileRange},
	{"FileHandles", func(c *Caps) *bool { return &c.FileHandles }, (*prober).fileHandles},
	{"Sparse", func(c *Caps) *bool { return &c.Sparse }, (*prober).sparse},
}

// ProbeUpper finds out what upper's file system can do, in a directory that it
// makes in work and removes again. It is an error if upper is read-only, if
// both are not on one mount, if work cannot be written, or (ENOSPC, EDQUOT) if
// there is no room to find out.
func ProbeUpper(upper, work *Dir) (Caps, error) {
	caps := Caps{Why: map[string]string{}}
	if err := checkUpper(upper, work); err != nil {
		return caps, err
	}
	p, err := newProber(work)
	if err != nil {
		return caps, fmt.Errorf("work directory %s: %w", work.Path(), err)
	}
	var full error
	for _, probe := range capProbes {
		err := probe.do(p)
		*probe.cap(&caps) = err == nil
		if err != nil {
			caps.Why[probe.name] = err.Error()
		}
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			full = fmt.Errorf("work directory %s: %w", work.Path(), err)
		}
	}
	if err := p.close(); err != nil {
		return caps, fmt.Errorf("removing probe directory in %s: %w", work.Path(), err)
	}
	return caps, full
}

func checkUpper(upper, work *Dir) error {
	same, err := SameMount(upper, work)
	if err != nil {
		return fmt.Errorf("upper %s: %w", upper.Path(), err)
	}
	if !same {
		return fmt.Errorf("upper directory %s and work directory %s must be on one mount: %w",
			upper.Path(), work.Path(), unix.EXDEV)
	}
	var st unix.Statfs_t
	if err := upper.Statfs(&st); err != nil {
		return fmt.Errorf("upper %s: %w", upper.Path(), err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("upper directory %s: %w", upper.Path(), unix.EROFS)
	}
	return nil
}

// prober holds the directory that probes work in. It holds the file "f" of
// one block, "e", an empty one, and the directory "d".
type prober struct {
	work, dir *Dir
	name      string
}

func newProber(work *Dir) (*prober, error) {
	p := &prober{work: work, name: "probe." + strconv.FormatInt(time.Now().UnixNano(), 36)}
	if err := work.Mkdir(p.name, 0o700); err != nil {
		return nil, err
	}
	p.dir = work.Child(p.name)
	if err := p.fill(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *prober) fill() error {
	if err := p.dir.Mkdir("d", 0o700); err != nil {
		return err
	}
	if err := p.dir.Mknod("e", unix.S_IFREG|0o600, 0); err != nil {
		return err
	}
	fd, err := p.dir.Open("f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, probeBlock)
	return err
}

var probeBlock = bytes.Repeat([]byte("plyfs is probing"), 4096/16)

// close removes all that the probes left.
func (p *prober) close() error {
	var names []string
	err := p.dir.List(func(name []byte, _ uint64, _ uint8) error {
		names = append(names, string(name))
		return nil
	})
	for _, name := range names {
		e := p.dir.Unlink(name)
		if e == unix.EISDIR {
			e = p.dir.Rmdir(name)
		}
		err = errors.Join(err, e)
	}
	p.dir.Forget()
	return errors.Join(err, p.work.Rmdir(p.name))
}

func (p *prober) dtype() error {
	var unknown error
	err := p.dir.List(func(name []byte, _ uint64, typ uint8) error {
		if string(name) == "d" && typ != unix.DT_DIR || string(name) == "f" && typ != unix.DT_REG {
			unknown = errors.New("listings do not tell the type of an entry (d_type)")
		}
		return nil
	})
	return errors.Join(err, unknown)
}

func (p *prober) tmpfile() error {
	fd, err := p.dir.Tmpfile(unix.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open with O_TMPFILE: %w", err)
	}
	defer unix.Close(fd)
	if err := FD(fd).LinkTo(p.dir, "t"); err != nil {
		return fmt.Errorf("naming an O_TMPFILE file: %w", err)
	}
	return p.dir.Unlink("t")
}

func (p *prober) renameWhiteout() error {
	if err := p.dir.Mknod("w", unix.S_IFREG|0o600, 0); err != nil {
		return err
	}
	if err := p.dir.Rename("w", p.dir, "w2", unix.RENAME_WHITEOUT); err != nil {
		return fmt.Errorf("rename with RENAME_WHITEOUT: %w", err)
	}
	var st unix.Stat_t
	if err := p.dir.Stat("w", &st); err != nil {
		return fmt.Errorf("RENAME_WHITEOUT left no whiteout: %w", err)
	}
	if !IsWhiteoutStat(&st) {
		return fmt.Errorf("RENAME_WHITEOUT left something of mode %#o instead of a whiteout", st.Mode)
	}
	return nil
}

func (p *prober) renameExchange() error {
	if err := p.dir.Rename("e", p.dir, "d", unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("rename with RENAME_EXCHANGE: %w", err)
	}
	var st unix.Stat_t
	if err := p.dir.Stat("e", &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errors.New("RENAME_EXCHANGE did not exchange")
	}
	return p.dir.Rename("e", p.dir, "d", unix.RENAME_EXCHANGE)
}

// probeTrusted is a name that no [AttrStore] keeps.
const probeTrusted = "trusted.plyfs-probe"

func (p *prober) trustedXattr() error { return p.xattr(probeTrusted, []byte("y")) }
func (p *prober) userXattr() error    { return p.xattr("user.plyfs.probe", []byte("y")) }

// probeACL is user::rw-, user:1:r--, group::---, mask::r--, other::---, as
// encoded by linux/posix_acl_xattr.h.
const probeACL = "\x02\x00\x00\x00" +
	"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x01\x00\x00\x00" +
	"\x04\x00\x00\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" +
	"\x20\x00\x00\x00\xff\xff\xff\xff"

func (p *prober) posixACL() error { return p.xattr("system.posix_acl_access", []byte(probeACL)) }

// xattr sets, reads and removes an attribute of "e".
func (p *prober) xattr(attr string, val []byte) error {
	if err := p.dir.Setxattr("e", attr, val, 0); err != nil {
		return fmt.Errorf("setting %s: %w", attr, err)
	}
	got, err := readXattr(At{p.dir, "e"}, attr)
	if err != nil {
		return fmt.Errorf("reading %s: %w", attr, err)
	}
	if !bytes.Equal(got, val) {
		return fmt.Errorf("%s reads back as something else", attr)
	}
	if err := p.dir.Removexattr("e", attr); err != nil {
		return fmt.Errorf("removing %s: %w", attr, err)
	}
	return nil
}

func (p *prober) reflink() error {
	return p.copyBlock(func(dst, src int) error {
		if err := unix.IoctlFileClone(dst, src); err != nil {
			return fmt.Errorf("sharing blocks (FICLONE): %w", err)
		}
		return nil
	})
}

func (p *prober) copyFileRange() error {
	return p.copyBlock(func(dst, src int) error {
		n, err := unix.CopyFileRange(src, nil, dst, nil, len(probeBlock), 0)
		if err != nil {
			return fmt.Errorf("copy_file_range: %w", err)
		}
		if n != len(probeBlock) {
			return fmt.Errorf("copy_file_range copied %d of %d bytes", n, len(probeBlock))
		}
		return nil
	})
}

// copyBlock lets do copy "f" to a new file and looks at the result.
func (p *prober) copyBlock(do func(dst, src int) error) error {
	src, err := p.dir.Open("f", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := p.dir.Open("c", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if err := errors.Join(do(dst, src), p.dir.Unlink("c")); err != nil {
		return err
	}
	buf := make([]byte, len(probeBlock)+1)
	n, err := unix.Pread(dst, buf, 0)
	if err == nil && !bytes.Equal(buf[:n], probeBlock) {
		err = errors.New("the copy differs from its source")
	}
	return err
}

func (p *prober) fileHandles() error {
	fd, err := p.dir.Open("", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	h, _, err := unix.NameToHandleAt(fd, "f", 0)
	if err != nil {
		return fmt.Errorf("name_to_handle_at: %w", err)
	}
	got, err := unix.OpenByHandleAt(fd, h, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_by_handle_at: %w", err)
	}
	defer unix.Close(got)
	var a, b unix.Stat_t
	if err := errors.Join(FD(got).Stat(&a), p.dir.Stat("f", &b)); err != nil {
		return err
	}
	if a.Ino != b.Ino {
		return errors.New("a file handle opened another file")
	}
	return nil
}
