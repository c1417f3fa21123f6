/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/* Answers that show what was asked; maps and variables of every sort. */
#include <plyfs.h>

enum color { RED, GREEN = 5 };

struct rule {
	__u32 uid;
	__s32 shift;
	enum color color;
	char name[8];
	__u8 raw[4];
	__u16 pair[2];
};

struct {
	__uint(type, PLY_MAP_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, PLY_MAP_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, PLY_MAP_HASH);
	__uint(max_entries, 8);
	__uint(key_size, 12);
	__uint(value_size, 3);
} bare SEC(".maps");

const volatile __u64 limit = 7;
const volatile short small = -1;
const volatile _Bool flag = 0;
const volatile char text[16] = "text";
__u32 calls = 0;

PLY_PROGRAM("ply/inode/lookup/pre", lookup_pre)
{
	__u32 key = in->uid;
	struct rule *r = bpf_map_lookup_elem(&rules, &key);

	calls++;
	out->size = limit;
	out->mtime = in->epoch;
	out->skip = in->ino + in->offset;
	out->layer = in->op << 16 | in->phase << 8 | in->abi;
	out->mode_clear = r ? r->shift : small;
	out->ttl_ms = in->name[0] << 8 | flag;
	return PLY_CONTINUE;
}

PLY_PROGRAM("ply/inode/lookup/post", lookup_post)
{
	__u32 key = 1;
	__u64 *n = bpf_map_lookup_elem(&counters, &key);
	char k[12] = {};

	if (n)
		(*n)++;
	return bpf_map_lookup_elem(&bare, k) ? PLY_USER : -13;
}

PLY_PROGRAM("ply/file/open/pre", open_pre)
{
	/* a slot that an earlier answer was left in would show here */
	if (out->nextents || out->extents[0].len || out->data[0] || out->data[PLY_INLINE - 1])
		return -5;
	ply_zero(out, in->offset, 10);
	ply_backing(out, in->offset + 10, in->size, PLY_LAYER(1), 20);
	out->extents[2].len = 99;
	out->data[0] = 'x';
	out->data[PLY_INLINE - 1] = 'y';
	out->data_len = 1;
	return PLY_POSTFILTER;
}

PLY_LICENSE("GPL");
