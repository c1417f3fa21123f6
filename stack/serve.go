// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"encoding/binary"
	"log"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/creds"
	"golang.org/x/sys/unix"
)

// maxWrite is the largest READ and WRITE.
const maxWrite = 1 << 20

// bufBytes holds the largest request or answer with its headers.
const bufBytes = maxWrite + 4096

// FUSE opcodes that the loop treats itself.
const (
	opInit   = 26
	opSyncFS = 50
	opCount  = 64
)

// server is the loop between the device and go-fuse's protocol layer: threads
// that each read a request, handle it and write the answer. go-fuse's own
// Server hands requests from goroutine to goroutine, which doubles the cost of
// a short one.
//
// While requests come one by one, one thread reads them all: it stays warm,
// and the kernel has nobody else to wake. Others are parked and join it
//
//   - when a request turns out to take long (takesLong), and
//   - when requests are found waiting again and again (backlog), up to a limit.
//
// No request waits for another one, so how many threads read is a matter of
// speed alone.
type server struct {
	fs      *FS
	ps      *fuse.ProtocolServer
	max     int32
	threads atomic.Int32
	wg      sync.WaitGroup
	ready   chan struct{} // closed once INIT was answered
	once    sync.Once

	mu      sync.Mutex
	wake    *sync.Cond
	parked  int
	tickets int  // parked threads that were called
	over    bool // the mount has ended

	reading atomic.Int32 // threads that wait for a request
	target  atomic.Int32 // how many should
}

const defaultThreads = 16

func newServer(fs *FS) *server {
	opts := &fuse.MountOptions{
		MaxWrite:                 maxWrite,
		MaxBackground:            64,
		MaxStackDepth:            fs.maxStackDepth,
		EnableAcl:                !fs.cfg.NoACL,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		Name:                     "plyfs",
		PanicHandler:             fs.panicked,
		Logger:                   log.New(logWriter{fs}, "", 0),
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2 |
			fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_SETXATTR_EXT | fuse.CAP_ASYNC_DIO | fuse.CAP_IOCTL_DIR,
	}
	if fs.cfg.Passthrough == PassthroughOff {
		opts.DisabledCapabilities |= fuse.CAP_PASSTHROUGH
	}
	max := fs.cfg.Threads
	if max <= 0 {
		max = defaultThreads
	}
	s := &server{fs: fs, ps: fuse.NewProtocolServer(fs, opts), max: int32(max), ready: make(chan struct{})}
	s.wake = sync.NewCond(&s.mu)
	s.target.Store(1)
	return s
}

// logWriter passes go-fuse's log on.
type logWriter struct{ fs *FS }

func (w logWriter) Write(b []byte) (int, error) {
	w.fs.log.Warn("fuse: " + string(b))
	return len(b), nil
}

// panicked turns a panic in a request into EIO, a log line and a count.
func (fs *FS) panicked(r any) fuse.Status {
	fs.count.panics.Add(1)
	fs.log.Error("panic in a request", "panic", r, "stack", string(debug.Stack()))
	return fuse.EIO
}

// spawn starts a thread.
func (s *server) spawn() {
	s.threads.Add(1)
	s.wg.Add(1)
	go s.loop()
}

// callReader has one more thread read, if there is one to be had.
func (s *server) callReader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over: // a sync at the end, say; the descriptor is about to be another's
	case s.parked > s.tickets:
		s.tickets++
		s.wake.Signal()
	case s.threads.Load() < s.max:
		s.spawn()
	}
}

// claim makes the thread one of those that read, unless there are enough. Then
// one that reads will come back here, so that somebody always does. (Counting
// first and taking it back would let two threads send each other away.)
func (s *server) claim() bool {
	for {
		r := s.reading.Load()
		if r >= s.target.Load() {
			return false
		}
		if s.reading.CompareAndSwap(r, r+1) {
			return true
		}
	}
}

