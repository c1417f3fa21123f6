// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/creds"
)

// A stage says what this process is when plyfs has executed itself. It comes
// in the environment and is taken out of it at once, so that nothing that is
// started from here inherits it.
type stage struct {
	name  string
	spec  []byte   // JSON for the stages of plyfs run
	ready *os.File // where the daemon reports to, nil once it has
}

// Names of stages; "" is the process that the user started.
const (
	stageDaemon     = "daemon"
	stageForeground = "foreground"
	stageRunServe   = "run-serve"
	stageRunEnter   = "run-enter"
)

const (
	stageEnv = "PLYFS_STAGE"
	specEnv  = "PLYFS_STAGE_SPEC"
)

// firstExtraFD is the descriptor of the first of exec.Cmd's ExtraFiles.
const firstExtraFD = 3

// selfExe executes this program whatever became of its path.
const selfExe = "/proc/self/exe"

// takeStage reads the stage.
func takeStage() stage {
	s := stage{name: os.Getenv(stageEnv), spec: []byte(os.Getenv(specEnv))}
	if s.name != "" {
		workingDir = os.Getenv(workingDirEnv)
	}
	_ = os.Unsetenv(stageEnv)
	_ = os.Unsetenv(specEnv)
	_ = os.Unsetenv(workingDirEnv)
	if s.name == stageDaemon {
		unix.CloseOnExec(firstExtraFD)
		s.ready = os.NewFile(firstExtraFD, "readiness")
	}
	return s
}

// stageEnviron is the environment for a stage.
func stageEnviron(name string, spec any) ([]string, error) {
	env := append(os.Environ(), stageEnv+"="+name)
	if workingDir != "" {
		env = append(env, workingDirEnv+"="+workingDir)
	}
	if spec == nil {
		return env, nil
	}
	b, err := json.Marshal(spec)
	return append(env, specEnv+"="+string(b)), err
}

// mount does the mount at whatever stage this process is.
func (s *stage) mount(m *mountOptions, foreground bool) error {
	switch {
	case s.name == stageDaemon:
		return serveDaemon(m, s)
	case s.name == stageForeground:
		return serveForeground(m)
	case foreground:
		return reexec()
	}
	return startDaemon()
}

// reexec executes this program in place without CAP_SYS_RESOURCE.
func reexec() error {
	if err := creds.DropBoundingResource(); err != nil {
		return fail(exitEnvironment, "%w; run plyfs with the capability CAP_SETPCAP, too", err)
	}
	env, err := stageEnviron(stageForeground, nil)
	if err != nil {
		return err
	}
	err = syscall.Exec(selfExe, os.Args, env)
	return fail(exitEnvironment, "executing %s: %w; is /proc mounted?", selfExe, err)
}
