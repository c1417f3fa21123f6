/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * match.h: names against glob patterns, inside a program.
 *
 * The syntax is fnmatch(3)'s on bytes, without FNM_PERIOD: '*' any bytes, also
 * a leading dot; '?' one byte; '[abc]', '[a-z]', '[!abc]' and '[^abc]' one byte
 * of a set, in which a leading ']' stands for itself; '\' takes the meaning
 * from the byte behind it, in a set too. A pattern that breaks these rules (a
 * set without its end, a '\' at the end, a class like '[[:alpha:]]') is no
 * pattern: the program fails with EIO where it comes upon the fault. fnmatch
 * would take the '[' for itself, but a typing error must not show what was to
 * be hidden; whoever loads a program refuses such patterns first.
 *
 * The answer is 1 (matches), 0 (does not), or a negative errno: no decision.
 * "No decision" must never be taken for "does not match".
 *
 * The loader sets n_patterns and fills patterns; 0 patterns match every name.
 */
#ifndef PLYFS_MATCH_H
#define PLYFS_MATCH_H

#include "plyfs.h"

#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif

#define PLY_EIO 5
#define PLY_EACCES 13

#define PLY_PATTERN_MAX 64 /* bytes of a pattern; a power of two, for the mask */
#define PLY_PATTERNS 32	   /* patterns of a rule */

struct ply_pattern {
	char text[PLY_PATTERN_MAX]; /* zeros behind len */
	__u32 len;
	__u32 pad;
};

/*
 * A nought is 0, and the verifier does not know. It follows what a loop keeps on
 * the stack value by value, and so may walk a loop through turn by turn, in all
 * combinations. What is xored with a nought before it is kept may be anything
 * to it, so that one turn is like the next: milliseconds instead of seconds.
 */
static __always_inline __u64 ply_nought(__u64 any)
{
	__u64 same = any;

	asm volatile("" : "+r"(same));
	return any ^ same;
}

/*
 * An attempt begins at most once for each byte of the name and each star, and
 * takes at most a step for each byte of the pattern: (256 + 64) * 65 = 20,800.
 * The bound is for the verifier.
 */
#define PLY_GLOB_STEPS (1U << 15)

enum { /* ply_glob.set: where in a "[...]" we are */
	PLY_SET_IN = 1,
	PLY_SET_NOT = 2,
	PLY_SET_FIRST = 4,
	PLY_SET_HIT = 8
};

struct ply_glob {
	const struct ply_in *in;
	const struct ply_pattern *p;
	__u32 plen, nlen;
	__u32 pi, ni;	/* the next byte of pattern and name */
	__u32 back, from; /* behind the last star: in the pattern (0: none yet), and where in the name
			   * the running attempt began */
	__u32 set;
	__u32 done;
	__s32 answer;
	__u32 nought;
};

#define PLY_KEEP(g, field, value) ((g)->field = (value) ^ (g)->nought)

#define PLY_PBYTE(g, i) ((__u8)(g)->p->text[(i) & (PLY_PATTERN_MAX - 1)])
#define PLY_NBYTE(g, i) ((__u8)(g)->in->name[(i) & (PLY_NAME_MAX - 1)])

static __always_inline long ply_glob_end(struct ply_glob *g, int answer)
{
	PLY_KEEP(g, answer, answer);
	PLY_KEEP(g, done, 1);
	return 1;
}

/* Back behind the last star, which takes one byte more. */
static __always_inline long ply_glob_retry(struct ply_glob *g)
{
	/* With the name used up a later attempt has even fewer bytes for what
	 * is left of the pattern. */
	if (!g->back || g->ni >= g->nlen)
		return ply_glob_end(g, 0);
	PLY_KEEP(g, from, g->from + 1);
	g->ni = g->from;
	g->pi = g->back;
	return 0;
}

/* Is there a "[:", "[." or "[=" at i? */
static __always_inline int ply_glob_class(struct ply_glob *g, __u32 i)
{
	__u8 c;

	if (PLY_PBYTE(g, i) != '[' || i + 1 >= g->plen)
		return 0;
	c = PLY_PBYTE(g, i + 1);
	return c == ':' || c == '.' || c == '=';
}

/* One element of a set: its end, a byte, or a range. */
static __always_inline long ply_glob_set(struct ply_glob *g)
{
	__u32 pi = g->pi, set = g->set;
	__u8 lo, hi, c = PLY_NBYTE(g, g->ni);

	if (pi >= g->plen)
		return ply_glob_end(g, -PLY_EIO);
	lo = PLY_PBYTE(g, pi);
	if (lo == ']' && !(set & PLY_SET_FIRST)) {
		PLY_KEEP(g, set, 0);
		PLY_KEEP(g, pi, pi + 1);
		if (!(set & PLY_SET_HIT) == !(set & PLY_SET_NOT))
			return ply_glob_retry(g);
		PLY_KEEP(g, ni, g->ni + 1);
		return 0;
	}
	if (ply_glob_class(g, pi))
		return ply_glob_end(g, -PLY_EIO);
	if (lo == '\\') {
		if (++pi >= g->plen)
			return ply_glob_end(g, -PLY_EIO);
		lo = PLY_PBYTE(g, pi);
	}
	pi++;
	hi = lo;
	if (pi + 1 < g->plen && PLY_PBYTE(g, pi) == '-' && PLY_PBYTE(g, pi + 1) != ']') {
		pi++;
		if (ply_glob_class(g, pi))
			return ply_glob_end(g, -PLY_EIO);
		hi = PLY_PBYTE(g, pi);
		if (hi == '\\') {
			if (++pi >= g->plen)
				return ply_glob_end(g, -PLY_EIO);
			hi = PLY_PBYTE(g, pi);
		}
		pi++;
	}
	if (lo <= c && c <= hi)
		set |= PLY_SET_HIT;
	PLY_KEEP(g, set, set & ~PLY_SET_FIRST);
	PLY_KEEP(g, pi, pi);
	return 0;
}

/* One step of the usual matcher, which goes back to the last star only: what
 * the stars before it took can stay. */
static long ply_glob_step(__u32 i, void *ctx)
{
	struct ply_glob *g = ctx;
	__u32 pi = g->pi, set;
	__u8 c;

	if (g->set)
		return ply_glob_set(g);
	if (pi >= g->plen) {
		if (g->ni >= g->nlen)
			return ply_glob_end(g, 1);
		return ply_glob_retry(g);
	}
	c = PLY_PBYTE(g, pi);
	if (c == '*') {
		PLY_KEEP(g, pi, pi + 1);
		PLY_KEEP(g, back, pi + 1);
		g->from = g->ni;
		if (pi + 1 >= g->plen)
			return ply_glob_end(g, 1);
		return 0;
	}
	if (c == '\\') {
		if (++pi >= g->plen)
			return ply_glob_end(g, -PLY_EIO);
		c = PLY_PBYTE(g, pi);
	} else if (c == '?') {
		c = PLY_NBYTE(g, g->ni);
	} else if (c == '[') {
		if (g->ni >= g->nlen)
			return ply_glob_end(g, 0);
		set = PLY_SET_IN | PLY_SET_FIRST;
		c = PLY_PBYTE(g, ++pi);
		if (pi < g->plen && (c == '!' || c == '^')) {
			set |= PLY_SET_NOT;
			pi++;
		}
		PLY_KEEP(g, set, set);
		PLY_KEEP(g, pi, pi);
		return 0;
	}
	if (g->ni >= g->nlen || c != PLY_NBYTE(g, g->ni))
		return ply_glob_retry(g);
	PLY_KEEP(g, pi, pi + 1);
	PLY_KEEP(g, ni, g->ni + 1);
	return 0;
}

/*
 * Most patterns are "*.suffix", most names have another: a last byte that does
 * not fit saves the walk, which takes ten times as long. It has to be one that
 * can only stand for itself, in a pattern without sets; with sets the pattern
 * may turn out to be none, and that must be seen.
 */
static __always_inline int ply_glob_hopeless(const struct ply_in *in, const struct ply_pattern *p, __u32 plen,
					     __u32 nlen)
{
	const __u64 *word = (const __u64 *)p->text;
	const __u64 ones = 0x0101010101010101ULL;
	__u64 sets = 0;
	__u8 c = p->text[(plen - 1) & (PLY_PATTERN_MAX - 1)];

	if (c == (__u8)in->name[(nlen - 1) & (PLY_NAME_MAX - 1)] || c == '*' || c == '?' || c == '\\')
		return 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < PLY_PATTERN_MAX / 8; i++) {
		__u64 x = word[i] ^ ('[' * ones);

		sets |= (x - ones) & ~x & (0x80 * ones); /* is a byte of x 0? */
	}
	return !sets;
}

