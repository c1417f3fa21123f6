// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

// snapshot lists all below a directory.
func snapshot(t testing.TB, root string) (out []string) {
	t.Helper()
	err := filepath.Walk(root, func(p string, fi os.FileInfo, err error) error {
		out = append(out, p)
		return err
	})
	must(t, err)
	return out
}

// Each refusal of Open names the path that is wrong and the mend, in one line,
// and leaves nothing behind.
func TestOpenRefuses(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name   string
		change func(c *Config, base string)
		kind   ErrorKind
		path   string // relative to the base directory, "" for none
		words  []string
	}{
		{"no lower", func(c *Config, _ string) { c.Lowers = nil }, KindUsage, "", []string{"lowerdir"}},
		{"upper without work", func(c *Config, _ string) { c.Work = "" }, KindUsage, "upper", []string{"workdir"}},
		{"work without upper", func(c *Config, _ string) { c.Upper = "" }, KindUsage, "work", []string{"upperdir"}},
		{"io", func(c *Config, _ string) { c.IO = "cached" }, KindUsage, "", []string{"io=cached", "io=coherent"}},
		{"passthrough", func(c *Config, _ string) { c.Passthrough = "maybe" }, KindUsage, "", []string{"passthrough=maybe", "require"}},
		{"depth 3", func(c *Config, _ string) { c.MaxStackDepth = 3 }, KindUsage, "", []string{"max_stack_depth=3"}},
		{"depth -1", func(c *Config, _ string) { c.MaxStackDepth = -1 }, KindUsage, "", []string{"max_stack_depth=-1"}},
		{"lower missing", func(c *Config, b string) { c.Lowers[0] = b + "/none" }, KindUsage, "none", []string{"lowerdir", "does not exist"}},
		{"second lower missing", func(c *Config, b string) { c.Lowers = append(c.Lowers, b+"/none") }, KindUsage, "none", []string{"lowerdir"}},
		{"upper missing", func(c *Config, b string) { c.Upper = b + "/none" }, KindUsage, "none", []string{"upperdir", "does not exist"}},
		{"work missing", func(c *Config, b string) { c.Work = b + "/none" }, KindUsage, "none", []string{"workdir", "does not exist"}},
		{"lower is a file", func(c *Config, b string) { c.Lowers[0] = b + "/file" }, KindUsage, "file", []string{"lowerdir", "not a directory"}},
		{"upper is a file", func(c *Config, b string) { c.Upper = b + "/file" }, KindUsage, "file", []string{"upperdir"}},
		{"below a file", func(c *Config, b string) { c.Lowers[0] = b + "/file/x" }, KindUsage, "file/x", []string{"lowerdir"}},
		{"a loop of symlinks", func(c *Config, b string) { c.Lowers[0] = b + "/loop" }, KindUsage, "loop", []string{"lowerdir"}},
		{"same lower twice", func(c *Config, b string) { c.Lowers = append(c.Lowers, c.Lowers[0]+"/.") }, KindUsage, "low/.", []string{"same", "low"}},
		{"lower is upper", func(c *Config, _ string) { c.Lowers[0] = c.Upper }, KindUsage, "upper", []string{"overlaps"}},
		{"lower in upper", func(c *Config, _ string) { c.Lowers[0] = c.Upper + "/in" }, KindUsage, "upper/in", []string{"overlaps", "upper"}},
		{"lower in work", func(c *Config, _ string) { c.Lowers[0] = c.Work + "/in" }, KindUsage, "work/in", []string{"overlaps", "work"}},
		{"work in upper", func(c *Config, _ string) { c.Work = c.Upper + "/in" }, KindUsage, "upper/in", []string{"overlaps"}},
		{"upper in work", func(c *Config, _ string) { c.Upper = c.Work + "/in" }, KindUsage, "work/in", []string{"overlaps"}},
		{"upper is work", func(c *Config, _ string) { c.Work = c.Upper }, KindUsage, "upper", []string{"overlaps"}},
		{"work elsewhere", func(c *Config, b string) { c.Work = b + "/tmpfs" }, KindUsage, "tmpfs", []string{"same mount", "upper"}},
		{"damaged mark of upper", func(c *Config, b string) { c.Upper = b + "/damaged" }, KindJournal, "damaged", []string{xattrDir}},
		{"upper read-only", func(c *Config, b string) { c.Upper, c.Work = b+"/ro/u", b+"/ro/w" }, KindUsage, "ro/u", []string{"read-only"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			for _, d := range []string{"low", "upper/in", "work/in", "mnt", "tmpfs", "ro", "damaged"} {
				mkdir(t, base+"/"+d)
			}
			must(t, os.WriteFile(base+"/file", nil, 0o644))
			must(t, os.Symlink("loop", base+"/loop"))
			must(t, unix.Setxattr(base+"/damaged", xattrDir, []byte{77}, 0))
			for _, d := range []string{"tmpfs", "ro"} {
				must(t, unix.Mount("tmpfs", base+"/"+d, "tmpfs", 0, "size=1m"))
				defer func() { _ = unix.Unmount(base+"/"+d, unix.MNT_DETACH) }()
			}
			mkdir(t, base+"/ro/u")
			mkdir(t, base+"/ro/w")
			must(t, unix.Mount("", base+"/ro", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			cfg := Config{Lowers: []string{base + "/low"}, Upper: base + "/upper", Work: base + "/work", Mountpoint: base + "/mnt",
				Logger: slog.New(slog.DiscardHandler)}
			c.change(&cfg, base)
			before := snapshot(t, base)
			fs, err := Open(cfg)
			if err == nil {
				_ = fs.Close()
				t.Fatal("opened")
			}
			checkRefusal(t, err, c.kind, c.words)
			var e *Error
			if errors.As(err, &e) && c.path != "" && e.Path != base+"/"+c.path {
				t.Errorf("it is about %q, want %q", e.Path, base+"/"+c.path)
			}
			if after := snapshot(t, base); !slices.Equal(before, after) {
				t.Errorf("it left something behind: %q, before %q", after, before)
			}
		})
	}
}

func checkRefusal(t *testing.T, err error, kind ErrorKind, words []string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *Error but %T", err, err)
	}
	s := err.Error()
	if e.Kind != kind {
		t.Errorf("kind %d, want %d: %s", e.Kind, kind, s)
	}
	if strings.Contains(s, "\n") {
		t.Errorf("more than a line: %q", s)
	}
	if e.Mend == "" && !strings.Contains(s, "; ") {
		t.Errorf("no mend: %s", s)
	}
	for _, w := range words {
		if !strings.Contains(s, w) {
			t.Errorf("%q does not say %q", s, w)
		}
	}
}

