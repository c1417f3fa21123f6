/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/* Answers with the extents of a table, right or wrong, so many at a time. */
#include <plyfs.h>

#define TABLE 64

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, TABLE);
	__type(key, __u32);
	__type(value, struct ply_extent);
} table SEC(".maps");

struct head {
	__u64 size;
	__u32 n, window;
};

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct head);
} head SEC(".maps");

PLY_PROGRAM("ply/file/open/pre", open_pre)
{
	__u32 key = 0;
	struct head *h = bpf_map_lookup_elem(&head, &key);

	if (!h)
		return -5;
	out->flags = PLY_OUT_SIZE;
	out->size = h->size;
	for (__u32 i = 0; i < 64; i++)
		out->data[i] = i;
	out->data_len = 64;
	for (__u32 i = 0; i < TABLE && i < h->n && out->nextents < h->window; i++) {
		__u32 k = i;
		struct ply_extent *e = bpf_map_lookup_elem(&table, &k);
		__u64 skip = 0;

		if (!e || (e->off < in->offset && e->off + e->len <= in->offset))
			continue;
		if (e->off < in->offset)
			skip = in->offset - e->off;
		if (!ply_extent(out, e->off + skip, e->len - skip, e->kind, e->backing, e->src + skip))
			break;
	}
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
