// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// commandTimeout ends a command of plyfs that hangs, and the mount with it. It is
// much more than a command needs: one may wait for the disk to write all out.
const commandTimeout = 2 * time.Minute

// patience is how long a test waits for what comes by itself, and soon: the end of
// a process, say. It is much more than that takes on a busy machine.
const patience = 30 * time.Second

// mountOpts describe a mount.
type mountOpts struct {
	sut       string     // system to mount, "" = the one under test
	lowers    [][]string // fixtures of the lower layers, topmost first
	lowerDirs []string   // or directories that exist
	upper     []string   // what is in upper already
	upperDir  string     // where upper and work are made (default: beside the lowers)
	readOnly  bool       // no upper
	dir       string     // where all is made (default: a new temporary directory)
	options   []string   // more -o options of plyfs
	at        string     // the mount point (default: a new directory)

	noLowerCheck bool // the test changes or checks the lowers itself
}

// union is a mounted union file system with its layers.
type union struct {
	testing.TB
	opts        mountOpts
	sut         string
	mp          string
	lowers      []string
	upper, work string
	mounted     bool
	pid         int
	baseFDs     map[string]bool // regular files that the daemon keeps open
	before      []treeDump
	allowEIO    bool // the test provokes EIO by itself
	allowFull   bool // the test fills the disk
}

// tempDir is like t.TempDir, but other users may enter it.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("PLYFS_TMP"), "plyfs-test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the test's directory: %v", err)
		}
	})
	return dir
}

// newMount makes the layers, mounts them, and checks at the end of the test
// what must hold for every mount.
func newMount(t testing.TB, o mountOpts) *union {
	t.Helper()
	requireRoot(t)
	u := prepare(t, o)
	u.mount()
	return u
}

// prepare makes the layers of a mount and arranges for its end.
func prepare(t testing.TB, o mountOpts) *union {
	t.Helper()
	u := &union{TB: t, opts: o, sut: o.sut}
	if u.sut == "" {
		u.sut = sut
	}
	if o.dir == "" {
		o.dir = tempDir(t)
	}
	u.lowers = o.lowerDirs
	for i, l := range o.lowers {
		u.lowers = append(u.lowers, makeTree(t, filepath.Join(o.dir, fmt.Sprintf("lower%d", i+1)), l))
	}
	if !o.readOnly {
		if o.upperDir == "" {
			o.upperDir = o.dir
		}
		u.upper = makeTree(t, filepath.Join(o.upperDir, "upper"), o.upper)
		u.work = makeTree(t, filepath.Join(o.upperDir, "work"), nil)
	}
	if u.mp = o.at; u.mp == "" {
		u.mp = makeTree(t, filepath.Join(o.dir, "mnt"), nil)
	}
	if !o.noLowerCheck {
		for _, l := range u.lowers {
			u.before = append(u.before, mustDump(t, l, dumpOptions{inode: true, dirNlink: true}))
		}
	}
	t.Cleanup(u.finish)
	return u
}

// mount mounts.
func (u *union) mount() {
	u.Helper()
	if err := u.tryMount(); err != nil {
		u.Fatalf("mount: %v", err)
	}
}

// tryMount mounts and reports failure.
func (u *union) tryMount() error {
	if u.sut == sutOverlay {
		err := mountOverlay(u.lowers, u.upper, u.work, u.mp)
		for i := 0; errors.Is(err, unix.EBUSY) && i < 50; i++ { // the last mount's end may lag
			time.Sleep(100 * time.Millisecond)
			err = mountOverlay(u.lowers, u.upper, u.work, u.mp)
		}
		if err != nil {
			return err
		}
		u.mounted = true
		return nil
	}
	out, err := plyfs("mount", "-o", u.optionString(), u.mp)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	u.mounted = true
	st := u.status()
	u.pid = st.PID
	u.baseFDs = regularFDs(u.pid)
	return nil
}

// optionString is the argument of -o.
func (u *union) optionString() string {
	o := "lowerdir=" + strings.Join(escapeAll(u.lowers), ":")
	if u.upper != "" {
		o += ",upperdir=" + escape(u.upper) + ",workdir=" + escape(u.work)
	}
	return strings.Join(append([]string{o}, u.opts.options...), ",")
}

