// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crashChild names the variable that makes the test binary a writer to be killed.
const crashChild = "PLYFS_JOURNAL_CRASH_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashChild); dir != "" {
		crashWriter(dir)
	}
	os.Exit(m.Run())
}

// crashWriter applies numbered records for ever and acknowledges each on stdout.
func crashWriter(dir string) {
	j, err := Open(dir, testMeta(), Options{FoldInterval: time.Millisecond, FoldBytes: 20 << 10})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if err := j.Apply(Cover(1, strconv.Itoa(i)), Cover(2, strconv.Itoa(i))); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Stdout.WriteString(strconv.Itoa(i) + "\n")
	}
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	for round := range 6 {
		dir := filepath.Join(t.TempDir(), "plyfs")
		cmd := exec.Command("/proc/self/exe", "-test.run=^$")
		cmd.Env = append(os.Environ(), crashChild+"="+dir)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		patience := time.Minute
		if round == 0 {
			patience = time.Duration(rand.IntN(100)) * time.Millisecond // perhaps before it begins
		}
		timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		acked := -1
		for s := bufio.NewScanner(out); s.Scan(); {
			// The kill may cut a number on its way; the number before it counts then.
			if n, err := strconv.Atoi(s.Text()); err == nil && n == acked+1 {
				if acked = n; n == 0 {
					timer.Reset(time.Duration(rand.IntN(250)) * time.Millisecond)
				}
			}
		}
		timer.Stop()
		cmd.Wait() //nolint:errcheck // it was killed
		checkSurvivors(t, dir, acked)
	}
}

// checkSurvivors wants the records up to acked and at most one more, alike in both
// directories.
func checkSurvivors(t *testing.T, dir string, acked int) {
	t.Helper()
	if _, err := os.Stat(dbPath(dir)); errors.Is(err, os.ErrNotExist) && acked < 0 {
		return // killed before it had made one
	}
	j := open(t, dir, quiet)
	one, err := j.LoadDir(1)
	must(t, err)
	two, err := j.LoadDir(2)
	must(t, err)
	t.Logf("%d acknowledged, %d there", acked+1, len(one))
	if len(one) != len(two) || (len(one) != acked+1 && len(one) != acked+2) {
		t.Fatalf("%d records acknowledged; %d and %d there", acked+1, len(one), len(two))
	}
	for i := range len(one) {
		if _, ok := one[strconv.Itoa(i)]; !ok {
			t.Fatalf("record %d of %d is missing", i, acked+1)
		}
	}
	must(t, j.Close())
	if p, err := Check(dir); err != nil || len(p) != 0 {
		t.Fatalf("Check: %v, %v", p, err)
	}
}

// TestCrashAtEveryStepOfAFold copies the files between the steps of a fold.
func TestCrashAtEveryStepOfAFold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	must(t, j.Apply(Cover(1, "folded")))
	must(t, j.fold())
	must(t, j.Apply(Cover(1, "frozen"), Uncover(1, "folded")))
	crashes := make(map[string]string)
	want := make(map[string][]string)
	step := func(name string, names ...string) {
		crashes[name], want[name] = copyDir(t, dir), names
	}
	step("before", "frozen")
	next, d, err := j.freeze()
	must(t, err)
	step("frozen", "frozen")
	must(t, j.Apply(Cover(1, "meanwhile")))
	step("frozen and written", "frozen", "meanwhile")
	must(t, j.commit(d, &next))
	step("committed", "frozen", "meanwhile")
	must(t, j.Apply(Uncover(1, "frozen")))
	step("committed and written", "meanwhile")
	j.state = next
	must(t, j.wipeSpare())
	step("truncated", "meanwhile")
	j.thaw(nil)
	step("marked", "meanwhile")
	must(t, j.Apply(Cover(1, "after")))
	must(t, j.fold())
	step("next fold", "meanwhile", "after")
	for name, dir := range crashes {
		t.Run(name, func(t *testing.T) {
			s, err := OpenReadOnly(dir)
			must(t, err)
			wantNames(t, s, 1, want[name]...)
			must(t, s.Close())
			for range 2 {
				j := open(t, dir, quiet)
				wantNames(t, j, 1, want[name]...)
				must(t, j.Close())
			}
		})
	}
}

// TestCrashAtOpen copies the files between the steps of a replay at Open.
func TestCrashAtOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	must(t, j.Apply(Cover(1, "a")))
	old := copyDir(t, dir)
	must(t, j.Close())
	// The commit of an Open is done, the logs of the epoch before are still there.
	half := copyDir(t, old)
	j = open(t, half, quiet)
	must(t, j.Apply(Cover(1, "b")))
	must(t, j.Close())
	j = open(t, half, quiet)
	mixed := copyDir(t, half)
	must(t, os.WriteFile(filepath.Join(mixed, logName), readFiles(t, old)[logName], 0o600))
	must(t, j.Close())
	wantNames(t, open(t, mixed, quiet), 1, "a", "b")
}