/*
 * ply_glob: does p match the name in in? 1, 0, or a negative errno.
 *
 * Not static: the verifier then looks at it by itself, once, and not again with
 * each turn of the loop that calls it. That is why it asks for NULL, too.
 */
__noinline int ply_glob(const struct ply_in *in, const struct ply_pattern *p)
{
	struct ply_glob g = {};

	if (!in || !p)
		return -PLY_EIO;
	g.in = in;
	g.p = p;
	g.plen = p->len;
	g.nlen = in->name_len;
	g.nought = ply_nought(in->ino);
	g.pi = g.ni = g.back = g.from = g.set = g.done = g.nought;

	/* A file may have lost its name while somebody holds it open. It may
	 * have been one of those meant. */
	if (!g.nlen || g.nlen >= PLY_NAME_MAX || g.plen > PLY_PATTERN_MAX)
		return -PLY_EIO;
	if (g.plen && ply_glob_hopeless(in, p, g.plen, g.nlen))
		return 0;
	bpf_loop(PLY_GLOB_STEPS, ply_glob_step, &g, 0);
	return g.done ? g.answer : -PLY_EIO;
}

#ifndef PLY_NO_PATTERNS

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, PLY_PATTERNS);
	__type(key, __u32);
	__type(value, struct ply_pattern);
} patterns SEC(".maps");

const volatile __u32 n_patterns = 0;

struct ply_names {
	const struct ply_in *in;
	__s32 answer;
};

static long ply_names_step(__u32 i, void *ctx)
{
	struct ply_names *n = ctx;
	struct ply_pattern *p = bpf_map_lookup_elem(&patterns, &i);

	n->answer = p ? ply_glob(n->in, p) : -PLY_EIO;
	return n->answer != 0;
}

/* ply_match: does one of the patterns match the name? 1, 0, or a negative
 * errno. */
static __always_inline int ply_match(const struct ply_in *in)
{
	struct ply_names n = { .in = in };

	if (!n_patterns)
		return 1;
	if (n_patterns > PLY_PATTERNS)
		return -PLY_EIO;
	bpf_loop(n_patterns, ply_names_step, &n, 0);
	return n.answer;
}

#endif /* PLY_NO_PATTERNS */

#endif /* PLYFS_MATCH_H */
