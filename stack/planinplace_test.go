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

// upperSecret makes a file with a secret in upper, before the mount.
func upperSecret(t *testing.T, p Policy, change func(*Config)) *mounted {
	t.Helper()
	return mountOver(t, func(c *Config) {
		must(t, os.WriteFile(c.Upper+"/f", []byte(secretContent()), 0o644))
		c.Policy = p
		change(c)
	}, layer(t, "file other 1"))
}

// A file in upper is blanked where it lies; writes go through to it.
func TestPlanInPlaceMounted(t *testing.T) {
	for _, mode := range ioModes {
		t.Run(mode.name, func(t *testing.T) {
			m := upperSecret(t, blankAt("/f"), mode.change)
			view := blankedSecret()
			r := openFD(t, m.path("f"), unix.O_RDONLY)
			w := openFD(t, m.path("f"), unix.O_RDWR)
			for name, read := range waysToRead {
				got, err := read(t, m, r, len(view))
				must(t, err)
				wantSame(t, name, got, view)
			}
			w.writeAt("WRITTEN", 100)
			view = view[:100] + "WRITTEN" + view[107:]
			wantSame(t, "after a write", w.content(), view)
			w.writeAt("WRITTEN", secretAt) // to what is blanked: it stays blank
			wantSame(t, "after a write to what is blanked", readPath(t, m.path("f")), view)
			_, err := unix.Write(openFD(t, m.path("f"), unix.O_WRONLY|unix.O_APPEND).fd, []byte("more"))
			must(t, err)
			view += "more"
			wantSame(t, "after an append, an old reader", r.content(), view)
			wantSame(t, "after an append", readPath(t, m.path("f")), view)
			wantNoHoles(t, r, int64(len(view)))
			if err := unix.Fallocate(w.fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096); err != unix.EOPNOTSUPP {
				t.Errorf("collapse: %v", err)
			}
			if err := unix.Fallocate(w.fd, unix.FALLOC_FL_INSERT_RANGE, 0, 4096); err != unix.EOPNOTSUPP {
				t.Errorf("insert: %v", err)
			}
			wantSame(t, "after refused shifts", readPath(t, m.path("f")), view)
			for _, size := range []int64{30000, secretAt + 5, 100, 0, 9000} {
				must(t, unix.Ftruncate(w.fd, size))
				view = view[:min(int64(len(view)), size)] + strings.Repeat("\x00", int(max(0, size-int64(len(view)))))
				wantSame(t, fmt.Sprintf("cut to %d, a reader", size), r.content(), view)
				wantSame(t, fmt.Sprintf("cut to %d", size), readPath(t, m.path("f")), view)
			}
			if n := m.count.wrong.Load(); n != 0 {
				t.Errorf("%d wrong answers", n)
			}
			b, err := os.ReadFile(m.upper + "/f")
			must(t, err)
			wantSame(t, "upper", string(b), view)
		})
	}
}

// Anything but blanking of a file in upper is a wrong answer.
func TestPlanInPlaceRefused(t *testing.T) {
	part := tempFile(t, secretContent())
	n := int64(len(secretContent()))
	for name, plan := range map[string]*Plan{
		"prepend":  prependPlan(n, []byte("x")),
		"shorter":  blankPlan(n-1, nil),
		"part":     {Size: n, Parts: []Part{{FD: part}}, Window: planWindows(n, Window{Extents: []Extent{extFrom(PartBacking(0), 0, n, 0)}}).Window},
		"layer":    planWindows(n, Window{Extents: []Extent{extFrom(LayerBacking(1), 0, n, 0)}}),
		"moved":    planWindows(n, Window{Extents: []Extent{extFrom(Self, 0, n-1, 1), extZero(n-1, 1)}}),
		"inline":   planWindows(n, Window{Data: []byte("x"), Extents: []Extent{extInline(0, 1, 0), extSelf(1, n-1)}}),
		"too long": planWindows(n, Window{Extents: []Extent{extSelf(0, n+1)}}),
	} {
		t.Run(name, func(t *testing.T) {
			p := &rulePolicy{file: func(q FileQuery) FileAnswer {
				if q.Name != "f" {
					return FileAnswer{}
				}
				return FileAnswer{Plan: plan}
			}}
			m := upperSecret(t, p, ioModes[0].change)
			for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
				before := m.count.wrong.Load()
				_, err := unix.Open(m.path("f"), flags, 0)
				wantErrno(t, "open", err, unix.EIO)
				if m.count.wrong.Load() == before {
					t.Error("not counted")
				}
			}
			if st := statOf(t, m.path("f")); st.Size != n {
				t.Errorf("size %d", st.Size)
			}
			m.unmount()
			p.wantEnded(t, "the policy")
		})
	}
}
