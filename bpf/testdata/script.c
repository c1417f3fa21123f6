/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * Answers by a script: a test writes what is to be answered into a map, and
 * reads from another what was asked.
 *
 * SECTIONS has a bit for each program that the object is to have, in the order
 * of plyfs.h.
 */
#include <plyfs.h>

#ifndef SECTIONS
#define SECTIONS 0xfff
#endif

/* The line of the script: by op and phase; LATER for windows that do not begin
 * at 0, HANDLED when a handler was asked. */
#define LATER 16
#define HANDLED 32
#define LINES 64

#define HEAD_WORDS (__builtin_offsetof(struct ply_out, data) / 8)
#define IN_WORDS (sizeof(struct ply_in) / 8)

struct line {
	__s32 action;
	__u32 by_uid; /* 1: the action is -(uid & 255) */
	__u64 out[HEAD_WORDS];
};

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, LINES);
	__type(key, __u32);
	__type(value, struct line);
} script SEC(".maps");

struct was {
	__u64 times;
	__u64 in[IN_WORDS];
};

struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, LINES);
	__type(key, __u32);
	__type(value, struct was);
} asked SEC(".maps");

const volatile __u32 unused = 0;

#ifdef CALLER
PLY_CALLER;
#endif

/* of is the program, where in->op is what it is asked about. */
static __always_inline int answer(const struct ply_in *in, struct ply_out *out, __u32 of)
{
	__u32 key = of * 2 + in->phase - 1;
	const __u64 *from = (const __u64 *)in;
	__u64 *to = (__u64 *)out;
	struct line *l;
	struct was *w;

	if (of == PLY_OPEN && in->offset)
		key += LATER;
	if (in->flags & PLY_IN_HANDLED)
		key += HANDLED;
	l = bpf_map_lookup_elem(&script, &key);
	w = bpf_map_lookup_elem(&asked, &key);
	if (!l || !w)
		return -5;
	w->times++;
	for (__u32 i = 0; i < IN_WORDS; i++)
		w->in[i] = from[i];
	for (__u32 i = 0; i < HEAD_WORDS; i++)
		to[i] = l->out[i];
	if (l->by_uid)
		return -(in->uid & 255);
	return l->action;
}

#define PROGRAM(section, of, fn) PLY_PROGRAM(section, fn) { return answer(in, out, of); }

#if SECTIONS & 0x001
PROGRAM("ply/inode/lookup/pre", PLY_LOOKUP, lookup_pre)
#endif
#if SECTIONS & 0x002
PROGRAM("ply/inode/lookup/post", PLY_LOOKUP, lookup_post)
#endif
#if SECTIONS & 0x004
PROGRAM("ply/inode/readdir/pre", PLY_READDIR, readdir_pre)
#endif
#if SECTIONS & 0x008
PROGRAM("ply/inode/readdir/post", PLY_READDIR, readdir_post)
#endif
#if SECTIONS & 0x010
PROGRAM("ply/inode/getattr/pre", PLY_GETATTR, getattr_pre)
#endif
#if SECTIONS & 0x020
PROGRAM("ply/inode/getattr/post", PLY_GETATTR, getattr_post)
#endif
#if SECTIONS & 0x040
PROGRAM("ply/file/open/pre", PLY_OPEN, open_pre)
#endif
#if SECTIONS & 0x080
PROGRAM("ply/file/open/post", PLY_OPEN, open_post)
#endif
#if SECTIONS & 0x100
PROGRAM("ply/file/read/pre", PLY_READ, read_pre)
#endif
#if SECTIONS & 0x200
PROGRAM("ply/file/read/post", PLY_READ, read_post)
#endif
#if SECTIONS & 0x400
PROGRAM("ply/file/write/pre", PLY_WRITE, write_pre)
#endif
#if SECTIONS & 0x800
PROGRAM("ply/file/write/post", PLY_WRITE, write_post)
#endif

PLY_LICENSE("GPL");
