// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// placeMount has a covered directory c in lower, with a file, a directory and
// a file with two links, and a free one beside it. All that is below /c is
// blanked.
func placeMount(t *testing.T, change func(*Config)) *mounted {
	t.Helper()
	low := layer(t, "file c/f", "file c/sub/f", "file c/hard", "file free/x x", "dir free/d")
	for _, p := range []string{"/c/f", "/c/sub/f", "/c/hard"} {
		must(t, os.WriteFile(low+p, []byte(secretContent()), 0o644))
	}
	must(t, os.Link(low+"/c/hard", low+"/c/hard2"))
	return mountOver(t, func(c *Config) {
		c.Policy = blankAt("/c")
		change(c)
	}, low)
}

// wantBlanked reads files through the mount: each is blanked.
func wantBlanked(t *testing.T, m *mounted, rels ...string) {
	t.Helper()
	for _, r := range rels {
		wantSame(t, r, readPath(t, m.path(r)), blankedSecret())
	}
}

// writeSecret makes a file with a secret, and waits until the daemon knows that it
// is closed: while somebody writes it, it is shown as it is.
func writeSecret(t *testing.T, m *mounted, rel string) {
	t.Helper()
	writePath(t, m.path(rel), secretContent())
	m.waitReleased(rel)
}

// again mounts the same tree anew under the same policy.
func (m *mounted) again(change func(*Config)) *mounted {
	m.t.Helper()
	return m.remount(func(c *Config) { c.Policy = blankAt("/c"); change(c) })
}

