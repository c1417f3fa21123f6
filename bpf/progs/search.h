/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * search.h: binary search in a sorted array map whose values begin with two
 * __u64, the offset and the length. The includer says which with
 * PLY_SORTED_MAP and PLY_SORTED_TYPE.
 */
#ifndef PLYFS_SEARCH_H
#define PLYFS_SEARCH_H

#define PLY_SORTED_MAX (1U << 20) /* entries */
#define PLY_SORTED_STEPS 21	  /* log2 of it, and one */

/* ply_end: where [off, off + len) ends; no wrapping around. */
static __always_inline __u64 ply_end(__u64 off, __u64 len)
{
	return off + len < off ? ~0ULL : off + len;
}

struct ply_search {
	__u64 off;
	__u32 lo, hi; /* the answer is in [lo, hi] */
	__s32 err;
};

static long ply_search_step(__u32 i, void *ctx)
{
	struct ply_search *s = ctx;
	PLY_SORTED_TYPE *e;
	__u32 mid;

	if (s->lo >= s->hi)
		return 1;
	mid = s->lo + (s->hi - s->lo) / 2;
	e = bpf_map_lookup_elem(&PLY_SORTED_MAP, &mid);
	if (!e) {
		s->err = -PLY_EIO;
		return 1;
	}
	if (ply_end(e->off, e->len) > s->off)
		s->hi = mid;
	else
		s->lo = mid + 1;
	return 0;
}

/* ply_search: the first of n entries that ends behind off, n if none does; or
 * a negative errno. */
static __always_inline __s64 ply_search(__u32 n, __u64 off)
{
	struct ply_search s = { .off = off, .hi = n };

	if (n > PLY_SORTED_MAX)
		return -PLY_EIO;
	bpf_loop(PLY_SORTED_STEPS, ply_search_step, &s, 0);
	if (s.err)
		return s.err;
	return s.lo;
}

#endif /* PLYFS_SEARCH_H */
