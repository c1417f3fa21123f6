// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// notPosix are functions of the suite that fail on a plain directory, too; the
// suite's own test leaves them out there.
var notPosix = map[string]string{
	"FcntlFlockLocksFile": "it expects that POSIX locks of one process exclude each other, which POSIX denies; TestLocks has the case with locks of open descriptions",
}

// TestPosix runs all of go-fuse's suite on the mount.
func TestPosix(t *testing.T) {
	eachIO(t, func(t *testing.T, mode string) {
		for _, name := range sortedKeys(posixtest.All, nil) {
			t.Run(name, func(t *testing.T) {
				if why := notPosix[name]; why != "" {
					t.Skip(why)
				}
				u := newMount(t, mountOpts{lowers: [][]string{{"dir/below=1"}}, options: []string{"io=" + mode}})
				must(t, os.Remove(u.path("dir/below"))) // the suite wants an empty directory
				posixtest.All[name](t, u.path("dir"))
			})
		}
	})
}
