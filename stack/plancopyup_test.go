// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// copyUps are the ways to have a file copied up; each gives back what the view
// has become.
var copyUps = map[string]func(t *testing.T, m *mounted, view string) (name, want string){
	"O_RDWR": func(t *testing.T, m *mounted, view string) (string, string) {
		w := openFD(t, m.path("f"), unix.O_RDWR)
		wantContent(t, "the writer", w, view)
		w.writeAt("WRITTEN", 7)
		return "f", view[:7] + "WRITTEN" + view[14:]
	},
	"O_WRONLY": func(t *testing.T, m *mounted, view string) (string, string) {
		openFD(t, m.path("f"), unix.O_WRONLY).writeAt("WRITTEN", 7)
		return "f", view[:7] + "WRITTEN" + view[14:]
	},
	"O_APPEND": func(t *testing.T, m *mounted, view string) (string, string) {
		w := openFD(t, m.path("f"), unix.O_WRONLY|unix.O_APPEND)
		_, err := unix.Write(w.fd, []byte("more"))
		must(t, err)
		return "f", view + "more"
	},
	"O_TRUNC": func(t *testing.T, m *mounted, view string) (string, string) {
		writePath(t, m.path("f"), "new")
		return "f", "new"
	},
	"O_TRUNC read only": func(t *testing.T, m *mounted, view string) (string, string) {
		openFD(t, m.path("f"), unix.O_RDONLY|unix.O_TRUNC).close()
		return "f", ""
	},
	"truncate": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Truncate(m.path("f"), 6000))
		return "f", view[:6000]
	},
	"truncate into the secret": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Truncate(m.path("f"), secretAt+5))
		return "f", view[:secretAt+5]
	},
	"grow": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Truncate(m.path("f"), 50000))
		return "f", view + strings.Repeat("\x00", 50000-len(view))
	},
	"chmod": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Chmod(m.path("f"), 0o640))
		return "f", view
	},
	"utimens": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.UtimesNano(m.path("f"), []unix.Timespec{{Sec: 5}, {Sec: 6}}))
		return "f", view
	},
	"setxattr": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Setxattr(m.path("f"), "user.x", []byte("1"), 0))
		return "f", view
	},
	"link": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Link(m.path("f"), m.path("d/g")))
		return "d/g", view
	},
	"rename": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Rename(m.path("f"), m.path("d/g")))
		return "d/g", view
	},
	"fchmod of a reader": func(t *testing.T, m *mounted, view string) (string, string) {
		must(t, unix.Fchmod(openFD(t, m.path("f"), unix.O_RDONLY).fd, 0o600))
		return "f", view
	},
	"mmap shared": func(t *testing.T, m *mounted, view string) (string, string) {
		w := openFD(t, m.path("f"), unix.O_RDWR)
		b := mapFile(t, w, 8192, true)
		copy(b[100:], "MAPPED")
		must(t, unix.Msync(b, unix.MS_SYNC))
		return "f", view[:100] + "MAPPED" + view[106:]
	},
}

// A copy-up copies what the plan shows. The secret reaches neither upper nor
// the work directory; readers of before go on; nothing is prepended twice.
func TestPlanMountedCopyUp(t *testing.T) {
	for how, do := range copyUps {
		t.Run(how, func(t *testing.T) {
			eachView(t, func(t *testing.T, m *mounted, view string) { planCopyUp(t, m, view, do) })
		})
	}
}

func planCopyUp(t *testing.T, m *mounted, view string, do func(*testing.T, *mounted, string) (string, string)) {
	ino := statOf(t, m.path("f")).Ino
	old := openFD(t, m.path("f"), unix.O_RDONLY)
	wantContent(t, "the old reader at first", old, view)
	name, want := do(t, m, view)
	wantSame(t, "the file", readPath(t, m.path(name)), want)
	st := statOf(t, m.path(name))
	if st.Size != int64(len(want)) || st.Ino != ino {
		t.Errorf("size %d, want %d; inode %d, was %d", st.Size, len(want), st.Ino, ino)
	}
	if got := old.content(); got != view && got != want {
		t.Errorf("the old reader sees neither the old view nor the new: %d bytes", len(got))
	}
	b, err := os.ReadFile(m.upper + "/" + name)
	must(t, err)
	if !strings.Contains(view, secret) {
		noSecret(t, "after the copy-up", m.upper, m.work)
	} else if string(b) != want {
		t.Errorf("upper holds %d bytes, want %d", len(b), len(want))
	}
	if n := m.count.wrong.Load(); n != 0 {
		t.Errorf("%d wrong answers", n)
	}
	closeUnder(m.mnt)
	m.waitReleased(name)
	wantSame(t, "the file once all have closed it", readPath(t, m.path(name)), want)
}

// wantSame compares long contents without printing them.
func wantSame(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s: %d bytes, want %d, different from byte %d on: %.40q, want %.40q", what, len(got), len(want), i, got[i:], want[i:])
}