// Whatever is done to names, a decision sticks to the file. Each way gives the
// names under which covered files are found afterwards; new files are written
// by the mount, with a secret, where the policy blanks.
var placeMoves = map[string]func(t *testing.T, m *mounted) []string{
	"rename out": func(t *testing.T, m *mounted) []string {
		must(t, unix.Rename(m.path("c/f"), m.path("free/f")))
		return []string{"free/f"}
	},
	"rename twice": func(t *testing.T, m *mounted) []string {
		must(t, unix.Rename(m.path("c/f"), m.path("free/f")))
		must(t, unix.Rename(m.path("free/f"), m.path("g")))
		return []string{"g"}
	},
	"rename over another": func(t *testing.T, m *mounted) []string {
		must(t, unix.Rename(m.path("c/f"), m.path("free/x")))
		return []string{"free/x"}
	},
	"link out": func(t *testing.T, m *mounted) []string {
		must(t, unix.Link(m.path("c/f"), m.path("free/f")))
		return []string{"c/f", "free/f"}
	},
	"link out and unlink": func(t *testing.T, m *mounted) []string {
		must(t, unix.Link(m.path("c/f"), m.path("free/f")))
		must(t, unix.Unlink(m.path("c/f")))
		must(t, unix.Link(m.path("free/f"), m.path("g")))
		return []string{"free/f", "g"}
	},
	"link by descriptor": func(t *testing.T, m *mounted) []string {
		f := openFD(t, m.path("c/f"), unix.O_RDONLY)
		must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.fd), unix.AT_FDCWD, m.path("free/f"), unix.AT_SYMLINK_FOLLOW))
		must(t, unix.Unlink(m.path("c/f")))
		return []string{"free/f"}
	},
	"exchange": func(t *testing.T, m *mounted) []string {
		must(t, unix.Renameat2(unix.AT_FDCWD, m.path("c/f"), unix.AT_FDCWD, m.path("free/x"), unix.RENAME_EXCHANGE))
		if got := readPath(t, m.path("c/f")); got != "x" {
			t.Errorf("what was exchanged: %q", got)
		}
		return []string{"free/x"}
	},
	"exchange, the other way": func(t *testing.T, m *mounted) []string {
		must(t, unix.Renameat2(unix.AT_FDCWD, m.path("free/x"), unix.AT_FDCWD, m.path("c/f"), unix.RENAME_EXCHANGE))
		return []string{"free/x"}
	},
	"exchange of directories": func(t *testing.T, m *mounted) []string {
		must(t, unix.Renameat2(unix.AT_FDCWD, m.path("c/sub"), unix.AT_FDCWD, m.path("free/d"), unix.RENAME_EXCHANGE))
		return []string{"free/d/f"}
	},
	"a lower directory": func(t *testing.T, m *mounted) []string {
		must(t, unix.Rename(m.path("c/sub"), m.path("free/sub")))
		return []string{"free/sub/f"}
	},
	"the covered directory itself": func(t *testing.T, m *mounted) []string {
		must(t, unix.Rename(m.path("c"), m.path("e")))
		return []string{"e/f", "e/sub/f", "e/hard"}
	},
	"a new file": func(t *testing.T, m *mounted) []string {
		writeSecret(t, m, "c/new")
		must(t, unix.Rename(m.path("c/new"), m.path("new")))
		return []string{"new"}
	},
	"a new file, linked out": func(t *testing.T, m *mounted) []string {
		writeSecret(t, m, "c/new")
		must(t, unix.Link(m.path("c/new"), m.path("free/new")))
		must(t, unix.Unlink(m.path("c/new")))
		return []string{"free/new"}
	},
	"a new file, exchanged out": func(t *testing.T, m *mounted) []string {
		writeSecret(t, m, "c/new")
		must(t, unix.Renameat2(unix.AT_FDCWD, m.path("free/x"), unix.AT_FDCWD, m.path("c/new"), unix.RENAME_EXCHANGE))
		return []string{"free/x"}
	},
	"a new directory, exchanged out": func(t *testing.T, m *mounted) []string {
		must(t, unix.Mkdir(m.path("c/n"), 0o755))
		must(t, unix.Mkdir(m.path("n"), 0o755))
		writeSecret(t, m, "c/n/new")
		must(t, unix.Renameat2(unix.AT_FDCWD, m.path("n"), unix.AT_FDCWD, m.path("c/n"), unix.RENAME_EXCHANGE))
		return []string{"n/new"}
	},
	"a new file in a lower directory that moves": func(t *testing.T, m *mounted) []string {
		writeSecret(t, m, "c/sub/new")
		must(t, unix.Rename(m.path("c/sub"), m.path("sub")))
		must(t, unix.Rename(m.path("sub/new"), m.path("free/new")))
		return []string{"sub/f", "free/new"}
	},
	"a new directory": func(t *testing.T, m *mounted) []string {
		must(t, unix.Mkdir(m.path("c/n"), 0o755))
		must(t, unix.Mkdir(m.path("c/n/m"), 0o755))
		writeSecret(t, m, "c/n/a")
		writeSecret(t, m, "c/n/m/b")
		must(t, unix.Rename(m.path("c/n"), m.path("free/n")))
		return []string{"free/n/a", "free/n/m/b"}
	},
	"a new directory, file by file": func(t *testing.T, m *mounted) []string {
		must(t, unix.Mkdir(m.path("c/n"), 0o755))
		must(t, unix.Mkdir(m.path("c/n/m"), 0o755))
		writeSecret(t, m, "c/n/m/b")
		must(t, unix.Rename(m.path("c/n"), m.path("free/n")))
		must(t, unix.Rename(m.path("free/n/m"), m.path("m")))
		must(t, unix.Rename(m.path("m/b"), m.path("b")))
		must(t, unix.Link(m.path("b"), m.path("free/b")))
		return []string{"b", "free/b"}
	},
	"a new directory written to after it has moved": func(t *testing.T, m *mounted) []string {
		must(t, unix.Mkdir(m.path("c/n"), 0o755))
		must(t, unix.Rename(m.path("c/n"), m.path("n")))
		writeSecret(t, m, "n/late")
		must(t, unix.Rename(m.path("n/late"), m.path("late")))
		return []string{"late"}
	},
	"moved in and out again": func(t *testing.T, m *mounted) []string {
		writeSecret(t, m, "new")
		wantSame(t, "before it is moved in", readPath(t, m.path("new")), secretContent())
		must(t, unix.Rename(m.path("new"), m.path("c/new")))
		wantBlanked(t, m, "c/new")
		must(t, unix.Rename(m.path("c/new"), m.path("new")))
		return []string{"new"}
	},
	"a directory moved in and out again": func(t *testing.T, m *mounted) []string {
		must(t, unix.Mkdir(m.path("n"), 0o755))
		writeSecret(t, m, "n/a")
		must(t, unix.Rename(m.path("n"), m.path("c/n")))
		wantBlanked(t, m, "c/n/a")
		must(t, unix.Rename(m.path("c/n"), m.path("n")))
		return []string{"n/a"}
	},
	"linked in": func(t *testing.T, m *mounted) []string {
		writeSecret(t, m, "new")
		must(t, unix.Link(m.path("new"), m.path("c/new")))
		return []string{"c/new"}
	},
	"a hard-linked lower file": func(t *testing.T, m *mounted) []string {
		must(t, unix.Rename(m.path("c/hard"), m.path("free/h")))
		return []string{"free/h", "c/hard2"}
	},
	"a hard-linked lower file, both names": func(t *testing.T, m *mounted) []string {
		must(t, unix.Rename(m.path("c/hard2"), m.path("free/h")))
		must(t, unix.Unlink(m.path("c/hard")))
		return []string{"free/h"}
	},
	"copied up, then moved": func(t *testing.T, m *mounted) []string {
		must(t, unix.Chmod(m.path("c/f"), 0o600))
		must(t, unix.Rename(m.path("c/f"), m.path("f")))
		return []string{"f"}
	},
	"moved while it is open": func(t *testing.T, m *mounted) []string {
		f := openFD(t, m.path("c/f"), unix.O_RDONLY)
		must(t, unix.Rename(m.path("c/f"), m.path("f")))
		wantSame(t, "held", f.content(), blankedSecret())
		return []string{"f"}
	},
}

