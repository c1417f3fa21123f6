// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile takes the journal's lock on f, the log file: exclusive for a mount, shared
// for a reader. A process that is just ending gets lockTimeout to do so.
func lockFile(f *os.File, how int) error {
	for end := time.Now().Add(lockTimeout); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return ioError(f.Name(), "the journal cannot be locked", err)
		case time.Now().After(end):
			return lockedError(f.Name(), f)
		}
	}
}

// lockedError says who holds the lock on f, if that can be known.
func lockedError(path string, f *os.File) error {
	what := "the journal is in use"
	if f != nil {
		if pid := lockHolder(f); pid > 0 {
			what += fmt.Sprintf(" by process %d", pid)
			if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
				what += " (" + strings.TrimSpace(string(comm)) + ")"
			}
		}
	}
	return &Error{Kind: ErrLocked, File: path, What: what,
		Mend: "unmount the mount that uses this workdir first, or use another upperdir and workdir"}
}

// lockHolder finds the process with a flock on f in /proc/locks; 0 if it is not
// there, as when it lives in another pid namespace. A line is
// "1: FLOCK ADVISORY WRITE 123 08:01:4711 0 EOF", see proc_locks(5).
func lockHolder(f *os.File) int {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer locks.Close()
	// Some file systems (btrfs) show another device number in stat than here, so the
	// inode number has to do.
	suffix := fmt.Sprintf(":%d", st.Ino)
	for s := bufio.NewScanner(locks); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], suffix) {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(w[4], &pid); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
