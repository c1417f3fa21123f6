// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/stack"
)

// newComplete is the subcommand that makes partial files whole.
func newComplete() *cobra.Command {
	var quiet, asJSON bool
	cmd := &cobra.Command{
		Use:   "complete PATH|MOUNTPOINT",
		Short: "make partially copied-up files whole",
		Long: `Make the partially copied-up files at and below a path of a plyfs mount whole, and
return when they are on the disk. A large lower file that is written to is
copied up in part: of the rest, the lower layer serves the bytes, until it has
been copied in the background. This does it now, also for files of which only the
attributes or the name were changed. Readers and writers go on meanwhile, and
what the mount shows does not change but for st_ctime; afterwards the upper directory stands by
itself. Files of which somebody has the lower content open stay readable to him.`,
		Example: `  plyfs complete /mnt
  plyfs complete /mnt/images/disk.img`,
		Args: exactly(1, "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := onMount(args[0], true)
			if err != nil {
				return err
			}
			var show progressShower = silent{}
			if f, ok := cmd.ErrOrStderr().(*os.File); ok && !quiet && !asJSON && term.IsTerminal(int(f.Fd())) {
				show = &bar{w: f, name: args[0]}
			}
			last, err := askComplete(p, show)
			show.done()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), last)
			}
			if !quiet {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d partial files made whole, about %d bytes copied\n", args[0], last.FilesDone, last.BytesDone)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing but errors")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// progressShower is told how far a completion has come.
type progressShower interface {
	show(p stack.CompletionProgress)
	done()
}

type silent struct{}

func (silent) show(stack.CompletionProgress) {}
func (silent) done()                         {}

// bar is for a person who watches.
type bar struct {
	w    io.Writer
	name string
	pb   *progressbar.ProgressBar
}

func (b *bar) show(p stack.CompletionProgress) {
	if b.pb == nil {
		b.pb = progressbar.NewOptions64(p.Bytes, progressbar.OptionSetWriter(b.w), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription(b.name), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
	}
	b.pb.Describe(fmt.Sprintf("%s: %d of %d files", b.name, p.FilesDone, p.Files))
	_ = b.pb.Set64(p.BytesDone)
}

func (b *bar) done() {
	if b.pb != nil {
		_ = b.pb.Finish()
	}
}

// askComplete asks the daemon, which tells its progress until it is done.
func askComplete(p place, show progressShower) (last stack.CompletionProgress, err error) {
	conn, err := dial(p.mount)
	if err != nil {
		return last, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{}) // however long it takes
	if err := json.NewEncoder(conn).Encode(request{Verb: verbComplete, Path: []byte(p.rel)}); err != nil {
		return last, fail(exitFailure, "%s: asking the daemon: %w", p.Mountpoint, err)
	}
	dec := json.NewDecoder(conn)
	for {
		var a answer
		if err := dec.Decode(&a); errors.Is(err, io.EOF) {
			return last, fail(exitFailure, "%s: the daemon has ended meanwhile; mount again, and complete again: what was copied stays", p.Mountpoint)
		} else if err != nil {
			return last, fail(exitFailure, "%s: the daemon's answer cannot be read: %w", p.Mountpoint, err)
		}
		switch {
		case a.Error != "":
			return last, fail(exitFailure, "%s: %s", p.path, a.Error)
		case a.Progress != nil:
			last = *a.Progress
			show.show(last)
		default:
			return last, nil
		}
	}
}

// complete serves askComplete: lines of progress, then an empty answer. It ends
// when nobody listens any more.
func (c *control) complete(conn net.Conn, path string) error {
	enc := json.NewEncoder(conn)
	return c.fs.CompletePath(path, func(p stack.CompletionProgress) error {
		_ = conn.SetWriteDeadline(time.Now().Add(controlTimeout))
		return enc.Encode(answer{Progress: &p})
	})
}
