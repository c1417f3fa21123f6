// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// newSelect mounts layers with the rules.
func newSelect(t *testing.T, option, rules string, lowers ...[]string) *union {
	t.Helper()
	dir := tempDir(t)
	return newMount(t, mountOpts{dir: dir, lowers: lowers, options: []string{option, "policy=" + writePolicy(t, dir, "policy.yaml", rules)}})
}

// hideRules hide names that begin with hid from Alice, uid 1000.
const hideRules = `- path: /
  name: hide
  program: select
  clauses:
    - {match: "hid*", hide: true, uid: 1000}
    - {match: "rootonly", hide: true, uid: root, not: true}
`

// hideTree is a tree with such names. Alice may write in home.
var hideTree = []string{"d/hidden=secret", "d/hid-too/f=below", "d/shown=1", "d/rootonly=2", "home/ {0777}", "home/hidden=3", "home/full/ {0777 1000:1000}",
	"home/full/hid=4", "home/a=5 {1000:1000}", "link -> d/hidden"}

// names lists a directory as a user, by ls.
func (u *union) namesAs(who user, dir string) []string {
	u.Helper()
	out, stderr, code := runAs(u, who, "", "ls", "-A", u.path(dir))
	if code != 0 {
		u.Errorf("ls %s as %d: %s", dir, who.uid, stderr)
	}
	return strings.Fields(out)
}

// wantNamesAs expects the names that a user sees, by ls and by find.
func (u *union) wantNamesAs(who user, dir string, want ...string) {
	u.Helper()
	if got := u.namesAs(who, dir); !slices.Equal(got, want) {
		u.Errorf("%s as user %d: %q, want %q", dir, who.uid, got, want)
	}
	out, _, _ := runAs(u, who, u.mp, "find", u.path(dir), "-mindepth", "1", "-maxdepth", "1", "-printf", "%f\\n")
	found := strings.Fields(out)
	slices.Sort(found)
	if !slices.Equal(found, want) {
		u.Errorf("find in %s as user %d: %q, want %q", dir, who.uid, found, want)
	}
}

// wantHiddenFrom expects that a name is as if it were not there.
func (u *union) wantHiddenFrom(who user, path string) {
	u.Helper()
	for _, c := range [][]string{{"cat"}, {"stat"}, {"ls", "-d"}, {"find"}, {"head", "-c1"}, {"readlink", "-e"}} {
		out, stderr, code := runAs(u, who, "", c[0], append(slices.Clone(c[1:]), u.path(path))...)
		if code == 0 || out != "" || c[0] != "readlink" && !strings.Contains(stderr, "No such file or directory") {
			u.Errorf("%s %s as user %d: exit %d, %q, %q; want no such file", c[0], path, who.uid, code, out, stderr)
		}
	}
}

// wantShownTo expects the content that a user sees.
func (u *union) wantShownTo(who user, path, want string) {
	u.Helper()
	if out, stderr, code := runAs(u, who, "", "cat", u.path(path)); code != 0 || out != want {
		u.Errorf("cat %s as user %d: exit %d, %q, %q; want %q", path, who.uid, code, out, stderr, want)
	}
}

// TestPolicySelectHide: a name is hidden from one user and no other, whoever
// of them came first.
func TestPolicySelectHide(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u := newSelect(t, option, hideRules, hideTree)
		for range 3 { // whatever the kernel has kept of the others
			for _, who := range []user{root, bob} {
				u.wantShownTo(who, "d/hidden", "secret")
				u.wantShownTo(who, "d/hid-too/f", "below")
				u.wantShownTo(who, "link", "secret")
			}
			u.wantNamesAs(root, "d", "hid-too", "hidden", "rootonly", "shown")
			u.wantNamesAs(bob, "d", "hid-too", "hidden", "shown")
			u.wantNamesAs(alice, "d", "shown")
			for _, p := range []string{"d/hidden", "d/hid-too", "d/hid-too/f", "link"} {
				if p != "link" {
					u.wantHiddenFrom(alice, p)
				} else if out, _, code := runAs(t, alice, "", "cat", u.path(p)); code == 0 || out != "" {
					t.Errorf("cat of a link to a hidden name: %q", out)
				}
			}
			u.wantHiddenFrom(bob, "d/rootonly")
			u.wantShownTo(root, "d/rootonly", "2")
			u.wantShownTo(alice, "d/shown", "1")
		}
		if e := u.explain("d/hidden"); !e.Exists || !slices.ContainsFunc(e.Rules, func(r string) bool { return strings.Contains(r, "hide (line") }) {
			t.Errorf("explain: %+v", e)
		}
	})
}

