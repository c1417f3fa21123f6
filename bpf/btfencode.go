// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// encodeBTF makes size bytes of type t, which may be nil, out of a value as
// YAML or JSON have it, or a command line:
//
//	an integer, or its text in decimal or 0x...: an integer, and what has no type
//	a bool, or its text: a bool
//	a name: an enum
//	text, "str:text": an array of bytes, NUL behind it
//	"hex:0011aa": anything of as many bytes
//	[]any, or "[...]" in JSON: an array; what is not given is zero
//	map[string]any, or "{...}" in JSON: a struct or union; what is not given is zero
func encodeBTF(t btf.Type, size uint32, v any) ([]byte, error) {
	b := make([]byte, size)
	if err := encodeInto(t, b, v); err != nil {
		return nil, err
	}
	return b, nil
}

// encodeInto encodes over b and leaves what the value does not give.
func encodeInto(t btf.Type, b []byte, v any) error {
	if s, ok := v.(string); ok {
		if done, err := encodeText(t, b, s); done || err != nil {
			return err
		}
	}
	if t != nil && !sized(t, len(b)) {
		t = nil
	}
	switch v := v.(type) {
	case map[string]any:
		return encodeFields(t, b, v)
	case []any:
		return encodeElements(t, b, v)
	}
	return encodeInteger(t, b, v)
}

// encodeText takes the forms of text that are no integer. It says whether that
// was all.
func encodeText(t btf.Type, b []byte, s string) (done bool, err error) {
	if text, ok := strings.CutPrefix(s, "hex:"); ok {
		return true, encodeHex(b, text)
	}
	if text, ok := strings.CutPrefix(s, "str:"); ok {
		return true, encodeString(b, text)
	}
	switch t := underlying(t).(type) {
	case *btf.Array:
		if isBytes(t) && !strings.HasPrefix(s, "[") {
			return true, encodeString(b, s)
		}
	case *btf.Enum:
		for _, e := range t.Values {
			if e.Name == s && integerSize(len(b)) {
				copy(b, nativeBytes(e.Value, len(b)))
				return true, nil
			}
		}
	}
	if strings.HasPrefix(s, "{") || strings.HasPrefix(s, "[") {
		v, err := parseJSON(s)
		if err != nil {
			return true, err
		}
		return true, encodeInto(t, b, v)
	}
	return false, nil
}

func encodeHex(b []byte, text string) error {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return fmt.Errorf("hex:%s: %w", text, err)
	}
	if len(raw) != len(b) {
		return fmt.Errorf("hex:%s: has %d bytes instead of %d", text, len(raw), len(b))
	}
	copy(b, raw)
	return nil
}

func encodeString(b []byte, text string) error {
	if len(text) > len(b) {
		return fmt.Errorf("%q: has more than %d bytes", text, len(b))
	}
	clear(b[copy(b, text):])
	return nil
}

// parseJSON keeps integers of 64 bits whole.
func parseJSON(s string) (any, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	if d.More() {
		return nil, fmt.Errorf("%s: something follows the value", s)
	}
	return v, nil
}

func encodeElements(t btf.Type, b []byte, list []any) error {
	a, ok := underlying(t).(*btf.Array)
	if !ok {
		return fmt.Errorf("a list is given for %s", describe(t, len(b)))
	}
	if len(list) > int(a.Nelems) {
		return fmt.Errorf("%d elements are given for %s", len(list), describe(t, len(b)))
	}
	for i, v := range list {
		n := len(b) / int(a.Nelems)
		if err := encodeInto(a.Type, b[i*n:(i+1)*n], v); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

func encodeFields(t btf.Type, b []byte, fields map[string]any) error {
	for name, v := range fields {
		ft, off, size, ok := field(underlying(t), name)
		if !ok || off+size > len(b) {
			return fmt.Errorf("field %s: %s has none of that name; there %s", name, describe(t, len(b)), listOf(fieldNames(underlying(t))))
		}
		if err := encodeInto(ft, b[off:off+size], v); err != nil {
			return fmt.Errorf("field %s: %w", name, err)
		}
	}
	return nil
}

// field finds a field by its name, also within anonymous structs and unions.
func field(t btf.Type, name string) (_ btf.Type, off, size int, ok bool) {
	if ds, is := t.(*btf.Datasec); is {
		for _, v := range ds.Vars {
			if variable, is := v.Type.(*btf.Var); is && variable.Name == name {
				return variable.Type, int(v.Offset), int(v.Size), true
			}
		}
	}
	for _, m := range members(t) {
		if m.BitfieldSize > 0 {
			continue
		}
		if m.Name == name {
			n, err := btf.Sizeof(m.Type)
			return m.Type, int(m.Offset.Bytes()), n, err == nil
		}
		if m.Name == "" {
			if ft, off, size, ok := field(underlying(m.Type), name); ok {
				return ft, off + int(m.Offset.Bytes()), size, true
			}
		}
	}
	return nil, 0, 0, false
}

func members(t btf.Type) []btf.Member {
	switch t := t.(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

func fieldNames(t btf.Type) []string {
	var names []string
	if ds, ok := t.(*btf.Datasec); ok {
		for _, v := range ds.Vars {
			names = append(names, v.Type.TypeName())
		}
	}
	for _, m := range members(t) {
		if m.Name == "" {
			names = append(names, fieldNames(underlying(m.Type))...)
		} else if m.BitfieldSize == 0 {
			names = append(names, m.Name)
		}
	}
	return names
}

// describe is the type for a message.
func describe(t btf.Type, size int) string {
	if name := typeName(t); name != "" {
		return name
	}
	return fmt.Sprintf("a value of %d bytes", size)
}

func encodeInteger(t btf.Type, b []byte, v any) error {
	encoding, ok := integerEncoding(t, len(b))
	if !ok {
		return fmt.Errorf("%v: does not make %s; give hex:... or fields", v, describe(t, len(b)))
	}
	i, err := toInteger(v)
	if err != nil {
		return err
	}
	if !i.fits(8*len(b), encoding) {
		return fmt.Errorf("%v: does not fit %s", v, describe(t, len(b)))
	}
	copy(b, nativeBytes(i.bits, len(b)))
	return nil
}

// anySign is for bytes that have no type.
const anySign = btf.Char

// integerEncoding says how a type holds an integer.
func integerEncoding(t btf.Type, size int) (btf.IntEncoding, bool) {
	switch t := underlying(t).(type) {
	case nil:
		return anySign, integerSize(size)
	case *btf.Int:
		return t.Encoding, integerSize(size)
	case *btf.Enum:
		return anySign, integerSize(size)
	case *btf.Pointer:
		return btf.Unsigned, integerSize(size)
	}
	return 0, false
}

var errNoInteger = errors.New("is no integer")
