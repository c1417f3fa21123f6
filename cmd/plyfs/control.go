// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/stack"
)

// The control socket of a mount is runDir/MAJOR:MINOR.sock, after the device
// number of its super block, which is the same in every mount namespace. A
// connection carries one request and one answer, each a line of JSON.

// Verbs of the control socket.
const (
	verbStatus  = "status"
	verbExplain = "explain"
	verbJournal = "journal-dump"
	verbDump    = "journal-dump-json"
	verbCheck   = "check"
	verbSync    = "sync"
	verbPID     = "pid"

	// verbComplete is answered by several lines: progress, and at last an error
	// or an empty answer.
	verbComplete = "complete"
)

// controlTimeout bounds a conversation.
const controlTimeout = 60 * time.Second

// request is a question to the daemon.
type request struct {
	Verb string `json:"verb"`
	Path []byte `json:"path,omitempty"` // relative to the mount's root; bytes, for names need not be UTF-8
	policyRequest
}

// answer is what the daemon says. Either Error is set or Data.
type answer struct {
	Error string          `json:"error,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`

	Progress *stack.CompletionProgress `json:"progress,omitempty"` // more answers follow
}

// served is what the control socket asks; a *stack.FS.
type served interface {
	Status() stack.Status
	Explain(rel string) (stack.Explanation, error)
	DumpJournal(w io.Writer) error
	CompletePath(rel string, report func(stack.CompletionProgress) error) error
	DumpJournalJSON(w io.Writer) error
	Check() (*stack.CheckReport, error)
	Sync() error
	planned
}

// control is the listening side.
type control struct {
	fs       served
	policy   policyServer
	listener *net.UnixListener
	path     string
	socket   os.FileInfo // what was put at path
}

// socketPath is the control socket of the mount with a device number.
func socketPath(dir, device string) string { return filepath.Join(dir, device+".sock") }

// socketDir is the directory of control sockets, opened before the mount, which
// may lie over it: a socket in the mount itself would keep the mount busy.
type socketDir struct {
	f    *os.File
	path string // reaches it whatever is mounted over it
}

// openSocketDir makes the directory if need be and opens it.
func openSocketDir(dir string) (*socketDir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o700); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &socketDir{f, fmt.Sprintf("/proc/self/fd/%d", f.Fd())}, nil
}

// Close closes the directory; the sockets in it must have been closed.
func (d *socketDir) Close() error { return d.f.Close() }

// listen listens for questions about the mount with a device number; they wait
// for control.answer. A socket that a dead daemon left is replaced.
func (d *socketDir) listen(device string) (*control, error) {
	dir := d.path
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	removeStale(dir)
	c := &control{path: socketPath(dir, device)}
	if c.listener, err = listenAt(c.path); err != nil {
		return nil, err
	}
	if c.socket, err = os.Lstat(c.path); err != nil {
		return nil, errors.Join(err, c.listener.Close())
	}
	return c, nil
}

// answer begins to answer the questions.
func (c *control) answer(fs served, policy policyServer) {
	c.fs, c.policy = fs, policy
	go c.accept()
}

// lockDir keeps other daemons from cleaning up or listening meanwhile.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		_ = f.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { _ = f.Close() }, nil
}

// listenAt listens on a socket that shows up under its name only when it takes
// connections, in place of one that nobody listens on.
func listenAt(path string) (*net.UnixListener, error) {
	early := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(early)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: early, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Rename(early, path); err != nil {
		_ = os.Remove(early)
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes the sockets that nobody listens on.
func removeStale(dir string) {
	socks, _ := filepath.Glob(filepath.Join(dir, "*.sock*"))
	for _, s := range socks {
		conn, err := net.DialTimeout("unix", s, time.Second)
		if err == nil {
			_ = conn.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(s)
		}
	}
}

// Close removes the socket and ends listening. The mount has ended by then and
// its device number may be another mount's already, with its socket at our path.
func (c *control) Close() error {
	unlock, err := lockDir(filepath.Dir(c.path))
	if err == nil {
		defer unlock()
		if st, serr := os.Lstat(c.path); serr != nil {
			err = serr
		} else if os.SameFile(st, c.socket) {
			err = os.Remove(c.path)
		}
	}
	return errors.Join(err, c.listener.Close())
}

func (c *control) accept() {
	for {
		conn, err := c.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, say
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go c.serve(conn)
	}
}

// serve answers one connection.
func (c *control) serve(conn net.Conn) {
	defer conn.Close()
	defer func() {
		if v := recover(); v != nil {
			logger.Error("panic in a control request", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	const longest = 1 << 20
	line, err := bufio.NewReader(io.LimitReader(conn, longest)).ReadBytes('\n')
	if err != nil {
		if len(line) == longest {
			reply(conn, nil, fmt.Errorf("the request is longer than %d bytes", longest))
		}
		return
	}
	// Loading programs and asking them anew about all that is known may take
	// longer than a conversation should.
	_ = conn.SetDeadline(time.Time{})
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		reply(conn, nil, fmt.Errorf("bad request: %w", err))
		return
	}
	if r.Verb == verbComplete {
		reply(conn, nil, c.complete(conn, string(r.Path)))
		return
	}
	data, err := c.handle(r)
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	reply(conn, data, err)
}

// reply writes an answer. A failed write is the asker's loss.
func reply(w io.Writer, data any, err error) {
	var a answer
	if err == nil {
		a.Data, err = json.Marshal(data)
	}
	if err != nil {
		a = answer{Error: err.Error()}
	}
	_ = json.NewEncoder(w).Encode(a)
}

// handle finds the answer to a request.
func (c *control) handle(r request) (any, error) {
	switch r.Verb {
	case verbStatus:
		return c.fs.Status(), nil
	case verbExplain:
		return c.fs.Explain(string(r.Path))
	case verbJournal:
		var b bytes.Buffer
		err := c.fs.DumpJournal(&b)
		return b.Bytes(), err
	case verbDump:
		var b bytes.Buffer
		err := c.fs.DumpJournalJSON(&b)
		return b.Bytes(), err
	case verbCheck:
		return c.fs.Check()
	case verbSync:
		return nil, c.fs.Sync()
	case verbPID:
		return os.Getpid(), nil
	case verbPlan:
		who := stack.Caller{}
		if r.Caller != nil {
			who = *r.Caller
		}
		return c.fs.PlanOf(string(r.Path), who, r.Limit)
	case verbPolicySet, verbPolicyClear, verbMapList, verbMapDump, verbMapSet, verbMapDelete:
		return c.policy.handle(r.Verb, r.policyRequest)
	}
	return nil, fmt.Errorf("unknown verb %q; the daemon is of another version", r.Verb)
}