// TestPolicySelectWriteBlind: a hidden name is in the way of who does not see
// it, and nothing of it is told or lost.
func TestPolicySelectWriteBlind(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u := newSelect(t, option, hideRules, hideTree)
		as(t, alice, func() {
			home := u.path("home")
			fd, err := unix.Open(home+"/hidden", unix.O_CREAT|unix.O_WRONLY, 0o644)
			if err == nil {
				unix.Close(fd)
			}
			wantErrno(t, "create of a hidden name", err, unix.EEXIST)
			_, err = unix.Open(home+"/hidden", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
			wantErrno(t, "exclusive create of a hidden name", err, unix.EEXIST)
			wantErrno(t, "mkdir of a hidden name", unix.Mkdir(home+"/hidden", 0o755), unix.EEXIST)
			wantErrno(t, "mknod of a hidden name", unix.Mknod(home+"/hidden", unix.S_IFIFO|0o644, 0), unix.EEXIST)
			wantErrno(t, "symlink over a hidden name", unix.Symlink("x", home+"/hidden"), unix.EEXIST)
			wantErrno(t, "link to a hidden name", unix.Link(home+"/a", home+"/hidden"), unix.EEXIST)
			wantErrno(t, "rename onto a hidden name", unix.Rename(home+"/a", home+"/hidden"), unix.EEXIST)
			wantErrno(t, "unlink of a hidden name", unix.Unlink(home+"/hidden"), unix.ENOENT)
			wantErrno(t, "rename of a hidden name", unix.Rename(home+"/hidden", home+"/b"), unix.ENOENT)
			wantErrno(t, "chmod of a hidden name", unix.Chmod(home+"/hidden", 0o777), unix.ENOENT)
			wantErrno(t, "open of a hidden name", openOnly(home+"/hidden"), unix.ENOENT)
			wantErrno(t, "rmdir of a directory with a hidden name", unix.Rmdir(home+"/full"), unix.ENOTEMPTY)
			must(t, os.WriteFile(home+"/new", []byte("new"), 0o644))
			must(t, os.Remove(home+"/new"))
		})
		u.wantShownTo(root, "home/hidden", "3")
		u.wantShownTo(root, "home/full/hid", "4")
		u.wantShownTo(alice, "home/a", "5")
		u.wantNamesAs(alice, "home", "a", "full")
		u.wantNamesAs(alice, "home/full")
		// Whoever does not see it cannot move the directory to where it shows.
		as(t, alice, func() { must(t, unix.Rename(u.path("home/full"), u.path("home/moved"))) })
		u.wantNamesAs(alice, "home/moved")
		u.wantHiddenFrom(alice, "home/moved/hid")
		u.wantShownTo(bob, "home/moved/hid", "4")
	})
}