// park waits until the thread is called. False: the mount has ended.
func (s *server) park() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked++
	// A reader may have left since the thread was sent here.
	for s.tickets == 0 && !s.over && s.reading.Load() >= s.target.Load() {
		s.wake.Wait()
	}
	s.parked--
	if s.tickets > 0 {
		s.tickets--
	}
	return !s.over
}

// end lets all threads go.
func (s *server) end() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.wake.Broadcast()
}

// A read that returns within readAtOnce found its request waiting. Backlog
// counts those against the others; at moreReaders one more thread reads, and
// after lessReaders reads that had to wait one less.
const (
	readAtOnce  = 3 * time.Microsecond
	moreReaders = 8
	lessReaders = 64
)

// loop serves requests until the mount ends.
func (s *server) loop() {
	runtime.LockOSThread()
	defer func() {
		s.threads.Add(-1)
		s.wg.Done()
	}()
	if err := creds.PrepareThread(); err != nil {
		s.fs.log.Debug("credential switches cost more on this thread", "err", err)
	}
	in, out := make([]byte, bufBytes), make([]byte, bufBytes)
	backlog, idle := 0, 0
	for {
		if !s.claim() {
			if !s.park() {
				return
			}
			backlog, idle = 0, 0
			continue
		}
		start := time.Now()
		n, err := unix.Read(s.fs.dev.fd, in)
		waited := time.Since(start)
		s.reading.Add(-1)
		switch err {
		case nil:
		case syscall.EINTR, syscall.EAGAIN, syscall.ENOENT: // ENOENT: interrupted while it was read
			continue
		default: // ENODEV: unmounted
			s.end()
			return
		}
		if waited < readAtOnce {
			idle = 0
			if backlog++; backlog >= moreReaders {
				backlog = 0
				s.moreReaders()
			}
		} else {
			backlog = max(0, backlog-1)
			if idle++; idle >= lessReaders {
				idle = 0
				s.lessReaders()
			}
		}
		s.handle(in[:n], out)
	}
}

func (s *server) moreReaders() {
	if t := s.target.Load(); t < s.max && s.target.CompareAndSwap(t, t+1) {
		s.callReader()
	}
}

func (s *server) lessReaders() {
	if t := s.target.Load(); t > 1 {
		s.target.CompareAndSwap(t, t-1)
	}
}

// takesLong is called before what may keep a thread long (copying data,
// syncing, reading for a user): if nobody reads requests meanwhile, somebody
// else is called to.
func (fs *FS) takesLong() {
	if s := fs.server; s != nil && s.reading.Load() == 0 {
		s.callReader()
	}
}

// handle serves one request.
func (s *server) handle(in, out []byte) {
	if len(in) < 40 {
		return
	}
	op := binary.NativeEndian.Uint32(in[4:])
	if op < opCount {
		s.fs.count.ops[op].Add(1)
	}
	if op == opSyncFS {
		s.syncFS(in, out)
		return
	}
	s.fs.requests.RLock() // see FS.Check
	n, _ := s.ps.HandleRequest([][]byte{in}, [][]byte{out})
	s.fs.requests.RUnlock()
	if n > 0 {
		// ENOENT: the request was interrupted and is answered already.
		if _, err := unix.Write(s.fs.dev.fd, out[:n]); err != nil && err != syscall.ENOENT && err != syscall.ENODEV {
			s.fs.log.Warn("answer not taken", "opcode", op, "err", err)
		}
	}
	if op == opInit {
		s.once.Do(func() { close(s.ready) })
	}
}

// syncFS answers FUSE_SYNCFS, which go-fuse does not know.
func (s *server) syncFS(in, out []byte) {
	var e int32
	if err := s.fs.syncAll(); err != nil {
		e = -int32(toErrno(err))
	}
	binary.NativeEndian.PutUint32(out[0:], 16)
	binary.NativeEndian.PutUint32(out[4:], uint32(e))
	copy(out[8:16], in[8:16]) // unique
	_, _ = unix.Write(s.fs.dev.fd, out[:16])
}
