/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

//go:build ignore

/*
 * redact: ranges of a file read as zeros. The size stays, whatever the layer:
 * what is copied up or written to upper is blanked like the rest.
 *
 * (The build line keeps the go command from taking this file for cgo's.)
 *
 * Set by the loader:
 *
 *     patterns, n_patterns  which files, see match.h; others are left alone
 *     ranges, n_ranges      what is blanked: sorted, disjoint, not empty, as
 *                           many as fit the map
 *     whole                 1: all of the file is
 *     use_handler           1: the rule's handler finds ranges too
 */
#include "plyfs.h"
#include "match.h"

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ply_range);
} ranges SEC(".maps");

const volatile __u32 n_ranges = 0;
const volatile __u32 whole = 0;
const volatile __u32 use_handler = 0;

#define PLY_SORTED_MAP ranges
#define PLY_SORTED_TYPE struct ply_range
#include "search.h"

/* An answer takes at most 16 ranges that are apart from each other; the rest
 * is for those that overlap or touch. Past it the answer ends early. */
#define MERGE_STEPS 256

struct merge {
	const struct ply_in *in;
	struct ply_out *out;
	__u64 pos;	  /* answered for up to here */
	__u64 limit;	  /* where the answer has to end */
	__u64 from, to;	  /* blank, not yet in the answer; from == to: none */
	__u32 i, h;	  /* the next of ranges and of hints */
	__s32 err;
	__u32 done;
	__u64 nought; /* see match.h */
};

/* Puts what is blank into the answer; 0 when the answer is full. */
static __always_inline int flush(struct merge *m)
{
	if (m->from == m->to)
		return 1;
	if (m->from > m->pos) {
		if (!ply_backing(m->out, m->pos, m->from - m->pos, PLY_SELF, m->pos))
			return 0;
		PLY_KEEP(m, pos, m->from);
	}
	if (!ply_zero(m->out, m->from, m->to - m->from))
		return 0;
	PLY_KEEP(m, pos, m->to);
	PLY_KEEP(m, from, m->to);
	return 1;
}

/* Takes the next range of the two lists, whichever begins first. */
static long merge_step(__u32 n, void *ctx)
{
	struct merge *m = ctx;
	__u64 off = ~0ULL, end = 0;
	__u32 h = m->h, hint = 0;

	if (m->i < n_ranges) {
		struct ply_range *r = bpf_map_lookup_elem(&ranges, &m->i);

		if (!r) {
			PLY_KEEP(m, err, -PLY_EIO);
			return 1;
		}
		off = r->off;
		end = ply_end(off, r->len);
	}
	if (h < PLY_HINTS && h < m->in->nhints && m->in->hints[h].off < off) {
		off = m->in->hints[h].off;
		end = ply_end(off, m->in->hints[h].len);
		hint = 1;
	}
	if (off >= m->limit) {
		PLY_KEEP(m, done, 1);
		return 1;
	}
	if (hint)
		PLY_KEEP(m, h, h + 1);
	else
		PLY_KEEP(m, i, m->i + 1);
	if (off < m->pos)
		off = m->pos;
	if (end > m->limit)
		end = m->limit;
	if (end <= off)
		return 0;
	if (m->from != m->to && off <= m->to) {
		if (end > m->to)
			PLY_KEEP(m, to, end);
		return 0;
	}
	if (!flush(m))
		return 1;
	PLY_KEEP(m, from, off);
	PLY_KEEP(m, to, end);
	return 0;
}

PLY_PROGRAM("ply/file/open/pre", redact)
{
	__u64 nought = ply_nought(in->ino);
	struct merge m = {
		.in = in,
		.out = out,
		.pos = in->offset,
		.limit = in->size,
		.from = nought,
		.to = nought,
		.h = use_handler ? nought : PLY_HINTS,
		.err = nought,
		.done = nought,
		.nought = nought,
	};
	__s64 first;
	int err;

	/* The size never changes, and of nothing there is nothing to blank. */
	if ((in->flags & PLY_IN_ATTR) || in->offset >= in->size)
		return PLY_CONTINUE;
	err = ply_match(in);
	if (err < 0)
		return err;
	if (!err)
		return PLY_CONTINUE;
	if (whole) {
		ply_zero(out, in->offset, in->size - in->offset);
		return PLY_CONTINUE;
	}
	if (use_handler) {
		if (!(in->flags & PLY_IN_HANDLED))
			return PLY_USER_PREFILTER;
		if (in->nhints > PLY_HINTS)
			return -PLY_EIO;
		/* All hints are used: behind the last the handler may have
		 * found more, for which it is asked again. */
		if (in->nhints == PLY_HINTS) {
			__u64 end = ply_end(in->hints[PLY_HINTS - 1].off, in->hints[PLY_HINTS - 1].len);

			if (end <= in->offset)
				return -PLY_EIO;
			if (end < m.limit)
				m.limit = end;
		}
	}
	first = ply_search(n_ranges, in->offset);
	if (first < 0)
		return first;
	PLY_KEEP(&m, i, first);
	bpf_loop(MERGE_STEPS, merge_step, &m, 0);
	if (m.err)
		return m.err;
	if (!flush(&m))
		return PLY_CONTINUE; /* full; we are asked again */
	if (!m.done)
		return out->nextents ? PLY_CONTINUE : -PLY_EIO;
	/* Nothing is blank: no plan, the kernel can read the file itself. */
	if (!m.pos && m.limit == in->size)
		return PLY_CONTINUE;
	if (m.pos < m.limit)
		ply_backing(out, m.pos, m.limit - m.pos, PLY_SELF, m.pos);
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
