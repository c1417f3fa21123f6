// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTreeLayers looks names up through few and many layers: each layer adds
// one file, replaces one and shares a directory.
func TestTreeLayers(t *testing.T) {
	for _, n := range []int{1, 2, 20, 200} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var lowers [][]string
			for i := range n {
				lowers = append(lowers, []string{
					fmt.Sprintf("only%03d=layer %d", i, i),
					fmt.Sprintf("same=layer %d", i),
					fmt.Sprintf("dir/in%03d=layer %d", i, i),
					fmt.Sprintf("dir/sub/deep/in%03d=layer %d", i, i),
				})
			}
			u := newMount(t, mountOpts{lowers: lowers})
			wantFile(t, u.path("same"), "layer 0")
			want := []string{"sub"}
			for i := range n {
				wantFile(t, u.path(fmt.Sprintf("only%03d", i)), fmt.Sprintf("layer %d", i))
				wantFile(t, u.path(fmt.Sprintf("dir/sub/deep/in%03d", i)), fmt.Sprintf("layer %d", i))
				want = append(want, fmt.Sprintf("in%03d", i))
			}
			slices.Sort(want)
			wantNames(t, u.path("dir"), want...)
			must(t, os.Remove(u.path("same")))
			wantGone(t, u.path("same"))
			must(t, os.WriteFile(u.path("dir/sub/deep/in000"), []byte("new"), 0o644))
			u.remount()
			wantGone(t, u.path("same"))
			wantFile(t, u.path("dir/sub/deep/in000"), "new")
		})
	}
}

// TestTreeReadOnly mounts without an upper: the tree is there, writing is
// EROFS.
func TestTreeReadOnly(t *testing.T) {
	for n := 1; n <= 2; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			lowers := [][]string{{"a=top", "d/x=1"}, {"a=bottom", "d/y=2", "e=3"}}[:n]
			u := newMount(t, mountOpts{lowers: lowers, readOnly: true})
			wantFile(t, u.path("a"), "top")
			wantErrno(t, "create", os.WriteFile(u.path("new"), nil, 0o644), unix.EROFS)
			wantErrno(t, "unlink", os.Remove(u.path("a")), unix.EROFS)
			wantErrno(t, "mkdir", os.Mkdir(u.path("d/z"), 0o755), unix.EROFS)
			wantErrno(t, "chmod", os.Chmod(u.path("a"), 0o600), unix.EROFS)
			wantErrno(t, "rename", os.Rename(u.path("a"), u.path("b")), unix.EROFS)
			wantErrno(t, "setxattr", unix.Lsetxattr(u.path("a"), "user.a", []byte("x"), 0), unix.EROFS)
			_, err := os.OpenFile(u.path("a"), os.O_RDWR, 0)
			wantErrno(t, "open for writing", err, unix.EROFS)
		})
	}
}

// TestTreeOverlayDialect reads whiteouts and opaque directories as kernel
// overlayfs writes them.
func TestTreeOverlayDialect(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{
		{"gone {whiteout}", "d/ {opaque}", "d/new=1", "m/x {whiteout}", "m/file-over-dir=f", "w {whiteout}"},
		{"gone=x", "d/old=2", "d/sub/f=3", "m/x/deep=4", "m/y=5", "m/file-over-dir/inside=6", "w/a=1"},
	}})
	wantNames(t, u.mp, "d", "m")
	wantNames(t, u.path("d"), "new")
	wantNames(t, u.path("m"), "file-over-dir", "y")
	wantFile(t, u.path("m/file-over-dir"), "f")
	for _, p := range []string{"gone", "d/old", "d/sub/f", "m/x", "m/x/deep", "w/a", "w"} {
		wantGone(t, u.path(p))
	}
	// A new directory over a whiteout does not bring old contents back.
	must(t, os.Mkdir(u.path("w"), 0o755))
	wantNames(t, u.path("w"))
	u.remount()
	wantNames(t, u.path("w"))
}

// TestTreeStrayWhiteout has whiteouts in a directory that merges with nothing.
func TestTreeStrayWhiteout(t *testing.T) {
	requirePlyfs(t, "whiteouts hidden in directories that merge with nothing")
	u := newMount(t, mountOpts{lowers: [][]string{{"alone/x {whiteout}", "alone/y=1"}, {"other=1"}}})
	wantNames(t, u.path("alone"), "y")
	wantGone(t, u.path("alone/x"))
	must(t, os.RemoveAll(u.path("alone")))
}

