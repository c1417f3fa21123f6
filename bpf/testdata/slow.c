/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/* Programs that the verifier lets in though they take long. */
#include <plyfs.h>

#ifndef LOOPS
#define LOOPS (1 << 23)
#endif

static long step(__u32 i, void *ctx)
{
	return 0;
}

#ifdef NESTED
static long nest(__u32 i, void *ctx)
{
	bpf_loop(LOOPS, step, ctx, 0);
	return 0;
}

PLY_PROGRAM("ply/file/open/pre", open_pre)
{
	bpf_loop(LOOPS, nest, 0, 0);
	return PLY_CONTINUE;
}
#else
PLY_PROGRAM("ply/file/open/pre", open_pre)
{
#ifndef ALWAYS
	if (in->size)
#endif
		bpf_loop(LOOPS, step, 0, 0);
	return PLY_CONTINUE;
}
#endif

PLY_PROGRAM("ply/inode/lookup/pre", lookup_pre)
{
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
