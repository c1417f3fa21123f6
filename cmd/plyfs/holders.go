// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// holder is a process that keeps a mount busy.
type holder struct {
	pid  int
	name string
	uses []string // what it uses it for, without repetition
}

// String is "bash (4711): working directory, open file".
func (h holder) String() string {
	return fmt.Sprintf("%s (%d): %s", h.name, h.pid, strings.Join(h.uses, ", "))
}

// holders lists the processes that use a mount. No file system is asked, only
// /proc: a daemon that hangs must not hang those who look for the reason.
func holders(m mount) []holder {
	var list []holder
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if uses := usesOf(dir, m); len(uses) > 0 {
			name, _ := os.ReadFile(dir + "/comm")
			list = append(list, holder{pid, string(bytes.TrimSpace(name)), uses})
		}
	}
	slices.SortFunc(list, func(a, b holder) int { return a.pid - b.pid })
	return list
}

// usesOf says what the process with a directory in /proc uses a mount for.
func usesOf(dir string, m mount) []string {
	var uses []string
	for _, link := range []struct{ name, what string }{
		{"cwd", "working directory"}, {"root", "root directory"}, {"exe", "program"},
	} {
		if linkOn(dir+"/"+link.name, m.ID) {
			uses = append(uses, link.what)
		}
	}
	infos, _ := filepath.Glob(dir + "/fdinfo/[0-9]*")
	for _, info := range infos {
		if id, err := mountIDOf(info); err == nil && id == m.ID {
			target, _ := os.Readlink(strings.Replace(info, "/fdinfo/", "/fd/", 1))
			uses = append(uses, "open file "+target)
			break
		}
	}
	if mapsDevice(dir+"/maps", m) {
		uses = append(uses, "mapped file")
	}
	return uses
}

// linkOn says whether a link of /proc/PID leads to the mount.
func linkOn(link string, id int) bool {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	got, err := mountIDOf(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	return err == nil && got == id
}

// mapsDevice says whether /proc/PID/maps names the device of the mount. The
// device is its fourth field, in hexadecimal.
func mapsDevice(maps string, m mount) bool {
	f, err := os.Open(maps)
	if err != nil {
		return false
	}
	defer f.Close()
	device := fmt.Sprintf("%02x:%02x", m.Major, m.Minor)
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 3 && fields[3] == device {
			return true
		}
	}
	return false
}

// below lists the mount points inside a mount.
func below(m mount) []string {
	var list []string
	_, _ = mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		if i.Parent == m.ID {
			list = append(list, i.Mountpoint)
		}
		return true, false
	})
	return list
}

// sighting is a mount as one mount namespace shows it, with a process in that.
type sighting struct{ pid, id int }

// sightings lists the mounts of a super block in all mount namespaces. The
// device number of a super block is given to another one soon after its end:
// only mounts that were seen while it lived are certainly its own.
func sightings(device string) map[sighting]bool {
	list, seen := map[sighting]bool{}, map[string]bool{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		ns, err := os.Readlink(dir + "/ns/mnt")
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		pid, _ := strconv.Atoi(filepath.Base(dir))
		for _, id := range mountsOf(dir+"/mountinfo", device) {
			list[sighting{pid, id}] = true
		}
	}
	return list
}

// stillThere gives one of the mounts that were seen and are still there. A
// namespace is asked by the same process again; one whose process has ended
// counts as gone.
func stillThere(before map[sighting]bool, device string) (sighting, bool) {
	for s := range before {
		if slices.Contains(mountsOf(fmt.Sprintf("/proc/%d/mountinfo", s.pid), device), s.id) {
			return s, true
		}
	}
	return sighting{}, false
}

// mountsOf lists the ids of the plyfs mounts with a device in a mount table.
func mountsOf(file, device string) (ids []int) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	_, _ = mountinfo.GetMountsFromReader(f, func(i *mountinfo.Info) (skip, stop bool) {
		if i.FSType == fsType && fmt.Sprintf("%d:%d", i.Major, i.Minor) == device {
			ids = append(ids, i.ID)
		}
		return true, false
	})
	return ids
}
