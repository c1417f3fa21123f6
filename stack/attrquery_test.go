// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attr shows other times and fewer mode bits, and nothing else.
func TestAttrAnswers(t *testing.T) {
	var mu sync.Mutex
	var answer AttrAnswer
	var asked AttrQuery
	p := &rulePolicy{scope: func(place string) Scope { return Scope{Attrs: place == "/f" || place == "/d"} },
		attr: func(q AttrQuery) AttrAnswer {
			mu.Lock()
			defer mu.Unlock()
			if q.Place == "/f" {
				asked = q
			}
			return answer
		}}
	m := mountOver(t, func(c *Config) { c.Policy = p }, layer(t, "file f 0123456789", "file d/x 1", "file other 1"))
	must(t, unix.Chmod(m.lowers[0]+"/f", 0o4755))
	was := statOf(t, m.lowers[0]+"/f")
	for _, c := range []struct {
		a     AttrAnswer
		err   syscall.Errno
		mode  uint32
		mtime int64
	}{
		{AttrAnswer{}, 0, 0o4755, was.Mtim.Nano()},
		{AttrAnswer{SetMtime: true}, 0, 0o4755, 0},
		{AttrAnswer{SetMtime: true, Mtime: 1_500_000_000_123_456_789}, 0, 0o4755, 1_500_000_000_123_456_789},
		{AttrAnswer{SetMtime: true, Mtime: -1_500_000_000}, 0, 0o4755, -1_500_000_000},
		{AttrAnswer{Mtime: 5}, 0, 0o4755, was.Mtim.Nano()},
		{AttrAnswer{ClearMode: 0o4022}, 0, 0o755, was.Mtim.Nano()},
		{AttrAnswer{ClearMode: 0o7777}, 0, 0, was.Mtim.Nano()},
		{AttrAnswer{ClearMode: 0o10000}, unix.EIO, 0, 0},
		{AttrAnswer{ClearMode: unix.S_IFREG}, unix.EIO, 0, 0},
		{AttrAnswer{ClearMode: 1 << 31}, unix.EIO, 0, 0},
		{AttrAnswer{Errno: unix.EACCES}, unix.EACCES, 0, 0},
		{AttrAnswer{Errno: 600}, unix.EIO, 0, 0},
	} {
		mu.Lock()
		answer = c.a
		mu.Unlock()
		m.RefreshPolicy()
		var st unix.Stat_t
		err := unix.Stat(m.path("f"), &st)
		wantErrno(t, fmt.Sprintf("%+v", c.a), err, c.err)
		if err != nil {
			continue
		}
		if st.Mode != unix.S_IFREG|c.mode || st.Mtim.Nano() != c.mtime || st.Size != 10 || st.Ino != was.Ino {
			t.Errorf("%+v: mode %o, want %o; mtime %d, want %d; size %d", c.a, st.Mode, c.mode, st.Mtim.Nano(), c.mtime, st.Size)
		}
	}
	mu.Lock()
	if asked.Layer != 1 || asked.Mode != was.Mode || asked.Size != 10 || asked.Mtime != was.Mtim.Nano() || asked.Ino == 0 {
		t.Errorf("asked %+v", asked)
	}
	mu.Unlock()
	if n := m.count.wrong.Load(); n == 0 {
		t.Error("wrong answers are not counted")
	}
	mu.Lock()
	answer = AttrAnswer{ClearMode: 0o055}
	mu.Unlock()
	m.RefreshPolicy()
	if st := statOf(t, m.path("d")); st.Mode&0o777 != 0o700 {
		t.Errorf("a directory: mode %o", st.Mode)
	}
	if st := statOf(t, m.path("other")); st.Mode&0o777 != 0o644 {
		t.Errorf("another file: mode %o", st.Mode)
	}
}

// ioctlAt is ioctl with a buffer.
func ioctlAt(fd int, cmd uint, b []byte) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&b[0])))
	if e != 0 {
		return e
	}
	return nil
}
