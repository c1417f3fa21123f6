/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * Ordinary users see what layer 2 has, where it has something; root and the
 * system's users see the topmost layer as always. What somebody wrote (it is in
 * upper) everybody sees.
 */
#include <plyfs.h>

/* The answers depend on who asks. Without this line in->uid is PLY_NOBODY; with
 * it the kernel keeps no name and no listing, so each access costs a round
 * trip. */
PLY_CALLER;

const volatile __u32 first_user = 1000;
const volatile __u32 layer = 2;

PLY_PROGRAM("ply/inode/lookup/pre", by_caller)
{
	/* PLY_NOBODY is a large number, and would pass for a user. */
	if (in->uid < first_user || in->uid == PLY_NOBODY)
		return PLY_CONTINUE;
	if (in->layers & 1)
		return PLY_CONTINUE;
	if (layer > 62 || !(in->layers >> layer & 1))
		return PLY_CONTINUE; /* not there: the topmost one */
	out->flags = PLY_OUT_CHOOSE;
	out->layer = layer;
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