// TestTreeUserDialect reads what overlayfs writes with userxattr.
func TestTreeUserDialect(t *testing.T) {
	requirePlyfs(t, "user.overlay marks without an option")
	u := newMount(t, mountOpts{lowers: [][]string{
		{"d/ {user.overlay.opaque=y}", "d/new=1"}, {"d/old=2"},
	}})
	wantNames(t, u.path("d"), "new")
}

// TestTreeXWhiteouts reads whiteouts that are regular files with an attribute.
func TestTreeXWhiteouts(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{
		{"d/ {trusted.overlay.opaque=x}", "d/gone= {trusted.overlay.whiteout=y}", "d/new=1"},
		{"d/gone=2", "d/stays=3"},
	}})
	wantNames(t, u.path("d"), "new", "stays")
	wantGone(t, u.path("d/gone"))
}

// TestTreeOCIDialect reads whiteouts of container images.
func TestTreeOCIDialect(t *testing.T) {
	requirePlyfs(t, ".wh. whiteouts")
	u := newMount(t, mountOpts{lowers: [][]string{
		{".wh.gone=", "d/.wh..wh..opq=", "d/new=1", "m/.wh.x="},
		{"gone=x", "d/old=2", "m/x/deep=4", "m/y=5"},
	}})
	wantNames(t, u.mp, "d", "m")
	wantNames(t, u.path("d"), "new")
	wantNames(t, u.path("m"), "y")
	for _, p := range []string{"gone", "d/old", "m/x", "d/.wh..wh..opq", ".wh.gone"} {
		wantGone(t, u.path(p))
	}
	must(t, os.RemoveAll(u.path("m")))
	must(t, os.RemoveAll(u.path("d")))
	u.remount()
	wantNames(t, u.mp)
}

// TestTreeRedirectDialect reads a renamed directory of kernel overlayfs in a
// lower layer.
func TestTreeRedirectDialect(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{
		{"old {whiteout}", "moved/ {trusted.overlay.redirect=old}", "moved/added=1", "p/abs/ {trusted.overlay.redirect=/old/sub}"},
		{"old/a=2", "old/sub/b=3"},
	}})
	wantNames(t, u.mp, "moved", "p")
	wantNames(t, u.path("moved"), "a", "added", "sub")
	wantNames(t, u.path("p/abs"), "b")
}

// allTypes is a fixture with all file types and attributes.
var allTypes = []string{
	"dir/ {2750 1000:2000 user.a=1 trusted.t=2}",
	"file=content {4711 1000:1000 user.a=1 trusted.t=2}",
	"sticky/ {1777}",
	"link -> some/where",
	"hard1=linked", "hard2 => hard1",
	"pipe {fifo 0600 1001:1001}",
	"socket {sock 0666}",
	"null {chr:1:3 0666}",
	"block {blk:240:9 0640 0:1000}",
	"empty=",
	"hole=@1000000",
	"noaccess=x {0000}",
}

// TestTreeTypes shows all types with all attributes as they are in the layer,
// and keeps them over a copy-up by chown.
func TestTreeTypes(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{allTypes}})
	want := mustDump(t, u.lowers[0], dumpOptions{})
	got := mustDump(t, u.mp, dumpOptions{})
	skipRoot := func(p, _ string) bool { return p == "." } // it is upper's
	for _, d := range diffTrees(want, got, skipRoot) {
		t.Error(d)
	}
	for p, f := range want {
		if p == "." {
			continue
		}
		var uid, gid int
		fmt.Sscanf(f["owner"], "%d:%d", &uid, &gid)
		must(t, unix.Lchown(u.path(p), -1, gid+1))
		must(t, unix.Lchown(u.path(p), -1, gid))
		if f["type"] != "symlink" {
			mode := lstat(t, filepath.Join(u.lowers[0], p)).Mode & 0o7777
			must(t, unix.Chmod(u.path(p), mode))
		}
	}
	for _, d := range diffTrees(want, mustDump(t, u.mp, dumpOptions{}), skipRoot) {
		t.Errorf("after the copy-up: %s", d)
	}
	u.remount()
	for _, d := range diffTrees(want, mustDump(t, u.mp, dumpOptions{}), skipRoot) {
		t.Errorf("after the remount: %s", d)
	}
	f, err := os.OpenFile(u.path("null"), os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("opening a device: %v", err)
	}
	f.Close()
}

