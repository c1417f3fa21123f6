/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * Every C file of a lower layer begins with a licence. The files themselves
 * stay as they are; one that is written to is copied to upper, licence and all.
 */
#include <plyfs.h>

static const char licence[] = "/* SPDX-License-Identifier: BSD-3-Clause */\n";

#define LEN (sizeof(licence) - 1)

PLY_PROGRAM("ply/file/open/pre", licence_header)
{
	__u32 n = in->name_len;

	/* Only *.c. The comparison with PLY_NAME_MAX is for the verifier, which
	 * wants to know that the index stays within the name. */
	if (n < 2 || n >= PLY_NAME_MAX || in->name[n - 2] != '.' || in->name[n - 1] != 'c')
		return PLY_USER; /* nothing to do with it */

	/* What is in upper has its licence already, and there only the blanking
	 * of bytes is allowed. */
	if (in->layer == 0)
		return PLY_USER;

	out->flags = PLY_OUT_SIZE;
	out->size = in->size + LEN;
	if (in->flags & PLY_IN_ATTR)
		return PLY_CONTINUE; /* stat: the size is all that is asked */

	__builtin_memcpy(out->data, licence, LEN);
	out->data_len = LEN;
	ply_extent(out, 0, LEN, PLY_EXT_INLINE, 0, 0);
	if (in->size)
		ply_backing(out, LEN, in->size, PLY_SELF, 0);
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
