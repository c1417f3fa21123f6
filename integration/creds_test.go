// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCredsOwnership: what a user creates is the user's, in every way to
// create; set-group-ID directories pass their group on.
func TestCredsOwnership(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{
		{"open/ {0777}", "group/ {2775 0:2000}", "wh/gone=1", "wh/ {0777}", "src=1 {0666}"},
	}})
	must(t, os.Remove(u.path("wh/gone")))
	as(t, alice, func() {
		for _, d := range []string{"open", "group", "wh"} {
			gid := uint32(1000)
			if d == "group" {
				gid = 2000
			}
			name := func(n string) string { return u.path(d, n) }
			check := func(what, p string, mode uint32) {
				st := lstat(t, p)
				if st.Uid != 1000 || st.Gid != gid || (mode != 0 && st.Mode&0o7777 != mode) {
					t.Errorf("%s in %s: %d:%d mode %o, want 1000:%d mode %o", what, d, st.Uid, st.Gid, st.Mode&0o7777, gid, mode)
				}
			}
			checkErr(t, os.WriteFile(name("gone"), nil, 0o666))
			check("file", name("gone"), 0o644)
			checkErr(t, os.Mkdir(name("dir"), 0o777))
			if d == "group" {
				check("directory", name("dir"), 0o2755)
			} else {
				check("directory", name("dir"), 0o755)
			}
			checkErr(t, os.Symlink("x", name("link")))
			check("symlink", name("link"), 0)
			checkErr(t, unix.Mkfifo(name("fifo"), 0o600))
			check("fifo", name("fifo"), 0o600)
			fd, err := unix.Open(u.path(d), unix.O_TMPFILE|unix.O_RDWR, 0o600)
			checkErr(t, err)
			var st unix.Stat_t
			checkErr(t, unix.Fstat(fd, &st))
			if st.Uid != 1000 || st.Gid != gid {
				t.Errorf("O_TMPFILE in %s: %d:%d", d, st.Uid, st.Gid)
			}
			unix.Close(fd)
		}
		checkErr(t, os.Link(u.path("src"), u.path("open/hard")))
		if st := lstat(t, u.path("open/hard")); st.Uid != 0 {
			t.Errorf("a hard link changed the owner to %d", st.Uid)
		}
	})
}

// checkErr is must for functions on other threads.
func checkErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestCredsDenied: no access that the modes deny, and no copy-up on the way.
func TestCredsDenied(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{
		{"secret=1 {0600}", "ro=1 {0644}", "closed/ {0700}", "closed/in=1 {0666}", "sticky/ {1777}", "sticky/roots=1 {0666}",
			"group=1 {0060 0:2000}", "nogroup=1 {0606 0:2000}", "mine=1 {0400 1000:1000}", "dir/ {0755}"},
	}})
	as(t, alice, func() {
		deny := func(what string, err error, want unix.Errno) {
			t.Helper()
			wantErrno(t, what, err, want)
		}
		open := func(p string, flags int) error {
			return withFile(u.path(p), flags, func(*os.File) error { return nil })
		}
		deny("read of 0600", open("secret", os.O_RDONLY), unix.EACCES)
		deny("write of 0644", open("ro", os.O_RDWR), unix.EACCES)
		deny("truncate of 0644", os.Truncate(u.path("ro"), 0), unix.EACCES)
		deny("entering 0700", open("closed/in", os.O_RDWR), unix.EACCES)
		deny("unlink in a sticky directory", os.Remove(u.path("sticky/roots")), unix.EPERM)
		deny("rename in a sticky directory", u.rename2("sticky/roots", "sticky/x", 0), unix.EPERM)
		deny("chmod of another's", os.Chmod(u.path("ro"), 0o777), unix.EPERM)
		deny("chown", os.Lchown(u.path("mine"), 0, 0), unix.EPERM)
		deny("write of one's own 0400", open("mine", os.O_WRONLY), unix.EACCES)
		deny("create in 0755", os.WriteFile(u.path("dir/x"), nil, 0o644), unix.EACCES)
		deny("mkdir in 0755", os.Mkdir(u.path("dir/x"), 0o755), unix.EACCES)
		deny("rmdir", os.Remove(u.path("closed")), unix.EACCES)
		deny("trusted attribute", unix.Lsetxattr(u.path("mine"), "trusted.a", []byte("x"), 0), unix.EPERM)
		deny("utimes of another's", unix.UtimesNanoAt(unix.AT_FDCWD, u.path("ro"), make([]unix.Timespec, 2), 0), unix.EPERM)
		deny("device", unix.Mknod(u.path("sticky/dev"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.EPERM)
		deny("nogroup", open("nogroup", os.O_RDONLY), unix.EACCES)
		checkErr(t, open("group", os.O_RDWR)) // by a supplementary group
	})
	if u.sut == sutPlyfs {
		if n := u.status().CopyUps.Files; n > 1 {
			t.Errorf("%d files were copied up, want only the one opened for writing", n)
		}
	}
}

// TestCredsSetID: writes and chown by users clear the set-ID bits as on a
// plain file.
func TestCredsSetID(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		u := newMount(t, mountOpts{options: []string{"io=" + mode}, lowers: [][]string{
			{"w=12345678 {6777 0:0}", "t=12345678 {6777 0:0}", "a=1 {6777 0:0}", "c=1 {6755 1000:1000}", "g=1 {0755 1000:0}"},
		}})
		as(t, alice, func() {
			checkErr(t, withFile(u.path("w"), os.O_WRONLY, func(f *os.File) error { _, err := f.WriteString("x"); return err }))
			checkErr(t, os.Truncate(u.path("t"), 1))
			checkErr(t, withFile(u.path("a"), os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("x"); return err }))
			checkErr(t, os.Lchown(u.path("c"), -1, 2000))
			checkErr(t, os.Chmod(u.path("g"), 0o2755)) // not in group 0: the bit is dropped
		})
		for _, p := range []string{"w", "t", "a", "c", "g"} {
			if st := lstat(t, u.path(p)); st.Mode&0o6000 != 0 {
				t.Errorf("%s keeps mode %o", p, st.Mode&0o7777)
			}
		}
	})
}

