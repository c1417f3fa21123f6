// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// gen makes random layers and operations. There are few names, so that they
// meet often.
type gen struct {
	*rand.Rand
	paths []string            // what is in the tree now
	types map[string][]string // the same by type, as of typeName
	open  []int               // slots with a descriptor
	omit  []string            // kinds of operations that are not made
}

// slot is one with a descriptor, mostly.
func (g *gen) slot() int {
	if len(g.open) > 0 && g.IntN(5) > 0 {
		return pick(g, g.open)
	}
	return g.IntN(slots)
}

// see makes the tree at root what the choices are made from.
func (g *gen) see(root string) {
	g.paths, g.types = nil, map[string][]string{}
	walk(root, ".", func(p string) error {
		var st unix.Stat_t
		if p != "." && unix.Lstat(path.Join(root, p), &st) == nil {
			g.paths = append(g.paths, p)
			g.types[typeName(st.Mode)] = append(g.types[typeName(st.Mode)], p)
		}
		return nil
	})
}

// of is a path of the type, mostly.
func (g *gen) of(typ string) string {
	if l := g.types[typ]; len(l) > 0 && g.IntN(5) > 0 {
		return pick(g, l)
	}
	return g.path()
}

// fresh is a new name in a directory that exists, mostly.
func (g *gen) fresh() string {
	switch dirs := g.types["dir"]; {
	case g.IntN(5) == 0:
		return g.path()
	case len(dirs) == 0 || g.IntN(5) == 0:
		return pick(g, genNames)
	default:
		return path.Join(pick(g, dirs), pick(g, genNames))
	}
}

func newGen(seed int64) *gen {
	return &gen{Rand: rand.New(rand.NewPCG(uint64(seed), 0x706c7966)), omit: withoutKinds}
}

var (
	genNames = []string{"a", "b", "c", "d", "e"}
	genModes = []uint32{0o644, 0o600, 0o755, 0o777, 0o666, 0o4755, 0o2755, 0o2770, 0o1777, 0o640, 0o444, 0o000, 0o6711, 0o2777}
	genSizes = []int64{0, 1, 10, 100, 4095, 4096, 4097, 5000, 20000, 70000, 140000}
	genUmask = []int{0o022, 0, 0o077, 0o002, 0o027}
)

func pick[T any](g *gen, s []T) T { return s[g.IntN(len(s))] }

// name is a path of up to three components.
func (g *gen) name() string {
	n := 1 + g.IntN(3)
	parts := make([]string, n)
	for i := range parts {
		parts[i] = pick(g, genNames)
	}
	return strings.Join(parts, "/")
}

// path is one that exists, mostly; or a new name in a directory that exists;
// or anything.
func (g *gen) path() string {
	if len(g.paths) == 0 {
		return g.name()
	}
	switch x := g.IntN(100); {
	case x < 65:
		return pick(g, g.paths)
	case x < 90:
		return path.Join(pick(g, g.paths), pick(g, genNames))
	}
	return g.name()
}

// base makes the fixtures of one to four lower layers, topmost first.
func (g *gen) base() [][]string {
	layers := make([][]string, 1+g.IntN(4))
	for i := range layers {
		bottom := i == len(layers)-1
		types := map[string]string{}
		for range 3 + g.IntN(9) {
			if line := g.baseEntry(types, bottom); line != "" {
				layers[i] = append(layers[i], line)
			}
		}
		if bottom && g.IntN(2) == 0 {
			layers[i] = append(layers[i], "k1="+fmt.Sprintf("#%d", pick(g, genSizes)), "k2 => k1", "k3 => k1")
		}
	}
	return layers
}

// baseEntry makes one line, or none if its path does not fit what is there.
func (g *gen) baseEntry(types map[string]string, bottom bool) string {
	p := g.name()
	if types[p] != "" {
		return ""
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if types[d] != "" && types[d] != "dir" {
			return ""
		}
		types[d] = "dir"
	}
	attrs := fmt.Sprintf("%04o %d:%d", pick(g, genModes), g.owner(), g.group())
	if g.IntN(4) == 0 {
		attrs += " trusted.t=v"
	}
	types[p] = "file"
	switch x := g.IntN(20); {
	case x < 6:
		types[p] = "dir"
		if !bottom && g.IntN(4) == 0 {
			attrs += " opaque"
		}
		return fmt.Sprintf("%s/ {%s}", p, attrs)
	case x < 13:
		if g.IntN(4) == 0 {
			attrs += " user.x=lower"
		}
		return fmt.Sprintf("%s=#%d {%s}", p, pick(g, genSizes), attrs)
	case x < 14:
		return fmt.Sprintf("%s=@%d {%s}", p, pick(g, genSizes), attrs)
	case x < 16:
		return fmt.Sprintf("%s -> %s", p, g.target())
	case x < 17:
		return fmt.Sprintf("%s {%s %s}", p, attrs, pick(g, []string{"fifo", "sock", "chr:1:3", "blk:240:9"}))
	case !bottom:
		return p + " {whiteout}"
	}
	types[p] = "dir"
	return fmt.Sprintf("%s/ {%s}", p, attrs)
}

