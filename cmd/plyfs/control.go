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
	dir      *socketDir
	name     string      // in dir
	socket   socketInode // what was put there
}

// answer begins to answer the questions.
func (c *control) answer(fs served, policy policyServer) {
	c.fs, c.policy = fs, policy
	go c.accept()
}

// Close removes the socket and ends listening. The mount has ended by then and
// its device number may be another mount's already, with its socket at our name.
func (c *control) Close() error {
	unlock, err := c.dir.lock()
	if err == nil {
		defer unlock()
		var now socketInode
		if now, err = c.dir.inode(c.name); err == nil && now == c.socket {
			err = os.NewSyscallError("unlinkat", unix.Unlinkat(int(c.dir.f.Fd()), c.name, 0))
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