func TestPlaceSticks(t *testing.T) {
	for name, move := range placeMoves {
		for _, mode := range ioModes {
			t.Run(name+"/"+mode.name, func(t *testing.T) {
				m := placeMount(t, mode.change)
				where := move(t, m)
				wantBlanked(t, m, where...)
				closeUnder(m.mnt)
				m = m.again(mode.change)
				wantBlanked(t, m, where...)
				for _, w := range where { // and a copy of what is still in lower
					must(t, unix.Chmod(m.path(w), 0o640))
				}
				wantBlanked(t, m, where...)
				m = m.again(mode.change)
				wantBlanked(t, m, where...)
				if n := m.count.wrong.Load(); n != 0 {
					t.Errorf("%d wrong answers", n)
				}
			})
		}
	}
}

// The place that is written down is the mount's own: users neither see it nor
// take it away.
func TestPlaceIsNotTheUsers(t *testing.T) {
	m := placeMount(t, ioModes[0].change)
	must(t, unix.Rename(m.path("c/f"), m.path("f")))
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(m.path("f"), buf)
	must(t, err)
	if strings.Contains(string(buf[:n]), xattrPlace) || strings.Contains(string(buf[:n]), xattrCopied) {
		t.Errorf("listed: %q", buf[:n])
	}
	for _, attr := range []string{xattrPlace, xattrCopied} {
		if n, err := unix.Lgetxattr(m.path("f"), attr, buf); err == nil {
			t.Errorf("%s reads %q", attr, buf[:n])
		}
		if err := unix.Lremovexattr(m.path("f"), attr); err == nil {
			t.Errorf("%s is removed", attr)
		}
		if err := unix.Lsetxattr(m.path("f"), attr, []byte("/free"), 0); err == nil {
			t.Errorf("%s is set", attr)
		}
	}
	if n, err := unix.Lgetxattr(m.upper+"/f", xattrPlace, buf); err != nil || string(buf[:n]) != "/c/f" {
		t.Errorf("upper has %q, %v", buf[:max(n, 0)], err)
	}
	wantBlanked(t, m, "f")
}

// What the policy has no say about gets no place written on it.
func TestPlaceOfTheFree(t *testing.T) {
	m := placeMount(t, ioModes[0].change)
	must(t, unix.Rename(m.path("free/x"), m.path("x")))
	must(t, unix.Mkdir(m.path("free/n"), 0o755))
	must(t, unix.Rename(m.path("free/n"), m.path("n")))
	for _, n := range []string{"/x", "/n"} {
		if k, err := unix.Lgetxattr(m.upper+n, xattrPlace, make([]byte, 100)); err != unix.ENODATA {
			t.Errorf("%s has a place of %d bytes, %v", n, k, err)
		}
	}
}

// A file without a name keeps its place; also if the policy comes only when
// the name has gone.
func TestPlaceOfTheRemoved(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			m := placeMount(t, mode.change)
			must(t, m.SetPolicy(nil))
			writeSecret(t, m, "c/new")
			must(t, unix.Link(m.path("c/new"), m.path("c/new2")))
			var held []*testFD
			for _, n := range []string{"c/f", "c/new", "c/hard"} {
				held = append(held, openFD(t, m.path(n), unix.O_PATH))
			}
			for _, n := range []string{"c/f", "c/new", "c/new2", "c/hard", "c/hard2"} {
				must(t, unix.Unlink(m.path(n)))
			}
			must(t, m.SetPolicy(blankAt("/c")))
			for _, f := range held {
				got, err := tryRead(fmt.Sprintf("/proc/self/fd/%d", f.fd))
				must(t, err)
				wantSame(t, f.path, got, blankedSecret())
			}
		})
	}
}

// How places are put together.
func TestPlaceNames(t *testing.T) {
	for _, c := range [][3]string{{"/", "a", "/a"}, {"/a", "b", "/a/b"}, {"/a/b", "c", "/a/b/c"}} {
		if got := joinPlace(c[0], c[1]); got != c[2] {
			t.Errorf("%s and %s: %s", c[0], c[1], got)
		}
		if dir, name := splitPlace(c[2]); name != c[1] || dir != strings.TrimSuffix(c[0], "/") {
			t.Errorf("%s: %q, %q", c[2], dir, name)
		}
	}
	for k, want := range map[int]uint64{0: 1, 1: 2, 62: 1 << 62, 63: 0, 64: 0, 500: 0} {
		if got := layerBit(k); got != want {
			t.Errorf("layer %d: %x", k, got)
		}
	}
}