func (g *gen) owner() int { return pick(g, []int{0, 0, 1000, 1000, 1001}) }
func (g *gen) group() int { return pick(g, []int{0, 1000, 1001, 2000}) }

func (g *gen) target() string {
	return pick(g, []string{"a", "b", "nowhere", "a/b", "./c", "../a/b", "./d", "c/../a"})
}

// weights say how often each kind of operation comes.
var weights = []struct {
	kind string
	n    int
}{
	{"create", 9}, {"open", 9}, {"close", 2}, {"pread", 3}, {"pwrite", 6}, {"append", 3},
	{"writefile", 4}, {"readfile", 3}, {"truncate", 4}, {"ftruncate", 3}, {"mkdir", 8},
	{"mknod", 2}, {"symlink", 3}, {"link", 6}, {"unlink", 8}, {"rmdir", 4}, {"rmrf", 3},
	{"rename", 16}, {"chmod", 5}, {"fchmod", 2}, {"chown", 3}, {"fchown", 1}, {"utimens", 3},
	{"setxattr", 6}, {"rmxattr", 2}, {"getxattr", 2}, {"listxattr", 2}, {"fsetxattr", 1},
	{"fallocate", 3}, {"seek", 2}, {"mmapwrite", 2}, {"mmapread", 2}, {"readdir", 4},
	{"stat", 4}, {"fstat", 3}, {"readlink", 1}, {"access", 3}, {"tmpfile", 2}, {"linkfd", 3},
	{"copyrange", 2}, {"fsync", 1}, {"remount", 1},
}

func (g *gen) kind() string {
	total := 0
	for _, w := range weights {
		total += w.n
	}
	for {
		x := g.IntN(total)
		for _, w := range weights {
			if x -= w.n; x < 0 && slices.Contains(g.omit, w.kind) {
				break
			} else if x < 0 {
				return w.kind
			}
		}
	}
}

// withoutKinds are the operations that PLYFS_ORACLE_WITHOUT leaves out, to
// look behind a failure that is known.
var withoutKinds = strings.Fields(os.Getenv("PLYFS_ORACLE_WITHOUT"))

const slots = 5

// op makes a random operation.
func (g *gen) op() op {
	o := op{Kind: g.kind(), A: g.path(), Slot: g.slot(), Umask: pick(g, genUmask)}
	if g.IntN(3) == 0 {
		o.User = 1 + g.IntN(len(users)-1)
	}
	o.Seed = g.Int64N(1000)
	o.Mode = pick(g, genModes)
	o.A = g.suited(o.Kind, o.A)
	switch o.Kind {
	case "create":
		o.Slot = g.IntN(slots)
		o.Flags = pick(g, []int{0, unix.O_EXCL, unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND}) | pick(g, []int{unix.O_RDWR, unix.O_WRONLY})
		o.Len = pick(g, genSizes)
	case "open":
		o.Slot = g.IntN(slots)
		o.Flags = pick(g, []int{unix.O_RDONLY, unix.O_RDONLY, unix.O_RDONLY | unix.O_DIRECTORY, unix.O_RDWR, unix.O_WRONLY,
			unix.O_RDWR | unix.O_TRUNC, unix.O_RDWR | unix.O_APPEND, unix.O_RDONLY | unix.O_NOFOLLOW, unix.O_PATH})
	case "rename":
		o.B = g.fresh()
		o.Flags = pick(g, []int{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE})
	case "link":
		o.B = g.fresh()
		o.Flags = pick(g, []int{0, 0, unix.AT_SYMLINK_FOLLOW})
	case "linkfd":
		o.B = g.fresh()
	case "symlink":
		o.B = g.target()
	case "mknod":
		o.Mode &= 0o777
		o.Mode |= pick(g, []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFREG})
		o.Len = int64(unix.Mkdev(240, 9))
	case "chown", "fchown":
		o.Off, o.Len = int64(pick(g, []int{-1, 0, 1000, 1001})), int64(pick(g, []int{-1, 0, 1000, 2000}))
		if o.Off == -1 && o.Len == -1 {
			o.Off = 1000 // what changes nothing is a difference: see TestChownNothing
		}
	case "access":
		o.Mode = uint32(g.IntN(8))
	default:
		g.dataOp(&o)
	}
	return o
}

