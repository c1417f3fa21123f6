// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// newUmount is the subcommand that unmounts.
func newUmount() *cobra.Command {
	u := &umounter{}
	cmd := &cobra.Command{
		Use:     "umount [--lazy] MOUNTPOINT",
		Aliases: []string{"unmount"},
		Short:   "unmount, and wait for the daemon to end",
		Long: `Make everything durable, unmount, and wait until the daemon has ended: after
that the layers may be used, moved or mounted again.

When the mount is busy, the processes that hold it are named, and nothing is
done. A mount whose daemon has died is detached.`,
		Example: `  plyfs umount /mnt
  plyfs umount --lazy /mnt    # gone for new users; ends with the last old one`,
		Args:              exactly(1, "MOUNTPOINT"),
		ValidArgsFunction: completeMounts,
		RunE: func(cmd *cobra.Command, args []string) error {
			u.messages = cmd.ErrOrStderr()
			return u.run(args[0])
		},
	}
	cmd.Flags().BoolVarP(&u.lazy, "lazy", "l", false, "detach a busy mount; it ends when its last user does")
	cmd.Flags().DurationVar(&u.timeout, "timeout", 30*time.Second, "how long to wait for the daemon to end")
	return cmd
}

// umounter unmounts.
type umounter struct {
	lazy     bool
	timeout  time.Duration
	messages io.Writer
}

func (u *umounter) say(format string, args ...any) {
	fmt.Fprintf(u.messages, "plyfs: "+format+"\n", args...)
}

// run unmounts one mount point.
func (u *umounter) run(name string) error {
	p, err := atMount(name)
	if err != nil {
		return err
	}
	switch err := probe(p.path); {
	case isDead(err):
		return u.detachDead(p, 0)
	case errors.Is(err, errHung) && p.daemonKilled():
		return u.detachDead(p, unix.MNT_FORCE|unix.MNT_DETACH)
	case errors.Is(err, errHung) && !u.lazy:
		return fail(exitFailure, "%s: the daemon does not answer; plyfs umount --lazy detaches the mount", p.path)
	}
	pidfd, pid, err := daemonOf(p.mount)
	if err != nil {
		u.say("%v; not waiting for its end", err)
		pidfd = -1
	} else {
		defer unix.Close(pidfd)
		if err := ask(p.mount, request{Verb: verbSync}, nil); err != nil && !u.lazy {
			return fail(exitFailure, "%w; not unmounted, for it could not be made durable (--lazy does it anyway)", err)
		}
	}
	others := sightings(p.device())
	if err := u.unmount(p); err != nil {
		return err
	}
	return u.await(p, pidfd, pid, others)
}

// detachDead takes a mount away that nobody serves, first with the flags of
// umount2.
func (u *umounter) detachDead(p place, flags int) error {
	err := unix.Unmount(topOf(p.path), flags)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(topOf(p.path), unix.MNT_DETACH)
	}
	if err != nil {
		return fail(exitFailure, "%s: the daemon is dead, and the mount cannot be detached: %w", p.path, err)
	}
	u.say("%s: the daemon had died; the mount is detached", p.path)
	return nil
}

// unmount calls umount2. What is busy for a moment only is tried again.
func (u *umounter) unmount(p place) error {
	const tries, pause = 5, 40 * time.Millisecond
	var err error
	for range tries {
		if err = unix.Unmount(topOf(p.path), 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		if u.lazy {
			err = unix.Unmount(topOf(p.path), unix.MNT_DETACH)
			break
		}
		time.Sleep(pause)
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return busy(p)
	case errors.Is(err, unix.EPERM):
		return fail(exitEnvironment, "%s: unmounting needs the capability CAP_SYS_ADMIN; run plyfs as root", p.path)
	case err != nil:
		return fail(exitFailure, "%s: umount: %w", p.path, err)
	}
	return nil
}

// busy says who holds the mount.
func busy(p place) error {
	var who []string
	for _, b := range below(p.mount) {
		who = append(who, "mounted inside: "+b)
	}
	for _, h := range holders(p.mount) {
		who = append(who, h.String())
	}
	const shown = 8
	if n := len(who) - shown; n > 0 {
		who = append(who[:shown], fmt.Sprintf("and %d more", n))
	}
	if who == nil {
		who = []string{"nobody in /proc; another container perhaps"}
	}
	return fail(exitBusy, "%s is busy: %s; end them, or detach it with --lazy", p.path, strings.Join(who, "; "))
}

// await waits for the daemon to end, unless one of the mounts that were seen
// before keeps it.
func (u *umounter) await(p place, pidfd, pid int, others map[sighting]bool) error {
	if pidfd < 0 {
		return nil
	}
	timeout := u.timeout
	if u.lazy {
		timeout = min(timeout, 2*time.Second)
	}
	for end := time.Now().Add(timeout); ; {
		if ended(pidfd, 100*time.Millisecond) {
			return nil
		}
		if s, ok := stillThere(others, p.device()); ok && !ended(pidfd, 0) {
			u.say("%s: unmounted here, but still mounted elsewhere (seen by process %d); the daemon %d goes on", p.path, s.pid, pid)
			return nil
		}
		if time.Now().After(end) {
			break
		}
	}
	if u.lazy {
		u.say("%s: detached, still in use; the daemon %d ends with its last user", p.path, pid)
		return nil
	}
	return fail(exitFailure, "%s: unmounted, but the daemon %d has not ended within %v", p.path, pid, timeout)
}

// ended says whether a process has ended, waiting a while for it.
func ended(pidfd int, wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(wait.Milliseconds()))
	return err == nil && n > 0
}

// completeMounts completes mount points.
func completeMounts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	list, _ := plyfsMounts()
	var names []string
	for _, m := range list {
		names = append(names, m.Mountpoint)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
