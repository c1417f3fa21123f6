// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// A Report is what is known of an object that the kernel takes.
type Report struct {
	Name      string          `json:"name"`
	ABI       int             `json:"abi"`
	Caller    bool            `json:"caller"` // its answers depend on who asks
	License   string          `json:"license"`
	Programs  []ProgramReport `json:"programs"`
	Maps      []MapReport     `json:"maps"`
	Variables []VarReport     `json:"variables"`
	Warnings  []string        `json:"warnings"`
}

// ProgramReport is about one program. Numbers that the kernel does not tell are
// 0.
type ProgramReport struct {
	Section      string `json:"section"`
	Function     string `json:"function"`
	Instructions int    `json:"instructions"`    // as compiled
	Verified     int    `json:"verified"`        // that the verifier went through, on all paths
	VerifyNS     int64  `json:"verification_ns"` // loading it took
	JITed        int    `json:"jited_bytes"`     // machine code
	RunNS        int64  `json:"run_ns"`          // one run with an empty input, the system call included: the median
	Runs         int    `json:"runs"`            // that RunNS was found with
	Slow         string `json:"slow,omitempty"`  // why it would be switched off; RunNS may be 0 then
}

// MapReport is about a map that the object declares.
type MapReport struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	KeyBytes   uint32 `json:"key_bytes"`
	ValueBytes uint32 `json:"value_bytes"`
	MaxEntries uint32 `json:"max_entries"`
	Key        string `json:"key_type"` // "" if the object does not say
	Value      string `json:"value_type"`
}

// VarReport is about a variable that a policy can set.
type VarReport struct {
	Name  string `json:"name"`
	Bytes uint32 `json:"bytes"`
	Type  string `json:"type"`
	Value string `json:"value"` // unless it is set
	Const bool   `json:"const"` // the program cannot change it
}

// checkLoadTime is how long Check lets the verifier work.
const checkLoadTime = 2500 * time.Millisecond

// Check loads the programs of an object file, tries each, and unloads them. The
// error is a *VerifierRefusal, or one line. Check returns within seconds
// whatever the programs are.
func Check(path string) (*Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o, err := readObject(filepath.Base(path), f)
	if err != nil {
		return nil, err
	}
	p, err := o.load(loadOptions{timeout: checkLoadTime})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.report(), nil
}

// report tries the programs.
func (p *programs) report() *Report {
	o := p.object
	r := &Report{Name: o.name, ABI: o.abi, Caller: o.caller}
	r.Maps, r.Variables = mapReports(o.spec), varReports(o.spec)
	p.each(func(pr *program) {
		r.License = pr.spec.License
		r.Programs = append(r.Programs, pr.report())
	})
	p.measure(r.Programs)
	r.Warnings = o.warnings(r)
	return r
}

func (pr *program) report() ProgramReport {
	r := ProgramReport{
		Section: pr.key.String(), Function: pr.spec.Name, VerifyNS: int64(pr.verify),
		Instructions: int(pr.spec.Instructions.Size() / 8),
	}
	info, err := pr.prog.Info()
	if err != nil {
		return r
	}
	verified, _ := info.VerifiedInstructions()
	jited, _ := info.JitedSize()
	r.Verified, r.JITed = int(verified), int(jited)
	return r
}

func mapReports(spec *ebpf.CollectionSpec) []MapReport {
	list := []MapReport{}
	for _, name := range ownMapNames(spec) {
		m := spec.Maps[name]
		list = append(list, MapReport{
			Name: name, Type: m.Type.String(), KeyBytes: m.KeySize, ValueBytes: m.ValueSize,
			MaxEntries: m.MaxEntries, Key: typeName(m.Key), Value: typeName(m.Value),
		})
	}
	return list
}

func varReports(spec *ebpf.CollectionSpec) []VarReport {
	list := []VarReport{}
	for _, name := range variableNames(spec) {
		v := spec.Variables[name]
		var t btf.Type
		if v.Type != nil {
			t = v.Type.Type
		}
		list = append(list, VarReport{
			Name: name, Bytes: v.Size(), Type: typeName(t), Value: formatBTF(t, v.Value), Const: v.Constant(),
		})
	}
	return list
}

// warnings are about what is allowed and yet hardly meant.
func (o *object) warnings(r *Report) []string {
	list := []string{}
	if r.License == "" {
		list = append(list, `no license: say PLY_LICENSE("GPL"), or many of the kernel's helpers are forbidden`)
	}
	if o.caller {
		list = append(list, "PLY_CALLER: "+o.callerPrice())
	}
	for _, p := range r.Programs {
		if p.Slow != "" {
			list = append(list, fmt.Sprintf("section %s: %s", p.Section, p.Slow))
		}
	}
	return list
}

// callerPrice is what it costs that answers depend on who asks.
func (o *object) callerPrice() string {
	names, files := false, false
	for key := range o.progs {
		names = names || key.op == opLookup || key.op == opReaddir
		files = files || key.op == opOpen || key.op == opWrite
	}
	switch {
	case names:
		return "the kernel keeps no name that the programs decide about; each access costs a round trip"
	case files:
		return "the kernel keeps no name of the files that the programs are asked about, and each user has pages of his own"
	}
	return "does nothing here: only lookup, readdir, open and write programs are told who asks"
}
