// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fileByUser blanks the secret for all but A.
func fileByUser() *rulePolicy {
	return byUser(nil, func(q FileQuery) FileAnswer {
		if q.Caller.UID == userA || q.Name != "f" {
			return FileAnswer{}
		}
		return FileAnswer{Plan: blankPlan(q.Size, secretRanges())}
	})
}

// Two users read one file by two plans at the same time: no bytes cross,
// neither by descriptors nor by the kernel's pages.
func TestFilesByCaller(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m := secretMount(t, fileByUser(), mode)
		a, b := m.asUser(userA), m.asUser(userB)
		f := m.path("f")
		var fa, fb *testFD
		ino := statOf(t, f).Ino
		for range 5 {
			a.do(func() { fa = openFD(t, f, unix.O_RDONLY) })
			wantSame(t, "A's descriptor", fa.content(), secretContent())
			b.do(func() { fb = openFD(t, f, unix.O_RDONLY) })
			mapped := mapFile(t, fb, len(secretContent()), false)
			for range 3 {
				wantSame(t, "A's descriptor", fa.content(), secretContent())
				wantSame(t, "B's descriptor", fb.content(), blankedSecret())
				a.want(f, secretContent())
				b.want(f, blankedSecret())
				must(t, unix.Madvise(mapped, unix.MADV_POPULATE_READ))
				wantSame(t, "B's mapping", string(mapped), blankedSecret())
			}
			if st := statOf(t, f); st.Ino != ino {
				t.Errorf("inode %d, was %d", st.Ino, ino)
			}
			fb.release()
			a.want(f, secretContent())
			fa.release()
			b.want(f, blankedSecret())
		}
		must(t, unix.Chmod(f, 0o644)) // asked for nobody
		noSecret(t, "after a copy-up", m.upper, m.work)
		if n := m.count.wrong.Load(); n != 0 {
			t.Errorf("%d wrong answers", n)
		}
	})
}

// All at once: each user has a node of his own, so that nobody is told ESTALE.
func TestFilesByCallerAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, mode func(*Config)) {
		m := secretMount(t, fileByUser(), mode)
		until := time.Now().Add(500 * time.Millisecond)
		var wg sync.WaitGroup
		for _, uid := range []uint32{userA, userB, userA, userB} {
			u := m.asUser(uid)
			want := secretContent()
			if uid == userB {
				want = blankedSecret()
			}
			wg.Go(func() {
				u.do(func() {
					for n := 0; n < 5 || time.Now().Before(until); n++ {
						got, err := tryRead(m.path("f"))
						if err != nil || got != want {
							t.Errorf("user %d: %v, the bytes are right: %v", uid, err, got == want)
							return
						}
					}
				})
			})
		}
		m.within("the users", wg.Wait)
	})
}

// Callers who saw the same share a node. When they are to see different
// things, none of them must see the other's.
func TestFilesByCallerComeApart(t *testing.T) {
	for _, how := range []string{"SetPolicy", "an epoch", "another open"} {
		for _, order := range [][]uint32{{userA, userB}, {userB, userA}} {
			t.Run(fmt.Sprintf("%s/%v", how, order), func(t *testing.T) {
				var apart atomic.Bool
				p := byUser(nil, func(q FileQuery) FileAnswer {
					if q.Name != "f" || apart.Load() && q.Caller.UID == userA {
						return FileAnswer{}
					}
					return FileAnswer{Plan: blankPlan(q.Size, secretRanges())}
				})
				m := secretMount(t, p, nil)
				users := map[uint32]*user{userA: m.asUser(userA), userB: m.asUser(userB)}
				held := map[uint32]*testFD{}
				for _, uid := range order {
					users[uid].do(func() { held[uid] = openFD(t, m.path("f"), unix.O_RDONLY) })
					wantSame(t, "at first", held[uid].content(), blankedSecret())
				}
				apart.Store(true)
				switch how {
				case "SetPolicy":
					must(t, m.SetPolicy(fileByUser()))
				case "an epoch":
					p.epoch.Add(1)
					time.Sleep(4 * policyPoll)
				case "another open":
					for _, uid := range []uint32{order[1], order[0]} {
						_, _ = users[uid].read(m.path("f"))
					}
				}
				if got, err := held[userB].tryContent(); strings.Contains(got, secret) || err != nil && err != unix.ESTALE {
					t.Errorf("B's descriptor: %v; it shows the secret: %v", err, strings.Contains(got, secret))
				}
				users[userB].want(m.path("f"), blankedSecret())
				users[userA].want(m.path("f"), secretContent())
				if got, err := held[userB].tryContent(); strings.Contains(got, secret) || err != nil && err != unix.ESTALE {
					t.Errorf("B's descriptor in the end: %v; it shows the secret: %v", err, strings.Contains(got, secret))
				}
			})
		}
	}
}

// A size that depends on who asks is a wrong answer.
func TestFilesByCallerSize(t *testing.T) {
	m := secretMount(t, byUser(nil, func(q FileQuery) FileAnswer {
		return FileAnswer{Plan: prependPlan(q.Size, []byte("x"))}
	}), nil)
	_, err := tryRead(m.path("f"))
	wantErrno(t, "another size", err, unix.EIO)
	if m.count.wrong.Load() == 0 {
		t.Error("not counted")
	}
}
