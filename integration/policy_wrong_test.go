// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Wrong answers: each is EIO and a count, and nothing else suffers.

// wrongAnswer is a program that answers wrongly about the file "bad".
type wrongAnswer struct {
	name    string
	section string // "" is file/open/pre
	body    string
	words   string // that some last error has
	stat    bool   // stat fails, too
	list    bool   // and so does the listing that has the name
	upper   bool   // the bad file is the one in upper
	caller  bool   // the object says PLY_CALLER
}

// onlyBad begins a program that has something to say about names in bad*.
const onlyBad = `	if (in->name[0] != 'b' || in->name[1] != 'a' || in->name[2] != 'd')
		return PLY_CONTINUE;
`

var wrongAnswers = []wrongAnswer{
	{name: "unknown action", body: "return 77;", words: "action 77", stat: true},
	{name: "no errno", body: "return -1000;", words: "action -1000", stat: true},
	{name: "gap", body: "ply_zero(out, 0, 10); ply_backing(out, 20, in->size - 20, PLY_SELF, 20); return 0;", words: "gap"},
	{name: "overlap", body: "ply_zero(out, 0, 10); ply_backing(out, 5, in->size - 5, PLY_SELF, 5); return 0;", words: "overlap"},
	{name: "unsorted", body: "ply_zero(out, 10, in->size - 10); ply_zero(out, 0, 10); return 0;", words: "gap"},
	{name: "starts late", body: "ply_zero(out, 1, in->size - 1); return 0;", words: "gap"},
	{name: "overflow", body: "ply_zero(out, 0, 10); ply_backing(out, 10, ~0ULL - 5, PLY_SELF, 10); return 0;", words: "too large"},
	{name: "sum overflows", body: "ply_zero(out, 0, 10); ply_backing(out, 10, ~0ULL >> 1, PLY_SELF, 10); return 0;", words: "extent 1"},
	{name: "beyond the size", body: "ply_zero(out, 0, in->size + 10); return 0;", words: "beyond"},
	{name: "nothing more in the second window", body: "ply_zero(out, 0, 10); return 0;", words: "overlap"},
	{name: "empty second window", body: "if (in->offset) return 0; ply_zero(out, 0, 10); return 0;", words: "policy"},
	{name: "another size in the second window", words: "size",
		body: "out->flags = PLY_OUT_SIZE; out->size = in->offset ? 99 : 50; ply_zero(out, in->offset, 10); return 0;"},
	{name: "size too large", body: "out->flags = PLY_OUT_SIZE; out->size = 1ULL << 63; return 0;", words: "too large", stat: true},
	{name: "empty extent", body: "ply_zero(out, 0, 0); ply_backing(out, 0, in->size, PLY_SELF, 0); return 0;", words: "length"},
	{name: "unknown kind", body: "ply_extent(out, 0, in->size, 9, 0, 0); return 0;", words: "kind 9"},
	{name: "no such layer", body: "ply_backing(out, 0, in->size, PLY_LAYER(9), 0); return 0;", words: "backing file 9"},
	{name: "no such part", body: "ply_backing(out, 0, in->size, PLY_PART(0), 0); return 0;", words: "backing file 128"},
	{name: "backing file too short", body: "ply_backing(out, 0, in->size, PLY_SELF, 10); return 0;", words: "ends at"},
	{name: "too many extents", body: "out->nextents = 17; return 0;", words: "17 extents"},
	{name: "too many inline bytes", body: "out->data_len = 5000; ply_extent(out, 0, in->size, PLY_EXT_INLINE, 0, 0); return 0;", words: "5000 inline"},
	{name: "inline bytes that are not there", body: "out->data_len = 4; ply_extent(out, 0, in->size, PLY_EXT_INLINE, 0, 0); return 0;", words: "inline bytes"},
	{name: "handler that is not there", body: "return PLY_USER_PREFILTER;", words: "handler"},
	{name: "handler afterwards", body: "return PLY_USER_POSTFILTER;", words: "handler"},
	{name: "server that is not there", body: "ply_extent(out, 0, in->size, PLY_EXT_SERVER, 0, 0); return 0;", words: "serves"},
	{name: "post program that is not there", body: "return PLY_POSTFILTER;", words: "post program"},
	{name: "flags of names", body: "out->flags = PLY_OUT_HIDE; return 0;", words: "flags 0x1", stat: true},
	{name: "other bytes in upper", body: "ply_backing(out, 0, in->size, PLY_SELF, 0); out->extents[0].src = 5; out->extents[0].len -= 5; ply_zero(out, in->size - 5, 5); return 0;",
		words: "blanked", upper: true},
	{name: "another size in upper", body: "out->flags = PLY_OUT_SIZE; out->size = 10; ply_zero(out, 0, 10); return 0;", words: "blanked", upper: true},
	{name: "a size by caller", words: "caller", caller: true,
		body: "out->flags = PLY_OUT_SIZE; out->size = in->size - 1 + in->uid; ply_backing(out, 0, out->size, PLY_SELF, 0); return 0;"},
	{name: "layer of a name", section: "ply/inode/lookup/pre", body: "out->flags = PLY_OUT_CHOOSE; out->layer = 9; return 0;", words: "layer 9", stat: true},
	{name: "upper of a name", section: "ply/inode/lookup/pre", body: "out->flags = PLY_OUT_CHOOSE; out->layer = 0; return 0;", words: "layer 0", stat: true},
	{name: "flags of files", section: "ply/inode/lookup/pre", body: "out->flags = PLY_OUT_SIZE; return 0;", words: "flags 0x4", stat: true, list: true},
	{name: "action of a name", section: "ply/inode/lookup/pre", body: "return 5;", words: "action 5", stat: true, list: true},
	{name: "type bits", section: "ply/inode/getattr/pre", body: "out->flags = PLY_OUT_MODE; out->mode_clear = 0100000; return 0;", words: "mode bits", stat: true},
	{name: "flags of extents", section: "ply/inode/getattr/pre", body: "out->flags = PLY_OUT_CHOOSE; return 0;", words: "flags 0x2", stat: true},
	{name: "short read", section: "ply/file/read/pre", body: "ply_zero(out, in->offset, 5); return 0;", words: "read up to"},
	{name: "read from elsewhere", section: "ply/file/read/pre", body: "ply_zero(out, in->offset + 1, 5); return 0;", words: "gap"},
	{name: "action after a read", section: "ply/file/read/post", body: "return PLY_USER;", words: "action 1"},
}

