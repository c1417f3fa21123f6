// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A damager damages the journal of a mount that has ended, over and over.
type damager struct {
	*union
	*rand.Rand
	want    treeDump // what the mount showed
	saved   string   // copies of upper and work
	refused int
}

var journalFiles = []string{"journal.db", "journal.log", "journal.alt"}

// newDamager makes a mount with a history of removals and renames, and ends
// it: in order, or by a kill. What was done before the kill is synced, but for
// a last operation if torn.
func newDamager(t *testing.T, kill bool) *damager {
	requirePlyfs(t, "a journal")
	seed := time.Now().UnixNano() % 1_000_000_000
	if e := os.Getenv("PLYFS_SEED"); e != "" && e != "random" {
		seed = int64(mustAtoi(t, e))
	}
	t.Logf("PLYFS_SEED=%d", seed)
	var lower []string
	for i := range 60 {
		lower = append(lower, fmt.Sprintf("dir/gone%02d=lower", i), fmt.Sprintf("dir/kept%02d=lower", i))
	}
	lower = append(lower, "d1/x=1", "d1/sub/y=2", "d2/z=3", "again/old=4", "h1=linked", "h2 => h1", "h3 => h1", "tree/a/b/c=5", "f=6", "g=7")
	// Whole copies, for upper is copied to and fro by cp, which makes bytes of holes.
	u := newMount(t, mountOpts{lowers: [][]string{lower}, options: []string{"copyup=whole"}})
	for i := range 60 {
		must(t, os.Remove(u.path(fmt.Sprintf("dir/gone%02d", i))))
		if i == 30 {
			must(t, u.rename2("d1", "moved", 0))
			must(t, os.RemoveAll(u.path("again")))
			must(t, os.Mkdir(u.path("again"), 0o755))
			must(t, os.WriteFile(u.path("h2"), []byte("changed"), 0o644))
			must(t, os.Remove(u.path("h3")))
			u.remount()
		}
	}
	must(t, u.rename2("f", "g", 0))
	must(t, u.rename2("d2", "moved/d2", 0))
	must(t, os.RemoveAll(u.path("tree")))
	must(t, syncOf(u.path()))
	d := &damager{union: u, Rand: rand.New(rand.NewPCG(uint64(seed), 1)), want: mustDump(t, u.mp, dumpOptions{})}
	if kill {
		u.kill9()
		must(t, unix.Unmount(u.mp, unix.MNT_DETACH))
		u.mounted = false
	} else {
		u.unmount()
	}
	d.saved = filepath.Join(tempDir(t), "saved")
	must(t, os.Mkdir(d.saved, 0o755))
	run(t, "", "cp", "-a", u.upper, u.work, d.saved)
	return d
}

// restore brings upper and work back to what they were.
func (d *damager) restore() {
	d.Helper()
	// The two directories themselves stay: the journal knows them by their
	// inode numbers.
	for _, dir := range []string{d.upper, d.work} {
		for _, name := range names(d, dir) {
			must(d, os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	run(d, "", "cp", "-a", filepath.Join(d.saved, "upper"), filepath.Join(d.saved, "work"), filepath.Dir(d.upper))
}

// journal is the path of a file of the journal.
func (d *damager) journal(name string) string { return filepath.Join(d.work, "plyfs", name) }

// examine mounts: it is refused with a reason and a mend, and nothing is
// changed, or it shows just what was there.
func (d *damager) examine(what string) {
	d.Helper()
	out, err := plyfs("mount", "-o", d.optionString(), d.mp)
	if err != nil {
		d.refused++
		if !strings.Contains(out, "journal") || !strings.Contains(out, ";") || strings.Count(out, "\n") != 1 || !strings.Contains(err.Error(), "exit status 5") {
			d.Errorf("%s: refused without an explanation: %v, %s", what, err, out)
		}
		return
	}
	d.mounted = true
	d.pid = d.status().PID
	d.baseFDs = regularFDs(d.pid)
	if diff := diffTrees(d.want, mustDump(d, d.mp, dumpOptions{}), nil); len(diff) > 0 {
		d.Errorf("%s: mounted, and shows another tree:\n  %s", what, strings.Join(diff[:min(len(diff), 10)], "\n  "))
	}
	d.unmount()
}

// TestJournalDamage damages the journal under whole mounts: after an orderly
// end, and after a kill, when its logs hold records.
func TestJournalDamage(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(map[bool]string{false: "unmounted", true: "killed"}[kill], func(t *testing.T) {
			d := newDamager(t, kill)
			for _, name := range journalFiles {
				b := []byte(readFile(d.journal(name)))
				used := len(strings.TrimRight(string(b), "\x00"))
				for _, cut := range d.cuts(len(b), used) {
					d.restore()
					must(t, os.Truncate(d.journal(name), cut))
					d.examine(fmt.Sprintf("%s cut to %d of %d bytes (%d used)", name, cut, len(b), used))
				}
				for range 15 * longer(t, "PLYFS_DAMAGES") {
					if used == 0 {
						break
					}
					d.restore()
					at, bit := d.IntN(used), d.IntN(8)
					c := append([]byte(nil), b...)
					c[at] ^= 1 << bit
					must(t, os.WriteFile(d.journal(name), c, 0o600))
					d.examine(fmt.Sprintf("%s with bit %d of byte %d flipped", name, bit, at))
				}
				d.restore()
				must(t, os.Remove(d.journal(name)))
				d.examine(name + " removed")
				if t.Failed() {
					return
				}
			}
			t.Logf("%d refused", d.refused)
			if d.refused < 10 {
				t.Error("hardly any damage was noticed")
			}
			d.restore()
			d.refused = 0
			d.examine("no damage")
			if d.refused > 0 {
				t.Error("refused although nothing is damaged")
			}
		})
	}
}

// cuts are lengths to cut a file to.
func (d *damager) cuts(size, used int) (cuts []int64) {
	seen := map[int]bool{}
	for _, n := range []int{0, 1, 100, 512, 4096, 8192, 12288, used / 2, used - 1, used - 41, used, size - 4096, size - 1} {
		if n >= 0 && n < size && !seen[n] {
			seen[n] = true
			cuts = append(cuts, int64(n))
		}
	}
	for range 8 {
		if used > 0 {
			cuts = append(cuts, int64(d.IntN(used)))
		}
	}
	return cuts
}
