// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
)

const (
	slotsMap = "ply_slots"
	epochMap = "ply_epoch"
	abiVar   = "ply_abi"
	callVar  = "ply_caller"

	slotCount = 64 // max_entries of ply_slots

	compileWith = "compile with clang -O2 -g -target bpf -mcpu=v3"
	rebuild     = "rebuild with plyfs's plyfs.h and leave it as it is"
)

// object is an object file that was read and checked; nothing of it is loaded.
// It is not changed any more, and may be loaded any number of times.
type object struct {
	name   string
	spec   *ebpf.CollectionSpec
	progs  map[progKey]*ebpf.ProgramSpec
	abi    int  // PLY_ABI of the header it was built with
	own    bool // plyfs brings it along: its loops are known to be short
	caller bool // it says PLY_CALLER: its answers depend on who asks
}

// readObject reads an object file. Errors are one line that begins with name
// and says what to mend.
func readObject(name string, r io.ReaderAt) (o *object, err error) {
	defer func() {
		if v := recover(); v != nil {
			o, err = nil, fmt.Errorf("%s: a damaged object file: %v", name, v)
		}
	}()
	o = &object{name: name, progs: make(map[progKey]*ebpf.ProgramSpec)}
	if err := o.read(r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, oneLine(err))
	}
	return o, nil
}

