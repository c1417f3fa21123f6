// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A fixture is a list of lines, one an entry, each
//
//	PATH/                  a directory
//	PATH=CONTENT           a file; "#N" is N bytes of a pattern, "@N" a file of
//	                       N bytes that is one hole
//	PATH -> TARGET         a symbolic link
//	PATH => OTHER          a hard link to OTHER of the same fixture
//	PATH                   what the attributes say
//
// with attributes in braces after it, separated by blanks:
//
//	0755                   the mode
//	1000:1000              user and group id
//	NAME=VALUE             an extended attribute (its name has a dot)
//	fifo sock chr:1:3 blk:7:9
//	whiteout               a character device 0/0
//	opaque                 the directory has trusted.overlay.opaque=y
//
// Directories above come into being by themselves. All times are in the past
// (see fixtureTime), so that a test can tell a time that was kept from a new one.

// fixtureTime is the modification time of the first entry of a fixture; the
// next ones count up in seconds.
var fixtureTime = time.Date(2001, 2, 3, 4, 5, 6, 123456789, time.UTC)

// entry is one parsed line of a fixture.
type entry struct {
	path, kind, arg string // kind: dir file symlink link fifo sock chr blk
	mode            uint32
	hasMode         bool
	uid, gid        int
	xattrs          [][2]string
}

// parseEntry reads one line of a fixture.
func parseEntry(line string) (entry, error) {
	e := entry{}
	body, attrs := line, ""
	if i := strings.LastIndex(line, " {"); i >= 0 && strings.HasSuffix(line, "}") {
		body, attrs = line[:i], line[i+2:len(line)-1]
	}
	switch {
	case strings.Contains(body, " -> "):
		e.path, e.arg, _ = strings.Cut(body, " -> ")
		e.kind = "symlink"
	case strings.Contains(body, " => "):
		e.path, e.arg, _ = strings.Cut(body, " => ")
		e.kind = "link"
	case strings.Contains(body, "="):
		e.path, e.arg, _ = strings.Cut(body, "=")
		e.kind = "file"
	case strings.HasSuffix(body, "/"):
		e.path, e.kind = strings.TrimSuffix(body, "/"), "dir"
	default:
		e.path = body
	}
	for _, a := range strings.Fields(attrs) {
		if err := e.attribute(a); err != nil {
			return e, fmt.Errorf("%q: %w", line, err)
		}
	}
	if e.kind == "" {
		return e, fmt.Errorf("%q: no type", line)
	}
	return e, nil
}

// attribute reads one word between the braces.
func (e *entry) attribute(a string) error {
	switch {
	case a == "opaque":
		e.xattrs = append(e.xattrs, [2]string{"trusted.overlay.opaque", "y"})
	case a == "whiteout":
		e.kind, e.arg = "chr", "0:0"
	case a == "fifo" || a == "sock":
		e.kind = a
	case strings.HasPrefix(a, "chr:") || strings.HasPrefix(a, "blk:"):
		e.kind, e.arg = a[:3], a[4:]
	case strings.Contains(a, "="):
		k, v, _ := strings.Cut(a, "=")
		e.xattrs = append(e.xattrs, [2]string{k, v})
	case strings.Contains(a, ":"):
		_, err := fmt.Sscanf(a, "%d:%d", &e.uid, &e.gid)
		return err
	default:
		m, err := strconv.ParseUint(a, 8, 32)
		e.mode, e.hasMode = uint32(m), true
		return err
	}
	return nil
}

// buildFixture makes the entries below dir, which must exist.
func buildFixture(dir string, lines []string) error {
	times := map[string]time.Time{dir: fixtureTime}
	for i, line := range lines {
		e, err := parseEntry(line)
		if err != nil {
			return err
		}
		p := filepath.Join(dir, e.path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		for d := filepath.Dir(p); len(d) > len(dir); d = filepath.Dir(d) {
			if _, ok := times[d]; !ok {
				times[d] = fixtureTime
			}
		}
		if err := e.make(dir, p); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		if e.kind != "link" {
			times[p] = fixtureTime.Add(time.Duration(i+1) * time.Second)
		}
	}
	return setTimes(times)
}

// setTimes sets the modification times, of what is deepest first.
func setTimes(times map[string]time.Time) error {
	paths := make([]string, 0, len(times))
	for p := range times {
		paths = append(paths, p)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(paths)))
	for _, p := range paths {
		ts := unix.NsecToTimespec(times[p].UnixNano())
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("utimes %s: %w", p, err)
		}
	}
	return nil
}

// make creates the entry at p.
func (e *entry) make(dir, p string) error {
	if err := e.create(dir, p); err != nil {
		return err
	}
	if e.kind == "link" {
		return nil
	}
	if err := unix.Lchown(p, e.uid, e.gid); err != nil {
		return err
	}
	if e.hasMode {
		if err := unix.Chmod(p, e.mode); err != nil {
			return err
		}
	}
	for _, x := range e.xattrs {
		if err := unix.Lsetxattr(p, x[0], []byte(x[1]), 0); err != nil {
			return fmt.Errorf("setxattr %s: %w", x[0], err)
		}
	}
	return nil
}

func (e *entry) create(dir, p string) error {
	switch e.kind {
	case "dir":
		err := os.Mkdir(p, 0o755)
		if os.IsExist(err) {
			return nil
		}
		return err
	case "file":
		return e.createFile(p)
	case "symlink":
		return os.Symlink(e.arg, p)
	case "link":
		return os.Link(filepath.Join(dir, e.arg), p)
	case "fifo":
		return unix.Mkfifo(p, 0o644)
	case "sock":
		return unix.Mknod(p, unix.S_IFSOCK|0o644, 0)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(e.arg, "%d:%d", &major, &minor); err != nil {
		return err
	}
	typ := uint32(unix.S_IFCHR)
	if e.kind == "blk" {
		typ = unix.S_IFBLK
	}
	return unix.Mknod(p, typ|0o644, int(unix.Mkdev(major, minor)))
}

func (e *entry) createFile(p string) error {
	f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, ok := e.size(); ok && e.arg[0] == '@' {
		return f.Truncate(n)
	} else if ok {
		_, err = f.Write(pattern(int(n), n))
		return err
	}
	_, err = f.WriteString(e.arg)
	return err
}

// size is the size that "#N" or "@N" gives.
func (e *entry) size() (int64, bool) {
	if e.arg == "" || (e.arg[0] != '#' && e.arg[0] != '@') {
		return 0, false
	}
	n, err := strconv.ParseInt(e.arg[1:], 10, 64)
	return n, err == nil
}

// pattern is n bytes that depend on seed and differ from page to page.
func pattern(n int, seed int64) []byte {
	b := make([]byte, n)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x>>33) | 1 // never zero, so that a hole shows
	}
	return b
}

// makeTree builds a fixture in a new directory.
func makeTree(t testing.TB, dir string, lines []string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := buildFixture(dir, lines); err != nil {
		t.Fatalf("fixture: %v", err)
	}
	return dir
}
