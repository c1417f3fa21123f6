/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/* One mistake for each macro. */
#ifdef NO_HEADER
#define SEC(name) __attribute__((section(name), used))
#define PLY_PROGRAM(section, fn) SEC(section) int fn(void *in)
#define PLY_CONTINUE 0
#else
#include <plyfs.h>
#endif

#ifndef SECTION
#define SECTION "ply/file/open/pre"
#endif

#ifndef NO_PROGRAM
#ifdef OUT_OF_BOUNDS
PLY_PROGRAM(SECTION, first)
{
	__u32 i = in->layer;

	out->nextents = out->extents[i].kind; /* BAD LINE */
	return PLY_CONTINUE;
}
#elif defined(UNBOUNDED)
PLY_PROGRAM(SECTION, first)
{
	__u64 n = in->size, x = in->ino;

	while (n != 1) {
		if (x & n)
			x += n;
		else
			x ^= n;
		n = (n & 1) ? 3 * n + 1 : n / 2;
	}
	return x;
}
#elif defined(LONG)
PLY_PROGRAM(SECTION, first)
{
	for (__u32 i = 0; i < 100000000; i++)
		*(volatile __u64 *)&out->size = i;
	return PLY_CONTINUE;
}
#elif defined(CONTEXT)
SEC(SECTION) int far(__u32 *ctx)
{
	return ctx[2];
}
#elif defined(DATA)
SEC(SECTION) int data = 1;
#else
PLY_PROGRAM(SECTION, first)
{
	return PLY_CONTINUE;
}
#endif
#endif

#ifdef TWO
PLY_PROGRAM(SECTION, second)
{
	return PLY_CONTINUE;
}
#endif

#ifdef OTHER_SECTION
SEC(OTHER_SECTION) int other(void *ctx)
{
	return 0;
}
#endif

#ifdef MAP_TYPE
struct {
	__uint(type, MAP_TYPE);
	__uint(max_entries, 1);
	__uint(map_flags, 1);
	__uint(key_size, 8);
	__uint(value_size, 8);
} odd SEC(".maps");
#endif

#ifdef CALLER
PLY_CALLER;
#endif
