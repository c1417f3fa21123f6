// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func newListing(names ...string) *listing {
	l := &listing{next: firstCookie}
	for _, n := range names {
		l.add(n, 1, unix.DT_REG)
	}
	return l
}

func (l *listing) shown() (names []string) {
	for _, e := range l.ents {
		if !e.dead {
			names = append(names, e.name)
		}
	}
	return names
}

func (l *listing) cookie(name string) uint64 {
	if i, ok := l.names()[name]; ok {
		return l.ents[i].cookie
	}
	return 0
}

func TestListingAddRemove(t *testing.T) {
	l := newListing("a", "b", "c")
	if l.live != 3 || l.absent("b") || !l.absent("x") {
		t.Fatalf("%+v", l)
	}
	b := l.cookie("b")
	l.add("b", 9, unix.DT_DIR)
	if l.live != 3 || l.cookie("b") != b || l.ents[1].ino != 9 || l.ents[1].typ != unix.DT_DIR {
		t.Errorf("adding what is there moved it: %+v", l.ents)
	}
	l.remove("b")
	l.remove("b")
	l.remove("x")
	if got := l.shown(); l.live != 2 || !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("after removing: %v, %d live", got, l.live)
	}
	l.add("b", 1, unix.DT_REG)
	if again := l.cookie("b"); again <= l.cookie("c") || again == b {
		t.Errorf("b had cookie %d and was given %d", b, again)
	}
}

func TestListingAfter(t *testing.T) {
	l := newListing("a", "b", "c")
	for cookie, want := range map[uint64]int{0: 0, 2: 0, 3: 1, 4: 2, 5: 3, 6: 3, 1 << 62: 3} {
		if got := l.after(cookie); got != want {
			t.Errorf("after(%d) = %d, want %d", cookie, got, want)
		}
	}
	if got := newListing().after(0); got != 0 {
		t.Errorf("after in an empty list: %d", got)
	}
}

func TestListingCompactKeepsCookies(t *testing.T) {
	l := newListing()
	for i := range 5000 {
		l.add(fmt.Sprint(i), 1, unix.DT_REG)
	}
	keep := l.cookie("4321")
	for i := range 5000 {
		if i != 4321 && i != 17 {
			l.remove(fmt.Sprint(i))
		}
	}
	if len(l.ents) > 2500 {
		t.Errorf("%d entries are kept for %d live ones", len(l.ents), l.live)
	}
	if got := l.cookie("4321"); got != keep {
		t.Errorf("the cookie was %d and is %d", keep, got)
	}
	if l.absent("17") || !l.absent("18") {
		t.Error("the names were lost in the compaction")
	}
	if i := l.after(keep - 1); l.ents[i].name != "4321" {
		t.Errorf("reading on before 4321 gives %q", l.ents[i].name)
	}
}

// listReader reads a listing a few names at a time, as readdir does.
type listReader struct {
	cookie uint64
	must   map[string]bool // there since the reader began
	may    map[string]bool // there at some time since
	seen   map[string]int
}

func newListReader(l *listing) *listReader {
	r := &listReader{must: map[string]bool{}, may: map[string]bool{}, seen: map[string]int{}}
	for _, n := range l.shown() {
		r.must[n], r.may[n] = true, true
	}
	return r
}

func (r *listReader) read(l *listing, max int) (end bool) {
	for i := l.after(r.cookie); i < len(l.ents); i++ {
		if l.ents[i].dead {
			continue
		}
		if max--; max < 0 {
			return false
		}
		r.seen[l.ents[i].name]++
		r.cookie = l.ents[i].cookie
	}
	return true
}

