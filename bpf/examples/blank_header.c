/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * The first bytes of every file read as zeros. The size stays. Files that have
 * no more than these bytes are zeros altogether.
 *
 * This goes for files in upper, too: who writes a header does not read it back.
 */
#include <plyfs.h>

/* How many bytes. Constants like this one can be set when the program is
 * loaded, without compiling it again. */
const volatile __u64 header = 4096;

PLY_PROGRAM("ply/file/open/pre", blank_header)
{
	__u64 n = header < in->size ? header : in->size;

	if (!n)
		return PLY_CONTINUE; /* no extents: the file as it is */
	ply_zero(out, 0, n);
	if (n < in->size)
		ply_backing(out, n, in->size - n, PLY_SELF, n);
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
