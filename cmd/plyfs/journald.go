// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	journaldSocket = "/run/systemd/journal/socket"
	journaldStdout = "/run/systemd/journal/stdout"
)

// journald writes records to the systemd journal in its native protocol, a
// datagram of fields each (systemd: docs/JOURNAL_NATIVE_PROTOCOL.md).
type journald struct{ conn *net.UnixConn }

// newJournald connects to the journal, if there is one.
func newJournald() (slog.Handler, error) { return dialJournald(journaldSocket) }

func dialJournald(path string) (*journald, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &journald{conn}, nil
}

// journaldStream gives a stream into the journal, for what is no record. It
// begins with a header of lines: identifier, unit, priority, level prefix,
// three forwards.
func journaldStream() *os.File {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: journaldStdout, Net: "unix"})
	if err != nil {
		return nil
	}
	defer conn.Close()
	f, err := conn.File()
	if err != nil {
		return nil
	}
	if _, err := f.WriteString("plyfs\n\n3\n0\n0\n0\n0\n"); err != nil {
		_ = f.Close()
		return nil
	}
	return f
}

// Enabled implements slog.Handler.
func (j *journald) Enabled(_ context.Context, l slog.Level) bool { return l >= logLevel.Level() }

// Handle implements slog.Handler. A record too large for a datagram is sent
// without its attributes.
func (j *journald) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	field(&b, "MESSAGE", r.Message+attrText(r))
	field(&b, "PRIORITY", priority(r.Level))
	field(&b, "SYSLOG_IDENTIFIER", "plyfs")
	head := b.Len()
	r.Attrs(func(a slog.Attr) bool {
		field(&b, "PLYFS_"+fieldName(a.Key), a.Value.String())
		return true
	})
	_, err := j.conn.Write(b.Bytes())
	if errors.Is(err, unix.EMSGSIZE) {
		_, err = j.conn.Write(b.Bytes()[:head])
	}
	return err
}

// WithAttrs implements slog.Handler; sink keeps the attributes.
func (j *journald) WithAttrs([]slog.Attr) slog.Handler { return j }

// WithGroup implements slog.Handler.
func (j *journald) WithGroup(string) slog.Handler { return j }

// field writes one field: NAME=value, or with line breaks inside
//
//	NAME \n u64le(length) value \n
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if strings.Contains(value, "\n") {
		b.WriteByte('\n')
		_ = binary.Write(b, binary.LittleEndian, uint64(len(value)))
	} else {
		b.WriteByte('=')
	}
	b.WriteString(value)
	b.WriteByte('\n')
}

// fieldName makes a field name: capitals, digits and underscores.
func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

// priority is the syslog priority of a level.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "3"
	case l >= slog.LevelWarn:
		return "4"
	case l >= slog.LevelInfo:
		return "6"
	}
	return "7"
}
