// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// setVariable gives a global variable its first value.
func setVariable(spec *ebpf.CollectionSpec, name string, value uint64) error {
	v := spec.Variables[name]
	if v == nil || strings.HasPrefix(name, "ply_") {
		return fmt.Errorf("no variable %s; there %s", name, listOf(variableNames(spec)))
	}
	size := int(v.Size())
	if size != 1 && size != 2 && size != 4 && size != 8 {
		return fmt.Errorf("variable %s: is no integer", name)
	}
	if !fits(value, size, v.Type) {
		return fmt.Errorf("variable %s: %d does not fit its %d bits", name, value, 8*size)
	}
	v.Value = nativeBytes(value, size)
	return nil
}

// nativeBytes is the low bytes of v as this machine lays out an integer of
// that size: 1, 2, 4 or 8.
func nativeBytes(v uint64, size int) []byte {
	b := make([]byte, 8)
	switch size {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.NativeEndian.PutUint16(b, uint16(v))
	case 4:
		binary.NativeEndian.PutUint32(b, uint32(v))
	default:
		binary.NativeEndian.PutUint64(b, v)
	}
	return b[:size]
}

// fits says whether an integer variable can hold the value. A negative number
// comes as its two's complement and fits a signed one only.
func fits(value uint64, size int, v *btf.Var) bool {
	encoding := btf.Unsigned
	if v != nil {
		if i, ok := btf.UnderlyingType(v.Type).(*btf.Int); ok {
			encoding = i.Encoding
		}
	}
	return fitsBits(value, 8*size, encoding)
}

func fitsBits(value uint64, bits int, encoding btf.IntEncoding) bool {
	switch {
	case encoding == btf.Bool:
		return value <= 1
	case encoding == btf.Signed:
		shift := 64 - bits
		return uint64(int64(value<<shift)>>shift) == value
	}
	return bits == 64 || value>>bits == 0
}

// setSize sets a map's max_entries.
func setSize(spec *ebpf.CollectionSpec, name string, entries uint32) error {
	m := spec.Maps[name]
	if m == nil || isData(name) || name == slotsMap || name == epochMap {
		return fmt.Errorf("no map %s whose size can be set; there %s", name, listOf(ownMapNames(spec)))
	}
	if entries == 0 {
		return fmt.Errorf("map %s: the size must be more than 0", name)
	}
	m.MaxEntries = entries
	return nil
}

// isData is true for the maps that are made of .rodata, .data and .bss.
func isData(name string) bool { return strings.HasPrefix(name, ".") }

// variableNames are those that can be set.
func variableNames(spec *ebpf.CollectionSpec) []string {
	names := slices.Sorted(maps.Keys(spec.Variables))
	return slices.DeleteFunc(names, func(s string) bool { return strings.HasPrefix(s, "ply_") })
}

// ownMapNames are the maps that the author of the object declared.
func ownMapNames(spec *ebpf.CollectionSpec) []string {
	names := slices.Sorted(maps.Keys(spec.Maps))
	return slices.DeleteFunc(names, func(s string) bool { return isData(s) || s == slotsMap || s == epochMap })
}

// listOf continues "there ".
func listOf(names []string) string {
	switch len(names) {
	case 0:
		return "is none"
	case 1:
		return "is " + names[0]
	}
	return "are " + strings.Join(names, ", ")
}

// preparePins marks the maps that are to be pinned: all but ply_slots, whose
// memory belongs to one load, and the variables, whose names bpffs refuses.
func preparePins(spec *ebpf.CollectionSpec, dir string) error {
	for name, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
		if dir != "" && name != slotsMap && !isData(name) {
			m.Pinning = ebpf.PinByName
		}
	}
	if dir == "" {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("pinning maps: %w", &os.PathError{Op: "statfs", Path: dir, Err: err})
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("pinning maps: %s is not on a bpffs; mount -t bpf bpf DIR", dir)
	}
	return nil
}

// pinned says which maps are pinned already.
func (l *loading) pinned() (map[string]bool, error) {
	old := make(map[string]bool)
	for name, m := range l.spec.Maps {
		if m.Pinning != ebpf.PinByName {
			continue
		}
		_, err := os.Lstat(filepath.Join(l.pinTo, name))
		if err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("pinning maps: %w", err)
		}
		old[name] = err == nil
	}
	return old, nil
}

// removePins undoes what a failed making of maps has pinned.
func (l *loading) removePins(old map[string]bool) {
	for name, was := range old {
		if !was {
			_ = os.Remove(filepath.Join(l.pinTo, name))
		}
	}
}
