// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layers/layertest"
)

// cutChildEnv holds the cutJob of a child process: the test binary, as a daemon
// that cuts itself off. (A process that uses the mount it serves could not be
// killed: its request waits for itself.)
const cutChildEnv = "PLYFS_CUT_CHILD"

// The main thread cannot end: a test that changes a thread's credential would
// leave it changed there, for all who look at the process. So tests get others.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if s := os.Getenv(cutChildEnv); s != "" {
		runCutChild(s)
	}
	unix.Umask(0) // as it is from the first mount on
	undo := layertest.TempElsewhere()
	code := m.Run()
	undo()
	os.Exit(code)
}

// A cutJob says what a child serves, and up to which point: when it has passed
// Point Nth times, it ends the next time, as Way says.
type cutJob struct {
	Case        string
	Stage       cutStage
	Lowers      []string
	Upper, Work string
	Mnt, Image  string
	Point       CutPoint
	Nth         int
	Way         cutWay
	NoXattrs    bool
}

func (j *cutJob) config() Config {
	// Still: what happens in the background is at no certain point.
	return Config{Upper: j.Upper, Work: j.Work, Lowers: j.Lowers, Mountpoint: j.Mnt, noXattrs: j.NoXattrs, still: true}
}

// cutAt and cutAtEnd end the list of the points that were passed.
const (
	cutAt    CutPoint = "cut"
	cutAtEnd CutPoint = "end"
)

// A cutChild runs in the child. It answers each line that it reads by one: what
// is wrong, or "ok"; and when it ends, by the points that it has passed.
type cutChild struct {
	cutJob
	mu    sync.Mutex
	armed bool
	trace []CutPoint
}

func runCutChild(s string) {
	var c cutChild
	err := json.Unmarshal([]byte(s), &c.cutJob)
	if err == nil {
		err = c.run()
	}
	if err != nil {
		fmt.Println(err)
		killSelf()
	}
	c.end(cutAtEnd)
}

func killSelf() {
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

// end tells what was passed, and kills the process.
func (c *cutChild) end(at CutPoint) {
	b, _ := json.Marshal(append(c.trace, at)) // strings
	fmt.Println(string(b))
	killSelf()
}

// hook is called between two steps.
func (c *cutChild) hook(p CutPoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed {
		return
	}
	if c.trace = append(c.trace, p); p != c.Point {
		return
	}
	if c.Nth--; c.Nth >= 0 {
		return
	}
	if err := cutPower(c.Image, c.Way); err != nil {
		fmt.Println(err)
		killSelf()
	}
	c.end(cutAt)
}

func (c *cutChild) arm() {
	c.mu.Lock()
	c.armed = true
	c.mu.Unlock()
}

func (c *cutChild) run() error {
	k := cutCases[slices.IndexFunc(cutCases, func(k cutCase) bool { return k.name == c.Case })]
	cfg := c.config()
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.cutPoint = c.hook
	if k.change != nil {
		k.change(&cfg)
	}
	c.armed = c.Stage == stageMount || c.Stage == stageUnmake
	fs, err := Open(cfg)
	if err != nil {
		return err
	}
	if c.Stage == stageUnmake {
		return fs.Close()
	}
	if k.tweak != nil {
		k.tweak(fs)
	}
	if err := fs.Mount(); err != nil || c.Stage == stageMount {
		return err
	}
	return c.serve(fs)
}

// serve does what it is told until the mount is over or the input ends.
func (c *cutChild) serve(fs *FS) error {
	fmt.Println("ok")
	over := make(chan struct{})
	go func() {
		_ = fs.Wait()
		close(over)
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var err error
		switch in.Text() {
		case "complete":
			err = fs.CompletePath("/", func(CompletionProgress) error { return nil })
		case "sync":
			err = fs.Sync()
		case "arm":
			c.arm()
		case "close":
			<-over
			return fs.Close()
		case "end":
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Println("ok")
	}
	return nil
}

// A cutDaemon is a child as the parent sees it.
type cutDaemon struct {
	t     testing.TB
	job   *cutJob
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	log   strings.Builder
	timer *time.Timer
}

// spawn starts a child.
func (j *cutJob) spawn(t testing.TB) *cutDaemon {
	t.Helper()
	spec, err := json.Marshal(j)
	must(t, err)
	d := &cutDaemon{t: t, job: j, cmd: exec.Command("/proc/self/exe", "-test.run=^$")}
	d.cmd.Env = append(os.Environ(), cutChildEnv+"="+string(spec))
	d.cmd.Stderr = &d.log
	d.in, err = d.cmd.StdinPipe()
	must(t, err)
	out, err := d.cmd.StdoutPipe()
	must(t, err)
	d.out = bufio.NewScanner(out)
	must(t, d.cmd.Start())
	d.timer = time.AfterFunc(2*patience, func() { _ = d.cmd.Process.Kill() })
	return d
}

// tell has the child do something.
func (d *cutDaemon) tell(what string) {
	d.t.Helper()
	if _, err := io.WriteString(d.in, what+"\n"); err != nil {
		d.fatal(err)
	}
	d.ok()
}

// ok waits for the answer of the child.
func (d *cutDaemon) ok() {
	d.t.Helper()
	if d.out.Scan(); d.out.Text() != "ok" {
		d.fatal(fmt.Errorf("it says %q", d.out.Text()))
	}
}

func (d *cutDaemon) fatal(err error) {
	d.t.Helper()
	d.kill()
	d.t.Fatalf("the daemon of %+v: %v; its log:\n%s", *d.job, err, d.log.String())
}

// kill waits for the child's death, and takes its mount away.
func (d *cutDaemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait() // it was killed
	d.timer.Stop()
	_ = unix.Unmount(d.job.Mnt, unix.MNT_DETACH)
}

// end waits for the end of a child that ends by itself, and gives the points
// that it passed, cutAt or cutAtEnd last.
func (d *cutDaemon) end() (trace []CutPoint) {
	d.t.Helper()
	for d.out.Scan() && d.out.Text() == "ok" { // of what was asked before
	}
	last := d.out.Bytes()
	if err := json.Unmarshal(last, &trace); err != nil {
		d.fatal(fmt.Errorf("%w: it says %q", err, last))
	}
	d.kill()
	return trace
}

// drive runs a case by a child, from the preparations to the end.
func (c *cutCase) drive(t testing.TB, j *cutJob) []CutPoint {
	t.Helper()
	d := j.spawn(t)
	if j.Stage == stageMount || j.Stage == stageUnmake {
		return d.end()
	}
	d.ok()
	do := func(op cutOp) {
		if err := op(j.Mnt); err != nil {
			d.fatal(err)
		}
	}
	do(c.allSetup())
	d.tell("sync")
	for _, op := range c.allUnsynced() {
		do(op)
	}
	d.tell("arm")
	switch j.Stage {
	case stageSync:
		_, _ = io.WriteString(d.in, "sync\nend\n") // it may be dead already
		return d.end()
	case stageWhole:
		_, _ = io.WriteString(d.in, "complete\nend\n")
		return d.end()
	case stageUnmount:
		if err := unix.Unmount(j.Mnt, 0); err != nil {
			d.fatal(err)
		}
		_, _ = io.WriteString(d.in, "close\n")
		return d.end()
	}
	var err error
	if c.do != nil {
		err = c.do(j.Mnt)
	}
	_, _ = io.WriteString(d.in, "end\n")
	trace := d.end()
	if err != nil && trace[len(trace)-1] == cutAtEnd {
		t.Fatalf("the operation fails: %v; log:\n%s", err, d.log.String())
	}
	return trace
}
