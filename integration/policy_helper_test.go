// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// policyHead begins every policy of the tests. The budget is large, for the
// machine that runs them may be busy.
const policyHead = "version: 1\nbudget: 1s\nrules:\n"

// writePolicy writes a policy of the rules beside other files of the test.
func writePolicy(t testing.TB, dir, name, rules string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	must(t, os.WriteFile(file, []byte(policyHead+rules), 0o644))
	return file
}

// policyModes are the options of the ways in which a file can be served.
var policyModes = []struct{ name, option string }{
	{"passthrough", "io=" + ioPassthrough},
	{"coherent", "io=" + ioCoherent},
	{"off", "passthrough=off"},
}

// eachPolicyMode runs a test in each of them.
func eachPolicyMode(t *testing.T, f func(t *testing.T, option string)) {
	requirePlyfs(t, "policies")
	requireRoot(t)
	for _, m := range policyModes {
		t.Run(m.name, func(t *testing.T) { f(t, m.option) })
	}
}

// setPolicy replaces the policy of a mount.
func (u *union) setPolicy(file string) {
	u.Helper()
	if out, err := plyfs("policy", "set", u.mp, file); err != nil {
		u.Fatalf("policy set %s: %v\n%s", file, err, out)
	}
}

// clearPolicy takes it away.
func (u *union) clearPolicy() {
	u.Helper()
	if out, err := plyfs("policy", "clear", u.mp); err != nil {
		u.Fatalf("policy clear: %v\n%s", err, out)
	}
}

// remountWith mounts again with other options.
func (u *union) remountWith(options ...string) {
	u.Helper()
	u.unmount()
	u.opts.options = options
	u.mount()
}

// explained is what the tests read of `plyfs explain --json`.
type explained struct {
	Exists    bool     `json:"exists"`
	Layer     string   `json:"layer"`
	HiddenBy  string   `json:"hidden_by"`
	Place     string   `json:"place"`
	Rules     []string `json:"rules"`
	IOMode    string   `json:"io_mode"`
	IOWhy     string   `json:"io_why"`
	DecidedBy string   `json:"decided_by"`
}

// explain asks about a path of the mount.
func (u *union) explain(p ...string) explained {
	u.Helper()
	out, stderr, err := plyfsOut("explain", "--json", u.path(p...))
	if err != nil {
		u.Fatalf("explain %s: %v\n%s", u.path(p...), err, stderr)
	}
	var e explained
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		u.Fatalf("explain %s: %v in %q", u.path(p...), err, out)
	}
	return e
}

// policyStatus is what the tests read of a status about its policy.
type policyStatus struct {
	Policy struct {
		Source       string   `json:"source"`
		Generation   uint64   `json:"generation"`
		WrongAnswers uint64   `json:"wrong_answers"`
		LastErrors   []string `json:"last_errors"`
		Rules        []struct {
			Name string `json:"name"`
			Off  string `json:"switched_off"`
		} `json:"rules"`
	} `json:"policy"`
}

// policyStatus asks the daemon.
func (u *union) policyStatus() policyStatus {
	u.Helper()
	var st policyStatus
	u.statusInto(&st)
	return st
}

// statusInto asks the daemon for what v has.
func (u *union) statusInto(v any) {
	u.Helper()
	out, stderr, err := plyfsOut("status", "--json", u.mp)
	if err != nil {
		u.Fatalf("status: %v\n%s", err, stderr)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		u.Fatalf("status: %v in %q", err, out)
	}
}

// wantServed expects how a file is served, and by which rule ("" for none).
func (u *union) wantServed(path, mode, rule string) {
	u.Helper()
	if e := u.explain(path); e.IOMode != mode || ruleName(e.DecidedBy) != rule {
		u.Errorf("%s: io mode %q (%s), decided by %q; want %q, by %q", path, e.IOMode, e.IOWhy, e.DecidedBy, mode, rule)
	}
}

// planInto asks of what a file of the mount is made.
func (u *union) planInto(v any, p ...string) {
	u.Helper()
	out, stderr, err := plyfsOut("bpf", "plan", "--json", u.path(p...))
	if err != nil {
		u.Fatalf("plan of %s: %v\n%s", u.path(p...), err, stderr)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		u.Fatalf("plan of %s: %v in %q", u.path(p...), err, out)
	}
}

// ruleName cuts the line off the name of a rule, "gps (line 4)".
func ruleName(s string) string {
	name, _, _ := strings.Cut(s, " (line ")
	return name
}

// newMarker is a text that is nowhere else.
func newMarker(t testing.TB) string {
	t.Helper()
	b := make([]byte, 64)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// filesWith are the files below dirs whose content has the text.
func filesWith(t testing.TB, text string, dirs ...string) (found []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(p)
			if bytes.Contains(b, []byte(text)) {
				found = append(found, p)
			}
			return err
		})
		must(t, err)
	}
	return found
}

// wantBytes expects bytes and says where the first difference is.
func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s: %d bytes, want %d; from byte %d on %.40q, want %.40q", what, len(got), len(want), i, got[i:], want[i:])
}

// hexSum is the SHA-256 of bytes.
func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// requireTool skips a test for which a program is missing.
func requireTool(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("%s is not installed", n)
		}
	}
}

// runAs runs a command as a user and returns its output and exit code.
func runAs(t testing.TB, u user, dir, name string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME=/nonexistent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid), Groups: u.groups}}
	var o, e strings.Builder
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// wantRefused expects that a command fails with all of the words.
func wantRefused(t testing.TB, what, out string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: went well, want an error with %q; output %q", what, words, out)
		return
	}
	for _, w := range words {
		if !strings.Contains(out+fmt.Sprint(err), w) {
			t.Errorf("%s: got %v %q, want an error with %q", what, err, out, w)
		}
	}
}