// openOnly opens for reading and closes.
func openOnly(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// TestPolicySelectTar: an archive that a user makes has what he sees.
func TestPolicySelectTar(t *testing.T) {
	requirePlyfs(t, "policies")
	u := newSelect(t, policyModes[0].option, hideRules, hideTree)
	for who, want := range map[*user]string{
		&root:  "d/ d/hid-too/ d/hid-too/f d/hidden d/rootonly d/shown",
		&alice: "d/ d/shown",
		&bob:   "d/ d/hid-too/ d/hid-too/f d/hidden d/shown",
	} {
		out, stderr, code := runAs(t, *who, u.mp, "sh", "-c", "tar -cf - d | tar -tf - | sort")
		got, wanted := strings.Fields(out), strings.Fields(want)
		slices.Sort(got)
		slices.Sort(wanted)
		if code != 0 || stderr != "" || !slices.Equal(got, wanted) {
			t.Errorf("tar as user %d: exit %d, %q, %q; want %q", who.uid, code, got, stderr, wanted)
		}
	}
}

// layered are three layers, topmost first.
var layered = [][]string{
	{"etc/a.conf=top", "etc/b.conf=top", "etc/only=top", "etc/d/x=top", "etc/README=top"},
	{"etc/a.conf=middle", "etc/c.conf=middle", "etc/d/x=middle", "etc/d/y=middle", "etc/README=middle"},
	{"etc/a.conf=bottom", "etc/b.conf=bottom", "etc/c.conf=bottom", "etc/only=bottom", "etc/README=bottom"},
}

// TestPolicySelectLayer: a name comes from the layer that a clause says.
func TestPolicySelectLayer(t *testing.T) {
	for _, c := range []struct {
		name, clauses string
		want          map[string]string // "" for none
	}{
		{"none", `{match: "nothing", hide: true}`, map[string]string{"a.conf": "top", "b.conf": "top", "c.conf": "middle", "only": "top", "d/x": "top", "d/y": "middle"}},
		{"layer or hide", `{match: "*.conf", layer: 2, or: hide}`, map[string]string{"a.conf": "middle", "b.conf": "", "c.conf": "middle", "only": "top", "d/x": "top"}},
		{"layer", `{match: "*.conf", layer: 2}`, map[string]string{"a.conf": "middle", "b.conf": "top", "c.conf": "middle"}},
		{"the last layer", `{match: "*", type: file, layer: 3}`, map[string]string{"a.conf": "bottom", "b.conf": "bottom", "c.conf": "bottom", "only": "bottom", "d/x": "top"}},
		{"skip", `{match: "*", skip: [1]}`, map[string]string{"a.conf": "middle", "b.conf": "bottom", "c.conf": "middle", "only": "bottom", "d/x": "middle", "d/y": "middle"}},
		{"skip two", `{match: "*", type: file, skip: [1, 2]}`, map[string]string{"a.conf": "bottom", "c.conf": "bottom", "d/x": "", "d/y": ""}},
		{"first clause wins", `{match: "a*", show: true}, {match: "*.conf", layer: 3}, {match: "c*", hide: true}`, map[string]string{"a.conf": "top", "b.conf": "bottom", "c.conf": "bottom"}},
		{"hide first", `{match: "c*", hide: true}, {match: "*.conf", layer: 3}`, map[string]string{"a.conf": "bottom", "c.conf": ""}},
		{"type", `{match: "d", type: file, hide: true}, {match: "only", type: dir, hide: true}`, map[string]string{"d/x": "top", "only": "top"}},
		{"hide a directory", `{match: "d", type: dir, hide: true}`, map[string]string{"d/x": "", "only": "top"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			requirePlyfs(t, "policies")
			u := newSelect(t, policyModes[0].option, fmt.Sprintf("- path: /etc\n  program: select\n  clauses: [%s]\n", c.clauses), layered...)
			for range 2 {
				u.wantLayered(c.want)
			}
		})
	}
}

// wantLayered expects which layer's file each name of etc shows, and that the
// listing agrees.
func (u *union) wantLayered(want map[string]string) {
	u.Helper()
	for name, w := range want {
		p := u.path("etc", name)
		got, err := os.ReadFile(p)
		if w == "" && !errors.Is(err, unix.ENOENT) || w != "" && string(got) != w {
			u.Errorf("%s: %q, %v; want %q", name, got, err, w)
		}
		if listed := slices.Contains(namesQuiet(filepath.Dir(p)), filepath.Base(p)); listed != (w != "") {
			u.Errorf("%s: listed %v, want %v", name, listed, w != "")
		}
	}
}

// namesQuiet lists a directory that need not be there.
func namesQuiet(dir string) []string {
	all, _ := readNames(dir)
	return all
}

// TestPolicySelectLayerWrite: what was chosen is what is copied up, and what is
// in upper stays shown.
func TestPolicySelectLayerWrite(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u := newSelect(t, option, "- path: /etc\n  program: select\n  clauses: [{match: \"*.conf\", layer: 3}]\n", layered...)
		must(t, withFile(u.path("etc/a.conf"), os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("+"); return err }))
		u.wantLayered(map[string]string{"a.conf": "bottom+", "b.conf": "bottom"})
		wantFile(t, filepath.Join(u.upper, "etc/a.conf"), "bottom+")
		must(t, os.Remove(u.path("etc/b.conf")))
		u.wantLayered(map[string]string{"b.conf": ""})
		must(t, os.WriteFile(u.path("etc/b.conf"), []byte("mine"), 0o644))
		must(t, os.Rename(u.path("etc/c.conf"), u.path("etc/e.conf")))
		want := map[string]string{"a.conf": "bottom+", "b.conf": "mine", "c.conf": "", "e.conf": "bottom"}
		u.wantLayered(want)
		u.remount()
		u.wantLayered(want)
		u.clearPolicy()
		u.wantLayered(map[string]string{"a.conf": "bottom+", "b.conf": "mine", "c.conf": "", "e.conf": "bottom", "README": "top"})
	})
}

