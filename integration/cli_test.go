// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Exit codes of plyfs, which are stable.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitEnvironment = 3
	exitBusy        = 4
	exitJournal     = 5
)

// cliDirs are the directories of a command-line test.
type cliDirs struct{ dir, low, low2, upper, work, mp, other string }

func newCLIDirs(t *testing.T) *cliDirs {
	t.Helper()
	requirePlyfs(t, "this command line")
	requireRoot(t)
	dir := tempDir(t)
	d := &cliDirs{dir: dir, other: newFS(t, "tmpfs", 0)}
	for p, f := range map[*string]string{&d.low: "low", &d.low2: "low2", &d.upper: "upper", &d.work: "work", &d.mp: "mnt"} {
		*p = makeTree(t, filepath.Join(dir, f), nil)
	}
	must(t, os.WriteFile(d.low+"/f", []byte("1"), 0o644))
	return d
}

// snapshot is all that is in the test's directories, and the mounts there.
func (d *cliDirs) snapshot(t *testing.T) (treeDump, string) {
	t.Helper()
	return mustDump(t, d.dir, dumpOptions{inode: true}), mountsAt(t, d.dir)
}

// mountsAt are the lines of /proc/self/mounts that name a directory.
func mountsAt(t testing.TB, dir string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	var lines []string
	for _, l := range strings.Split(string(b), "\n") {
		if strings.Contains(l, dir) {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "\n")
}

// TestCLIBadInput: each mistake is one clear line, the right exit code, and
// leaves nothing mounted or created.
func TestCLIBadInput(t *testing.T) {
	d := newCLIDirs(t)
	must(t, os.WriteFile(d.dir+"/file", []byte("x"), 0o644))
	must(t, os.MkdirAll(d.low+"/inside", 0o755))
	must(t, os.MkdirAll(d.upper+"/inside", 0o755))
	lower, upper, work := "lowerdir="+d.low, "upperdir="+d.upper, "workdir="+d.work
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string // words that the line must have
	}{
		{"nothing", []string{"mount"}, exitUsage, nil},
		{"no lowerdir", []string{"mount", "-o", "upperdir=" + d.upper + "," + work, d.mp}, exitUsage, []string{"lowerdir"}},
		{"no mount point", []string{"mount", "-o", lower}, exitUsage, nil},
		{"too many arguments", []string{"mount", "-o", lower, "a", "b", d.mp}, exitUsage, nil},
		{"upperdir without workdir", []string{"mount", "-o", lower + "," + upper, d.mp}, exitUsage, []string{"workdir", "upperdir"}},
		{"workdir without upperdir", []string{"mount", "-o", lower + "," + work, d.mp}, exitUsage, []string{"workdir", "upperdir"}},
		{"missing lower", []string{"mount", "-o", "lowerdir=" + d.dir + "/none", d.mp}, 0, []string{d.dir + "/none"}},
		{"lower is a file", []string{"mount", "-o", "lowerdir=" + d.dir + "/file", d.mp}, 0, []string{d.dir + "/file", "directory"}},
		{"empty lower", []string{"mount", "-o", "lowerdir=" + d.low + "::" + d.low2, d.mp}, 0, nil},
		{"missing upper", []string{"mount", "-o", lower + ",upperdir=" + d.dir + "/none," + work, d.mp}, 0, []string{d.dir + "/none"}},
		{"missing work", []string{"mount", "-o", lower + "," + upper + ",workdir=" + d.dir + "/none", d.mp}, 0, []string{d.dir + "/none"}},
		{"missing mount point", []string{"mount", "-o", lower, d.dir + "/none"}, 0, []string{d.dir + "/none"}},
		{"mount point is a file", []string{"mount", "-o", lower, d.dir + "/file"}, 0, []string{d.dir + "/file"}},
		{"work on another file system", []string{"mount", "-o", lower + "," + upper + ",workdir=" + d.other, d.mp}, 0, []string{d.other, "file system"}},
		{"work in upper", []string{"mount", "-o", lower + "," + upper + ",workdir=" + d.upper + "/inside", d.mp}, 0, []string{d.upper}},
		{"upper in work", []string{"mount", "-o", lower + ",upperdir=" + d.upper + "/inside,workdir=" + d.upper, d.mp}, 0, []string{d.upper}},
		{"upper is work", []string{"mount", "-o", lower + "," + upper + ",workdir=" + d.upper, d.mp}, 0, []string{d.upper}},
		{"upper is lower", []string{"mount", "-o", lower + ",upperdir=" + d.low + "," + work, d.mp}, 0, []string{d.low}},
		{"lower in upper", []string{"mount", "-o", "lowerdir=" + d.upper + "/inside," + upper + "," + work, d.mp}, 0, []string{d.upper}},
		{"lower twice", []string{"mount", "-o", "lowerdir=" + d.low + ":" + d.low, d.mp}, 0, []string{d.low}},
		{"unknown option", []string{"mount", "-o", lower + ",lowredir=x", d.mp}, exitUsage, []string{"lowredir"}},
		{"unknown value", []string{"mount", "-o", lower + ",io=magic", d.mp}, exitUsage, []string{"io", "magic", "passthrough", "coherent"}},
		{"bad depth", []string{"mount", "-o", lower + ",max_stack_depth=3", d.mp}, exitUsage, []string{"max_stack_depth"}},
		{"refused option", []string{"mount", "-o", lower + ",uidmapping=0:1:2", d.mp}, exitUsage, []string{"uidmapping"}},
		{"bad escape", []string{"mount", "-o", lower + `\`, d.mp}, exitUsage, nil},
		{"unknown command flag", []string{"mount", "--nonsense", d.mp}, exitUsage, []string{"nonsense"}},
		{"umount of no mount", []string{"umount", d.mp}, 0, []string{d.mp}},
		{"umount of nothing", []string{"umount", d.dir + "/none"}, 0, []string{d.dir + "/none"}},
		{"umount of another file system", []string{"umount", d.other}, 0, []string{d.other}},
		{"status of no mount", []string{"status", d.mp}, 0, []string{d.mp}},
		{"explain of no mount", []string{"explain", d.mp + "/f"}, 0, []string{d.mp}},
		{"journal of nothing", []string{"journal", "dump", d.dir + "/none"}, 0, []string{d.dir + "/none"}},
		{"run without a command", []string{"run"}, 0, nil},
		{"run of a missing base", []string{"run", "--base", d.dir + "/none", "--", "true"}, 0, []string{d.dir + "/none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree, mounts := d.snapshot(t)
			out, err := plyfs(c.args...)
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				plyfs("umount", d.mp)
				t.Fatalf("no error: %v, %q", err, out)
			}
			if exit.ExitCode() <= 0 || (c.code != 0 && exit.ExitCode() != c.code) {
				t.Errorf("exit code %d, want %d", exit.ExitCode(), c.code)
			}
			checkOneLine(t, out, c.says)
			tree2, mounts2 := d.snapshot(t)
			for _, diff := range diffTrees(tree, tree2, nil) {
				t.Errorf("left behind: %s", diff)
			}
			if mounts != mounts2 {
				t.Errorf("mounts before:\n%s\nafter:\n%s", mounts, mounts2)
			}
		})
	}
}

// checkOneLine expects one line that has the words.
func checkOneLine(t *testing.T, out string, words []string) {
	t.Helper()
	line := strings.TrimSuffix(out, "\n")
	if line == "" || strings.Contains(line, "\n") || !strings.HasPrefix(line, "plyfs: ") {
		t.Errorf("not one line that begins with \"plyfs: \": %q", out)
	}
	for _, w := range words {
		if !strings.Contains(line, w) {
			t.Errorf("the line does not say %q: %q", w, line)
		}
	}
}

// TestCLIInUse: layers and mount of a live mount are refused to a second one.
func TestCLIInUse(t *testing.T) {
	requirePlyfs(t, "locks on its layers")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}})
	dir := tempDir(t)
	mp, other := makeTree(t, dir+"/mnt", nil), makeTree(t, dir+"/other", nil)
	for name, o := range map[string]string{
		"upper":          "lowerdir=" + u.lowers[0] + ",upperdir=" + u.upper + ",workdir=" + other,
		"work":           "lowerdir=" + u.lowers[0] + ",upperdir=" + other + ",workdir=" + u.work,
		"upper as lower": "lowerdir=" + u.upper,
		"lower as upper": "lowerdir=" + other + ",upperdir=" + u.lowers[0] + ",workdir=" + makeTree(t, filepath.Dir(u.lowers[0])+"/w2", nil),
	} {
		t.Run(name, func(t *testing.T) {
			out, err := plyfs("mount", "-o", o, mp)
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				plyfs("umount", mp)
				t.Fatalf("mounted: %v %s", err, out)
			}
			checkOneLine(t, out, nil)
		})
	}
	// A lower layer may serve two mounts.
	v := newMount(t, mountOpts{lowerDirs: u.lowers})
	wantFile(t, v.path("f"), "1")
}

// isShared says whether the mount at a directory spreads mounts below it.
func isShared(t testing.TB, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for _, l := range strings.Split(string(b), "\n") {
		if strings.Contains(l, " "+dir+" ") && strings.Contains(l, " shared:") {
			return true
		}
	}
	return false
}

// TestCLIForms mounts in each way that mount(8) and container engines use.
func TestCLIForms(t *testing.T) {
	d := newCLIDirs(t)
	lower, rw := "lowerdir="+d.low, "lowerdir="+d.low+",upperdir="+d.upper+",workdir="+d.work
	for name, args := range map[string][]string{
		"mount":          {"mount", "-o", rw, d.mp},
		"source":         {"mount", "-o", rw, "overlay", d.mp},
		"without mount":  {"-o", rw, d.mp},
		"source first":   {"overlay", d.mp, "-o", rw},
		"repeated":       {"mount", "-o", lower, "-o", "upperdir=" + d.upper, "-o", "workdir=" + d.work, d.mp},
		"containerd":     {"overlay", d.mp, "-o", "workdir=" + d.work + ",upperdir=" + d.upper + "," + lower + ",dev,suid"},
		"generic flags":  {"mount", "-o", "rw,noatime,nodev,nosuid,_netdev,x-systemd.automount," + rw, d.mp},
		"read-only":      {"mount", "-o", lower, d.mp},
		"ro with upper":  {"mount", "-o", "ro," + rw, d.mp},
		"two lowers":     {"mount", "-o", "lowerdir=" + d.low + ":" + d.low2, d.mp},
		"log level":      {"mount", "--log-level", "debug", "-o", rw, d.mp},
		"relative paths": {"mount", "-o", "lowerdir=low,upperdir=upper,workdir=work", "mnt"},
		"podman volume":  {"-o", rw + ",private", d.mp},
		"shared":         {"mount", "-o", rw + ",shared", d.mp},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(plyfsBin, args...)
			cmd.Dir = d.dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			wantFile(t, d.mp+"/f", "1")
			if spread := isShared(t, d.mp); name == "shared" && !spread || name == "podman volume" && spread {
				t.Errorf("mounts below spread: %v", spread)
			}
			if name == "ro with upper" {
				wantErrno(t, "create", os.WriteFile(d.mp+"/x", nil, 0o644), unix.EROFS)
			}
			if out, err := plyfs("umount", d.mp); err != nil {
				unix.Unmount(d.mp, unix.MNT_DETACH)
				t.Fatalf("umount: %v: %s", err, out)
			}
			wantNames(t, d.mp)
		})
	}
}

// TestCLIEscapes mounts directories with the odd names.
func TestCLIEscapes(t *testing.T) {
	requirePlyfs(t, "this escaping")
	dir := tempDir(t)
	l1 := makeTree(t, dir+"/a:b", []string{"one=1"})
	l2 := makeTree(t, dir+`/c,d \e`, []string{"two=2"})
	u := newMount(t, mountOpts{dir: makeTree(t, dir+"/x,y:z", nil), lowerDirs: []string{l1, l2}})
	wantNames(t, u.mp, "one", "two")
	must(t, os.WriteFile(u.path("new"), nil, 0o644))
}

// TestCLIForeground stays until the unmount, or a signal, and ends with 0. The
// signal comes at the first moment at which the mount is seen.
func TestCLIForeground(t *testing.T) {
	d := newCLIDirs(t)
	for _, end := range []string{"umount", "SIGTERM", "SIGINT"} {
		t.Run(end, func(t *testing.T) {
			cmd := exec.Command(plyfsBin, "mount", "-f", "-o", "lowerdir="+d.low+",upperdir="+d.upper+",workdir="+d.work, d.mp)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			must(t, cmd.Start())
			t.Cleanup(func() { cmd.Process.Kill() })
			for i := 0; ; i++ {
				if _, err := os.Stat(d.mp + "/f"); err == nil {
					break
				}
				if i == 100_000 {
					t.Fatal("it is not mounted after 10 s")
				}
				time.Sleep(100 * time.Microsecond)
			}
			switch end {
			case "umount":
				out, err := plyfs("umount", d.mp)
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
			case "SIGTERM":
				must(t, cmd.Process.Signal(syscall.SIGTERM))
			case "SIGINT":
				must(t, cmd.Process.Signal(syscall.SIGINT))
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("the foreground process ended with %v", err)
			}
			wantNames(t, d.mp)
		})
	}
}

// TestCLIUmountBusy: umount says who holds the mount, and leaves it working.
func TestCLIUmountBusy(t *testing.T) {
	requirePlyfs(t, "a umount that says who is there")
	u := newMount(t, mountOpts{lowers: [][]string{{"d/f=1"}}})
	holder := exec.Command("sleep", "60")
	holder.Dir = u.path("d")
	must(t, holder.Start())
	out, err := plyfs("umount", u.mp)
	if err == nil || !strings.Contains(out, itoa(holder.Process.Pid)) || !strings.Contains(out, "sleep") {
		t.Errorf("umount: %v, %q does not name process %d (sleep)", err, out, holder.Process.Pid)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() != exitBusy {
		t.Errorf("exit code %d, want %d", exit.ExitCode(), exitBusy)
	}
	wantFile(t, u.path("d/f"), "1")
	holder.Process.Kill()
	holder.Wait()
}

// TestCLIDeadMount: after a kill, umount and mount both mend the dead mount.
func TestCLIDeadMount(t *testing.T) {
	requirePlyfs(t, "a daemon to kill")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}})
	must(t, os.WriteFile(u.path("new"), []byte("2"), 0o644))
	u.kill9()
	u.mount()
	wantFile(t, u.path("new"), "2")
	u.kill9()
	if out, err := plyfs("umount", u.mp); err != nil {
		t.Errorf("umount of a dead mount: %v: %s", err, out)
	}
	wantNames(t, u.mp)
	u.mounted = false
	u.mount()
	wantFile(t, u.path("new"), "2")
}

// TestCLIStatus shows the layers and counters, as text and as JSON.
func TestCLIStatus(t *testing.T) {
	requirePlyfs(t, "a status")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}, {"g=2"}}})
	must(t, os.WriteFile(u.path("f"), []byte("x"), 0))
	wantFile(t, u.path("g"), "2")
	out, err := plyfs("status", u.mp)
	must(t, err)
	for _, w := range []string{u.mp, u.lowers[0], u.lowers[1], u.upper, "passthrough"} {
		if !strings.Contains(out, w) {
			t.Errorf("status does not show %q:\n%s", w, out)
		}
	}
	st := u.status()
	if st.CopyUps.Files != 1 || st.Requests["LOOKUP"] == 0 || len(st.Layers) != 3 {
		t.Errorf("status: %+v", st)
	}
	// Other mounts of this machine may not answer: that is their affair.
	if all, _, err := plyfsOut("status"); !strings.Contains(all, u.mp) {
		t.Errorf("status of all mounts: %v\n%s", err, all)
	}
}

// TestCLIExplain names the layer that serves a path and those it hides.
func TestCLIExplain(t *testing.T) {
	requirePlyfs(t, "explain")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=top", "gone=1", "d/x=1"}, {"f=bottom", "d/y=2"}}})
	must(t, os.Remove(u.path("gone")))
	for p, words := range map[string][]string{
		"f": {u.lowers[0] + "/f", u.lowers[1] + "/f"}, "gone": {u.lowers[0] + "/gone"}, "d": {u.lowers[0] + "/d", u.lowers[1] + "/d"},
	} {
		out, err := plyfs("explain", u.path(p))
		if err != nil {
			t.Errorf("explain %s: %v: %s", p, err, out)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("explain %s does not say %q:\n%s", p, w, out)
			}
		}
	}
}

// TestCLIJournal dumps the records of a live mount and of an unmounted one.
func TestCLIJournal(t *testing.T) {
	requirePlyfs(t, "a journal")
	u := newMount(t, mountOpts{lowers: [][]string{{"gone \n1=1", "d/x=1"}}})
	must(t, os.Remove(u.path("gone \n1")))
	must(t, u.rename2("d", "d2", 0))
	check := func(arg string) {
		t.Helper()
		out, err := plyfs("journal", "dump", arg)
		if err != nil || !strings.Contains(out, `"gone \n1"`) || !strings.Contains(out, `"d"`) {
			t.Errorf("journal dump %s: %v\n%s", arg, err, out)
		}
	}
	check(u.mp)
	must(t, u.tryUnmount())
	check(u.work)
	u.mount()
}

// TestCLIJournalRefused: a journal of other layers, and a damaged one, are
// refused with exit code 5 and one line.
func TestCLIJournalRefused(t *testing.T) {
	requirePlyfs(t, "a journal")
	d := newCLIDirs(t)
	rw := ",upperdir=" + d.upper + ",workdir=" + d.work
	out, err := plyfs("mount", "-o", "lowerdir="+d.low+rw, d.mp)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Remove(d.mp+"/f"))
	must(t, exec.Command(plyfsBin, "umount", d.mp).Run())
	refused := func(name, lowers string) {
		t.Helper()
		out, err := plyfs("mount", "-o", "lowerdir="+lowers+rw, d.mp)
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			plyfs("umount", d.mp)
			t.Fatalf("%s: mounted: %v %s", name, err, out)
		}
		if exit.ExitCode() != exitJournal {
			t.Errorf("%s: exit code %d, want %d", name, exit.ExitCode(), exitJournal)
		}
		checkOneLine(t, out, nil)
	}
	refused("other layers", d.low2)
	refused("more layers", d.low+":"+d.low2)
	db := filepath.Join(d.work, "plyfs/journal.db")
	good, err := os.ReadFile(db)
	must(t, err)
	must(t, os.WriteFile(db, good[:len(good)/2-100], 0o600))
	refused("truncated", d.low)
	must(t, os.WriteFile(db, []byte("this is no journal"), 0o600))
	refused("overwritten", d.low)
	must(t, os.WriteFile(db, good, 0o600))
	out, err = plyfs("mount", "-o", "lowerdir="+d.low+rw, d.mp)
	if err != nil {
		t.Fatalf("the good journal: %v: %s", err, out)
	}
	wantNames(t, d.mp)
	must(t, exec.Command(plyfsBin, "umount", d.mp).Run())
}

// TestCLIEnvironment: without privilege or /dev/fuse the line says what lacks.
func TestCLIEnvironment(t *testing.T) {
	d := newCLIDirs(t)
	bin := filepath.Join(d.dir, "plyfs")
	run(t, "", "cp", plyfsBin, bin)
	args := []string{"mount", "-o", "lowerdir=" + d.low, d.mp}
	t.Run("no privilege", func(t *testing.T) {
		cmd := exec.Command(bin, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		out, err := cmd.CombinedOutput()
		checkRefused(t, err, string(out), exitEnvironment)
	})
	t.Run("no device", func(t *testing.T) {
		script := `mount -t tmpfs none /dev && exec "$0" "$@"`
		cmd := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, bin}, args...)...)
		out, err := cmd.CombinedOutput()
		checkRefused(t, err, string(out), exitEnvironment)
		if !strings.Contains(string(out), "/dev/fuse") {
			t.Errorf("it does not name /dev/fuse: %s", out)
		}
	})
}

func checkRefused(t *testing.T, err error, out string, code int) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Errorf("got %v, want exit code %d", err, code)
	}
	checkOneLine(t, out, nil)
}

// TestCLIHelp: help, version and completion are there; help has examples.
func TestCLIHelp(t *testing.T) {
	requirePlyfs(t, "a help")
	for _, args := range [][]string{{"--help"}, {"mount", "--help"}, {"umount", "--help"}, {"run", "--help"}, {"status", "--help"},
		{"explain", "--help"}, {"journal", "dump", "--help"}, {"--version"}, {"completion", "bash"}} {
		out, stderr, err := plyfsOut(args...)
		if err != nil || out == "" || stderr != "" {
			t.Errorf("plyfs %q: %v, %d bytes of output, on stderr %q", args, err, len(out), stderr)
		}
	}
	out, _ := plyfs("help", "options")
	for _, w := range []string{"lowerdir", "upperdir", "workdir", "io=", "max_stack_depth"} {
		if !strings.Contains(out, w) {
			t.Errorf("the help on options does not explain %s", w)
		}
	}
}

// TestCLIStatusJSON: the JSON of a status has the field names that the
// documentation promises.
func TestCLIStatusJSON(t *testing.T) {
	requirePlyfs(t, "a status")
	u := newMount(t, mountOpts{lowers: [][]string{{"f=1"}}})
	out, _, err := plyfsOut("status", u.mp, "--json")
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal([]byte(out), &m))
	for _, k := range []string{"mountpoint", "pid", "io", "max_stack_depth", "cap_effective", "layers", "requests", "errors", "panics", "opens", "copy_ups", "journal"} {
		if _, ok := m[k]; !ok {
			t.Errorf("the JSON has no field %q", k)
		}
	}
}