func TestOpenRefusesBusyLayers(t *testing.T) {
	low := layer(t, "file a 1")
	first := mountDirs(t, low)
	openFS(t, first)
	other := mountDirs(t, low)
	shared := openFS(t, other) // lowers may be shared
	if shared.upper == nil {
		t.Fatal("no upper")
	}
	third := mountDirs(t, low)
	for _, c := range []struct {
		name   string
		change func(*Config)
		path   string
	}{
		{"upper", func(c *Config) { c.Upper = first.Upper }, first.Upper},
		{"work", func(c *Config) { c.Work = first.Work }, first.Work},
		{"upper as lower", func(c *Config) { c.Lowers = []string{low, first.Upper} }, first.Upper},
		{"lower as upper", func(c *Config) { c.Upper, c.Lowers = low, []string{layer(t)} }, low},
	} {
		cfg := third
		c.change(&cfg)
		cfg.Logger = slog.New(slog.DiscardHandler)
		before := snapshot(t, filepath.Dir(third.Work))
		fs, err := Open(cfg)
		if err == nil {
			_ = fs.Close()
			t.Errorf("%s of a live mount was taken", c.name)
			continue
		}
		checkRefusal(t, err, KindBusy, []string{c.path, "in use"})
		if after := snapshot(t, filepath.Dir(third.Work)); !slices.Equal(before, after) {
			t.Errorf("%s: left behind %q", c.name, after)
		}
	}
}

