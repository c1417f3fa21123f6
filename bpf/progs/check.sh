#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Copyright 2026 The plyfs Authors.

# Checks that the committed objects are what the sources make. A compiler of
# another version makes other code of the same source; then it is only checked
# that the sources compile without a warning. The version that made the objects
# is in the file compiler; build.sh writes it.
set -eu

cd "$(dirname "$0")"
CLANG=${CLANG:-clang}
made=$(cat compiler)
have=$("$CLANG" -dumpversion)

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/progs"
cp -r ../include "$dir/include"
cp ./*.c ./*.h build.sh "$dir/progs/"
sh "$dir/progs/build.sh"

if [ "$made" != "$have" ]; then
	echo "clang $have instead of $made: the sources compile, the objects are not compared"
	exit 0
fi
for o in *.o; do
	cmp "$o" "$dir/progs/$o" || {
		echo "bpf/progs/$o is not what its source makes; run make generate and commit it" >&2
		exit 1
	}
done