// suited is a path that suits the kind of operation, mostly.
func (g *gen) suited(kind, otherwise string) string {
	switch kind {
	case "create", "mkdir", "mknod", "symlink":
		return g.fresh()
	case "rmdir", "tmpfile", "readdir":
		return g.of("dir")
	case "open", "append", "writefile", "readfile", "truncate", "link":
		return g.of("file")
	case "readlink":
		return g.of("symlink")
	}
	return otherwise
}

// dataOp fills in operations on data and attributes.
func (g *gen) dataOp(o *op) {
	switch o.Kind {
	case "pread", "pwrite", "append", "tmpfile", "ftruncate", "truncate", "mmapwrite":
		o.Off, o.Len = pick(g, genSizes), pick(g, genSizes)
	case "writefile":
		o.Flags = pick(g, []int{unix.O_WRONLY, unix.O_WRONLY | unix.O_TRUNC, unix.O_RDWR})
		o.Off, o.Len = pick(g, genSizes), pick(g, genSizes)
	case "utimens":
		o.Off, o.Len = 1_050_000_000+g.Int64N(1_000_000), g.Int64N(1_000_000_000)
	case "setxattr", "rmxattr", "getxattr", "fsetxattr":
		g.xattr(o)
	case "fallocate":
		o.Off, o.Len = pick(g, genSizes), 1+pick(g, genSizes)
		o.Flags = pick(g, []int{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE,
			unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE})
	case "seek":
		o.Off, o.Flags = pick(g, genSizes), pick(g, []int{unix.SEEK_DATA, unix.SEEK_HOLE})
	case "mmapread":
		o.Flags = pick(g, []int{unix.MAP_SHARED, unix.MAP_PRIVATE})
	case "stat":
		o.Flags = pick(g, []int{0, unix.AT_SYMLINK_NOFOLLOW})
	case "copyrange":
		o.Slot2 = g.slot()
		o.Off, o.Len, o.Seed = pick(g, genSizes), pick(g, genSizes), pick(g, genSizes)
	}
}

// xattr chooses an extended attribute and a value that fits it.
func (g *gen) xattr(o *op) {
	o.Data = []byte(fmt.Sprintf("value %d", g.IntN(5)))
	o.Flags = pick(g, []int{0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE})
	switch o.B = pick(g, []string{"user.a", "user.b", "user.x", "trusted.t", "trusted.u", "security.capability",
		"system.posix_acl_access", "system.posix_acl_default", "user.empty"}); o.B {
	case "security.capability":
		o.Data = capability(unix.CAP_NET_RAW)
	case "system.posix_acl_access", "system.posix_acl_default":
		o.Data = g.acl()
		o.Flags = 0
	case "user.empty":
		o.Data = []byte{}
	}
}

// acl is an access control list that names one user or group, or the least one.
func (g *gen) acl() []byte {
	perm := func() uint16 { return uint16(g.IntN(8)) }
	es := []aclEntry{{aclUserObj, perm() | 6, aclNoID}}
	switch g.IntN(3) {
	case 0:
		es = append(es, aclEntry{aclUser, perm(), uint32(pick(g, []int{1000, 1001}))})
	case 1:
		es = append(es, aclEntry{aclGroupObj, perm(), aclNoID}, aclEntry{aclGroup, perm(), 2000},
			aclEntry{aclMask, perm(), aclNoID}, aclEntry{aclOther, perm(), aclNoID})
		return aclBytes(es)
	}
	es = append(es, aclEntry{aclGroupObj, perm(), aclNoID})
	if len(es) == 3 {
		es = append(es, aclEntry{aclMask, perm(), aclNoID})
	}
	return aclBytes(append(es, aclEntry{aclOther, perm(), aclNoID}))
}

// aclEntry is an entry of a POSIX access control list as in an xattr.
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// Tags of entries, from linux/posix_acl.h.
const (
	aclUserObj  = 1
	aclUser     = 2
	aclGroupObj = 4
	aclGroup    = 8
	aclMask     = 16
	aclOther    = 32
	aclNoID     = ^uint32(0)
)

// aclBytes is the value of system.posix_acl_*, version 2.
func aclBytes(es []aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range es {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// capability is the value of security.capability (revision 2) that gives one
// capability.
func capability(c uint) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001) // VFS_CAP_REVISION_2 | effective
	b = binary.LittleEndian.AppendUint32(b, 1<<c)
	return append(b, make([]byte, 12)...)
}
