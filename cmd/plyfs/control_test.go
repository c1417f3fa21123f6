// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/stack"
)

// fakeMount answers the control socket.
type fakeMount struct{}

func (fakeMount) Status() stack.Status { return stack.Status{PID: 7, Mountpoint: "/m"} }
func (fakeMount) CompletePath(rel string, report func(stack.CompletionProgress) error) error {
	for done := range int64(3) {
		if err := report(stack.CompletionProgress{Files: 1, Bytes: 2, BytesDone: done}); err != nil {
			return err
		}
	}
	return errors.New("no space for " + rel)
}

func (fakeMount) Explain(rel string) (stack.Explanation, error) {
	if rel == "panic" {
		panic("explain")
	}
	return stack.Explanation{Path: rel}, nil
}
func (fakeMount) DumpJournal(w io.Writer) error {
	_, err := io.WriteString(w, "dump \xff\n")
	return err
}
func (fakeMount) DumpJournalJSON(w io.Writer) error {
	_, err := io.WriteString(w, "{}\n")
	return err
}
func (fakeMount) Check() (*stack.CheckReport, error) { return &stack.CheckReport{Version: 1}, nil }
func (fakeMount) PlanOf(rel string, _ stack.Caller, _ int) (stack.PlanInfo, error) {
	return stack.PlanInfo{Path: rel}, nil
}
func (fakeMount) Sync() error { return errors.New("disk full") }

// question asks a socket one thing and gives the raw answer.
func question(t *testing.T, path, line string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// path reaches the socket.
func (c *control) path() string { return filepath.Join(c.dir.path(), c.name) }

// startControl has a fakeMount answer on a control socket.
func startControl(t *testing.T, dir, device string) (*control, error) {
	t.Helper()
	d, err := openSocketDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	c, err := d.listen(device)
	if err == nil {
		c.answer(fakeMount{}, nil)
	}
	return c, err
}

func TestControl(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	c, err := startControl(t, dir, "0:99")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	for ask, want := range map[string]string{
		`{"verb":"status"}`:                    `"pid":7`,
		`{"verb":"explain","path":"YS9i"}`:     `"path":"a/b"`,
		`{"verb":"journal-dump"}`:              `{"data":"ZHVtcCD/Cg=="}`,
		`{"verb":"journal-dump-json"}`:         `{"data":"e30K"}`,
		`{"verb":"check"}`:                     `{"data":{"version":1,`,
		`{"verb":"sync"}`:                      `{"error":"disk full"}`,
		`{"verb":"nonsense"}`:                  `unknown verb`,
		`rubbish`:                              `bad request`,
		`{"verb":"explain","path":"cGFuaWM="}`: ``, // "panic": the connection ends, nothing else
		`{"verb":"pid"}`:                       `{"data":`,
	} {
		if got := question(t, c.path(), ask+"\n"); !strings.Contains(got, want) {
			t.Errorf("%.40s: %q, want %q", ask, got, want)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.path()); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

// TestControlStale: sockets of dead daemons go, those of live ones stay.
func TestControlStale(t *testing.T) {
	dir := t.TempDir()
	stale := socketPath(dir, "0:1")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	live, err := startControl(t, dir, "0:2")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	again, err := startControl(t, dir, "0:1")
	if err != nil {
		t.Fatalf("the number of a dead mount cannot be used again: %v", err)
	}
	defer again.Close()
	for _, c := range []*control{live, again} {
		var a answer
		if err := json.Unmarshal([]byte(question(t, c.path(), `{"verb":"pid"}`+"\n")), &a); err != nil || a.Error != "" {
			t.Errorf("%s: %+v %v", c.path(), a, err)
		}
	}
}

// TestControlSuccessor: device numbers are used again, and the daemon of the
// mount before may close its socket when the next one has opened its own.
func TestControlSuccessor(t *testing.T) {
	dir := t.TempDir()
	old, err := startControl(t, dir, "0:7")
	if err != nil {
		t.Fatal(err)
	}
	next, err := startControl(t, dir, "0:7")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Errorf("closing the socket of the mount before: %v", err)
	}
	if got := question(t, next.path(), `{"verb":"status"}`+"\n"); !strings.Contains(got, `"pid":7`) {
		t.Errorf("the next mount answers %q", got)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(next.path()); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

// A completion is answered by its progress, line by line, and then the end.
func TestControlComplete(t *testing.T) {
	dir := t.TempDir()
	c, err := startControl(t, dir, "9:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, err := net.Dial("unix", socketPath(dir, "9:9"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(request{Verb: verbComplete, Path: []byte("a/b")}); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(conn)
	for want := range int64(3) {
		var a answer
		if err := dec.Decode(&a); err != nil || a.Progress == nil || a.Progress.BytesDone != want {
			t.Fatalf("%+v, %v, want progress %d", a, err, want)
		}
	}
	var a answer
	if err := dec.Decode(&a); err != nil || a.Progress != nil || a.Error != "no space for a/b" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "64K": 64 << 10, "1m": 1 << 20, "2GiB": 2 << 30, "3T": 3 << 40, "5MB": 5 << 20} {
		if got, ok := parseSize(text); !ok || got != want {
			t.Errorf("%s: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "K", "-1", "+1", "1X", "1KK", "1 M", "9999999T", "0x10", "1.5M", "1B2", "1I", "1iB", "1KI"} {
		if got, ok := parseSize(text); ok {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}