// TestTreeInodes: inode numbers are unique over layers on two file systems,
// equal in stat and readdir, and stay over copy-up and remount.
func TestTreeInodes(t *testing.T) {
	one, two := newFS(t, "ext4", 64), newFS(t, "ext4", 64)
	var lines1, lines2 []string
	for i := range 50 {
		lines1 = append(lines1, fmt.Sprintf("one%02d=x", i), fmt.Sprintf("d/one%02d/", i))
		lines2 = append(lines2, fmt.Sprintf("two%02d=y", i), fmt.Sprintf("d/two%02d/", i))
	}
	makeTree(t, one+"/l", lines1)
	makeTree(t, two+"/l", lines2)
	u := newMount(t, mountOpts{lowerDirs: []string{one + "/l", two + "/l"}})
	r := &trees{trial: &trial{TB: t}}
	before := inodesOf(t, u.mp)
	r.checkInodes(u.mp)
	for i := range 50 {
		must(t, os.WriteFile(u.path(fmt.Sprintf("one%02d", i)), []byte("changed"), 0))
		must(t, os.Chmod(u.path(fmt.Sprintf("two%02d", i)), 0o600))
		must(t, os.Chmod(u.path(fmt.Sprintf("d/one%02d", i)), 0o700))
		must(t, os.WriteFile(u.path(fmt.Sprintf("new%02d", i)), []byte("changed"), 0o644))
	}
	check := func(when string) {
		after := inodesOf(t, u.mp)
		for p, ino := range before {
			if after[p] != ino {
				t.Errorf("%s: %s had inode number %d, has %d", when, p, ino, after[p])
			}
		}
		r.checkInodes(u.mp)
	}
	check("after the copy-up")
	u.remount()
	check("after the remount")
	for _, e := range r.errs {
		t.Error(e)
	}
}

// inodesOf maps paths to inode numbers.
func inodesOf(t testing.TB, dir string) map[string]uint64 {
	t.Helper()
	inos := map[string]uint64{}
	must(t, walk(dir, ".", func(p string) error {
		inos[p] = lstat(t, filepath.Join(dir, p)).Ino
		return nil
	}))
	return inos
}

// TestTreeLargeDirectory lists a directory of 100,000 entries while entries
// come and go: every entry that was there all the time is seen exactly once.
func TestTreeLargeDirectory(t *testing.T) {
	const n = 100_000
	dir := tempDir(t)
	for i, half := range []string{"a", "b"} {
		d := makeTree(t, fmt.Sprintf("%s/l%d/big", dir, i), nil)
		for j := range n / 2 {
			must(t, os.WriteFile(fmt.Sprintf("%s/%s%06d", d, half, j), nil, 0o644))
		}
	}
	u := newMount(t, mountOpts{dir: dir, lowerDirs: []string{dir + "/l0", dir + "/l1"}, noLowerCheck: true})
	f, err := os.Open(u.path("big"))
	must(t, err)
	defer f.Close()
	seen := map[string]int{}
	for round := 0; ; round++ {
		es, err := f.Readdirnames(1000)
		for _, e := range es {
			seen[e]++
		}
		if err != nil {
			break
		}
		if round == 1000 {
			t.Fatalf("the listing has no end: %d names so far", len(seen))
		}
		if round >= 90 {
			continue // entries that come now may be listed again and again at the end
		}
		must(t, os.WriteFile(u.path(fmt.Sprintf("big/new%d", round)), nil, 0o644))
		must(t, os.Remove(u.path(fmt.Sprintf("big/b%06d", n/2-1-round))))
		must(t, os.Rename(u.path(fmt.Sprintf("big/a%06d", n/2-1-round)), u.path(fmt.Sprintf("big/moved%d", round))))
	}
	for _, half := range []string{"a", "b"} {
		for j := range n/2 - 1000 {
			if name := fmt.Sprintf("%s%06d", half, j); seen[name] != 1 {
				t.Fatalf("%s was listed %d times", name, seen[name])
			}
		}
	}
	for name, k := range seen {
		if k != 1 {
			t.Errorf("%s was listed %d times", name, k)
		}
	}
}

