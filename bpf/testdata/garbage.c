/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/* Fills its whole answer with ones, and the question too. */
#include <plyfs.h>


PLY_PROGRAM("ply/file/open/pre", open_pre)
{
	volatile __u64 *w = (__u64 *)out;
	volatile __u64 *q = (__u64 *)in;

	for (int i = 0; i < sizeof(*out) / 8; i++)
		w[i] = ~0ULL;
	for (int i = 0; i < sizeof(*in) / 8; i++)
		q[i] = ~0ULL;
	return 0x7fffffff;
}

/* Writes into every slot. */
PLY_PROGRAM("ply/file/read/pre", read_pre)
{
	for (__u32 k = 0; k < 64; k++) {
		__u32 key = k;
		struct ply_slot *s = bpf_map_lookup_elem(&ply_slots, &key);
		if (s) {
			s->out.nextents = ~0U;
			s->out.data_len = ~0U;
		}
	}
	return -1;
}

PLY_LICENSE("GPL");