// TestCredsUmask: the umask of the caller counts.
func TestCredsUmask(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/ {0777}", "d/wh=1"}}})
	must(t, os.Remove(u.path("d/wh")))
	as(t, bob, func() {
		unix.RawSyscall(unix.SYS_UMASK, 0o077, 0, 0)
		for _, n := range []string{"d/plain", "d/wh"} {
			checkErr(t, os.WriteFile(u.path(n), nil, 0o666))
			if st := lstat(t, u.path(n)); st.Mode&0o777 != 0o600 {
				t.Errorf("%s: mode %o with umask 077", n, st.Mode&0o777)
			}
		}
		unix.RawSyscall(unix.SYS_UMASK, 0, 0, 0)
		checkErr(t, os.Mkdir(u.path("d/dir"), 0o777))
		if st := lstat(t, u.path("d/dir")); st.Mode&0o777 != 0o777 {
			t.Errorf("mode %o with umask 0", st.Mode&0o777)
		}
	})
}

// TestCredsCapabilities: the daemon does not have CAP_SYS_RESOURCE.
func TestCredsCapabilities(t *testing.T) {
	requirePlyfs(t, "a daemon")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}})
	st := u.status()
	if st.CapSysRes || st.CapEffective == "" {
		t.Errorf("status: CAP_SYS_RESOURCE %v, effective set %q", st.CapSysRes, st.CapEffective)
	}
	b, err := os.ReadFile("/proc/" + itoa(u.pid) + "/status")
	must(t, err)
	if caps := effectiveCaps(t, string(b)); caps&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		t.Errorf("the daemon's effective set %x has CAP_SYS_RESOURCE", caps)
	}
}

// TestCredsAccess: access(2) tells the truth for files of all layers.
func TestCredsAccess(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"r=1 {0444}", "w=1 {0222}", "x=1 {0111}", "none=1 {0000}", "own=1 {0700 1000:0}"}}})
	as(t, alice, func() {
		for _, c := range []struct {
			path string
			mode uint32
			ok   bool
		}{
			{"r", unix.R_OK, true}, {"r", unix.W_OK, false}, {"w", unix.W_OK, true}, {"x", unix.X_OK, true},
			{"none", unix.R_OK, false}, {"own", unix.R_OK | unix.W_OK | unix.X_OK, true},
		} {
			err := unix.Faccessat2(unix.AT_FDCWD, u.path(c.path), c.mode, unix.AT_EACCESS)
			if c.ok != (err == nil) || (err != nil && !errors.Is(err, unix.EACCES)) {
				t.Errorf("access(%s, %d): %v, want allowed=%v", c.path, c.mode, err, c.ok)
			}
		}
	})
}

// TestChownNothing: chown(path, -1, -1) clears set-ID bits for the owner and
// root, and is EPERM for others where there are any; but a process that has the
// file open for writing makes it look like a write (listed as a difference).
func TestChownNothing(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"s=1 {6755 1000:1000}", "r=1 {6755 1000:1000}", "o=1 {6755 1000:1000}"}}})
	mode := func(name string) uint32 {
		t.Helper()
		var st unix.Stat_t
		must(t, unix.Stat(u.path(name), &st))
		return st.Mode & 0o7777
	}
	var err error
	as(t, bob, func() { err = unix.Chown(u.path("s"), -1, -1) })
	wantErrno(t, "chown by a stranger", err, unix.EPERM)
	if m := mode("s"); m != 0o6755 {
		t.Errorf("a stranger's chown made the mode %o", m)
	}
	as(t, alice, func() { err = unix.Chown(u.path("o"), -1, -1) })
	must(t, err)
	must(t, unix.Chown(u.path("r"), -1, -1))
	for _, name := range []string{"o", "r"} {
		if m := mode(name); m != 0o755 {
			t.Errorf("%s: mode %o after chown(-1, -1), want 755", name, m)
		}
	}
}