// escape protects what is special in an option.
func escape(p string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(p)
}

func escapeAll(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = escape(p)
	}
	return out
}

// path is p inside the mount.
func (u *union) path(p ...string) string {
	return filepath.Join(append([]string{u.mp}, p...)...)
}

// unmount unmounts and holds the mount to the promises.
func (u *union) unmount() {
	u.Helper()
	u.checkDaemon()
	if err := u.tryUnmount(); err != nil {
		u.Fatalf("umount: %v", err)
	}
}

// tryUnmount unmounts and reports failure.
func (u *union) tryUnmount() error {
	out := ""
	if u.sut == sutOverlay {
		if err := unix.Unmount(u.mp, 0); err != nil {
			return err
		}
	} else {
		var err error
		if out, err = plyfs("umount", u.mp); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	u.mounted = false
	// Another process of the machine may have copied the mount into a name
	// space of its own for a moment; umount says so then.
	for end := time.Now().Add(patience); u.pid != 0 && alive(u.pid) && strings.Contains(out, "elsewhere") && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	if u.pid != 0 && alive(u.pid) {
		return fmt.Errorf("the daemon %d still runs after umount, which said %q", u.pid, out)
	}
	u.pid = 0
	return nil
}

// remount unmounts and mounts again.
func (u *union) remount() {
	u.Helper()
	u.unmount()
	u.mount()
}

// kill9 kills the daemon. The dead mount stays, as it does in life.
func (u *union) kill9() {
	u.Helper()
	if err := unix.Kill(u.pid, unix.SIGKILL); err != nil {
		u.Fatalf("kill: %v", err)
	}
	u.awaitDeath()
}

// awaitDeath waits until the daemon that is being killed is gone. One that was
// killed while the kernel dropped pages for it may hang there; then the requests
// are ended as plyfs mount does it (cmd/plyfs/deaddaemon.go).
func (u *union) awaitDeath() {
	u.Helper()
	for i := 0; alive(u.pid); i++ {
		if time.Sleep(time.Millisecond); i == 10_000 {
			u.Logf("the daemon hangs in the kernel after its death; unmounting by force: %v", unix.Unmount(u.mp, unix.MNT_FORCE))
		}
	}
	u.pid = 0
}

// alive says whether the process lives (and is no zombie, but for threads that
// are still in a system call: those keep its files and locks).
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X") {
		return true
	}
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return len(tasks) > 1
}

// finish ends the mount, whatever the test did, and checks the promises.
func (u *union) finish() {
	if u.mounted {
		u.checkDaemon()
		if err := u.tryUnmount(); err != nil {
			u.Errorf("umount at the end of the test: %v", err)
			u.destroy()
		}
	}
	u.checkLowers()
	if u.sut == sutPlyfs {
		checkRaces(u.TB)
	}
}

// destroy gets rid of a mount that does not end by itself.
func (u *union) destroy() {
	if u.pid != 0 {
		unix.Kill(u.pid, unix.SIGKILL)
	}
	unix.Unmount(u.mp, unix.MNT_DETACH)
	u.mounted = false
}

// checkLowers compares the lower layers with what they were.
func (u *union) checkLowers() {
	for i, want := range u.before {
		got := mustDump(u.TB, u.lowers[i], dumpOptions{inode: true, dirNlink: true})
		for _, d := range diffTrees(want, got, nil) {
			u.Errorf("A LOWER LAYER CHANGED: %s: %s", u.lowers[i], d)
		}
	}
}

// checkDaemon looks for panics, errors that should not be and leaked
// descriptors.
func (u *union) checkDaemon() {
	u.Helper()
	if u.sut != sutPlyfs || u.pid == 0 {
		return
	}
	st, err := readStatus(u.mp)
	if err != nil {
		u.Errorf("status: %v", err)
		return
	}
	if st.Panics != 0 {
		u.Errorf("the daemon counted %d panics: %s", st.Panics, strings.Join(st.LastErrors, "; "))
	}
	if n := st.Errors["EIO"]; n != 0 && !u.allowEIO {
		u.Errorf("the daemon answered EIO %d times: %s", n, strings.Join(st.LastErrors, "; "))
	}
	if st.Journal != nil && st.Journal.Error != "" && !(u.allowFull && strings.Contains(st.Journal.Error, "make space")) {
		u.Errorf("the journal has failed: %s", st.Journal.Error)
	}
	u.checkLeaks()
}

