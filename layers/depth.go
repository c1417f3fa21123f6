// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// MaxDepth is the kernel's limit of stacking (FILESYSTEM_MAX_STACK_DEPTH of
// linux/fs.h): a file system with max_stack_depth D can be passed through to
// one of a depth below D, and D may be 2 at most.
const MaxDepth = 2

// FuseDepth, if set, tells the stacking depth of the FUSE mount at mountpoint,
// and whether it is known. A FUSE file system takes a depth of its own only if
// it uses passthrough, which the mount table does not show.
var FuseDepth func(mountpoint string) (depth int, known bool)

// maxNesting ends the walk through layers of layers: far more than the kernel
// would ever mount.
const maxNesting = 16

// depthOf is the type, stacking depth and the depth's explanation of the file
// system that fd is on. It is always an answer: what cannot be found out is
// said in why.
func depthOf(fd int) (fstype string, depth int, why string) {
	m, err := mountOf(fd)
	if err != nil {
		fstype = typeByMagic(fd)
		depth = guessedDepth(fstype)
		return fstype, depth, fmt.Sprintf("%s (not in the mount table: %v; depth %d assumed)", fstype, err, depth)
	}
	depth, why = stackDepth(m, 0)
	return m.FSType, depth, why
}

// guessedDepth is the least depth that a file system of that type can have.
func guessedDepth(fstype string) int {
	switch fstype {
	case "overlay", "ecryptfs", "fuse.plyfs":
		return 1
	}
	return 0
}

// stackDepth follows the kernel's s_stack_depth: overlay (super.c), ecryptfs
// (main.c), erofs on a file (super.c) and FUSE with passthrough (inode.c) are
// one above the deepest of what they lie on; nothing else stacks.
func stackDepth(m *mountinfo.Info, nested int) (depth int, why string) {
	if nested > maxNesting {
		return MaxDepth, m.FSType + " (nested too deep to follow)"
	}
	switch {
	case m.FSType == "overlay":
		return above(m.FSType, overlayLayers(m.VFSOptions), nested)
	case m.FSType == "ecryptfs":
		return above(m.FSType, []string{m.Source}, nested)
	case m.FSType == "erofs" && m.Major == 0 && isRegular(m.Source):
		return above(m.FSType, []string{m.Source}, nested)
	case m.FSType == "fuse" || strings.HasPrefix(m.FSType, "fuse."):
		return fuseDepth(m)
	}
	return 0, m.FSType
}

func fuseDepth(m *mountinfo.Info) (depth int, why string) {
	if FuseDepth != nil {
		if depth, known := FuseDepth(m.Mountpoint); known {
			return depth, fmt.Sprintf("%s of depth %d", m.FSType, depth)
		}
	}
	if m.FSType == "fuse.plyfs" {
		return 1, m.FSType + " (its depth cannot be asked; 1 assumed)"
	}
	return 0, m.FSType
}

// above is the depth of a file system that lies on the given paths, and the
// explanation by the deepest of them.
func above(fstype string, paths []string, nested int) (depth int, why string) {
	below, on := -1, ""
	for _, p := range paths {
		d, w := depthAt(p, nested)
		if d > below {
			below, on = d, w
		}
	}
	if below < 0 {
		return 1, fstype + " (its layers are not known; depth 1 assumed)"
	}
	return 1 + below, fstype + " on " + on
}

// depthAt is the depth of what path lies on. A layer of somebody else's mount
// may be out of reach: given relative to a forgotten directory, or in another
// mount namespace, or covered since.
func depthAt(path string, nested int) (depth int, why string) {
	if !filepath.IsAbs(path) {
		return 0, fmt.Sprintf("%s (a relative path: cannot be followed; depth 0 assumed)", path)
	}
	m, err := mountAt(path)
	if err != nil {
		return 0, fmt.Sprintf("a layer out of reach (%v; depth 0 assumed)", err)
	}
	return stackDepth(m, nested+1)
}

func isRegular(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

// overlayLayers takes the layer paths out of an overlay mount's options, as
// mountinfo shows them (octal escapes; params.c:ovl_show_options).
func overlayLayers(options string) (paths []string) {
	for opt := range strings.SplitSeq(options, ",") {
		key, val, _ := strings.Cut(opt, "=")
		val = unescapeOctal(val)
		switch key {
		case "lowerdir":
			// The text of the mount option: ':' separates, "::" starts the
			// data-only layers, a backslash takes the next character as it is.
			paths = append(paths, splitEscaped(val, ':')...)
		case "upperdir":
			// Here a backslash escape is left only before a comma.
			paths = append(paths, strings.ReplaceAll(val, `\,`, ","))
		case "lowerdir+", "datadir+":
			paths = append(paths, val) // one path, nothing escaped
		}
	}
	return paths
}

// splitEscaped splits s at sep where no backslash precedes it, takes the
// backslashes out, and leaves out empty parts.
func splitEscaped(s string, sep byte) (parts []string) {
	var part []byte
	flush := func() {
		if len(part) > 0 {
			parts = append(parts, string(part))
		}
		part = part[:0]
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			part = append(part, s[i])
		case s[i] == sep:
			flush()
		default:
			part = append(part, s[i])
		}
	}
	flush()
	return parts
}

// unescapeOctal turns \NNN, as in /proc/self/mountinfo, back into bytes.
func unescapeOctal(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1:i+4]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(s string) bool {
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7'
}
