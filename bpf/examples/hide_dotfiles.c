/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * Names that begin with a dot are not there: neither when they are named nor
 * in listings, for which the same program is asked. That holds for those in
 * upper, too.
 */
#include <plyfs.h>

PLY_PROGRAM("ply/inode/lookup/pre", hide_dotfiles)
{
	if (in->name[0] == '.')
		out->flags = PLY_OUT_HIDE;
	return PLY_CONTINUE;
}

PLY_LICENSE("GPL");
