// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"strings"
	"testing"
)

// overlayIn mounts kernel overlayfs with the fixture and returns its root.
func overlayIn(t *testing.T, lowers ...string) string {
	t.Helper()
	dir := tempDir(t)
	if len(lowers) == 0 {
		lowers = []string{makeTree(t, dir+"/low", []string{"in-overlay=1"})}
	}
	return newMount(t, mountOpts{sut: sutOverlay, dir: dir, lowerDirs: lowers, noLowerCheck: true}).mp
}

// TestDepthOverlayLower: a lower layer on overlayfs works; its depth is known,
// and status says how it is served.
func TestDepthOverlayLower(t *testing.T) {
	requirePlyfs(t, "a status")
	for _, depth := range []string{"", "1", "2"} {
		t.Run("max_stack_depth="+depth, func(t *testing.T) {
			var options []string
			if depth != "" {
				options = []string{"max_stack_depth=" + depth}
			}
			u := newMount(t, mountOpts{lowerDirs: []string{overlayIn(t)}, options: options, noLowerCheck: true})
			wantFile(t, u.path("in-overlay"), "1")
			must(t, os.WriteFile(u.path("in-overlay"), []byte("22"), 0))
			wantFile(t, u.path("in-overlay"), "22")
			for _, l := range u.status().Layers {
				if l.Role != "lower" {
					continue
				}
				if l.Depth != 1 || l.FSType != "overlay" {
					t.Errorf("depth %d type %s, want 1 overlay", l.Depth, l.FSType)
				}
				if !l.Passthrough && l.Why == "" {
					t.Error("served without passthrough, and no reason is given")
				}
				if depth == "1" && l.Passthrough {
					t.Error("passed through from an overlay with max_stack_depth=1")
				}
			}
		})
	}
}

// TestDepthTooDeep: two overlays below are over the kernel's limit for
// passthrough; either the mount says so by name or serves it and says so.
func TestDepthTooDeep(t *testing.T) {
	requirePlyfs(t, "a status")
	two := overlayIn(t, overlayIn(t))
	u := prepare(t, mountOpts{lowerDirs: []string{two}, noLowerCheck: true})
	err := u.tryMount()
	if err != nil {
		for _, w := range []string{two, "overlay", "2"} {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("the error does not name %q: %v", w, err)
			}
		}
		return
	}
	wantFile(t, u.path("in-overlay"), "1")
	for _, l := range u.status().Layers {
		if l.Role == "lower" && (l.Depth != 2 || l.Passthrough || l.Why == "") {
			t.Errorf("depth %d, passthrough %v, why %q", l.Depth, l.Passthrough, l.Why)
		}
	}
}

// TestDepthRequire: passthrough=require makes a layer that cannot be passed
// through an error at mount that names it.
func TestDepthRequire(t *testing.T) {
	requirePlyfs(t, "passthrough=require")
	l := overlayIn(t)
	u := prepare(t, mountOpts{lowerDirs: []string{l}, options: []string{"passthrough=require", "max_stack_depth=1"}, noLowerCheck: true})
	err := u.tryMount()
	if err == nil || !strings.Contains(err.Error(), l) {
		t.Errorf("got %v, want an error that names %s", err, l)
	}
}

// TestDepthOverlayOnTop: with max_stack_depth=1 kernel overlayfs can be mounted
// over a plyfs mount.
func TestDepthOverlayOnTop(t *testing.T) {
	requirePlyfs(t, "max_stack_depth")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}, options: []string{"max_stack_depth=1"}})
	top := newMount(t, mountOpts{sut: sutOverlay, lowerDirs: []string{u.mp}, noLowerCheck: true})
	wantFile(t, top.path("f"), "1")
	must(t, os.WriteFile(top.path("f"), []byte("2"), 0))
	wantFile(t, top.path("f"), "2")
	wantFile(t, u.path("f"), "1")
}
