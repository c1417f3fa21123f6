/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

//go:build ignore

/*
 * select: which names are shown, to whom, and from which layer: an ordered
 * list of clauses, of which the first that matches decides. No clause: the
 * name is shown as it is.
 *
 * (The build line keeps the go command from taking this file for cgo's.)
 *
 * Set by the loader:
 *
 *     clauses, n_clauses  at most 64
 *     ply_caller          0 when no clause names a caller: then the kernel may
 *                         keep the names
 *
 * A clause with a range of users or groups matches real ids only. Of a caller
 * who is not known (PLY_NOBODY) a clause that hides or denies assumes that he
 * is meant, every other that he is not: he may see less, never more. The same
 * holds for an entry whose type is not known and a clause that names one.
 */
#include "plyfs.h"
#define PLY_NO_PATTERNS
#include "match.h"

#define CLAUSES 64
#define S_IFMT 0170000

enum { /* ply_clause.flags */
	HAS_UID = 1,	/* uid_lo to uid_hi, both included */
	HAS_GID = 2,	/* gid_lo to gid_hi; with HAS_UID, both must hold */
	INVERT = 4,	/* all callers but those that the ranges say */
	OR_HIDE = 8	/* CHOOSE: hide the name if the layer does not hold it */
};

enum { /* ply_clause.action */
	HIDE = 1,
	CHOOSE = 2, /* take it from layer */
	SKIP = 3,   /* pass over the layers in skip */
	SHOW = 4,   /* as it is */
	DENY = 5    /* EACCES */
};

struct ply_clause {
	struct ply_pattern pattern; /* len 0: every name */
	__u32 flags;
	__u32 action;
	__u32 layer;
	__u32 uid_lo, uid_hi;
	__u32 gid_lo, gid_hi;
	__u32 type; /* S_IFMT bits of the mode; 0: any */
	__u64 skip; /* bit k: layer k */
};

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, CLAUSES);
	__type(key, __u32);
	__type(value, struct ply_clause);
} clauses SEC(".maps");

const volatile __u32 n_clauses = 0;

PLY_CALLER;

struct pick {
	const struct ply_in *in;
	__u32 clause;
	__s32 answer; /* as ply_glob's */
};

static __always_inline int in_range(__u32 id, __u32 lo, __u32 hi)
{
	return lo <= id && id <= hi;
}

/* Is the caller, and the entry's type, what the clause says? */
static __always_inline int meant(const struct ply_in *in, const struct ply_clause *c)
{
	int unknown = c->action == HIDE || c->action == DENY;
	__u32 type = in->mode & S_IFMT;

	if (c->flags & (HAS_UID | HAS_GID)) {
		int hit = 1;

		if ((c->flags & HAS_UID) && !in_range(in->uid, c->uid_lo, c->uid_hi))
			hit = 0;
		if ((c->flags & HAS_GID) && !in_range(in->gid, c->gid_lo, c->gid_hi))
			hit = 0;
		if (in->uid == PLY_NOBODY || in->gid == PLY_NOBODY)
			hit = unknown;
		else if (c->flags & INVERT)
			hit = !hit;
		if (!hit)
			return 0;
	}
	if (c->type) {
		if (!type)
			return unknown;
		return type == c->type;
	}
	return 1;
}

static long pick_step(__u32 i, void *ctx)
{
	struct pick *p = ctx;
	struct ply_clause *c = bpf_map_lookup_elem(&clauses, &i);

	if (!c) {
		p->answer = -PLY_EIO;
		return 1;
	}
	if (!meant(p->in, c))
		return 0;
	p->clause = i;
	p->answer = c->pattern.len ? ply_glob(p->in, &c->pattern) : 1;
	return p->answer != 0;
}

static __always_inline int choose(const struct ply_in *in, struct ply_out *out, const struct ply_clause *c)
{
	/* What is in upper stays in upper: its owner wrote it, or it was copied
	 * there for him. A listing may not tell the layers. */
	if ((in->layers & 1) || (in->op == PLY_READDIR && !in->layers))
		return PLY_CONTINUE;
	if (c->layer > 0 && c->layer < 63 && (in->layers >> c->layer & 1)) {
		out->layer = c->layer;
		out->flags = PLY_OUT_CHOOSE;
	} else if (c->flags & OR_HIDE) {
		out->flags = PLY_OUT_HIDE;
	}
	return PLY_CONTINUE;
}

PLY_PROGRAM("ply/inode/lookup/pre", select)
{
	struct pick p = { .in = in };
	struct ply_clause *c;

	if (n_clauses > CLAUSES)
		return -PLY_EIO;
	bpf_loop(n_clauses, pick_step, &p, 0);
	if (p.answer <= 0)
		return p.answer;
	c = bpf_map_lookup_elem(&clauses, &p.clause);
	if (!c)
		return -PLY_EIO;
	switch (c->action) {
	case HIDE:
		out->flags = PLY_OUT_HIDE;
		return PLY_CONTINUE;
	case CHOOSE:
		return choose(in, out, c);
	case SKIP:
		out->skip = c->skip & ~1ULL;
		return PLY_CONTINUE;
	case SHOW:
		return PLY_CONTINUE;
	case DENY:
		/* The listing itself is not refused. */
		return in->op == PLY_READDIR ? PLY_CONTINUE : -PLY_EACCES;
	}
	return -PLY_EIO;
}

PLY_LICENSE("GPL");