// TestWrongAnswers holds each of them against a live mount.
func TestWrongAnswers(t *testing.T) {
	w := newWorkshop(t)
	start := w.compile("start", "#include <plyfs.h>\nPLY_CALLER;\n"+strings.TrimPrefix(program("ply/file/open/pre", "return 0;"), "#include <plyfs.h>\n"))
	u := newMount(t, mountOpts{options: []string{"bpf=" + start}, upper: []string{"badupper=#100"},
		lowers: [][]string{{"bad=#100", "good=good"}}})
	u.allowEIO = true
	for i, c := range wrongAnswers {
		t.Run(c.name, func(t *testing.T) {
			if c.section == "" {
				c.section = "ply/file/open/pre"
			}
			source := program(c.section, onlyBadOf(c.section)+c.body)
			if c.caller {
				source = strings.Replace(source, "\n", "\nPLY_CALLER;\n", 1)
			}
			u.setPolicy(w.compile(fmt.Sprint("wrong", i), source))
			checkWrong(t, u, c)
		})
	}
	u.clearPolicy()
	wantBytes(t, "bad", mustRead(t, u.path("bad")), mustRead(t, u.lowers[0]+"/bad"))
}

// onlyBadOf is onlyBad where the program is told a name.
func onlyBadOf(section string) string {
	if strings.HasSuffix(section, "read/post") { // there the name is what was read
		return "	if (in->length < 50)\n		return PLY_CONTINUE;\n"
	}
	return onlyBad
}

func checkWrong(t *testing.T, u *union, c wrongAnswer) {
	t.Helper()
	name := "bad"
	if c.upper {
		name = "badupper"
	}
	before := wrongCount(u)
	if f, err := os.Open(u.path(name)); err == nil {
		_, err = io.ReadAll(f)
		wantErrno(t, "reading", err, unix.EIO)
		f.Close()
	} else {
		wantErrno(t, "opening", err, unix.EIO)
	}
	var st unix.Stat_t
	if err := unix.Stat(u.path(name), &st); c.stat {
		wantErrno(t, "stat", err, unix.EIO)
	} else if err != nil || st.Size != 100 && !strings.Contains(c.name, "size") {
		t.Errorf("stat: %v, size %d", err, st.Size)
	}
	wantFile(t, u.path("good"), "good")
	if _, err := os.ReadDir(u.mp); c.list {
		wantErrno(t, "listing", err, unix.EIO)
	} else if err != nil {
		t.Errorf("listing: %v", err)
	}
	if after := wrongCount(u); after <= before {
		t.Errorf("the count of wrong answers is %d as before", after)
	}
	if all := lastErrors(u); !strings.Contains(all, c.words) {
		t.Errorf("no last error has %q:\n%s", c.words, all)
	}
}

// wrongCount is how many wrong answers the mount has counted: those of its
// policy, which a new one does not have.
func wrongCount(u *union) uint64 {
	u.Helper()
	return u.policyStatus().Policy.WrongAnswers
}

// lastErrors are those of the mount and of its policy.
func lastErrors(u *union) string {
	u.Helper()
	return strings.Join(append(u.status().LastErrors, u.policyStatus().Policy.LastErrors...), "\n")
}
