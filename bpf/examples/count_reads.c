/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * How often, and how much, is read of each file, by inode number. To see it:
 *
 *     plyfs policy map dump MOUNTPOINT reads
 *
 * Counted is what the kernel asks the daemon for. What it has in its cache it
 * does not ask for; and it asks for more than the reader does (readahead). The
 * price: a file whose reads are counted is not passed through.
 */
#include <plyfs.h>

struct reads {
	__u64 calls;
	__u64 bytes;
};

/* LRU: when it is full the file that was not read for longest makes room. */
struct {
	__uint(type, PLY_MAP_LRU_HASH);
	__uint(max_entries, 10000);
	__type(key, __u64);
	__type(value, struct reads);
} reads SEC(".maps");

PLY_PROGRAM("ply/file/read/pre", count_reads)
{
	__u64 ino = in->ino;
	struct reads *r = bpf_map_lookup_elem(&reads, &ino);

	if (!r) {
		struct reads none = {};

		/* 1: unless another read has just made the entry. */
		bpf_map_update_elem(&reads, &ino, &none, 1);
		r = bpf_map_lookup_elem(&reads, &ino);
		if (!r)
			return PLY_CONTINUE; /* counting is no reason to fail a read */
	}
	__sync_fetch_and_add(&r->calls, 1);
	__sync_fetch_and_add(&r->bytes, in->length);
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
