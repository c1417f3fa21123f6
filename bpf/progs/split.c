/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

//go:build ignore

/*
 * split: one file made of pieces of others, or with pieces of others over it,
 * by a table. Only for what a lower layer has: a file in upper was written, or
 * copied up with the pieces in it.
 *
 * (The build line keeps the go command from taking this file for cgo's.)
 *
 * Set by the loader:
 *
 *     patterns, n_patterns  which files, see match.h; others are left alone
 *     table, n_table        the pieces from offset 0 on, each at the end of the
 *                           one before, not empty, as many as fit the map
 *     total                 the size of the file: where the last piece ends
 *     size_from_self        1: the file keeps its size, total is not looked at.
 *                           The table is cut there; if it ends before, what
 *                           follows is the file's own
 */
#include "plyfs.h"
#include "match.h"

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ply_extent);
} table SEC(".maps");

const volatile __u32 n_table = 0;
const volatile __u64 total = 0;
const volatile __u32 size_from_self = 0;

#define PLY_SORTED_MAP table
#define PLY_SORTED_TYPE struct ply_extent
#include "search.h"

struct walk {
	struct ply_out *out;
	__u64 pos;  /* answered for up to here */
	__u64 size; /* where the file ends */
	__u32 i;    /* the next of table */
	__s32 err;
	__u64 nought; /* see match.h */
};

static long walk_step(__u32 n, void *ctx)
{
	struct walk *w = ctx;
	struct ply_extent *e;
	__u64 end, src;

	if (w->pos >= w->size || w->i >= n_table)
		return 1;
	e = bpf_map_lookup_elem(&table, &w->i);
	if (!e)
		goto broken;
	end = ply_end(e->off, e->len);
	if (w->pos < e->off || w->pos >= end)
		goto broken;
	if (end > w->size)
		end = w->size;
	src = e->src;
	if (e->kind != PLY_EXT_ZERO)
		src += w->pos - e->off;
	if (!ply_extent(w->out, w->pos, end - w->pos, e->kind, e->backing, src))
		return 1;
	PLY_KEEP(w, pos, end);
	PLY_KEEP(w, i, w->i + 1);
	return 0;
broken:
	PLY_KEEP(w, err, -PLY_EIO);
	return 1;
}

PLY_PROGRAM("ply/file/open/pre", split)
{
	__u64 nought = ply_nought(in->ino);
	struct walk w = { .out = out, .pos = in->offset, .err = nought, .nought = nought };
	__s64 first;
	int err;

	if (in->layer == 0)
		return PLY_CONTINUE;
	err = ply_match(in);
	if (err < 0)
		return err;
	if (!err)
		return PLY_CONTINUE;
	if (size_from_self) {
		w.size = in->size;
		if (!n_table)
			return PLY_CONTINUE;
	} else {
		w.size = total;
		out->size = total;
		out->flags = PLY_OUT_SIZE;
	}
	if ((in->flags & PLY_IN_ATTR) || w.pos >= w.size)
		return PLY_CONTINUE;

	first = ply_search(n_table, w.pos);
	if (first < 0)
		return first;
	PLY_KEEP(&w, i, first);
	bpf_loop(PLY_EXTENTS, walk_step, &w, 0);
	if (w.err)
		return w.err;
	if (w.pos < w.size && w.i >= n_table) {
		if (!size_from_self)
			return -PLY_EIO; /* total says more than the table has */
		ply_backing(out, w.pos, w.size - w.pos, PLY_SELF, w.pos);
	}
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
