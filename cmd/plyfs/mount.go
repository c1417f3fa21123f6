// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/creds"
	"github.com/plyfs/plyfs/stack"
)

// engineFlag is a hidden flag of plyfs mount: the word "mount" was left out, as
// container engines do. They mount a container several times, some of the mounts
// volatile, and have no option of ours to say that what one left is to be kept.
const engineFlag = "engine"

// newMount is the subcommand that mounts.
func newMount(r *rootCommand) *cobra.Command {
	var args []string
	var foreground, engine bool
	cmd := &cobra.Command{
		Use:   "mount [-f] -o OPTIONS [SOURCE] MOUNTPOINT",
		Short: "mount stacked directories",
		Long: `Mount the directories of lowerdir, topmost first, as one tree. With upperdir and
workdir the tree can be written: upperdir takes what changes, workdir (on the
same file system) the journal of what was deleted and renamed. Without them the
mount is read-only. The lower directories never change.

The command returns when the mount is usable, and leaves a daemon that serves
it. The word "mount" may be left out, as container engines do (after_volatile
is auto then):

  plyfs -o lowerdir=A:B,upperdir=U,workdir=W MOUNTPOINT

-o may be given many times. In directories, \: \, and \\ stand for a colon, a
comma and a backslash. "plyfs help options" lists all options.

SOURCE is what the mount table shows in its first column.`,
		Example: `  plyfs mount -o lowerdir=/base,upperdir=/data/upper,workdir=/data/work /mnt
  plyfs mount -o lowerdir=/layers/app:/layers/libs:/layers/os /mnt
  plyfs mount -f -o lowerdir=/base,ro,io=coherent base /mnt

In /etc/fstab, with mount.fuse.plyfs linked to plyfs in /sbin:
  base  /mnt  fuse.plyfs  lowerdir=/base,upperdir=/u,workdir=/w  0  0`,
		Args: between(1, 2, "MOUNTPOINT"),
		RunE: func(_ *cobra.Command, dirs []string) error {
			m, err := readMount(r, args, dirs, false)
			if err != nil {
				return err
			}
			if engine && m.AfterVolatile == "" {
				m.AfterVolatile = stack.AfterVolatileAuto
			}
			return r.stage.mount(m, foreground)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&args, "options", "o", nil, "mount options, separated by commas; see plyfs help options")
	f.BoolVarP(&foreground, "foreground", "f", false, "serve the mount in this process, log to standard error")
	f.BoolVar(&engine, engineFlag, false, "called by a container engine")
	_ = f.MarkHidden(engineFlag)
	return cmd
}

// newHelper is the subcommand behind mount.plyfs, called by mount(8).
func newHelper(r *rootCommand) *cobra.Command {
	var args []string
	var sloppy, fake, ignored bool
	var text string
	cmd := &cobra.Command{
		Use:    helperCommand + " SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]",
		Short:  "what mount(8) calls as mount.plyfs",
		Hidden: true,
		Args:   between(1, 2, "MOUNTPOINT"),
		RunE: func(_ *cobra.Command, dirs []string) error {
			m, err := readMount(r, args, dirs, sloppy)
			if err != nil || fake {
				return err
			}
			return r.stage.mount(m, false)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&args, "options", "o", nil, "mount options")
	f.BoolVarP(&sloppy, "sloppy", "s", false, "accept unknown options")
	f.BoolVarP(&fake, "fake", "f", false, "check everything, do not mount")
	f.BoolVarP(&ignored, "no-mtab", "n", false, "accepted: there is no mtab")
	f.BoolVarP(&ignored, "verbose", "v", false, "accepted")
	f.StringVarP(&text, "types", "t", "", "accepted")
	f.StringVarP(&text, "namespace", "N", "", "accepted: mount(8) has entered it")
	return cmd
}

// readMount makes the mount's options out of the command line and checks what
// can be checked without touching a layer.
func readMount(r *rootCommand, args, dirs []string, sloppy bool) (*mountOptions, error) {
	m, err := parseOptions(args, sloppy)
	if err != nil {
		return nil, err
	}
	if len(m.Lowers) == 0 {
		return nil, usagef("no lower directory; give at least one with -o lowerdir=DIR")
	}
	if len(dirs) == 2 && m.Source == "" {
		m.Source = dirs[0]
	}
	m.Mountpoint = dirs[len(dirs)-1]
	if r.logFile != "" {
		m.logFile = r.logFile
	}
	if err := m.absolute(); err != nil {
		return nil, err
	}
	if r.logLevel == "" {
		if err := r.setLogLevel(m.logLevel); err != nil {
			return nil, err
		}
	}
	return m, m.precheck()
}

// precheck looks at the machine and at the mount point.
func (m *mountOptions) precheck() error {
	if err := checkMachine(); err != nil {
		return err
	}
	if err := checkLog(m.logFile); err != nil {
		return err
	}
	if err := clearDead(m.Mountpoint, m.logFile); err != nil {
		return err
	}
	st, err := os.Stat(m.Mountpoint)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return usagef("%s: the mount point does not exist; create it: mkdir -p %s", m.Mountpoint, m.Mountpoint)
	case err != nil:
		return usagef("%s: the mount point cannot be used: %w", m.Mountpoint, errors.Unwrap(err))
	case !st.IsDir():
		return usagef("%s: the mount point is not a directory", m.Mountpoint)
	}
	m.Mountpoint, err = filepath.EvalSymlinks(m.Mountpoint)
	return err
}

// checkMachine refuses to go on without what every mount needs.
func checkMachine() error {
	if !creds.HasCap(unix.CAP_SYS_ADMIN) {
		return fail(exitEnvironment, "mounting needs the capability CAP_SYS_ADMIN; run plyfs as root")
	}
	const dev = "/dev/fuse"
	st, err := os.Stat(dev)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(exitEnvironment, "%s is missing; load the module (modprobe fuse), or give the device to the container (--device %s)", dev, dev)
	case err != nil:
		return fail(exitEnvironment, "%s cannot be used: %w", dev, err)
	case st.Mode()&os.ModeCharDevice == 0:
		return fail(exitEnvironment, "%s is no character device; make it: mknod %s c 10 229", dev, dev)
	}
	return nil
}

// checkLog refuses a log file in a directory that is not there.
func checkLog(file string) error {
	if file == "" {
		return nil
	}
	if st, err := os.Stat(filepath.Dir(file)); err != nil || !st.IsDir() {
		return usagef("%s: the directory of the log file does not exist", file)
	}
	if st, err := os.Stat(file); err == nil && st.IsDir() {
		return usagef("%s: the log file is a directory", file)
	}
	return nil
}