func (o *object) read(r io.ReaderAt) error {
	if err := checkFile(r); err != nil {
		return err
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(r)
	if err != nil {
		return fmt.Errorf("a damaged object file: %w", err)
	}
	o.spec = spec
	for _, check := range []func() error{o.checkABI, o.checkOwnMaps, o.checkMaps, o.checkPrograms} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// oneLine takes the line breaks out of a message.
func oneLine(err error) error {
	if s := err.Error(); strings.ContainsAny(s, "\r\n") {
		return errors.New(strings.Join(strings.Fields(s), " "))
	}
	return err
}

// checkFile looks at the ELF file as such: what it is for, its sections.
func checkFile(r io.ReaderAt) error {
	f, err := elf.NewFile(r)
	if err != nil {
		return fmt.Errorf("not an object file; if it is a source file, %s -c", compileWith)
	}
	if f.Machine != elf.EM_BPF {
		return fmt.Errorf("an object file for %s, not for BPF; %s", machineName(f.Machine), compileWith)
	}
	if f.ByteOrder.Uint16([]byte{1, 0}) != binary.NativeEndian.Uint16([]byte{1, 0}) {
		return fmt.Errorf("%s, and this machine has the other byte order; %s", f.Data, compileWith)
	}
	if err := checkSections(f); err != nil {
		return err
	}
	if f.Section(".BTF") == nil {
		return fmt.Errorf("no type information (section .BTF); %s", compileWith)
	}
	return nil
}

func machineName(m elf.Machine) string {
	return strings.TrimPrefix(m.String(), "EM_")
}

// checkSections refuses sections that would never be asked.
func checkSections(f *elf.File) error {
	found := false
	for _, s := range f.Sections {
		if s.Type != elf.SHT_PROGBITS && s.Type != elf.SHT_NOBITS || s.Size == 0 {
			continue
		}
		isProg, err := checkSection(s)
		if err != nil {
			return err
		}
		found = found || isProg
	}
	if !found {
		return fmt.Errorf("no plyfs program in it: no section is one of %s", sectionList())
	}
	return nil
}

// checkSection says whether the section is a plyfs program.
func checkSection(s *elf.Section) (bool, error) {
	code := s.Flags&elf.SHF_EXECINSTR != 0
	_, known := parseSection(s.Name)
	switch {
	case known && !code:
		return false, fmt.Errorf("section %s: holds data, not a program", s.Name)
	case known:
		return true, nil
	case s.Name == "ply" || strings.HasPrefix(s.Name, "ply/"):
		return false, unknownSection(s.Name)
	case code && s.Name != ".text":
		return false, fmt.Errorf("section %s: not a plyfs section, it would never run; the sections are %s%s",
			s.Name, sectionList(), didYouMean(s.Name))
	}
	return false, nil
}

func unknownSection(name string) error {
	return fmt.Errorf("section %s: no such section%s; the sections are %s", name, didYouMean(name), sectionList())
}

func didYouMean(name string) string {
	if near := nearestSection(name); near != "" {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}

// checkABI reads the version that the object was built for, and whether it
// depends on the caller.
func (o *object) checkABI() error {
	v := o.spec.Variables[abiVar]
	if v == nil || v.Size() != 4 || len(v.Value) != 4 {
		return fmt.Errorf("no variable %s: a program begins with #include <plyfs.h>", abiVar)
	}
	o.abi = int(binary.NativeEndian.Uint32(v.Value))
	if o.abi > abiVersion {
		return fmt.Errorf("was built for ABI %d, this plyfs has %d; rebuild with its plyfs.h, or use a newer plyfs",
			o.abi, abiVersion)
	}
	if o.abi < 1 {
		return fmt.Errorf("was built for ABI %d, this plyfs has %d; %s", o.abi, abiVersion, rebuild)
	}
	if c := o.spec.Variables[callVar]; c != nil {
		o.caller = slices.ContainsFunc(c.Value, func(b byte) bool { return b != 0 })
	}
	return nil
}

// checkOwnMaps compares the maps of plyfs.h with what this plyfs maps into its
// memory.
func (o *object) checkOwnMaps() error {
	if err := o.checkOwnMap(slotsMap, uint32(unsafe.Sizeof(slot{})), slotCount); err != nil {
		return err
	}
	return o.checkOwnMap(epochMap, 8, 1)
}

func (o *object) checkOwnMap(name string, valueSize, entries uint32) error {
	m := o.spec.Maps[name]
	switch {
	case m == nil:
		return fmt.Errorf("no map %s: a program begins with #include <plyfs.h>", name)
	case m.Type != ebpf.Array || m.KeySize != 4:
		return fmt.Errorf("map %s is no array; %s", name, rebuild)
	case m.ValueSize != valueSize:
		return fmt.Errorf("map %s: values have %d bytes instead of %d; %s", name, m.ValueSize, valueSize, rebuild)
	case m.MaxEntries != entries || m.Flags != mmapable:
		return fmt.Errorf("map %s: %d entries with flags %#x instead of %d with %#x; %s",
			name, m.MaxEntries, m.Flags, entries, mmapable, rebuild)
	}
	return nil
}

const mmapable = 1 << 10 // BPF_F_MMAPABLE

// sleepableMaps are the types that the kernel lets a sleepable program use.
// Plyfs programs are sleepable: no others can be run from a process.
var sleepableMaps = []ebpf.MapType{
	ebpf.Hash, ebpf.LRUHash, ebpf.Array, ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUCPUHash,
	ebpf.ArrayOfMaps, ebpf.HashOfMaps, ebpf.RingBuf, ebpf.UserRingbuf,
}

func (o *object) checkMaps() error {
	for _, name := range slices.Sorted(maps.Keys(o.spec.Maps)) {
		for _, m := range []*ebpf.MapSpec{o.spec.Maps[name], o.spec.Maps[name].InnerMap} {
			if m != nil && !slices.Contains(sleepableMaps, m.Type) {
				return fmt.Errorf("map %s: plyfs programs are sleepable and cannot use the type %s; use a hash or an array",
					name, m.Type)
			}
		}
	}
	return nil
}

// checkPrograms finds the programs of the sections. Functions of .text are
// part of those that call them.
func (o *object) checkPrograms() error {
	for _, name := range slices.Sorted(maps.Keys(o.spec.Programs)) {
		p := o.spec.Programs[name]
		key, ok := parseSection(p.SectionName)
		if !ok {
			return unknownSection(p.SectionName)
		}
		if other := o.progs[key]; other != nil {
			return fmt.Errorf("section %s: two programs, %s and %s; a section has one",
				p.SectionName, other.Name, p.Name)
		}
		o.progs[key] = p
	}
	return nil
}
