// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// cutRun is the workload of one round.
type cutRun struct {
	root    string
	backing string // where new files really are
	objects []*cutObject
	syncs   float64                         // how often workers sync
	syncFS  func() (mapped bool, err error) // makes everything durable, or all but stores through mappings
	start   time.Time
	cutting atomic.Bool // the power is going: errors are right from now on

	mu     sync.Mutex
	errors []cutProblem // what went wrong before the cut
	ops    atomic.Int64
	synced atomic.Int64
}

// errCutting ends a worker whose sync has succeeded while the power was going: it
// promises nothing, for file systems that are shut down are not exact about it.
var errCutting = errors.New("the power is going")

// A cutWorker does one kind of thing to its objects. A step fails when the
// power is gone.
type cutWorker struct {
	*cutRun
	*rand.Rand
	name string
	mine []*cutObject
}

// begin starts all workers and returns how to wait for their end.
func (r *cutRun) begin(seed uint64) (wait func() error) {
	var wg sync.WaitGroup
	r.start = time.Now()
	i := uint64(0)
	goDo := func(work func(w *cutWorker), w *cutWorker) {
		i++
		w.cutRun, w.Rand = r, rand.New(rand.NewPCG(seed, i))
		wg.Add(1)
		go func() {
			defer wg.Done()
			work(w)
		}()
	}
	for _, s := range cutSteps {
		w := &cutWorker{name: s.name}
		goDo(func(w *cutWorker) { w.choose(); w.work(s.step) }, w)
	}
	goDo((*cutWorker).syncAll, &cutWorker{name: "sync"})
	goDo((*cutWorker).readAll, &cutWorker{name: "read"})
	if seed%2 == 0 {
		goDo((*cutWorker).writeBack, &cutWorker{name: "write back"})
	}
	return func() error {
		done := make(chan bool)
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
			return nil
		case <-time.After(commandTimeout):
			return errors.New("workers hang after the cut")
		}
	}
}

// choose takes some of the worker's objects for this round.
func (w *cutWorker) choose() {
	for _, o := range w.objects {
		if o.worker == w.name {
			w.mine = append(w.mine, o)
		}
	}
	w.Shuffle(len(w.mine), func(i, j int) { w.mine[i], w.mine[j] = w.mine[j], w.mine[i] })
	w.mine = w.mine[:min(len(w.mine), 1+w.IntN(4))]
}

// work repeats steps until one fails.
func (w *cutWorker) work(step func(*cutWorker, *cutObject) error) {
	debug.SetPanicOnFault(true) // a mapping of a dead file system is SIGBUS
	for !w.cutting.Load() {
		o := w.mine[w.IntN(len(w.mine))]
		if err := w.once(step, o); err != nil {
			return
		}
		time.Sleep(time.Duration(w.IntN(3000)) * time.Microsecond)
	}
}

func (w *cutWorker) once(step func(*cutWorker, *cutObject) error, o *cutObject) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("fault: %v", p)
			w.fail(o, "a mapping", err)
		}
	}()
	return step(w, o)
}

// fail notes an error that came before the cut.
func (r *cutRun) fail(o *cutObject, what string, err error) {
	if r.cutting.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, cutProblem{"error", fmt.Sprintf("%s: %s: %v, before the cut", o.key, what, err)})
}

// do notes an operation, does it, and notes that it has returned.
func (r *cutRun) do(o *cutObject, what string, begin, finish func(), call func() error) error {
	o.mu.Lock()
	o.note(r.start, "%s", what)
	begin()
	o.mu.Unlock()
	err := call()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.note(r.start, "  %v", err)
		r.fail(o, what, err)
		return err
	}
	o.note(r.start, "  done")
	r.ops.Add(1)
	finish()
	return nil
}

// names does an operation after which the object is in the state s.
func (r *cutRun) names(o *cutObject, s cutState, what string, call func() error) error {
	return r.do(o, what, func() { o.states.begin(s) }, func() { o.states.finish() }, call)
}

// data does an operation on the contents of n.
func (r *cutRun) data(o *cutObject, n *cutNode, op cutWrite, what string, call func() error) error {
	begin := func() { n.mtime = 0; n.data.begin(op) }
	return r.do(o, what, begin, func() { n.data.finish() }, call)
}

// attrs changes the attributes of n.
func (r *cutRun) attrs(o *cutObject, n *cutNode, a cutAttrs, what string, call func() error) error {
	return r.do(o, what, func() { n.attrs.begin(a) }, func() { n.attrs.finish() }, call)
}

// sync does a sync and notes what is durable by it.
func (r *cutRun) sync(o *cutObject, what string, call func() error, durable func(cutMark)) error {
	o.mu.Lock()
	m := o.mark()
	o.note(r.start, "%s", what)
	o.mu.Unlock()
	err := call()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.note(r.start, "  %v", err)
		r.fail(o, what, err)
		return err
	}
	if r.cutting.Load() {
		return errCutting
	}
	o.note(r.start, "  SYNCED")
	r.synced.Add(1)
	durable(m)
	return nil
}

// syncAll makes everything durable now and then.
func (w *cutWorker) syncAll() {
	for !w.cutting.Load() {
		time.Sleep(time.Duration(float64(w.IntN(60))/w.syncs) * time.Millisecond / 2)
		if w.syncEverything() != nil {
			return
		}
	}
}

// syncEverything is sync(2): all that had returned before it is durable.
func (r *cutRun) syncEverything() error {
	var marks []cutMark
	for _, o := range r.objects {
		o.mu.Lock()
		marks = append(marks, o.mark())
		o.mu.Unlock()
	}
	mapped, err := r.syncFS()
	if err != nil {
		r.fail(&cutObject{key: "all"}, "sync", err)
		return err
	}
	if r.cutting.Load() {
		return errCutting
	}
	r.synced.Add(1)
	for _, m := range marks {
		m.o.mu.Lock()
		m.all(mapped)
		m.o.note(r.start, "EVERYTHING SYNCED")
		m.o.mu.Unlock()
	}
	return nil
}

// readAll reads what others change, and keeps it open for a moment.
func (w *cutWorker) readAll() {
	buf := make([]byte, 64<<10)
	for !w.cutting.Load() {
		o := w.objects[w.IntN(len(w.objects))]
		o.mu.Lock()
		files := o.states.now.files()
		o.mu.Unlock()
		if len(files) > 0 {
			if fd, err := unix.Open(w.path(files[w.IntN(len(files))]), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
				unix.Pread(fd, buf, w.Int64N(cutMiddle))
				time.Sleep(time.Duration(w.IntN(10)) * time.Millisecond)
				unix.Close(fd)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// path is p below the root of the workload.
func (r *cutRun) path(p string) string { return filepath.Join(r.root, p) }

// writeBack has random files written to disk, without their sizes and names,
// as the kernel does by itself.
func (w *cutWorker) writeBack() {
	for !w.cutting.Load() {
		o := w.objects[w.IntN(len(w.objects))]
		o.mu.Lock()
		files := o.states.now.files()
		o.mu.Unlock()
		for _, p := range files {
			if f, err := os.Open(filepath.Join(w.backing, p)); err == nil {
				unix.SyncFileRange(int(f.Fd()), w.Int64N(64<<10), w.Int64N(cutMiddle), unix.SYNC_FILE_RANGE_WRITE)
				f.Close()
			}
		}
		time.Sleep(time.Duration(w.IntN(5)) * time.Millisecond)
	}
}
