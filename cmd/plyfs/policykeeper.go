// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

//go:build !nobpf

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/bpf"
	"github.com/plyfs/plyfs/stack"
)

// policyKeeper loads the policy of a mount, at the beginning and anew.
type policyKeeper struct {
	options bpf.Options
	fs      *stack.FS

	mu  sync.Mutex
	now *bpf.Policy // nil: none
}

// newPolicyKeeper loads the policy that the options name, if any, into the
// mount's configuration.
func newPolicyKeeper(m *mountOptions) (*policyKeeper, error) {
	k := &policyKeeper{options: bpf.Options{Fail: m.policy.fail, Budget: m.policy.budget, Pin: m.policy.pin,
		Lowers: m.Lowers, Written: []string{m.Upper, m.Work}, Logger: logger}}
	if !m.policy.any() {
		return k, nil
	}
	file := m.policy.file
	if file == "" {
		file = m.policy.object
	}
	p, err := k.load(file, m.policy.object != "")
	if err != nil {
		return nil, err
	}
	k.now, m.Policy = p, p
	return k, nil
}

// load loads a policy file or an object.
func (k *policyKeeper) load(file string, object bool) (*bpf.Policy, error) {
	load := bpf.LoadFile
	if object {
		load = bpf.LoadObject
	}
	p, err := load(file, k.options)
	if err != nil {
		return nil, policyError(err)
	}
	return p, nil
}

// policyError keeps the lines of a policy's errors apart.
func policyError(err error) error {
	e := &exitError{code: exitUsage, msg: err.Error(), err: err, lines: true}
	if errors.Is(err, bpf.ErrPrivilege) {
		e.code = exitEnvironment
	}
	return e
}

// serve is told of the mount once it is usable.
func (k *policyKeeper) serve(fs *stack.FS, mountpoint string) {
	k.fs = fs
	var st unix.Stat_t
	if unix.Stat(topOf(mountpoint), &st) == nil {
		k.options.Device = st.Dev
	}
}

// handle implements policyServer.
func (k *policyKeeper) handle(verb string, r policyRequest) (any, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch verb {
	case verbPolicySet:
		return nil, k.set(r.File)
	case verbPolicyClear:
		k.now = nil
		return nil, k.fs.SetPolicy(nil)
	}
	if k.now == nil {
		return nil, errors.New("the mount has no policy; plyfs policy set gives it one")
	}
	switch verb {
	case verbMapList:
		return k.now.Maps(), nil
	case verbMapDump:
		return k.dump(r)
	case verbMapSet:
		return nil, k.changed(k.now.MapSet(r.Rule, r.Map, r.Key, r.Value))
	case verbMapDelete:
		return nil, k.changed(k.now.MapDelete(r.Rule, r.Map, r.Key))
	}
	return nil, fmt.Errorf("unknown verb %q; the daemon is of another version", verb)
}

// set replaces the policy, or leaves it as it was.
func (k *policyKeeper) set(file string) error {
	p, err := k.load(file, strings.HasSuffix(file, ".o"))
	if err != nil {
		return err
	}
	if err := k.fs.SetPolicy(p); err != nil {
		return err
	}
	k.now = p
	logger.Info("policy set", "file", file)
	return nil
}

// changed has the mount follow a map that was changed before the asker hears
// of it.
func (k *policyKeeper) changed(err error) error {
	if err == nil {
		k.fs.RefreshPolicy()
	}
	return err
}

func (k *policyKeeper) dump(r policyRequest) (any, error) {
	list, more, err := k.now.MapDump(r.Rule, r.Map, r.Limit)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(list)
	return mapDump{Entries: b, More: more}, err
}
