// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

func TestParseLayers(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		lowers []string
		upper  string
		work   string
	}{
		{"one", []string{"lowerdir=/a"}, []string{"/a"}, "", ""},
		{"three", []string{"lowerdir=/a:/b:/c,upperdir=/u,workdir=/w"}, []string{"/a", "/b", "/c"}, "/u", "/w"},
		{"repeated -o", []string{"workdir=/w", "upperdir=/u", "lowerdir=/a:/b"}, []string{"/a", "/b"}, "/u", "/w"},
		{"relative", []string{"lowerdir=l/ABC:l/DEF,upperdir=u,workdir=w"}, []string{"l/ABC", "l/DEF"}, "u", "w"},
		{"colon", []string{`lowerdir=/a\:b:/c`}, []string{"/a:b", "/c"}, "", ""},
		{"comma", []string{`lowerdir=/a\,b:/c,upperdir=/u\,v,workdir=/w`}, []string{"/a,b", "/c"}, "/u,v", "/w"},
		{"backslash", []string{`lowerdir=/a\\:/b\\\:c`}, []string{`/a\`, `/b\:c`}, "", ""},
		{"octal", []string{`lowerdir=/a\040b\054c\072d:/e`}, []string{"/a b,c:d", "/e"}, "", ""},
		{"quoted", []string{`lowerdir="/a,b:/c",upperdir=/u,workdir=/w`}, []string{"/a,b", "/c"}, "/u", "/w"},
		{"equals sign", []string{"lowerdir=/a=b"}, []string{"/a=b"}, "", ""},
		{"quote inside", []string{`lowerdir=/a"b:/c"`}, []string{`/a"b`, `/c"`}, "", ""},
		{"empty items", []string{",,lowerdir=/a,,", ""}, []string{"/a"}, "", ""},
		{"one at a time", []string{`lowerdir+=/a:b,lowerdir+=/c`}, []string{"/a:b", "/c"}, "", ""},
		{"the same twice", []string{"lowerdir=/a:/b", "lowerdir=/a:/b"}, []string{"/a", "/b"}, "", ""},
		{"not UTF-8", []string{"lowerdir=/\xff\xfe"}, []string{"/\xff\xfe"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := parseOptions(c.args, false)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.Lowers, c.lowers) || m.Upper != c.upper || m.Work != c.work {
				t.Errorf("got %q %q %q, want %q %q %q", m.Lowers, m.Upper, m.Work, c.lowers, c.upper, c.work)
			}
		})
	}
}

func TestParseFlags(t *testing.T) {
	for s, want := range map[string]uintptr{
		"":                       0,
		"ro":                     unix.MS_RDONLY,
		"ro,rw":                  0,
		"rw,ro":                  unix.MS_RDONLY,
		"nosuid,nodev,noexec":    unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC,
		"nosuid,nodev,dev,suid":  0,
		"noatime,nodiratime":     unix.MS_NOATIME | unix.MS_NODIRATIME,
		"user":                   unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC,
		"user,exec":              unix.MS_NOSUID | unix.MS_NODEV,
		"owner":                  unix.MS_NOSUID | unix.MS_NODEV,
		"defaults,auto,_netdev":  0,
		"x-systemd.automount,ro": unix.MS_RDONLY,
		"X-mount.mkdir=0755":     0,
		"sync,relatime":          unix.MS_SYNCHRONOUS | unix.MS_RELATIME,
	} {
		m, err := parseOptions([]string{s}, false)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if m.MountFlags != want {
			t.Errorf("%q: flags %#x, want %#x", s, m.MountFlags, want)
		}
	}
}

func TestParsePropagation(t *testing.T) {
	for s, want := range map[string]uintptr{
		"":                 0,
		",private":         unix.MS_PRIVATE,
		",rprivate,shared": unix.MS_SHARED,
		",rshared,slave":   unix.MS_SLAVE,
		",unbindable":      unix.MS_UNBINDABLE,
	} {
		m, err := parseOptions([]string{"lowerdir=/a" + s}, false)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if m.Propagation != want {
			t.Errorf("%q: propagation %#x, want %#x", s, m.Propagation, want)
		}
	}
}

func TestParseFields(t *testing.T) {
	m, err := parseOptions([]string{`io=coherent,passthrough=require,max_stack_depth=2,threads=3,fd_cache=99,volatile,noacl`,
		`timeout=1.5,debug,fsname=base,context="system_u:object_r:c:s0:c1,c2",log_file=/x\,y`}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := stack.Config{IO: "coherent", Passthrough: "require", MaxStackDepth: 2, Threads: 3, FDCache: 99, Volatile: true,
		NoACL: true, Timeout: 1500 * time.Millisecond, Source: "base", MountData: []string{`context="system_u:object_r:c:s0:c1,c2"`}}
	if !reflect.DeepEqual(m.Config, want) {
		t.Errorf("got  %+v\nwant %+v", m.Config, want)
	}
	if m.logLevel != "debug" || m.logFile != "/x,y" {
		t.Errorf("log %q %q", m.logLevel, m.logFile)
	}
}

func TestParseErrors(t *testing.T) {
	for s, want := range map[string]string{
		"lowerdri=/a":               `did you mean "lowerdir"?`,
		"uperdir=/a":                `did you mean "upperdir"?`,
		"frobnicate":                `unknown option "frobnicate"; plyfs help options`,
		`lowerdir=/a\`:              `a backslash at the end`,
		`lowerdir=/a\x`:             `bad escape`,
		`lowerdir=/a\000`:           `bad escape`,
		`lowerdir=/a\777`:           `bad escape`,
		"lowerdir=":                 "directory 1 of 1 is empty",
		"lowerdir=/a::/b":           "directory 2 of 3 is empty",
		"lowerdir=/a,lowerdir=/b":   "given twice",
		"lowerdir+=":                "needs a value",
		"upperdir=/u":               "upperdir without workdir",
		"workdir=/w":                "workdir without upperdir",
		"upperdir":                  "needs a value",
		"io=fast":                   "passthrough, coherent",
		"passthrough":               "auto, require, off",
		"max_stack_depth=3":         "from 1 to 2",
		"threads=many":              "a number",
		"timeout=-1":                "a number of seconds",
		"timeout=NaN":               "a number of seconds",
		"volatile=1":                "takes no value",
		"fsync=2":                   "0 or 1",
		"uidmapping=:0:100000:6553": "not supported",
		"gidmapping=0:0:1":          "not supported",
		"squash_to_uid=0":           "not supported",
		"squash_to_gid=0":           "not supported",
		"squash_to_root":            "not supported",
		"xattr_permissions=2":       "not supported",
		"noxattrs=1":                "not supported",
		"redirect_dir=nofollow":     "not supported",
		"userxattr":                 "not supported",
		"remount":                   "not supported; unmount",
		`context="abc`:              "quote is not closed",
		`context="abc"x`:            "follows the closing quote",
		"=x":                        "no name",
	} {
		_, err := parseOptions([]string{s}, false)
		switch {
		case err == nil:
			t.Errorf("%q is accepted", s)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%q: %q does not contain %q", s, err, want)
		case exitCode(err) != exitUsage:
			t.Errorf("%q: exit code %d", s, exitCode(err))
		}
	}
}

// TestParseNotes: options of other programs that say what is so anyway.
func TestParseNotes(t *testing.T) {
	m, err := parseOptions([]string{"lowerdir=/a,metacopy=on,xino=auto,fast_ino=1,threaded=1,allow_root,static_nlink,redirect_dir=on,xattr_permissions=0"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.notes) != 6 {
		t.Errorf("notes: %q", m.notes)
	}
}

func TestParseSloppy(t *testing.T) {
	m, err := parseOptions([]string{"lowerdir=/a,frobnicate=7"}, true)
	if err != nil || len(m.notes) != 1 || !strings.Contains(m.notes[0], "frobnicate") {
		t.Errorf("%v, %+v", err, m)
	}
}

func TestNearest(t *testing.T) {
	known := slices.Sorted(maps.Keys(optionTable))
	for name, want := range map[string]string{"lowerdirs": "lowerdir", "work_dir": "workdir", "maxstackdepth": "max_stack_depth", "zzzzzzzz": ""} {
		if got := nearest(name, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

// FuzzSplitPath: what is escaped comes back, and nothing panics.
func FuzzSplitPath(f *testing.F) {
	f.Add("/a", "/b:c")
	f.Add(`\`, `,"`)
	f.Add("=", `\,`)
	f.Fuzz(func(t *testing.T, a, b string) {
		_, _ = parseOptions([]string{a, b}, false)
		if a == "" || b == "" || a[0] == '"' {
			return
		}
		m, err := parseOptions([]string{"lowerdir=" + escapeOption(a) + ":" + escapeOption(b) + ",ro"}, false)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(m.Lowers, []string{a, b}) || m.MountFlags != unix.MS_RDONLY {
			t.Errorf("%q became %q", []string{a, b}, m.Lowers)
		}
	})
}
