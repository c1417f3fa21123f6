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
	opForget      = 2
	opInit        = 26
	opSyncFS      = 50
	opBatchForget = 42
	opCount       = 64
)

// server is the loop between the device and go-fuse's protocol layer: threads
// that each read a request, handle it and write the answer. go-fuse's own
// Server hands requests from goroutine to goroutine, which doubles the cost of
// a short one. One thread always waits for the next request; a thread that
// takes one and leaves nobody waiting starts another, up to a limit.
type server struct {
	fs      *FS
	ps      *fuse.ProtocolServer
	max     int32
	threads atomic.Int32
	waiting atomic.Int32
	wg      sync.WaitGroup
	ready   chan struct{} // closed once INIT was answered
	once    sync.Once
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
	return &server{fs: fs, ps: fuse.NewProtocolServer(fs, opts), max: int32(max), ready: make(chan struct{})}
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
	for {
		s.waiting.Add(1)
		n, err := unix.Read(s.fs.dev.fd, in)
		if s.waiting.Add(-1) == 0 && s.threads.Load() < s.max && err == nil {
			s.spawn()
		}
		switch err {
		case nil:
			s.handle(in[:n], out)
		case syscall.EINTR, syscall.EAGAIN, syscall.ENOENT: // ENOENT: interrupted while it was read
		default: // ENODEV: unmounted
			return
		}
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
	n, _ := s.ps.HandleRequest([][]byte{in}, [][]byte{out})
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
	if err := s.fs.Sync(); err != nil {
		e = -int32(toErrno(err))
	}
	binary.NativeEndian.PutUint32(out[0:], 16)
	binary.NativeEndian.PutUint32(out[4:], uint32(e))
	copy(out[8:16], in[8:16]) // unique
	_, _ = unix.Write(s.fs.dev.fd, out[:16])
}
