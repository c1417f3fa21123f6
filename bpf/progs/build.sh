#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Copyright 2026 The plyfs Authors.

# Compiles the programs beside this script. All paths that the compiler sees
# are relative, so the objects are the same wherever they are built. They keep
# BTF, by which the loader checks the layout and the verifier quotes source
# lines, but not DWARF. Another version of clang makes other objects: those that
# are committed are clang 14's.
set -eu

cd "$(dirname "$0")"
CLANG=${CLANG:-clang}
STRIP=${STRIP:-llvm-strip}

for c in *.c; do
	o=${c%.c}.o
	"$CLANG" -O2 -g -target bpfel -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter \
		-fdebug-compilation-dir=. -I ../include -c "$c" -o "$o"
	"$STRIP" -g "$o"
done
"$CLANG" -dumpversion >compiler