// checkLeaks expects that the daemon holds no regular file besides those it
// held after the mount. Releases come late: it waits for them.
func (u *union) checkLeaks() {
	u.Helper()
	var leaked []string
	// The settling that some wait for comes every 5 s.
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		leaked = nil
		for f := range regularFDs(u.pid) {
			if !u.baseFDs[f] {
				leaked = append(leaked, f)
			}
		}
		if len(leaked) == 0 {
			return
		}
	}
	u.Errorf("the daemon leaks %d descriptors of files: %q", len(leaked), leaked[:min(len(leaked), 10)])
}

// regularFDs are the regular files that a process has open.
func regularFDs(pid int) map[string]bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, _ := readNames(dir)
	fds := map[string]bool{}
	for _, n := range names {
		var st unix.Stat_t
		p := filepath.Join(dir, n)
		if unix.Stat(p, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		target, _ := os.Readlink(p)
		if strings.Contains(target, "/plyfs/journal.") || strings.Contains(target, "/plyfs/log/") {
			continue // the journal and the log start a new file now and then
		}
		fds[fmt.Sprintf("%s (%d:%d)", target, st.Dev, st.Ino)] = true
	}
	return fds
}

// countFDs counts all descriptors of a process.
func countFDs(t testing.TB, pid int) int {
	t.Helper()
	names, err := readNames(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// plyfs runs the binary under test and returns what it printed.
func plyfs(args ...string) (string, error) {
	out, stderr, err := plyfsOut(args...)
	return out + stderr, err
}

// plyfsOut runs the binary under test and returns its two outputs.
func plyfsOut(args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, plyfsBin, args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("plyfs %q hangs", args)
	}
	return o.String(), e.String(), err
}

// mustDump dumps a tree or ends the test.
func mustDump(t testing.TB, root string, o dumpOptions) treeDump {
	t.Helper()
	d, err := dumpTree(root, o)
	if err != nil {
		t.Fatalf("walking %s: %v", root, err)
	}
	return d
}

// mountOverlay mounts kernel overlayfs as the oracle wants it, by the new
// mount calls, which take any number of layers.
func mountOverlay(lowers []string, upper, work, mp string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	set := func(k, v string) {
		if err == nil {
			if e := unix.FsconfigSetString(fs, k, v); e != nil {
				err = fmt.Errorf("fsconfig %s=%s: %w", k, v, e)
			}
		}
	}
	for _, l := range lowers {
		set("lowerdir+", l)
	}
	if upper != "" {
		set("upperdir", upper)
		set("workdir", work)
		set("redirect_dir", "on")
		set("index", "on")
	} else if len(lowers) == 1 {
		empty := mp + ".empty"
		os.Mkdir(empty, 0o755)
		set("lowerdir+", empty) // overlayfs wants two lower layers at least
	}
	set("xino", "on")
	set("source", "overlay")
	if err != nil {
		return err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("fsconfig create: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, mp, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErrno expects one errno of a call.
func wantErrno(t testing.TB, what string, err error, want unix.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// wantFile expects the contents of a file.
func wantFile(t testing.TB, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("reading: %v", err)
		return
	}
	if string(got) != want {
		t.Errorf("%s: got %.60q (%d bytes), want %.60q (%d bytes)", path, got, len(got), want, len(want))
	}
}

// wantNames expects the names in a directory.
func wantNames(t testing.TB, dir string, want ...string) {
	t.Helper()
	got := names(t, dir)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s: got %.300q, want %.300q", dir, got, want)
	}
}

// names lists a directory, sorted.
func names(t testing.TB, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Errorf("listing: %v", err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

// wantGone expects that nothing is at path.
func wantGone(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%s: got %v, want ENOENT", path, err)
	}
}

// lstat is unix.Lstat that ends the test on an error.
func lstat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}
