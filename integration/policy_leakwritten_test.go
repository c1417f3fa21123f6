// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"
)

// What is written to a covered file through the mount is in upper as it was
// written, and must be blanked for all who open the file after that.

// TestPolicyLeakWritten: as soon as the writer has closed a file, whoever opens
// it sees it blanked, however busy the mount is.
func TestPolicyLeakWritten(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := newSecret(t, option)
		defer s.keepBusy()()
		const rounds = 400
		leaks, first := 0, -1
		for i := range rounds {
			must(t, os.WriteFile(s.path("secret/new"), secretBytes(s.marker), 0o644))
			b, err := os.ReadFile(s.path("secret/new"))
			must(t, err)
			if bytes.Contains(b, []byte(s.marker)) {
				if leaks++; first < 0 {
					first = i
				}
			}
			must(t, os.Remove(s.path("secret/new")))
		}
		if leaks > 0 {
			t.Errorf("%d of %d files SHOW THE SECRET to an open after the writer's close, first the %dth", leaks, rounds, first)
		}
	})
}

// keepBusy has others use the mount, until the function that it returns is
// called.
func (s *secret) keepBusy() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				os.Lstat(s.path(fmt.Sprintf("open/none%d", i)))
				os.ReadFile(s.path("open/other"))
			}
		}()
	}
	return func() { close(done); wg.Wait() }
}

// TestPolicyLeakHeldOpen: a reader that holds a file open from before it is
// written does not see what is hidden in it once the writer is gone, nor do
// others because of him; and as long as the writer is there, nobody who opens
// the file does.
func TestPolicyLeakHeldOpen(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		for _, before := range []int{0, 100, secretOff + 100} {
			t.Run(fmt.Sprint(before), func(t *testing.T) {
				s := newSecret(t, option)
				content := secretBytes(s.marker)
				p := s.path("secret/new")
				must(t, os.WriteFile(p, content[:before], 0o644))
				r, err := os.Open(p)
				must(t, err)
				defer r.Close()
				must(t, withFile(p, os.O_WRONLY|os.O_APPEND, func(w *os.File) error {
					if _, err := w.Write(content[before:]); err != nil {
						return err
					}
					s.wantBlankFile("secret/new")
					return nil
				}))
				s.wantBlankFile("secret/new")
				s.wantBlankSoon(r)
				s.wantBlankFile("secret/new")
				// The next writer, too, with that reader there.
				must(t, withFile(p, os.O_RDWR, func(w *os.File) error { _, err := w.WriteAt(content, 0); return err }))
				s.wantBlankFile("secret/new")
				s.wantBlankSoon(r)
			})
		}
	})
}

// wantBlankSoon reads by a descriptor until what it shows is blanked: that the
// last writer is gone is told to the daemon after his close has returned.
func (s *secret) wantBlankSoon(r *os.File) {
	s.Helper()
	var b []byte
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var err error
		if b, err = io.ReadAll(io.NewSectionReader(r, 0, secretSize)); err != nil {
			s.Errorf("a held descriptor: %v", err)
			return
		}
		if !bytes.Contains(b, []byte(s.marker[:16])) {
			break
		}
	}
	s.wantBlank("a held descriptor after the writer's close", b)
}

// TestPolicyLeakMovedIn: a file that is moved to where it is covered while it
// is open is blanked for those who open it there.
func TestPolicyLeakMovedIn(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		s := newSecret(t, option)
		must(t, os.WriteFile(s.path("open/new"), secretBytes(s.marker), 0o644))
		got, err := os.ReadFile(s.path("open/new"))
		must(t, err)
		wantBytes(t, "where it is not covered", got, secretBytes(s.marker))
		r, err := os.Open(s.path("open/new"))
		must(t, err)
		defer r.Close()
		must(t, os.Rename(s.path("open/new"), s.path("secret/new")))
		s.wantBlankFile("secret/new")
		must(t, os.Rename(s.path("secret/new"), s.path("open/again")))
		s.wantBlankFile("open/again")
	})
}
