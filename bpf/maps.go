// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// MapInfo is what "plyfs policy map" says about a map.
type MapInfo struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	KeyBytes   uint32 `json:"key_bytes"`
	ValueBytes uint32 `json:"value_bytes"`
	Key        string `json:"key_type"` // "" if the object does not say
	Value      string `json:"value_type"`
	MaxEntries uint32 `json:"max_entries"`
	Entries    int    `json:"entries"`          // -1: unknown, or too many to count
	Pinned     string `json:"pinned,omitempty"` // where in a bpffs
}

// MapEntry is an entry as formatBTF writes it. Of a map with values for each
// processor, Value is the first one's.
type MapEntry struct {
	Key    string   `json:"key"`
	Value  string   `json:"value"`
	PerCPU []string `json:"per_cpu,omitempty"`
}

// maxCounted is how many entries are counted.
const maxCounted = 1 << 16

// mapInfo lists the maps, ply_slots excepted; .data, .bss and .rodata are the
// variables. It is empty after Close.
func (p *programs) mapInfo() []MapInfo {
	list := []MapInfo{}
	if !p.enter() {
		return list
	}
	defer p.leave()
	for _, name := range p.mapNames() {
		list = append(list, p.describeMap(name))
	}
	return list
}

func (p *programs) describeMap(name string) MapInfo {
	m, spec := p.maps[name], p.specs[name]
	info := MapInfo{
		Name: name, Type: m.Type().String(), KeyBytes: m.KeySize(), ValueBytes: m.ValueSize(),
		Key: typeName(spec.Key), Value: typeName(spec.Value),
		MaxEntries: m.MaxEntries(), Entries: countEntries(m),
	}
	if spec.Pinning == ebpf.PinByName {
		info.Pinned = filepath.Join(p.pinTo, name)
	}
	return info
}

// mapNames are the maps that may be looked at.
func (p *programs) mapNames() []string {
	var names []string
	for name := range p.maps {
		if name != slotsMap {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// countEntries is -1 for what cannot be counted.
func countEntries(m *ebpf.Map) int {
	switch m.Type() {
	case ebpf.Array, ebpf.PerCPUArray, ebpf.ArrayOfMaps:
		return int(m.MaxEntries())
	case ebpf.RingBuf, ebpf.UserRingbuf:
		return -1
	}
	var key []byte
	for n := range maxCounted {
		next, err := nextKey(m, key)
		if err != nil {
			return -1
		}
		if next == nil {
			return n
		}
		key = next
	}
	return -1
}

// nextKey is nil behind the last key.
func nextKey(m *ebpf.Map, key []byte) ([]byte, error) {
	if key == nil {
		return m.NextKeyBytes(nil)
	}
	return m.NextKeyBytes(key)
}

// openMap is the map of a name, for somebody who has entered.
func (p *programs) openMap(name string) (*ebpf.Map, *ebpf.MapSpec, error) {
	m := p.maps[name]
	if m == nil || name == slotsMap {
		return nil, nil, fmt.Errorf("%s: no map %s; there %s", p.object.name, name, listOf(p.mapNames()))
	}
	return m, p.specs[name], nil
}

// mapDump lists up to limit entries, and says whether there are more. A map
// that is being changed may show an entry twice or not at all.
func (p *programs) mapDump(name string, limit int) (list []MapEntry, more bool, err error) {
	if !p.enter() {
		return nil, false, errClosed
	}
	defer p.leave()
	m, spec, err := p.openMap(name)
	if err != nil {
		return nil, false, err
	}
	list = []MapEntry{}
	key, err := nextKey(m, nil)
	for ; err == nil && key != nil; key, err = nextKey(m, key) {
		if len(list) >= limit {
			return list, true, nil
		}
		entry, err := readEntry(m, spec, key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return nil, false, mapFailure(name, err)
		}
		list = append(list, entry)
	}
	if err != nil {
		return nil, false, mapFailure(name, err)
	}
	return list, false, nil
}

func readEntry(m *ebpf.Map, spec *ebpf.MapSpec, key []byte) (MapEntry, error) {
	values, err := lookup(m, key)
	if err != nil {
		return MapEntry{}, err
	}
	e := MapEntry{Key: formatBTF(spec.Key, key), Value: formatBTF(spec.Value, values[0])}
	if perCPU(m) {
		for _, v := range values {
			e.PerCPU = append(e.PerCPU, formatBTF(spec.Value, v))
		}
	}
	return e, nil
}

// lookup gives one value, or one of each processor.
func lookup(m *ebpf.Map, key []byte) ([][]byte, error) {
	if perCPU(m) {
		var values [][]byte
		err := m.Lookup(key, &values)
		return values, err
	}
	var value []byte
	err := m.Lookup(key, &value)
	return [][]byte{value}, err
}

func perCPU(m *ebpf.Map) bool {
	switch m.Type() {
	case ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUCPUHash:
		return true
	}
	return false
}

// mapSet makes or changes an entry, for all processors if it has a value for
// each, and bumps the epoch. Key and value are as encodeBTF takes them. Of a
// section of variables only those that are given change; its key is 0.
func (p *programs) mapSet(name string, key, value any) error {
	return p.changeMap(name, key, func(m *ebpf.Map, spec *ebpf.MapSpec, k []byte) error {
		v := make([]byte, m.ValueSize())
		if _, ok := spec.Value.(*btf.Datasec); ok {
			old, err := lookup(m, k)
			if err != nil {
				return err
			}
			v = old[0]
		}
		if err := encodeInto(spec.Value, v, value); err != nil {
			return fmt.Errorf("value: %w", err)
		}
		return put(m, k, v)
	})
}

func put(m *ebpf.Map, key, value []byte) error {
	if !perCPU(m) {
		return m.Put(key, value)
	}
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	return m.Put(key, slices.Repeat([][]byte{value}, n))
}

// mapDelete removes an entry, and bumps the epoch.
func (p *programs) mapDelete(name string, key any) error {
	return p.changeMap(name, key, func(m *ebpf.Map, _ *ebpf.MapSpec, k []byte) error {
		switch m.Type() {
		case ebpf.Array, ebpf.PerCPUArray:
			return errors.New("entries of an array cannot be removed; set them to 0")
		}
		return m.Delete(k)
	})
}

// changeMap finds the map, encodes the key, and lets fn change the map.
func (p *programs) changeMap(name string, key any, fn func(*ebpf.Map, *ebpf.MapSpec, []byte) error) error {
	if !p.enter() {
		return errClosed
	}
	defer p.leave()
	m, spec, err := p.openMap(name)
	if err != nil {
		return err
	}
	switch m.Type() {
	case ebpf.ArrayOfMaps, ebpf.HashOfMaps, ebpf.RingBuf, ebpf.UserRingbuf:
		return fmt.Errorf("map %s: a %s cannot be changed from outside", name, m.Type())
	}
	k, err := encodeBTF(spec.Key, m.KeySize(), key)
	if err != nil {
		return fmt.Errorf("map %s: key: %w", name, err)
	}
	if err := fn(m, spec, k); err != nil {
		return mapFailure(name, err)
	}
	p.bumpEpoch()
	return nil
}

// mapFailure says in our words what the kernel says with an errno.
func mapFailure(name string, err error) error {
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return fmt.Errorf("map %s: no such key", name)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("map %s: is read-only", name)
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("map %s: is full, or has no such index", name)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("map %s: its entries cannot be listed", name)
	}
	return fmt.Errorf("map %s: %w", name, oneLine(err))
}
