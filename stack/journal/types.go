// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

import (
	"log/slog"
	"time"
)

// DirID names a directory for as long as its file system lives. Zero is none. Ids
// are made by [Journal.NewDirID], kept on the directory in an extended attribute,
// and are all that the journal knows of where a directory is.
type DirID uint64

// Origin names a lower inode: the index of its layer in Meta.Lowers, and its inode
// number there.
type Origin struct {
	Layer uint32
	Ino   uint64
}

// Links is the account of a lower inode that has several hard links.
type Links struct {
	// Nlink is its st_nlink in the lower layer.
	Nlink uint32
	// Gone is how many of its lower names are covered, or hidden by upper entries.
	Gone uint32
}

// LayerID tells a layer from another one.
type LayerID struct {
	// Path is where the layer was mounted from. It is for messages, except that it
	// is all there is to compare when UUID is empty.
	Path string `json:"path"`
	// FSType is the name of the file system, as in /proc/filesystems.
	FSType string `json:"fstype"`
	// UUID of the file system, or empty when it has none.
	UUID string `json:"uuid,omitempty"`
	// RootIno is the inode number of the layer's root directory.
	RootIno uint64 `json:"rootIno"`
}

// Meta says which layers a journal belongs to.
type Meta struct {
	Upper  LayerID   `json:"upper"`
	Lowers []LayerID `json:"lowers"` // topmost first
	// ForeignUpper: upper was neither empty nor ours when the journal was made, so
	// whiteouts of other dialects are honoured there.
	ForeignUpper bool `json:"foreignUpper,omitempty"`
}

// DirNote is what a dump tells of a directory; the truth is the extended attribute
// on the directory itself. The zero note is none.
type DirNote struct {
	Opaque   bool
	Redirect string // lower path it merges with, or empty for its own
	Path     string // path in the mount when the note was made
}

// Defaults of [Options].
const (
	DefaultFoldInterval = 5 * time.Second
	DefaultFoldBytes    = 4 << 20
)

// Options of [Open]. The zero value is right for a normal mount.
type Options struct {
	// NoSync makes the journal volatile: it still survives the death of the process,
	// but Sync does nothing, and after a power cut it may be lost or damaged.
	NoSync bool
	// Logger gets the few messages of the background folder. nil discards them.
	Logger *slog.Logger
	// FoldInterval is the longest time a record stays in the log only; 0 means
	// DefaultFoldInterval, negative switches the timer off.
	FoldInterval time.Duration
	// FoldBytes is the log size that starts a fold at once; 0 means DefaultFoldBytes.
	FoldBytes int64

	// CutPoint is called between the steps that write files, by tests.
	CutPoint func(CutPoint)
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FoldInterval == 0 {
		o.FoldInterval = DefaultFoldInterval
	}
	if o.FoldBytes <= 0 {
		o.FoldBytes = DefaultFoldBytes
	}
}
