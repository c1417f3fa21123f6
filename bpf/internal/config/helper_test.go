// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What others can write is refused: so the directories of the tests are not such.
func init() { unix.Umask(0o022) }

var known = Known{Handlers: []string{"image-location", "mail"}, Layers: 3}

// exampleFiles are the files that testdata/example.yaml names.
var exampleFiles = []string{
	"header.txt", "tail.bin", "base.img", "patch.bin", "fix.bin", "mine.o", "a.bin", "b.bin",
	"chunks/1", "chunks/10", "chunks/2", "chunks/.swp",
}

// exampleDir makes a directory with the example and all that it names.
func exampleDir(t testing.TB) string {
	t.Helper()
	dir := trustedDir(t)
	data, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "example.yaml"), string(data))
	for _, name := range exampleFiles {
		write(t, filepath.Join(dir, name), name)
	}
	return dir
}

// trustedDir is a directory without symbolic links on the way to it.
func trustedDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// write writes a file that only its owner may write.
func write(t testing.TB, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func ptr[T any](v T) *T { return &v }
