// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// initTimeout bounds the wait for the kernel's first request.
const initTimeout = 30 * time.Second

// Mount mounts the tree over the mount point and serves it; it returns when
// the mount is usable. Its errors are *Error; nothing is left mounted then.
func (fs *FS) Mount() error {
	target, err := filepath.Abs(fs.cfg.Mountpoint)
	if err != nil {
		return &Error{Kind: KindUsage, Path: fs.cfg.Mountpoint, Msg: "no such path", Err: err}
	}
	// The modes of new files are exactly those asked for: the caller's umask
	// comes with the request.
	unix.Umask(0)
	if fs.dev, err = openDevice(); err != nil {
		return err
	}
	if err := fs.dev.mount(&fs.cfg, target); err != nil {
		fs.dev.close()
		return err
	}
	fs.mounted = true
	if fs.cfg.OnMount != nil {
		fs.cfg.OnMount()
	}
	fs.server = newServer(fs)
	roomForThreads(int(fs.server.max))
	fs.server.spawn()
	select {
	case <-fs.server.ready:
	case <-time.After(initTimeout):
		_ = unix.Unmount(target, unix.MNT_DETACH)
		return &Error{Kind: KindEnvironment, Path: target, Msg: "the kernel did not begin the FUSE conversation"}
	}
	if err := setPropagation(target, fs.cfg.Propagation); err != nil {
		_ = unix.Unmount(target, unix.MNT_FORCE|unix.MNT_DETACH)
		fs.server.wg.Wait() // requests use what Close closes
		return err
	}
	fs.background(fs.notifier)
	fs.background(fs.pageDropper)
	fs.background(fs.policyWatcher)
	if fs.j != nil {
		fs.background(func(<-chan struct{}) { fs.findPartial() })
		if !fs.cfg.still {
			fs.background(fs.settler)
			fs.background(func(<-chan struct{}) { fs.runCompleter() })
		}
	}
	return nil
}

func (fs *FS) background(run func(<-chan struct{})) {
	fs.done.Add(1)
	go func() {
		defer fs.done.Done()
		run(fs.stop)
	}()
}

// Wait returns when the mount has ended.
func (fs *FS) Wait() error {
	fs.server.wg.Wait()
	close(fs.stop)
	fs.done.Wait()
	return nil
}

// roomForThreads gives the runtime more Ps than there are processors. A thread
// in a system call keeps its P until the runtime's monitor takes it away, up
// to 10 ms later; with as many Ps as processors a thread that comes back with
// a request finds none (measured: 350 µs instead of 560 for create, stat and
// unlink on 2 processors).
func roomForThreads(threads int) {
	if want := threads + 4; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
}
