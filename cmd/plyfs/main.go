// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

func main() { os.Exit(realMain(os.Args)) }

// realMain runs the command line and returns the exit code. It is the place
// where errors are printed.
func realMain(args []string) (code int) {
	defer func() {
		if v := recover(); v != nil {
			code = reportPanic(v)
		}
	}()
	stage := takeStage()
	if stage.name == stageRunServe || stage.name == stageRunEnter {
		return runStage(stage)
	}
	root := newRoot(stage)
	root.SetArgs(dispatch(args, root.commandNames()))
	err := asUsage(root.Execute())
	if err == nil {
		return exitOK
	}
	if err.Error() != "" && !stage.reported(err) {
		fmt.Fprintln(os.Stderr, oneLine(err))
	}
	return exitCode(err)
}

// asUsage gives the library's complaint about an unknown word our form.
func asUsage(err error) error {
	if err != nil && strings.HasPrefix(err.Error(), "unknown command") {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return usagef("%s; to mount, give -o lowerdir=DIR; plyfs --help lists the commands", first)
	}
	return err
}

// reportPanic prints one line about a panic and keeps the rest in a file.
func reportPanic(v any) int {
	where := "please report it"
	if file, err := saveCrash(fmt.Sprintf("%v\n%s", v, debug.Stack())); err == nil {
		where = "please report it with " + file
	}
	fmt.Fprintf(os.Stderr, "plyfs: internal error: %v; %s\n", v, where)
	return exitFailure
}

// saveCrash appends to the file of crashes.
func saveCrash(text string) (file string, err error) {
	file = filepath.Join(runDir, "log", "crash.log")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(f, "%s plyfs %d: %s\n", time.Now().Format(time.RFC3339), os.Getpid(), text)
	return file, errors.Join(err, f.Close())
}

// helperNames are the names under which mount(8) calls a helper.
var helperNames = []string{"mount.plyfs", "mount.fuse.plyfs"}

// dispatch turns the ways in which a mount is asked for into the subcommand.
// mount(8) calls mount.plyfs; container engines leave out the word "mount".
func dispatch(args []string, commands []string) []string {
	if len(args) == 0 {
		return nil
	}
	rest := args[1:]
	if slices.Contains(helperNames, filepath.Base(args[0])) {
		return append([]string{helperCommand}, rest...)
	}
	first := firstWord(rest)
	if slices.Contains(commands, first) || !hasOptions(rest) {
		return rest
	}
	return append([]string{"mount", "--" + engineFlag}, rest...)
}

// firstWord is the first argument that is no flag of the root command.
func firstWord(args []string) string {
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--log-level" || a == "--log-file":
			i++
		case strings.HasPrefix(a, "--log-"):
		default:
			return a
		}
	}
	return ""
}

// hasOptions says whether there is an -o.
func hasOptions(args []string) bool {
	for _, a := range args {
		if a == "--" {
			return false
		}
		if strings.HasPrefix(a, "-o") || a == "--options" || strings.HasPrefix(a, "--options=") || a == "-fo" {
			return true
		}
	}
	return false
}
