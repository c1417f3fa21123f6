// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSinkRedirects(t *testing.T) {
	var terminal, file bytes.Buffer
	s := newSink(startupHandler(&terminal))
	l := slog.New(s).With("a", 1).WithGroup("g").With("b", 2)
	l.Info("not for the terminal")
	l.Warn("for the terminal")
	s.redirect(slog.NewTextHandler(&file, nil), slog.String("where", "/m"))
	l.Info("for the file", "c", 3)
	if got := terminal.String(); got != "plyfs: for the terminal a=1 g.b=2\n" {
		t.Errorf("terminal %q", got)
	}
	if got := file.String(); !strings.Contains(got, `msg="for the file" a=1 g.b=2 g.c=3 where=/m`) {
		t.Errorf("file %q", got)
	}
}

// TestJournald reads what is sent as systemd would.
func TestJournald(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h, err := dialJournald(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		b := make([]byte, 1<<20)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	l := slog.New(newSink(h))
	l.Error("it broke", "path", "/x", "mount-point", "two\nlines")
	want := "MESSAGE=it broke path=/x mount-point=two | lines\nPRIORITY=3\nSYSLOG_IDENTIFIER=plyfs\nPLYFS_PATH=/x\n" +
		"PLYFS_MOUNT_POINT\n\x09\x00\x00\x00\x00\x00\x00\x00two\nlines\n"
	if got := read(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	l.Info("plain")
	if got := read(); got != "MESSAGE=plain\nPRIORITY=6\nSYSLOG_IDENTIFIER=plyfs\n" {
		t.Errorf("got %q", got)
	}
}

func TestRotate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	rotate(file)
	if _, err := os.Stat(file + ".old"); err != nil {
		t.Error(err)
	}
}
