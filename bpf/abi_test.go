// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package bpf

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// The structs of abi.go lie in memory as those of plyfs.h: all fields, at the
// same offsets, of the same sizes.
func TestLayout(t *testing.T) {
	spec := mustRead(t, build(t, "echo.c")).spec.Types
	for name, typ := range map[string]reflect.Type{
		"ply_in":     reflect.TypeFor[input](),
		"ply_out":    reflect.TypeFor[output](),
		"ply_extent": reflect.TypeFor[extent](),
		"ply_range":  reflect.TypeFor[byteRange](),
		"ply_slot":   reflect.TypeFor[slot](),
	} {
		var s *btf.Struct
		if err := spec.TypeByName(name, &s); err != nil {
			t.Fatal(err)
		}
		if int(s.Size) != int(typ.Size()) || len(s.Members) != typ.NumField() {
			t.Errorf("%s: %d bytes and %d fields, in Go %d and %d", name, s.Size, len(s.Members), typ.Size(), typ.NumField())
			continue
		}
		for i, m := range s.Members {
			sameField(t, name, m, typ.Field(i))
		}
	}
}

func sameField(t *testing.T, name string, m btf.Member, f reflect.StructField) {
	t.Helper()
	size, err := btf.Sizeof(m.Type)
	if err != nil {
		t.Fatal(err)
	}
	if int(m.Offset.Bytes()) != int(f.Offset) || size != int(f.Type.Size()) {
		t.Errorf("%s.%s: %d bytes at %d, in Go %s %d at %d",
			name, m.Name, size, m.Offset.Bytes(), f.Name, f.Type.Size(), f.Offset)
	}
	if plain := strings.ReplaceAll(m.Name, "_", ""); !strings.EqualFold(plain, f.Name) {
		t.Errorf("%s.%s is %s in Go", name, m.Name, f.Name)
	}
}

// The constants of abi.go are those of plyfs.h.
func TestConstants(t *testing.T) {
	vars := mustRead(t, build(t, "constants.c")).spec.Variables
	for name, want := range map[string]uint64{
		"CONTINUE":        actContinue,
		"USER":            actUser,
		"USER_PREFILTER":  actUserPrefilter,
		"POSTFILTER":      actPostfilter,
		"USER_POSTFILTER": actUserPostfilter,
		"LOOKUP":          uint64(opLookup),
		"GETATTR":         uint64(opGetattr),
		"READDIR":         uint64(opReaddir),
		"OPEN":            uint64(opOpen),
		"READ":            uint64(opRead),
		"WRITE":           uint64(opWrite),
		"PRE":             uint64(pre),
		"POST":            uint64(post),
		"IN_HANDLED":      inHandled,
		"IN_ATTR":         inAttr,
		"IN_WRITE":        inWrite,
		"IN_COPYUP":       inCopyUp,
		"IN_COPIED":       inCopied,
		"OUT_HIDE":        outHide,
		"OUT_CHOOSE":      outChoose,
		"OUT_SIZE":        outSize,
		"OUT_MTIME":       outMtime,
		"OUT_MODE":        outMode,
		"OUT_NOCACHE":     outNoCache,
		"EXT_BACKING":     extBacking,
		"EXT_ZERO":        extZero,
		"EXT_INLINE":      extInline,
		"EXT_SERVER":      extServer,
		"ABI":             abiVersion,
		"NOBODY":          uint64(nobody),
		"NAME_MAX":        nameMax,
		"EXTENTS":         maxExtents,
		"HINTS":           maxHints,
		"INLINE":          inlineBytes,
		"SELF":            backingSelf,
		"PART_0":          backingPart,
	} {
		v := vars["say_"+name]
		if v == nil {
			t.Errorf("testdata/constants.c does not say PLY_%s", name)
		} else if got := binary.NativeEndian.Uint64(v.Value); got != want {
			t.Errorf("PLY_%s is %d, in Go %d", name, got, want)
		}
	}
}
