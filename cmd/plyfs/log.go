// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// runDir holds control sockets and logs. Only root may enter.
const runDir = "/run/plyfs"

// logLevels are the names of the levels.
var logLevels = []string{"debug", "info", "warn", "error"}

var (
	logLevel slog.LevelVar
	logSink  = newSink(startupHandler(os.Stderr))
	logger   = slog.New(logSink)
)

// startupHandler shows warnings on the terminal, one line each.
func startupHandler(w io.Writer) slog.Handler { return &lineHandler{w: w} }

// setLogLevel sets the level by name; "" leaves it.
func (r *rootCommand) setLogLevel(name string) error {
	if name == "" {
		return nil
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil || strings.ContainsAny(name, "+-") {
		return usagef("log level %q: the choices are %s", name, strings.Join(logLevels, ", "))
	}
	logLevel.Set(l)
	return nil
}

// sink is a handler whose target can be changed while loggers made of it live:
// messages go to the terminal until a mount is usable, to the log afterwards.
type sink struct {
	target *atomic.Pointer[destination]
	attrs  []slog.Attr
	group  string
}

// destination is where records go, and what is added to each there.
type destination struct {
	slog.Handler
	attrs []slog.Attr
}

func newSink(h slog.Handler) *sink {
	s := &sink{target: new(atomic.Pointer[destination])}
	s.redirect(h)
	return s
}

// redirect sends what comes from now on to h, with attributes added.
func (s *sink) redirect(h slog.Handler, attrs ...slog.Attr) {
	s.target.Store(&destination{h, attrs})
}

// Enabled implements slog.Handler.
func (s *sink) Enabled(_ context.Context, l slog.Level) bool { return l >= logLevel.Level() }

// Handle implements slog.Handler.
func (s *sink) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	out.AddAttrs(s.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(s.grouped(a))
		return true
	})
	to := s.target.Load()
	if !to.Enabled(ctx, r.Level) {
		return nil
	}
	out.AddAttrs(to.attrs...)
	return to.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (s *sink) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *s
	c.attrs = append([]slog.Attr{}, s.attrs...)
	for _, a := range attrs {
		c.attrs = append(c.attrs, s.grouped(a))
	}
	return &c
}

// WithGroup implements slog.Handler.
func (s *sink) WithGroup(name string) slog.Handler {
	c := *s
	c.group += name + "."
	return &c
}

func (s *sink) grouped(a slog.Attr) slog.Attr {
	a.Key = s.group + a.Key
	return a
}

// lineHandler writes warnings and errors as lines for people.
type lineHandler struct{ w io.Writer }

// Enabled implements slog.Handler.
func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= min(slog.LevelWarn, logLevel.Level()) && l != slog.LevelInfo
}

// Handle implements slog.Handler.
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	_, err := fmt.Fprintf(h.w, "plyfs: %s%s\n", r.Message, attrText(r))
	return err
}

// WithAttrs implements slog.Handler; sink keeps the attributes.
func (h *lineHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }

// attrText is " key=value key=value".
func attrText(r slog.Record) string {
	var b strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	return strings.ReplaceAll(b.String(), "\n", " | ")
}

// logPath is the log where there is no systemd journal.
const logPath = runDir + "/log/plyfs.log"

// openLog opens the log of a daemon: the file that was asked for, else the
// systemd journal, else logPath, which all daemons share. What the Go runtime
// itself prints when it dies goes to the same place through the returned file,
// nil if there is none.
func openLog(file string) (slog.Handler, *os.File, error) {
	if file == "" {
		if h, err := newJournald(); err == nil {
			return h, journaldStream(), nil
		}
		file = logPath
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, nil, err
		}
		rotate(file)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return slog.NewTextHandler(f, &slog.HandlerOptions{Level: &logLevel}), f, nil
}

// rotate keeps one old log beside one that has grown.
func rotate(file string) {
	const large = 1 << 20
	if st, err := os.Stat(file); err == nil && st.Size() > large {
		_ = os.Rename(file, file+".old")
	}
}

// foregroundHandler logs to standard error.
func foregroundHandler() slog.Handler {
	return slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &logLevel})
}