func TestOpenRefusesOtherLayers(t *testing.T) {
	cfg := mountDirs(t, layer(t, "file a 1"))
	m := mountConfig(t, cfg)
	must(t, unix.Unlink(m.path("a")))
	m.unmount()
	other := cfg
	other.Lowers = []string{layer(t, "file a 1")}
	_, err := Open(other)
	checkRefusal(t, err, KindJournal, []string{cfg.Work})
	fresh := mountDirs(t, cfg.Lowers...)
	fresh.Upper = cfg.Upper
	fresh.Work = filepath.Dir(cfg.Work) + "/work2"
	mkdir(t, fresh.Work)
	_, err = Open(fresh)
	checkRefusal(t, err, KindJournal, []string{cfg.Upper, "workdir"})
	must(t, os.WriteFile(cfg.Work+"/plyfs/journal.db", []byte("not a journal"), 0o600))
	_, err = Open(cfg)
	checkRefusal(t, err, KindJournal, []string{"journal.db"})
}

func TestMountRefuses(t *testing.T) {
	for _, mnt := range []string{"none", "file"} {
		cfg := mountDirs(t, layer(t, "file a 1"))
		base := filepath.Dir(cfg.Mountpoint)
		must(t, os.WriteFile(base+"/file", nil, 0o644))
		cfg.Mountpoint = base + "/" + mnt
		cfg.Logger = slog.New(slog.DiscardHandler)
		needRoot(t)
		fs, err := Open(cfg)
		if err == nil {
			err = fs.Mount()
			must(t, fs.Close())
		}
		if err == nil {
			t.Fatalf("mounted over %s", mnt)
		}
		checkRefusal(t, err, KindUsage, []string{cfg.Mountpoint})
	}
}

func TestErrorInOneLine(t *testing.T) {
	e := &Error{Path: "/p", Msg: "is wrong", Err: unix.EACCES, Mend: "mend it"}
	if got, want := e.Error(), "/p: is wrong: permission denied; mend it"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(e, unix.EACCES) {
		t.Error("the cause is lost")
	}
	if got := (&Error{Msg: "m"}).Error(); got != "m" {
		t.Errorf("%q", got)
	}
}

