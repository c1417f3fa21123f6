// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// typeName is the type as C writes it; "" if t is nil.
func typeName(t btf.Type) string {
	switch t := unqualified(t).(type) {
	case nil, *btf.Datasec:
		return ""
	case *btf.Struct:
		return strings.TrimSpace("struct " + t.Name)
	case *btf.Union:
		return strings.TrimSpace("union " + t.Name)
	case *btf.Enum:
		return strings.TrimSpace("enum " + t.Name)
	case *btf.Array:
		return fmt.Sprintf("%s[%d]", typeName(t.Type), t.Nelems)
	case *btf.Pointer:
		return typeName(t.Target) + "*"
	default:
		return t.TypeName()
	}
}

// unqualified takes const, volatile and their like off, but not a typedef.
func unqualified(t btf.Type) btf.Type {
	if t == nil {
		return nil
	}
	return btf.QualifiedType(t)
}

// formatBTF writes a value of type t, so that encodeBTF could read it for the
// most part: integers in decimal, arrays of char in quotes, structs with the
// names of their fields. What has no type is an integer if its size is that of
// one, else hexadecimal.
func formatBTF(t btf.Type, b []byte) string {
	t = underlying(t)
	if t != nil && !sized(t, len(b)) {
		t = nil
	}
	switch t := t.(type) {
	case *btf.Int:
		return formatInt(t.Encoding, b)
	case *btf.Enum:
		return formatEnum(t, b)
	case *btf.Array:
		return formatArray(t, b)
	case *btf.Struct:
		return formatMembers(t.Members, b)
	case *btf.Union:
		return formatMembers(t.Members, b)
	case *btf.Datasec:
		return formatDatasec(t, b)
	}
	if integerSize(len(b)) {
		return strconv.FormatUint(nativeUint(b), 10)
	}
	return formatHex(b)
}

// underlying is the type without typedefs and qualifiers.
func underlying(t btf.Type) btf.Type {
	if t == nil {
		return nil
	}
	return btf.UnderlyingType(t)
}

func sized(t btf.Type, size int) bool {
	n, err := btf.Sizeof(t)
	return err == nil && n == size
}

func integerSize(n int) bool { return n == 1 || n == 2 || n == 4 || n == 8 }

func formatHex(b []byte) string { return "hex:" + hex.EncodeToString(b) }

// nativeUint is the inverse of nativeBytes.
func nativeUint(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}

func formatInt(e btf.IntEncoding, b []byte) string {
	if !integerSize(len(b)) {
		return formatHex(b)
	}
	v := nativeUint(b)
	switch {
	case e == btf.Bool && v <= 1:
		return strconv.FormatBool(v == 1)
	case e == btf.Signed:
		return strconv.FormatInt(signExtend(v, len(b)), 10)
	}
	return strconv.FormatUint(v, 10)
}

// signExtend reads the low bytes of v as a signed integer.
func signExtend(v uint64, size int) int64 {
	shift := 64 - 8*size
	return int64(v<<shift) >> shift
}

func formatEnum(t *btf.Enum, b []byte) string {
	if !integerSize(len(b)) {
		return formatHex(b)
	}
	v := nativeUint(b)
	for _, e := range t.Values {
		if sameBits(e.Value, v, len(b)) {
			return e.Name
		}
	}
	if t.Signed {
		return strconv.FormatInt(signExtend(v, len(b)), 10)
	}
	return strconv.FormatUint(v, 10)
}

func sameBits(a, b uint64, size int) bool {
	shift := 64 - 8*size
	return a<<shift == b<<shift
}

func formatArray(t *btf.Array, b []byte) string {
	if isBytes(t) {
		return formatBytes(t, b)
	}
	if t.Nelems == 0 {
		return "[]"
	}
	n := len(b) / int(t.Nelems)
	parts := make([]string, t.Nelems)
	for i := range parts {
		parts[i] = formatBTF(t.Type, b[i*n:(i+1)*n])
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// isBytes says whether the elements are integers of one byte.
func isBytes(t *btf.Array) bool {
	i, ok := underlying(t.Type).(*btf.Int)
	return ok && i.Size == 1 && i.Encoding != btf.Bool
}

// formatBytes quotes the text of an array of char, and is hexadecimal for what
// is no text.
func formatBytes(t *btf.Array, b []byte) string {
	text := strings.TrimRight(string(b), "\x00")
	if i := underlying(t.Type).(*btf.Int); i.Name != "char" || !printable(text) {
		return formatHex(b)
	}
	return strconv.Quote(text)
}

func printable(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == '\uFFFD' {
			return false
		}
	}
	return true
}

func formatMembers(members []btf.Member, b []byte) string {
	parts := make([]string, 0, len(members))
	for _, m := range members {
		parts = append(parts, memberName(m.Name)+formatMember(m, b))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// memberName is empty for an anonymous struct or union.
func memberName(name string) string {
	if name == "" {
		return ""
	}
	return name + ": "
}

func formatMember(m btf.Member, b []byte) string {
	if m.BitfieldSize > 0 {
		return strconv.FormatUint(bitfield(b, uint(m.Offset), uint(m.BitfieldSize)), 10)
	}
	n, err := btf.Sizeof(m.Type)
	off := int(m.Offset.Bytes())
	if err != nil || off+n > len(b) {
		return "?"
	}
	return formatBTF(m.Type, b[off:off+n])
}

// bitfield reads bits as a little-endian machine numbers them.
func bitfield(b []byte, off, size uint) uint64 {
	var v uint64
	for i := range min(size, 64) {
		if at := off + i; at/8 < uint(len(b)) && b[at/8]>>(at%8)&1 != 0 {
			v |= 1 << i
		}
	}
	return v
}

func formatDatasec(t *btf.Datasec, b []byte) string {
	var parts []string
	for _, v := range t.Vars {
		variable, ok := v.Type.(*btf.Var)
		if !ok || int(v.Offset)+int(v.Size) > len(b) {
			continue
		}
		parts = append(parts, variable.Name+": "+formatBTF(variable.Type, b[v.Offset:v.Offset+v.Size]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