// TestPolicySelectDeny: a denied name is listed and cannot be used; ids and
// types say for whom and for what.
func TestPolicySelectDeny(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u := newSelect(t, option, `- path: /
  program: select
  clauses:
    - {match: "secret-show", show: true}
    - {match: "secret*", deny: true, gid: 1000-1999, type: file}
    - {match: "nobody", deny: true}
`, []string{"secret1=1", "secret-show=2", "secret-dir/f=3", "nobody=4", "other=5"})
		for _, who := range []user{alice, bob} {
			out, stderr, code := runAs(t, who, u.mp, "cat", "secret1")
			if code == 0 || out != "" || !strings.Contains(stderr, "Permission denied") {
				t.Errorf("cat secret1 as user %d: exit %d, %q, %q", who.uid, code, out, stderr)
			}
			u.wantShownTo(who, "secret-show", "2")
			u.wantShownTo(who, "secret-dir/f", "3")
			u.wantShownTo(who, "other", "5")
			if got := u.namesAs(who, ""); !slices.Contains(got, "secret1") || !slices.Contains(got, "nobody") {
				t.Errorf("user %d sees %q", who.uid, got)
			}
		}
		u.wantShownTo(root, "secret1", "1")
		wantErrno(t, "open as root of what is denied to all", openOnly(u.path("nobody")), unix.EACCES)
		wantErrno(t, "unlink of what is denied to all", os.Remove(u.path("nobody")), unix.EACCES)
	})
}

// TestPolicySelectNearest: the nearest rule has the say, alone; it does not
// add to the one above, and a rule of another kind does not touch it.
func TestPolicySelectNearest(t *testing.T) {
	requirePlyfs(t, "policies")
	u := newSelect(t, policyModes[0].option, `- {path: /, name: above, program: select, clauses: [{match: "x*", hide: true}, {match: "below", show: true}]}
- {path: /below/near, name: near, program: select, clauses: [{match: "y*", hide: true}]}
- {path: /below/near, name: zeros, program: redact, match: "x*", whole: true}
- {path: /below/near/deep/one, name: one, program: redact, ranges: [0+1]}
`, []string{"x=1", "y=1", "below/x=1", "below/y=1", "below/near/x=1", "below/near/y=1", "below/near/deep/x=1", "below/near/deep/y=1", "below/near/deep/one=11"})
	for dir, want := range map[string]string{"": "below y", "below": "near y", "below/near": "deep x", "below/near/deep": "one x"} {
		wantNames(t, u.path(dir), strings.Fields(want)...)
	}
	wantFile(t, u.path("below/y"), "1")
	wantFile(t, u.path("below/near/x"), "\x00")
	wantFile(t, u.path("below/near/deep/x"), "\x00")
	wantFile(t, u.path("below/near/deep/one"), "\x001")
	wantErrno(t, "a name that the nearest rule hides", openOnly(u.path("below/near/deep/y")), unix.ENOENT)
	if e := u.explain("below/near/y"); e.Exists || !strings.Contains(e.HiddenBy, "near (line") {
		t.Errorf("explain of a hidden name: %+v", e)
	}
}

