// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// namespaceID identifies a namespace: the inode behind /proc/PID/ns/mnt.
type namespaceID struct{ Dev, Ino uint64 }

// namespaceOf identifies an open namespace; zero if it cannot be told.
func namespaceOf(f *os.File) namespaceID {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return namespaceID{}
	}
	return namespaceID{st.Dev, st.Ino}
}

// ownNamespace identifies this process' mount namespace.
func ownNamespace() namespaceID { return namespaceAt("/proc/self/ns/mnt") }

func namespaceAt(path string) namespaceID {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return namespaceID{}
	}
	return namespaceID{st.Dev, st.Ino}
}

// checkOwnNamespace makes sure that the namespace of this process is not the
// one of its parent: its processes will be killed.
func checkOwnNamespace(parent namespaceID) error {
	if own := ownNamespace(); own == parent || own == (namespaceID{}) || parent == (namespaceID{}) {
		return fail(exitEnvironment, "the server has no mount namespace of its own")
	}
	return nil
}

// killNamespace ends all processes of a mount namespace but one: it asks them,
// and kills those that have not ended a little later. That none is left is sure
// only when several listings say so: each misses the child of a process that
// forked after the names were read and ended before it was looked at, as those
// do that make themselves daemons.
func killNamespace(id namespaceID, except int) {
	const grace, patience, pause, empty = time.Second, 10 * time.Second, 20 * time.Millisecond, 4
	if id == (namespaceID{}) {
		return
	}
	sig := unix.SIGTERM
	asked := map[int]bool{}
	nobody := 0
	for start := time.Now(); time.Since(start) < patience; {
		if time.Since(start) > grace {
			sig = unix.SIGKILL
		}
		members := membersOf(id, except)
		if len(members) == 0 {
			if nobody++; nobody == empty {
				return
			}
			continue
		}
		nobody = 0
		for _, pid := range members {
			if sig == unix.SIGKILL || !asked[pid] {
				_ = unix.Kill(pid, sig)
				asked[pid] = true
			}
		}
		time.Sleep(pause)
	}
}

// membersOf lists the processes of a mount namespace. Zombies have none.
func membersOf(id namespaceID, except int) (pids []int) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err == nil && pid != except && namespaceAt("/proc/"+name+"/ns/mnt") == id {
			pids = append(pids, pid)
		}
	}
	return pids
}