// Whatever is added and removed meanwhile, each name that was there all the
// time is read once, and none that never was.
func TestListingReadersModel(t *testing.T) {
	var churned []string
	for i := range 1200 {
		churned = append(churned, fmt.Sprint("churn", i))
	}
	rapid.Check(t, func(t *rapid.T) {
		l := newListing()
		model := map[string]bool{}
		var readers []*listReader
		lastCookie := uint64(0)
		name := rapid.OneOf(rapid.StringMatching(`[a-e]`), rapid.StringMatching(`[a-z]{2}`))
		add := func(n string) {
			l.add(n, 1, unix.DT_REG)
			if !model[n] {
				if c := l.cookie(n); c <= lastCookie {
					t.Fatalf("%s was given cookie %d after %d", n, c, lastCookie)
				} else {
					lastCookie = c
				}
			}
			model[n] = true
			for _, r := range readers {
				r.may[n] = true
			}
		}
		remove := func(n string) {
			l.remove(n)
			delete(model, n)
			for _, r := range readers {
				delete(r.must, n)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add":    func(t *rapid.T) { add(name.Draw(t, "name")) },
			"remove": func(t *rapid.T) { remove(name.Draw(t, "name")) },
			"churn": func(t *rapid.T) {
				many := rapid.IntRange(600, 1200).Draw(t, "many")
				for i := range many {
					add(churned[i])
				}
				for i := range many {
					remove(churned[i])
				}
			},
			"open": func(t *rapid.T) {
				if len(readers) < 4 {
					readers = append(readers, newListReader(l))
				}
			},
			"read": func(t *rapid.T) {
				if len(readers) == 0 {
					return
				}
				i := rapid.IntRange(0, len(readers)-1).Draw(t, "reader")
				r := readers[i]
				if !r.read(l, rapid.IntRange(1, 20).Draw(t, "max")) {
					return
				}
				for n := range r.must {
					if r.seen[n] != 1 {
						t.Fatalf("%s was there all the time and was read %d times", n, r.seen[n])
					}
				}
				for n := range r.seen {
					if !r.may[n] {
						t.Fatalf("%s was read and was never there", n)
					}
				}
				readers = slices.Delete(readers, i, i+1)
			},
			"": func(t *rapid.T) {
				if l.live != len(model) || len(l.shown()) != len(model) {
					t.Fatalf("%d live, %d shown, %d in the model", l.live, len(l.shown()), len(model))
				}
				for n := range model {
					if l.absent(n) {
						t.Fatalf("%s is absent", n)
					}
				}
				if !slices.IsSortedFunc(l.ents, func(a, b listEnt) int { return int(a.cookie) - int(b.cookie) }) {
					t.Fatal("cookies are not ascending")
				}
			},
		})
	})
}

// A name that a rename replaces was there all the time: who reads on after it
// must not meet it again.
func TestReplacedNameKeepsItsCookie(t *testing.T) {
	m := mountOver(t, nil, layer(t, "file a 1", "file b 2"))
	wantNames(t, m.mnt, "a", "b")
	writePath(t, m.path("new"), "3")
	m.root.mu.Lock()
	before := m.root.dir.list.cookie("a")
	m.root.mu.Unlock()
	must(t, unix.Rename(m.path("new"), m.path("a")))
	m.root.mu.Lock()
	after := m.root.dir.list.cookie("a")
	m.root.mu.Unlock()
	if after != before {
		t.Errorf("the cookie of a replaced name was %d and is %d: a reader under way sees the name twice", before, after)
	}
}

// 3,000 names, changed while they are read in small pieces.
func TestReaddirWhileChanging(t *testing.T) {
	low := layer(t)
	for i := range 1500 {
		addEntry(t, low, []string{"file", fmt.Sprintf("low%04d", i)})
	}
	m := mountOver(t, nil, low)
	for i := range 500 {
		writePath(t, m.path(fmt.Sprintf("up%04d", i)), "")
	}
	d := openFD(t, m.mnt, unix.O_RDONLY|unix.O_DIRECTORY)
	seen := map[string]int{}
	for round := 0; ; round++ {
		some := d.getdents(2048)
		if len(some) == 0 {
			break
		}
		for _, e := range some {
			seen[e.name]++
		}
		if round < 20 {
			must(t, unix.Unlink(m.path(fmt.Sprintf("low%04d", round))))
			must(t, unix.Unlink(m.path(fmt.Sprintf("up%04d", 499-round))))
			writePath(t, m.path(fmt.Sprintf("new%04d", round)), "")
		}
	}
	for i := 20; i < 1500; i++ {
		if n := fmt.Sprintf("low%04d", i); seen[n] != 1 {
			t.Fatalf("%s was listed %d times", n, seen[n])
		}
	}
	for i := range 480 {
		if n := fmt.Sprintf("up%04d", i); seen[n] != 1 {
			t.Fatalf("%s was listed %d times", n, seen[n])
		}
	}
	if got := len(names(t, m.mnt)); got != 1500+500-40+20 {
		t.Errorf("%d names at the end", got)
	}
}
