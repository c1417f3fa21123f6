// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import "github.com/spf13/cobra"

// optionsTopic is the help topic about mount options.
var optionsTopic = &cobra.Command{
	Use:   "options",
	Short: "the options of plyfs mount -o",
	Long: `Options of "plyfs mount -o", separated by commas.

Layers
  lowerdir=A:B:C        lower directories, topmost first; they never change
  lowerdir+=DIR         one more lower directory, below those before it
  upperdir=DIR          takes what is written; without it the mount is read-only
  workdir=DIR           the journal, on the same file system as upperdir
  In directories, \: \, \\ and \ooo stand for a colon, a comma, a backslash and
  the byte with an octal number.

Reading and writing
  io=passthrough        (default) the kernel reads and writes the layers' files
                        itself. A file opened for reading in a lower layer goes
                        on showing the lower content after it was copied up.
  io=coherent           lower files of a writable mount go through the page
                        cache: everybody who has a file open sees later writes.
  passthrough=auto      (default) where the kernel takes it; see plyfs status
  passthrough=require   refuse to mount if a layer cannot be passed through
  passthrough=off       the daemon reads and writes everything
  max_stack_depth=1|2   how deep layers may be stacked themselves, at the price
                        of how much may be stacked on the mount (chosen)
  copyup=auto           (default) at the first write small lower files are copied
                        whole, of larger ones the blocks that are written; the
                        rest follows in the background
  copyup=partial        of every file only the blocks that are written
  copyup=whole          files are copied whole, also for a chmod or rename
  copyup_threshold=1M   up to what size copyup=auto copies whole
  complete_rate=64M     bytes a second that are copied in the background to make
                        partial files whole; 0: none (see plyfs complete)
  volatile              nothing is synced: fast, and lost or damaged in a power
                        cut. The work directory is marked, and the next mount
                        is refused. New directories are the safe way on.
  fsync=0               the same
  after_volatile=keep   mount what a volatile mount left, as it is: it is synced,
                        the journal is checked, the mark is removed. Right if
                        there was no power cut since
  after_volatile=auto   the same if the machine has run on since, and nothing at
                        all if this mount is volatile too: the mark stays. The
                        default for container engines (no word "mount")
  after_volatile=refuse do not mount it (otherwise the default)

Programs (see plyfs policy --help, plyfs bpf --help)
  bpf=OBJECT            a BPF program for the whole mount: chooses layers, splits
                        the reads of files
  policy=FILE           which programs govern which subtrees and files
  bpf_fail=closed       (default) what a program that was switched off decides
                        about fails with EIO
  bpf_fail=open         it is done as if there were no program
  bpf_budget=5ms        a call that takes longer switches the program off
  bpf_pin=DIR           pin the maps of programs in a directory of a bpffs

Limits
  threads=N             threads that serve requests
  fd_cache=N            directories kept open
  timeout=SECONDS       how long the kernel may keep names and attributes

Others
  noacl                 no POSIX ACLs
  log_level=, log_file= as --log-level and --log-file
  ro rw suid nosuid dev nodev exec noexec atime noatime relatime sync ...
                        as for mount(8)
  private shared slave unbindable
                        whether mounts below spread, as for mount --make-private
  context="..."         SELinux contexts, for the kernel
  auto noauto nofail user users _netdev x-*
                        for mount(8) and fstab

Options of overlayfs, fuse-overlayfs and libfuse that say what is so anyway
(index, xino, fast_ino, threaded, allow_other ...) are accepted and logged.
Options with a meaning that plyfs does not have (uidmapping, gidmapping,
squash_to_uid ...) are refused, and so are unknown ones.`,
}
