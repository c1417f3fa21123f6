// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPartial bounds the size of the file.
const maxPartial = 24 << 20

// fallocateModes are the modes that are tried.
var fallocateModes = []uint32{
	0, unix.FALLOC_FL_KEEP_SIZE,
	unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
	unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
	unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE,
}

// partialGen makes sequences.
type partialGen struct{ *rand.Rand }

func newPartialGen(seed int64) *partialGen {
	return &partialGen{rand.New(rand.NewPCG(uint64(seed), 2))}
}

func choose[T any](g *partialGen, from ...T) T { return from[g.IntN(len(from))] }

// sequence makes a sequence without operations.
func (g *partialGen) sequence(fs string, n int) *partialSeq {
	io := ioPassthrough
	if n%3 == 2 && sut == sutPlyfs {
		io = ioCoherent
	}
	return &partialSeq{
		FS: fs, IO: io, Options: g.options(), Seed: 1 + g.Int64N(1_000_000),
		Size:   choose[int64](g, 0, 1, 4095, 4096, 4097, 10_000, 10_000, 100_000, 300_000, 1<<20+123, 1<<20+123, 5<<20),
		Linked: g.IntN(4) == 0, Deep: g.IntN(2) == 0,
	}
}

func (g *partialGen) options() string {
	return choose(g, partialModes...) + "," + choose(g, neverComplete, neverComplete, "complete_rate=1000000000", "complete_rate=2000000")
}

// partialKinds are the operations, as often as they are to come.
var partialKinds = []struct {
	kind  string
	times int
}{
	{"write", 14}, {"append", 3}, {"truncate", 3}, {"ftruncate", 4}, {"fallocate", 8}, {"mmap", 5}, {"direct", 4},
	{"copy-in", 3}, {"copy-out", 2}, {"copy-self", 2}, {"O_TRUNC", 1}, {"chmod", 1}, {"setxattr", 1}, {"utimens", 1}, {"rename", 2},
	{"rename-dir", 1}, {"link", 1}, {"unlink", 1}, {"fsync", 2}, {"syncfs", 1}, {"open", 6}, {"close", 5}, {"hold-map", 2}, {"store", 5},
	{"remount", 2}, {"kill", 1}, {"kill-in-write", 1}, {"kill-in-truncate", 1}, {"complete", 2}, {"check", 12}, {"unlink-last", 1},
}

var partialWeights = func() (sum int) {
	for _, k := range partialKinds {
		sum += k.times
	}
	return sum
}()

func (g *partialGen) kind() string {
	n := g.IntN(partialWeights)
	for _, k := range partialKinds {
		if n -= k.times; n < 0 {
			if slices.Contains(withoutPartial, k.kind) {
				return "write"
			}
			return k.kind
		}
	}
	return ""
}

// withoutPartial are the operations that PLYFS_PARTIAL_WITHOUT leaves out, to
// look behind a failure that is known.
var withoutPartial = strings.Fields(os.Getenv("PLYFS_PARTIAL_WITHOUT"))

// offset chooses an offset that is likely to be at an edge.
func (g *partialGen) offset(size int64) int64 {
	off := choose(g, 0, size, size-1, size+1, g.Int64N(size+1), g.Int64N(size+1), g.Int64N(size+1), size+g.Int64N(100_000), size+g.Int64N(5_000))
	switch g.IntN(6) {
	case 0, 1:
		off -= off % blockSize
	case 2:
		off -= off%blockSize + choose[int64](g, -1, 1)
	case 3:
		off -= off % 1024
	}
	if g.IntN(60) == 0 {
		off += 3 << 20
	}
	return min(max(off, 0), maxPartial)
}

func (g *partialGen) length() int64 {
	n := choose(g, 1, 2, 511, 1024, 4095, 4096, 4097, 8192, 10_000, 65536+7, 1+g.Int64N(20_000), 1+g.Int64N(400_000))
	if g.IntN(40) == 0 {
		n = 1<<20 + g.Int64N(1<<20)
	}
	return n
}

