// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

// optionTable holds every option that plyfs knows: its own, the ones of
// mount(8), and those of overlayfs, fuse-overlayfs and libfuse that users have
// in their configuration. Options with a meaning that plyfs does not implement
// are refused: doing something else silently would be worse.
var optionTable = map[string]optionFunc{
	// The layers.
	"lowerdir":  lowerDir,
	"lowerdir+": lowerDirAdd,
	"upperdir":  directory(func(m *mountOptions) *string { return &m.Upper }),
	"workdir":   directory(func(m *mountOptions) *string { return &m.Work }),

	// plyfs.
	"io":               choice(func(m *mountOptions) *string { return &m.IO }, stack.IOPassthrough, stack.IOCoherent),
	"passthrough":      choice(func(m *mountOptions) *string { return &m.Passthrough }, stack.PassthroughAuto, stack.PassthroughRequire, stack.PassthroughOff),
	"max_stack_depth":  number(func(m *mountOptions) *int { return &m.MaxStackDepth }, 1, 2),
	"threads":          number(func(m *mountOptions) *int { return &m.Threads }, 1, 1024),
	"fd_cache":         number(func(m *mountOptions) *int { return &m.FDCache }, 16, 1<<20),
	"copyup":           choice(func(m *mountOptions) *string { return &m.CopyUp }, stack.CopyUpAuto, stack.CopyUpPartial, stack.CopyUpWhole),
	"copyup_threshold": byteSize(func(m *mountOptions) *int64 { return &m.CopyUpThreshold }),
	"complete_rate":    byteSize(func(m *mountOptions) *int64 { return &m.CompleteRate }),
	"volatile":         plain(func(m *mountOptions) { m.Volatile = true }),
	"after_volatile":   choice(func(m *mountOptions) *string { return &m.AfterVolatile }, stack.AfterVolatileAuto, stack.AfterVolatileKeep, stack.AfterVolatileRefuse),
	"noacl":            plain(func(m *mountOptions) { m.NoACL = true }),
	"timeout":          timeout,
	"bpf":              directory(func(m *mountOptions) *string { return &m.policy.object }),
	"policy":           directory(func(m *mountOptions) *string { return &m.policy.file }),
	"bpf_fail":         choice(func(m *mountOptions) *string { return &m.policy.fail }, "closed", "open"),
	"bpf_budget":       bpfBudget,
	"bpf_pin":          directory(func(m *mountOptions) *string { return &m.policy.pin }),
	"log_level":        choice(func(m *mountOptions) *string { return &m.logLevel }, logLevels...),
	"log_file":         directory(func(m *mountOptions) *string { return &m.logFile }),
	"debug":            plain(func(m *mountOptions) { m.logLevel = "debug" }),

	// mount(8), for the kernel.
	"ro": flag(unix.MS_RDONLY, 0), "rw": flag(0, unix.MS_RDONLY),
	"nosuid": flag(unix.MS_NOSUID, 0), "suid": flag(0, unix.MS_NOSUID),
	"nodev": flag(unix.MS_NODEV, 0), "dev": flag(0, unix.MS_NODEV),
	"noexec": flag(unix.MS_NOEXEC, 0), "exec": flag(0, unix.MS_NOEXEC),
	"noatime": flag(unix.MS_NOATIME, 0), "atime": flag(0, unix.MS_NOATIME),
	"nodiratime": flag(unix.MS_NODIRATIME, 0), "diratime": flag(0, unix.MS_NODIRATIME),
	"relatime": flag(unix.MS_RELATIME, 0), "norelatime": flag(0, unix.MS_RELATIME),
	"strictatime": flag(unix.MS_STRICTATIME, 0), "nostrictatime": flag(0, unix.MS_STRICTATIME),
	"lazytime": flag(unix.MS_LAZYTIME, 0), "nolazytime": flag(0, unix.MS_LAZYTIME),
	"sync": flag(unix.MS_SYNCHRONOUS, 0), "async": flag(0, unix.MS_SYNCHRONOUS),
	"dirsync":     flag(unix.MS_DIRSYNC, 0),
	"nosymfollow": flag(unix.MS_NOSYMFOLLOW, 0), "symfollow": flag(0, unix.MS_NOSYMFOLLOW),
	"silent": flag(unix.MS_SILENT, 0), "loud": flag(0, unix.MS_SILENT),
	"user": flag(secure|unix.MS_NOEXEC, 0), "users": flag(secure|unix.MS_NOEXEC, 0),
	"owner": flag(secure, 0), "group": flag(secure, 0),
	"private": propagation(unix.MS_PRIVATE), "rprivate": propagation(unix.MS_PRIVATE),
	"shared": propagation(unix.MS_SHARED), "rshared": propagation(unix.MS_SHARED),
	"slave": propagation(unix.MS_SLAVE), "rslave": propagation(unix.MS_SLAVE),
	"unbindable": propagation(unix.MS_UNBINDABLE), "runbindable": propagation(unix.MS_UNBINDABLE),
	"context": kernelData, "fscontext": kernelData, "defcontext": kernelData, "rootcontext": kernelData,

	// mount(8), for itself.
	"defaults": ignored, "auto": ignored, "noauto": ignored, "nofail": ignored,
	"nouser": ignored, "nousers": ignored, "noowner": ignored, "nogroup": ignored, "_netdev": ignored,
	"mand": ignored, "nomand": ignored, "iversion": ignored, "noiversion": ignored,
	"comment": ignored, "helper": ignored, "uhelper": ignored, "pri": ignored,
	"remount":  refused("unmount and mount again"),
	"bind":     refused("mount --bind the mount point after mounting it"),
	"rbind":    refused("mount --rbind the mount point after mounting it"),
	"loop":     refused("mount the image first and name its directory as a layer"),
	"encoding": refused("names are bytes"),

	// libfuse and mount.fuse.
	"fsname":              fsName,
	"subtype":             ignored,
	"allow_other":         ignored, // always: the modes decide, the kernel checks them
	"default_permissions": ignored, // always
	"allow_root":          noted("the modes decide who may enter"),
	"nonempty":            ignored,
	"kernel_cache":        noted("the kernel's cache is always used"),
	"auto_cache":          noted("the kernel's cache is always used"),
	"auto_unmount":        noted("a dead mount is detached by the next plyfs mount or umount"),
	"big_writes":          ignored,
	"max_read":            noted("chosen by plyfs"),
	"max_write":           noted("chosen by plyfs"),
	"max_background":      noted("chosen by plyfs"),
	"entry_timeout":       timeout,
	"attr_timeout":        timeout,
	"negative_timeout":    noted("see timeout="),
	"ac_attr_timeout":     noted("see timeout="),
	"clone_fd":            noted("chosen by plyfs"),
	"idle_timeout":        noted("a mount stays until it is unmounted"),
	"use_ino":             ignored,
	"hard_remove":         ignored,

	// fuse-overlayfs.
	"fsync":             fsync,
	"static_nlink":      noted("the link count of directories is always 1"),
	"fast_ino":          noted("inode numbers are always stable"),
	"xino":              noted("inode numbers are always unique and stable"),
	"threaded":          noted("plyfs is always threaded"),
	"writeback":         noted("plyfs does not need a write-back cache"),
	"noxattrs":          onlyOff("extended attributes are needed"),
	"xattr_permissions": onlyOff("permissions are those of the layers"),
	"squash_to_root":    refused("owners are those of the layers"),
	"squash_to_uid":     refused("owners are those of the layers"),
	"squash_to_gid":     refused("owners are those of the layers"),
	"uidmapping":        refused("give the layers the owners that the mount shall show"),
	"gidmapping":        refused("give the layers the owners that the mount shall show"),

	// Kernel overlayfs.
	"redirect_dir":   oneOf("renamed directories are redirected", "on", "follow"),
	"index":          noted("hard links always stay linked over copy-up"),
	"metacopy":       noted("chosen by plyfs"),
	"uuid":           noted("chosen by the kernel"),
	"nfs_export":     onlyOff("file handles are not exported"),
	"verity":         onlyOff("digests are not checked"),
	"userxattr":      refused("private attributes are trusted.plyfs.*"),
	"datadir+":       refused("data-only layers are not supported"),
	"override_creds": noted("the layers are always used as the mounter"),
}

