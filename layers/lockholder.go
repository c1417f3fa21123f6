// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holderEnds says whether a process with a flock on fd's file has been killed
// and is not gone yet.
func holderEnds(fd int) bool {
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return false
	}
	defer locks.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	for s := bufio.NewScanner(locks); s.Scan(); {
		if pid, ok := flockOf(s.Text(), st.Ino); ok && ends(pid) {
			return true
		}
	}
	return false
}

// flockOf reads a line such as "1: FLOCK ADVISORY WRITE 123 08:01:4711 0 EOF"
// (proc_locks(5)). The inode number has to do: some file systems (btrfs) have
// another device number there than in stat(2).
func flockOf(line string, ino uint64) (pid int, ok bool) {
	w := strings.Fields(line)
	if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], fmt.Sprintf(":%d", ino)) {
		return 0, false
	}
	pid, err := strconv.Atoi(w[4])
	return pid, err == nil && pid > 0
}

// ends says whether a process is a zombie, some threads of which may live on
// for a moment, or has SIGKILL pending.
func ends(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return os.IsNotExist(err)
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch key {
		case "State":
			if value[0] == 'Z' || value[0] == 'X' {
				return true
			}
		case "SigPnd", "ShdPnd":
			if mask, err := strconv.ParseUint(value, 16, 64); err == nil && mask>>(unix.SIGKILL-1)&1 != 0 {
				return true
			}
		}
	}
	return false
}