// TestTornTail cuts the log at every byte of its last frames.
func TestTornTail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	var ends []int64
	for i := range 4 {
		must(t, j.Apply(Cover(1, fmt.Sprint(i)), Cover(2, strings.Repeat("x", 10*(i+1)))))
		ends = append(ends, j.active.size)
	}
	log := filepath.Base(j.active.path())
	crashed := copyDir(t, dir)
	files := readFiles(t, crashed)
	for cut := ends[1]; cut <= ends[3]; cut++ {
		restore(t, crashed, files)
		must(t, os.Truncate(filepath.Join(crashed, log), cut))
		whole := 2
		for whole < 4 && ends[whole] <= cut {
			whole++
		}
		checkPrefix(t, crashed, whole, fmt.Sprintf("cut at %d", cut))
	}
	for at := ends[2]; at < ends[3]; at++ { // and garbage in the last frame
		restore(t, crashed, files)
		b := append([]byte(nil), files[log]...)
		b[at] ^= 0x10
		must(t, os.WriteFile(filepath.Join(crashed, log), b, 0o600))
		checkPrefix(t, crashed, 3, fmt.Sprintf("flipped at %d", at))
	}
}

func restore(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	_ = unix.Removexattr(dir, witnessAttr) // of a later opening
	for name, b := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
}

// checkPrefix wants the first n frames of TestTornTail, no half of one.
func checkPrefix(t *testing.T, dir string, n int, what string) {
	t.Helper()
	s, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	one, err := s.LoadDir(1)
	must(t, err)
	two, err := s.LoadDir(2)
	must(t, err)
	if len(one) != n || len(two) != n {
		t.Fatalf("%s: %d and %d records, want %d", what, len(one), len(two), n)
	}
}

// TestPowerCut drops blocks of the log that were never synced, in any order, and
// wants a prefix that has all that was synced.
func TestPowerCut(t *testing.T) {
	const block = 512
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	const frames, synced = 120, 40
	var syncedSize int64
	for i := range frames {
		must(t, j.Apply(Cover(1, fmt.Sprintf("%04d", i)), Cover(2, fmt.Sprintf("%04d", i))))
		if i+1 == synced {
			must(t, j.Sync())
			syncedSize = j.active.size
		}
		if i == synced/2 {
			must(t, j.fold())
		}
	}
	// Frames after the sync say that what was synced is durable; those before do not,
	// but Sync came back, so both must hold.
	log := filepath.Base(j.active.path())
	crashed := copyDir(t, dir)
	files := readFiles(t, crashed)
	for range 150 {
		b := append([]byte(nil), files[log]...)
		b = b[:int(syncedSize)+rand.IntN(len(b)-int(syncedSize)+1)]
		// The first of them is the rest of the block that was synced half full.
		for at := int(syncedSize); at < len(b); at = (at/block + 1) * block {
			if rand.IntN(3) == 0 {
				clear(b[at:min((at/block+1)*block, len(b))])
			}
		}
		restore(t, crashed, files)
		must(t, os.WriteFile(filepath.Join(crashed, log), b, 0o600))
		jj, err := Open(crashed, testMeta(), quiet)
		must(t, err)
		one, err := jj.LoadDir(1)
		must(t, err)
		n := len(one)
		if _, ok := one[fmt.Sprintf("%04d", n-1)]; n < synced || !ok {
			t.Fatalf("%d records, not a prefix of at least %d", n, synced)
		}
		must(t, jj.Apply(Cover(3, "new")))
		must(t, jj.Close())
	}
}

func TestFrozenLogLostBehindTheActiveOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	must(t, j.Apply(Cover(1, "a")))
	must(t, j.Sync())
	kept := j.active.size
	must(t, j.Apply(Cover(1, "b")))
	_, _, err := j.freeze()
	must(t, err)
	must(t, j.Apply(Cover(1, "c")))
	// A power cut kept the unsynced frame of the new log but not that of the old one:
	// c without b would be no prefix.
	cut := copyDir(t, dir)
	must(t, os.Truncate(filepath.Join(cut, filepath.Base(j.spare.path())), kept))
	wantNames(t, open(t, cut, quiet), 1, "a")
	// Once a later frame says that b was durable, its loss is damage.
	must(t, j.Sync())
	must(t, j.Apply(Cover(1, "d")))
	cut = copyDir(t, dir)
	must(t, os.Truncate(filepath.Join(cut, filepath.Base(j.spare.path())), kept))
	if _, err := Open(cut, testMeta(), quiet); !errors.Is(err, ErrDamaged) {
		t.Fatalf("Open = %v, want ErrDamaged", err)
	}
}

func TestFailedSyncSticks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plyfs")
	j := open(t, dir, quiet)
	must(t, j.Apply(Cover(1, "a")))
	sync := fdatasync
	fdatasync = func(*logFile) error { return syscall.ENOSPC }
	err := j.Sync()
	fdatasync = sync
	if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "no space") {
		t.Fatalf("Sync = %v, want EIO with its cause", err)
	}
	_, idErr := j.NewDirID()
	for what, err := range map[string]error{"Sync": j.Sync(), "Apply": j.Apply(Cover(1, "b")), "fold": j.fold(), "NewDirID": idErr} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s after a failed sync: %v", what, err)
		}
	}
	if s := j.Stats(); !s.Failed || s.LastErr == nil {
		t.Errorf("Stats = %+v", s)
	}
	wantNames(t, j, 1, "a")
	if err := j.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Close = %v", err)
	}
	open(t, dir, quiet)
}
