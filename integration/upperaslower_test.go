// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUpperAsLower: the upper of a mount that has ended is the lower layer of
// another. What can only be known from its journal and its lower layers is
// never shown wrong: removed names do not come back, partial files are not
// zeros; and what is plain is shown.
func TestUpperAsLower(t *testing.T) {
	requirePlyfs(t, "a journal")
	u := newMount(t, mountOpts{lowers: [][]string{{"big=#3000000", "dir/sub/gone=1", "dir/sub/stays=2", "other/f=3", "top=4"}}})
	must(t, os.WriteFile(u.path("new"), []byte("plain"), 0o644))
	must(t, os.Mkdir(u.path("made"), 0o755))
	must(t, os.WriteFile(u.path("other/f"), []byte("whole copy"), 0o644))
	must(t, os.Rename(u.path("other/f"), u.path("made/f")))
	must(t, os.Rename(u.path("made/f"), u.path("other/f"))) // made is impure
	over := func() *union {
		t.Helper()
		return prepare(t, mountOpts{lowerDirs: []string{u.upper, u.lowers[0]}, noLowerCheck: true})
	}

	u.unmount() // an upper that hides nothing and has no partial files
	v := over()
	v.mount()
	wantFile(t, v.path("new"), "plain")
	wantNames(t, v.path(), "big", "dir", "made", "new", "other", "top")
	wantFile(t, v.path("other/f"), "whole copy")
	v.unmount()

	u.mount()
	must(t, os.Chmod(u.path("big"), 0o600))
	must(t, os.Remove(u.path("dir/sub/gone")))
	u.unmount()
	v = over()
	v.allowEIO = true
	v.mount()
	wantFile(t, v.path("new"), "plain")
	wantFile(t, v.path("other/f"), "whole copy")
	_, err := os.ReadFile(v.path("big"))
	wantErrno(t, "read a partial file", err, unix.EIO)
	_, err = os.ReadFile(v.path("dir/sub/gone"))
	wantErrno(t, "read a removed file", err, unix.EIO)
	_, err = os.ReadDir(v.path("dir/sub"))
	wantErrno(t, "list a directory with removed names", err, unix.EIO)
	v.unmount()

	u.mount()
	must(t, os.Remove(u.path("top")))
	u.unmount()
	v = over()
	out, err := plyfs("mount", "-o", v.optionString(), v.mp)
	if err == nil {
		v.mounted = true
		t.Fatal("an upper whose root hides names was mounted as a lower layer")
	}
	if !strings.Contains(out, "was the upperdir of a plyfs mount") || strings.Count(out, "\n") != 1 {
		t.Errorf("refused with %q", out)
	}
}
