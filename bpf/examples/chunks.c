/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * One disk image, made of parts that are all of the same size: the rule of the
 * policy names the parts, and the files that show the image. There may be any
 * number of parts; an answer holds 16 extents, so the program is asked again
 * for what is behind them. Nothing is kept between the calls: which part comes
 * next follows from in->offset.
 */
#include <plyfs.h>

const volatile __u64 chunk = 1ULL << 20; /* the size of a part */

PLY_PROGRAM("ply/file/open/pre", chunks)
{
	__u64 pos = in->offset, size = chunk * in->nparts;

	if (in->layer == 0 || !size)
		return PLY_USER; /* nothing to do with it */
	out->flags = PLY_OUT_SIZE;
	out->size = size; /* the same in every window */
	if (in->flags & PLY_IN_ATTR)
		return PLY_CONTINUE;

	for (int i = 0; i < PLY_EXTENTS && pos < size; i++) {
		__u64 inside = pos % chunk; /* 0, but for a window in mid-part */

		ply_backing(out, pos, chunk - inside, PLY_PART(pos / chunk), inside);
		pos += chunk - inside;
	}
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
