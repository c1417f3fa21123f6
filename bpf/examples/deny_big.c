/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * Large files cannot be opened; they can be listed, and stat tells their size.
 *
 * The post program sees the size of the file as it is shown, whatever other
 * bytes a plan put before it. It is asked because the pre program says so.
 */
#include <plyfs.h>

#define EFBIG 27

const volatile __u64 limit = 1ULL << 30;

PLY_PROGRAM("ply/file/open/pre", deny_big_pre)
{
	return PLY_POSTFILTER;
}

PLY_PROGRAM("ply/file/open/post", deny_big)
{
	/* stat is no open. Nor is chmod, for which a file is copied up. */
	if (in->flags & (PLY_IN_ATTR | PLY_IN_COPYUP))
		return PLY_CONTINUE;
	return in->size > limit ? -EFBIG : PLY_CONTINUE;
}

PLY_LICENSE("GPL");