// lowerDir reads lowerdir=A:B:C.
func lowerDir(m *mountOptions, o option) error {
	if err := m.once(o); err != nil {
		return err
	}
	if len(m.Lowers) > 0 {
		return nil // the same list again
	}
	list, err := splitPath(o)
	if err != nil {
		return err
	}
	for i, l := range list {
		if l == "" {
			return usagef(`option lowerdir: directory %d of %d is empty; separate directories by one colon, write \: for a colon in a name`, i+1, len(list))
		}
	}
	m.Lowers = list
	return nil
}

// lowerDirAdd reads lowerdir+=DIR, which the kernel has for one directory at
// a time.
func lowerDirAdd(m *mountOptions, o option) error {
	dir, err := value(o)
	if err != nil {
		return err
	}
	m.Lowers = append(m.Lowers, dir)
	return nil
}

// value is the decoded value of an option that needs one.
func value(o option) (string, error) {
	v, err := o.text()
	if err == nil && v == "" {
		return "", usagef("option %s needs a value; write %s=VALUE", o.name, o.name)
	}
	return v, err
}

// directory is an option with one path.
func directory(field func(*mountOptions) *string) optionFunc {
	return func(m *mountOptions, o option) error {
		v, err := value(o)
		if err != nil {
			return err
		}
		*field(m) = v
		return m.once(o)
	}
}