// TestPolicySelectNegative: that a name is not there is not kept from one user
// for another, nor over a change of the policy.
func TestPolicySelectNegative(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u := newSelect(t, option, hideRules, hideTree)
		for range 20 {
			as(t, alice, func() { wantErrno(t, "as alice", openOnly(u.path("d/hidden")), unix.ENOENT) })
			as(t, bob, func() { must(t, openOnly(u.path("d/hidden"))) })
		}
		dir := filepath.Dir(u.mp)
		u.setPolicy(writePolicy(t, dir, "all.yaml", `- {path: /, program: select, clauses: [{match: "shown", hide: true}]}`+"\n"))
		for _, who := range users {
			as(t, who, func() {
				must(t, openOnly(u.path("d/hidden")))
				wantErrno(t, "after another policy", openOnly(u.path("d/shown")), unix.ENOENT)
			})
		}
		u.wantNamesAs(alice, "d", "hid-too", "hidden", "rootonly")
		u.clearPolicy()
		u.wantNamesAs(alice, "d", "hid-too", "hidden", "rootonly", "shown")
		u.setPolicy(writePolicy(t, dir, "again.yaml", hideRules))
		u.wantNamesAs(alice, "d", "shown")
		u.wantNamesAs(bob, "d", "hid-too", "hidden", "shown")
		u.wantHiddenFrom(alice, "d/hid-too/f")
	})
}

// TestPolicySelectHeld: who is in a directory, or holds a file, when it comes
// to be hidden.
func TestPolicySelectHeld(t *testing.T) {
	requirePlyfs(t, "policies")
	dir := tempDir(t)
	u := newMount(t, mountOpts{dir: dir, lowers: [][]string{hideTree}, options: []string{
		"policy=" + writePolicy(t, dir, "none.yaml", `- {path: /, program: select, clauses: [{match: "nothing", hide: true}]}`+"\n")}})
	fd, err := unix.Open(u.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	u.setPolicy(writePolicy(t, dir, "hide.yaml", `- {path: /, program: select, clauses: [{match: "d", hide: true}]}`+"\n"))
	wantGone(t, u.path("d"))
	wantErrno(t, "through a directory that is hidden", openatOnly(fd, "shown"), unix.ESTALE)
	u.clearPolicy()
	wantFile(t, u.path("d/shown"), "1")
}

func openatOnly(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// TestPolicySelectConcurrent: users at the same time, each of whom sees always
// what is for him.
func TestPolicySelectConcurrent(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		u := newSelect(t, option, hideRules, hideTree)
		want := map[int]string{0: "hid-too hidden rootonly shown", 1000: "shown", 1001: "hid-too hidden shown"}
		var wg sync.WaitGroup
		for i := range 6 {
			who := users[i%len(users)]
			w := startWorker(t, who)
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 200 {
					w.work <- func() { u.lookOnce(who, want[who.uid]) }
					<-w.done
				}
			}()
		}
		wg.Wait()
	})
}

// lookOnce lists d and opens what may be hidden there.
func (u *union) lookOnce(who user, want string) {
	got, err := readNames(u.path("d"))
	slices.Sort(got)
	if err != nil || strings.Join(got, " ") != want {
		u.Errorf("user %d sees %q, %v; want %q", who.uid, got, err, want)
	}
	for _, name := range []string{"hidden", "rootonly", "hid-too/f", "shown"} {
		top, _, _ := strings.Cut(name, "/")
		b, err := os.ReadFile(u.path("d", name))
		switch seen := slices.Contains(strings.Fields(want), top); {
		case seen && err != nil:
			u.Errorf("user %d: %v", who.uid, err)
		case !seen && !errors.Is(err, unix.ENOENT):
			u.Errorf("user %d reads %s: %q, %v; want ENOENT", who.uid, name, b, err)
		}
	}
}

// TestPolicySelectLate: a policy that answers by caller is refused for a mount
// that began without one, and nothing changes.
func TestPolicySelectLate(t *testing.T) {
	requirePlyfs(t, "policies")
	dir := tempDir(t)
	u := newMount(t, mountOpts{dir: dir, lowers: [][]string{hideTree}})
	u.wantNamesAs(alice, "d", "hid-too", "hidden", "rootonly", "shown")
	out, err := plyfs("policy", "set", u.mp, writePolicy(t, dir, "hide.yaml", hideRules))
	wantRefused(t, "policy set", out, err, "answers by caller", "mount again")
	u.wantNamesAs(alice, "d", "hid-too", "hidden", "rootonly", "shown")
	// One that does not is fine.
	u.setPolicy(writePolicy(t, dir, "all.yaml", `- {path: /, program: select, clauses: [{match: "hid*", hide: true}]}`+"\n"))
	for _, who := range users {
		u.wantNamesAs(who, "d", "rootonly", "shown")
		u.wantHiddenFrom(who, "d/hidden")
	}
}
