/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

//go:build ignore

/*
 * prepend: bytes before a file. Only before what a lower layer has: a file in
 * upper was written, or copied up with the bytes in it.
 *
 * (The build line keeps the go command from taking this file for cgo's.)
 *
 * Set by the loader:
 *
 *     patterns, n_patterns  which files, see match.h; others are left alone
 *     prefix_len            how many bytes
 *     prefix_part           1: they are the rule's part 0, which has at least
 *                           as many; 0: they are in the map
 *     prefix                at most 4096 bytes
 */
#include "plyfs.h"
#include "match.h"

#define EFBIG 27

struct prefix {
	__u64 bytes[PLY_INLINE / 8];
};

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct prefix);
} prefix SEC(".maps");

const volatile __u64 prefix_len = 0;
const volatile __u32 prefix_part = 0;

/* linux/bpf.h has it opaque, 16 bytes. */
struct dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));

static long (*dynptr_from_mem)(void *data, __u32 size, __u64 flags, struct dynptr *p) = (void *)197;
static long (*dynptr_read)(void *dst, __u32 len, const struct dynptr *src, __u32 offset, __u64 flags) = (void *)201;

/* One call of the kernel's memmove; the loop for it would be 512 turns. */
static __always_inline int copy_prefix(struct ply_out *out)
{
	struct dynptr d;
	__u32 key = 0;
	struct prefix *p = bpf_map_lookup_elem(&prefix, &key);

	if (!p)
		return -PLY_EIO;
	if (dynptr_from_mem(p, sizeof(*p), 0, &d))
		return -PLY_EIO;
	if (dynptr_read(out->data, prefix_len, &d, 0, 0))
		return -PLY_EIO;
	out->data_len = prefix_len;
	return 0;
}

PLY_PROGRAM("ply/file/open/pre", prepend)
{
	__u64 size = in->size + prefix_len;
	int err;

	if (in->layer == 0 || !prefix_len)
		return PLY_CONTINUE;
	if (!prefix_part && prefix_len > PLY_INLINE)
		return -PLY_EIO;
	err = ply_match(in);
	if (err < 0)
		return err;
	if (!err)
		return PLY_CONTINUE;
	if (size < in->size)
		return -EFBIG;
	out->size = size;
	out->flags = PLY_OUT_SIZE;
	if ((in->flags & PLY_IN_ATTR) || in->offset >= size)
		return PLY_CONTINUE;

	if (in->offset >= prefix_len) {
		ply_backing(out, in->offset, size - in->offset, PLY_SELF, in->offset - prefix_len);
		return PLY_CONTINUE;
	}
	if (prefix_part) {
		ply_backing(out, in->offset, prefix_len - in->offset, PLY_PART(0), in->offset);
	} else {
		err = copy_prefix(out);
		if (err)
			return err;
		ply_extent(out, in->offset, prefix_len - in->offset, PLY_EXT_INLINE, 0, in->offset);
	}
	if (in->size)
		ply_backing(out, prefix_len, in->size, PLY_SELF, 0);
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