// bytes is the seed of bytes to write, often of zeros.
func (g *partialGen) bytes() int64 {
	if g.IntN(6) == 0 {
		return 0
	}
	return 1 + g.Int64N(1_000_000)
}

// slot chooses a held handle that is suited, often none.
func (g *partialGen) slot(p *partialRun, suited func(*heldFile) bool) int {
	var fit []int
	for s := 1; s <= partialSlots; s++ {
		if h := p.held[s]; h != nil && suited(h) {
			fit = append(fit, s)
		}
	}
	if len(fit) == 0 || g.IntN(3) == 0 {
		return 0
	}
	return choose(g, fit...)
}

// partialSlots is how many handles are held at most.
const partialSlots = 6

func (g *partialGen) op(p *partialRun) partialOp {
	size := int64(len(p.content))
	kind := g.kind()
	if (sut != sutPlyfs && (kind == "kill" || kind == "kill-in-write" || kind == "kill-in-truncate")) || kind == "unlink-last" && g.IntN(2) != 0 {
		kind = "write"
	}
	o := partialOp{Kind: kind}
	switch kind {
	case "write", "kill-in-write":
		o.Off, o.Len, o.Seed = g.offset(size), g.length(), g.bytes()
	case "append":
		o.Len, o.Seed = g.length(), g.bytes()
	case "truncate", "ftruncate", "kill-in-truncate":
		o.Len = g.offset(size)
		if g.IntN(4) == 0 {
			o.Len = choose(g, size, size/2, size+1, int64(0))
		}
	case "fallocate":
		o.Mode, o.Off, o.Len = choose(g, fallocateModes...), g.offset(size), g.length()
		if o.Mode >= unix.FALLOC_FL_COLLAPSE_RANGE && o.Mode != unix.FALLOC_FL_ZERO_RANGE && g.IntN(2) == 0 {
			o.Off -= o.Off % blockSize
			o.Len += blockSize - o.Len%blockSize
		}
	case "mmap", "store":
		o.Off, o.Len, o.Seed = g.offset(size), g.length(), g.bytes()
		o.Mode = uint32(g.IntN(2)) // msync
	case "direct":
		o.Off, o.Len, o.Seed = g.offset(size)/blockSize*blockSize, (g.length()+blockSize-1)/blockSize*blockSize, g.bytes()
	case "copy-in", "copy-out":
		o.Off, o.Src, o.Len = g.offset(size), g.Int64N(1<<20), g.length()
	case "copy-self":
		o.Off, o.Src, o.Len = g.offset(size), g.offset(size), g.length()
	case "O_TRUNC":
		o.Len, o.Seed = g.length(), g.bytes()
	case "chmod":
		o.Mode = choose[uint32](g, 0o600, 0o644, 0o755)
	case "setxattr":
		o.Text = fmt.Sprint("user.x", g.IntN(3))
	case "rename", "link":
		o.Text = choose(g, "d/", "d/", "empty/", "", "new/") + choose(g, "f", "g", "h")
		o.Src = g.Int64N(8)
	case "unlink":
		o.Src = g.Int64N(8)
	case "open":
		o.Mode = choose[uint32](g, unix.O_RDONLY, unix.O_RDWR, unix.O_RDWR, unix.O_WRONLY, unix.O_RDWR|unix.O_APPEND, unix.O_RDWR|unix.O_DIRECT)
		o.Handle = 1 + g.IntN(partialSlots)
	case "hold-map", "close":
		o.Handle = 1 + g.IntN(partialSlots)
	case "remount":
		o.Text = g.options()
	}
	switch kind {
	case "write", "ftruncate", "fallocate", "copy-in", "fsync":
		o.Handle = g.slot(p, (*heldFile).forRandomWrite)
	case "copy-self":
		o.Handle = g.slot(p, func(h *heldFile) bool { return h.flags == unix.O_RDWR })
	case "store":
		o.Handle = g.slot(p, func(h *heldFile) bool { return h.m != nil })
	}
	return o
}