// TestTreeReaddir reads with small buffers, seeks back to offsets and rewinds.
func TestTreeReaddir(t *testing.T) {
	var top, bottom []string
	for i := range 300 {
		top = append(top, fmt.Sprintf("d/t%03d=", i))
		bottom = append(bottom, fmt.Sprintf("d/b%03d=", i))
	}
	u := newMount(t, mountOpts{lowers: [][]string{top, bottom}})
	must(t, os.WriteFile(u.path("d/up"), nil, 0o644))
	fd, err := unix.Open(u.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	all := readDirents(t, fd, 200)
	if len(all) != 603 { // with "." and ".."
		t.Fatalf("%d entries, want 603", len(all))
	}
	for _, i := range []int{0, 1, 100, 299, 600} {
		_, err := unix.Seek(fd, int64(all[i].off), unix.SEEK_SET)
		must(t, err)
		rest := readDirents(t, fd, 4096)
		if len(rest) != len(all)-i-1 || rest[0].name != all[i+1].name {
			t.Errorf("after seeking behind entry %d: %d entries, want %d", i, len(rest), len(all)-i-1)
		}
	}
	must(t, os.Remove(u.path("d/t000")))
	_, err = unix.Seek(fd, 0, unix.SEEK_SET)
	must(t, err)
	if again := readDirents(t, fd, 4096); len(again) != 602 {
		t.Errorf("%d entries after a removal and a rewind, want 602", len(again))
	}
	if st := lstat(t, u.path("d")); true {
		for _, d := range all {
			if d.name == "." && d.ino != st.Ino {
				t.Errorf(". has d_ino %d, st_ino %d", d.ino, st.Ino)
			}
		}
	}
}

// readDirents reads all entries with a buffer of the size.
func readDirents(t testing.TB, fd, size int) []dirent {
	t.Helper()
	var out []dirent
	buf := make([]byte, size)
	for {
		n, err := unix.Getdents(fd, buf)
		must(t, err)
		if n == 0 {
			return out
		}
		for b := buf[:n]; len(b) > 0; {
			d := parseDirent(b)
			out = append(out, d)
			b = b[d.reclen:]
		}
	}
}

// TestTreeNames: long names work, longer ones are ENAMETOOLONG.
func TestTreeNames(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"d/x=1"}}})
	long := string(slices.Repeat([]byte("n"), 255))
	must(t, os.WriteFile(u.path("d", long), []byte("long"), 0o644))
	wantFile(t, u.path("d", long), "long")
	_, err := os.Lstat(u.path("d", long+"n"))
	wantErrno(t, "lstat of 256 bytes", err, unix.ENAMETOOLONG)
	wantErrno(t, "mkdir of 256 bytes", os.Mkdir(u.path("d", long+"n"), 0o755), unix.ENAMETOOLONG)
	wantErrno(t, "rename to 256 bytes", os.Rename(u.path("d/x"), u.path("d", long+"n")), unix.ENAMETOOLONG)
	odd := "blank and \n newline \\ : , \x01 \xff"
	must(t, os.WriteFile(u.path(odd), []byte("odd"), 0o644))
	must(t, os.Remove(u.path("d/x")))
	u.remount()
	wantFile(t, u.path(odd), "odd")
}

// TestTreeDeep goes deeper than PATH_MAX.
func TestTreeDeep(t *testing.T) {
	const depth = 100
	name := string(slices.Repeat([]byte("d"), 100))
	u := newMount(t, mountOpts{lowers: [][]string{{"start/x=1"}}})
	fd, err := unix.Open(u.path("start"), unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_RDWR, 0o644)
	must(t, err)
	_, err = unix.Write(f, []byte("deep"))
	must(t, err)
	unix.Close(f)
	unix.Close(fd)
	run(t, "", "rm", "-rf", u.path("start"))
	wantGone(t, u.path("start"))
}

// TestTreeStatfs expects the numbers of upper's file system.
func TestTreeStatfs(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"x=1"}}})
	var m, l unix.Statfs_t
	must(t, unix.Statfs(u.mp, &m))
	must(t, unix.Statfs(u.upper, &l))
	if m.Blocks != l.Blocks || m.Files != l.Files || m.Namelen != l.Namelen {
		t.Errorf("statfs: got %d blocks %d files %d namelen, want %d %d %d", m.Blocks, m.Files, m.Namelen, l.Blocks, l.Files, l.Namelen)
	}
}

// TestTreeBirthTime: statx gives the birth time of the file that serves, and
// the rest as stat does.
func TestTreeBirthTime(t *testing.T) {
	u := newMount(t, mountOpts{lowers: [][]string{{"f=content", "d/", "l -> f"}}})
	for _, name := range []string{"f", "d", "l"} {
		var got, want unix.Statx_t
		must(t, unix.Statx(unix.AT_FDCWD, u.path(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &got))
		must(t, unix.Statx(unix.AT_FDCWD, filepath.Join(u.lowers[0], name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &want))
		if want.Mask&unix.STATX_BTIME == 0 {
			t.Skip("the file system of the layers has no birth times")
		}
		if got.Mask&unix.STATX_BTIME == 0 || got.Btime != want.Btime {
			t.Errorf("%s: born %v (mask %#x), want %v", name, got.Btime, got.Mask, want.Btime)
		}
		if got.Mode != want.Mode || got.Size != want.Size || got.Mtime != want.Mtime || got.Uid != want.Uid {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
