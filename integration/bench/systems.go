// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// system is a union file system.
type system struct {
	name  string
	mount func(c *config, m *mountpoint) error
}

// mountpoint is one mount with its layers.
type mountpoint struct {
	dir    string
	lowers []string
	path   string
}

func (m *mountpoint) options() string {
	return "lowerdir=" + strings.Join(m.lowers, ":") + ",upperdir=" + m.dir + "/upper,workdir=" + m.dir + "/work"
}

// available are the systems that this machine has.
func available(c *config) []system {
	var ss []system
	ss = append(ss, system{"overlayfs", mountOverlay})
	if _, err := exec.LookPath(c.plyfs); err == nil {
		ss = append(ss, system{"plyfs", mountPlyfs})
	}
	if _, err := exec.LookPath("fuse-overlayfs"); err == nil {
		ss = append(ss, system{"fuse-overlayfs", mountFuseOverlay})
	}
	return ss
}

// mountOverlay mounts as the promise of plyfs is worded. The directories go by
// a short path, for all options must fit in a page.
func mountOverlay(_ *config, m *mountpoint) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	for _, l := range m.lowers {
		if err := unix.FsconfigSetString(fs, "lowerdir+", l); err != nil {
			return err
		}
	}
	for _, kv := range [][2]string{{"upperdir", m.dir + "/upper"}, {"workdir", m.dir + "/work"}, {"redirect_dir", "on"}, {"index", "on"}, {"xino", "on"}} {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, m.path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func mountPlyfs(c *config, m *mountpoint) error {
	return command(c.plyfs, "mount", "-o", m.options(), m.path)
}

func mountFuseOverlay(_ *config, m *mountpoint) error {
	return command("fuse-overlayfs", "-o", m.options(), m.path)
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, bytes.TrimSpace(out))
	}
	return nil
}

// newMount mounts fresh upper and work directories over the lowers.
func newMount(c *config, s system, dir string, lowers []string) (*mountpoint, error) {
	d, err := os.MkdirTemp(dir, "m")
	if err != nil {
		return nil, err
	}
	m := &mountpoint{dir: d, lowers: lowers, path: d + "/mnt"}
	for _, p := range []string{"upper", "work", "mnt"} {
		if err := os.Mkdir(filepath.Join(d, p), 0o755); err != nil {
			return nil, err
		}
	}
	return m, s.mount(c, m)
}

// end unmounts and removes what the mount had made. The daemon may still be
// busy with its last file: it is given some time.
func (m *mountpoint) end() error {
	const patience = 30 * time.Second
	err := unix.Unmount(m.path, 0)
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
		err = unix.Unmount(m.path, 0)
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", m.path, err)
	}
	for end := time.Now().Add(patience); daemonOf(m.path) != 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	return os.RemoveAll(m.dir)
}

// daemonOf finds the process that serves a mount, by its command line; 0 if
// there is none.
func daemonOf(path string) int {
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(b, []byte(path)) {
			return pid
		}
	}
	return 0
}

// residentKiB is the resident memory of a process that is its own, in KiB.
func residentKiB(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.Atoi(strings.Fields(v)[0])
			return n
		}
	}
	return 0
}