// choice is an option with one of some values.
func choice(field func(*mountOptions) *string, values ...string) optionFunc {
	return func(m *mountOptions, o option) error {
		if !slices.Contains(values, o.value) {
			return usagef("option %s=%s: the choices are %s", o.name, o.value, strings.Join(values, ", "))
		}
		*field(m) = o.value
		return nil
	}
}

// number is an option with a number in a range.
func number(field func(*mountOptions) *int, low, high int) optionFunc {
	return func(m *mountOptions, o option) error {
		n, err := strconv.Atoi(o.value)
		if err != nil || n < low || n > high {
			return usagef("option %s=%s: a number from %d to %d is needed", o.name, o.value, low, high)
		}
		*field(m) = n
		return nil
	}
}

// timeout reads a number of seconds; 0 asks the daemon each time.
func timeout(m *mountOptions, o option) error {
	const year = 365 * 24 * 3600
	s, err := strconv.ParseFloat(o.value, 64)
	if err != nil || math.IsNaN(s) || s < 0 || s > year {
		return usagef("option %s=%s: a number of seconds is needed", o.name, o.value)
	}
	// The zero value of the field is its default.
	m.Timeout = max(time.Duration(s*float64(time.Second)), 1)
	return nil
}

// fsync reads fsync=0, fuse-overlayfs' name for volatile.
func fsync(m *mountOptions, o option) error {
	switch o.value {
	case "0":
		m.Volatile = true
	case "1":
	default:
		return usagef("option fsync=%s: 0 or 1 is needed", o.value)
	}
	return nil
}

// fsName reads the source of the mount table.
func fsName(m *mountOptions, o option) (err error) {
	m.Source, err = value(o)
	return err
}

// kernelData hands an option to the kernel, with the quotes that commas need.
func kernelData(m *mountOptions, o option) error {
	v, err := value(o)
	if err != nil {
		return err
	}
	m.MountData = append(m.MountData, o.name+`="`+v+`"`)
	return nil
}

// ignored is an option that is for others or says what is so anyway.
func ignored(*mountOptions, option) error { return nil }

// noted is an option without a meaning here.
func noted(why string) optionFunc {
	return func(m *mountOptions, o option) error {
		m.note("option %s has no effect: %s", o.name, why)
		return nil
	}
}

// refused is an option with a meaning that plyfs does not implement.
func refused(mend string) optionFunc {
	return func(_ *mountOptions, o option) error {
		return usagef("option %s is not supported; %s", o.name, mend)
	}
}

// onlyOff is an option that may be switched off only.
func onlyOff(why string) optionFunc {
	return oneOf(why, "0", "off")
}

// oneOf is an option that must have a value that says what is so anyway.
func oneOf(why string, values ...string) optionFunc {
	return func(_ *mountOptions, o option) error {
		if slices.Contains(values, o.value) {
			return nil
		}
		return usagef("option %s is not supported: %s; leave it out", strings.TrimSuffix(o.name+"="+o.value, "="), why)
	}
}