func TestToErrno(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{unix.ENOENT, unix.ENOENT},
		{fmt.Errorf("x: %w", fmt.Errorf("y: %w", unix.ENOSPC)), unix.ENOSPC},
		{&os.PathError{Op: "open", Path: "x", Err: unix.EACCES}, unix.EACCES},
		{&Error{Msg: "m", Err: unix.EPERM}, unix.EPERM},
		{errors.New("in words"), unix.EIO},
		{syscall.Errno(0), unix.EIO},
		{fmt.Errorf("x: %w", syscall.Errno(0)), unix.EIO},
		{errMark, unix.EIO},
		{errors.Join(errors.New("a"), unix.EROFS), unix.EROFS},
	} {
		if got := toErrno(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestStatusCountsErrors(t *testing.T) {
	fs := &FS{log: slog.New(slog.DiscardHandler)}
	fs.count.init()
	if got := fs.status(nil); got != 0 || len(fs.count.errorsByName()) != 0 {
		t.Errorf("no error: %v", got)
	}
	for range 3 {
		if got := fs.status(unix.ENOENT); syscall.Errno(got) != unix.ENOENT {
			t.Errorf("%v", got)
		}
	}
	for i := range lastErrors + 5 {
		fs.status(fmt.Errorf("number %d", i))
	}
	got := fs.count.errorsByName()
	if got["ENOENT"] != 3 || got["EIO"] != lastErrors+5 || len(got) != 2 {
		t.Errorf("%v", got)
	}
	if n := len(fs.count.last); n != lastErrors || !strings.Contains(fs.count.last[n-1], fmt.Sprintf("number %d", lastErrors+4)) {
		t.Errorf("%d kept: %q", n, fs.count.last)
	}
}

func TestChooseDepth(t *testing.T) {
	lay := func(depths ...int) (out []*layers.Layer) {
		for i, d := range depths {
			if d < 0 {
				out = append(out, nil)
				continue
			}
			out = append(out, &layers.Layer{Index: i, Path: fmt.Sprintf("/layer%d", i), Depth: d, DepthWhy: "overlay on ext4"})
		}
		return out
	}
	for _, c := range []struct {
		name   string
		cfg    Config
		depths []int // by layer, upper first, -1: none
		max    int
		served []int // layers without passthrough
		err    string
	}{
		{"plain", Config{}, []int{0, 0, 0}, 1, nil, ""},
		{"no upper", Config{}, []int{-1, 0}, 1, nil, ""},
		{"one stacked", Config{}, []int{0, 0, 1}, 2, nil, ""},
		{"upper stacked", Config{}, []int{1, 0}, 2, nil, ""},
		{"too deep alone", Config{}, []int{0, 2}, 1, []int{1}, ""},
		{"one and too deep", Config{}, []int{0, 1, 2}, 2, []int{2}, ""},
		{"1 by order", Config{MaxStackDepth: 1}, []int{0, 1, 0}, 1, []int{1}, ""},
		{"2 by order", Config{MaxStackDepth: 2}, []int{0, 0}, 2, nil, ""},
		{"off", Config{Passthrough: PassthroughOff}, []int{0, 0}, 1, []int{0, 1}, ""},
		{"require", Config{Passthrough: PassthroughRequire}, []int{0, 1}, 2, nil, ""},
		{"require, too deep", Config{Passthrough: PassthroughRequire}, []int{0, 2}, 1, nil, "passthrough=auto"},
		{"require, 1 by order", Config{Passthrough: PassthroughRequire, MaxStackDepth: 1}, []int{0, 1}, 1, nil, "max_stack_depth=2"},
	} {
		fs := &FS{cfg: c.cfg, log: slog.New(slog.DiscardHandler), layers: lay(c.depths...)}
		err := fs.chooseDepth()
		if c.err != "" {
			var e *Error
			if !errors.As(err, &e) || e.Path != "/layer1" || !strings.Contains(err.Error(), "overlay on ext4") || !strings.Contains(e.Mend, c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || fs.maxStackDepth != c.max {
			t.Errorf("%s: depth %d, %v, want %d", c.name, fs.maxStackDepth, err, c.max)
		}
		var served []int
		for i, why := range fs.noPassthrough {
			if why != "" {
				served = append(served, i)
			}
		}
		if !slices.Equal(served, c.served) {
			t.Errorf("%s: served without passthrough %v, want %v (%q)", c.name, served, c.served, fs.noPassthrough)
		}
	}
}

// A layer on kernel overlayfs makes the mount one deeper, and is passed
// through all the same.
func TestDepthOfOverlay(t *testing.T) {
	needRoot(t)
	over := t.TempDir()
	opts := "lowerdir=" + layer(t, "file a 1") + ":" + layer(t, "file b 1")
	if err := unix.Mount("overlay", over, "overlay", unix.MS_RDONLY, opts); err != nil {
		t.Skipf("no kernel overlayfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(over, unix.MNT_DETACH) })
	m := mountOver(t, nil, over)
	if got := readPath(t, m.path("a")); got != "1" {
		t.Errorf("a: %q", got)
	}
	s := m.Status()
	if s.MaxStackDepth != 2 || s.Opens.Passthrough != 1 || s.Layers[1].Depth != 1 {
		t.Errorf("depth %d, opens %+v, layer %+v", s.MaxStackDepth, s.Opens, s.Layers[1])
	}
	m = m.remount(func(c *Config) { c.MaxStackDepth = 1 })
	if got := readPath(t, m.path("a")); got != "1" {
		t.Errorf("a: %q", got)
	}
	s = m.Status()
	if s.Opens.Server != 1 || s.Layers[1].Passthrough || !strings.Contains(s.Layers[1].Why, "overlay") {
		t.Errorf("opens %+v, layer %+v", s.Opens, s.Layers[1])
	}
}
