/* SPDX-License-Identifier: BSD-3-Clause */
/* Copyright 2026 The plyfs Authors. */

/*
 * plyfs.h: what a plyfs program is written against.
 *
 * A plyfs program is a BPF program that a plyfs mount asks what to do with a
 * name or a file. It decides; it moves no data. Compile with
 *
 *     clang -O2 -g -target bpf -mcpu=v3 -I DIRECTORY_OF_THIS_FILE -c prog.c -o prog.o
 *
 * check with "plyfs bpf check prog.o", mount with -o bpf=prog.o or name it in
 * a policy file. Nothing but this header is needed: no kernel headers, no
 * vmlinux.h, no libbpf. A program looks like this:
 *
 *     #include <plyfs.h>
 *
 *     PLY_PROGRAM("ply/file/open/pre", first_page)
 *     {
 *             if (in->size <= 4096)
 *                     return PLY_CONTINUE;
 *             ply_zero(out, 0, 4096);
 *             ply_backing(out, 4096, in->size - 4096, PLY_SELF, 4096);
 *             return PLY_CONTINUE;
 *     }
 *
 *     PLY_LICENSE("GPL");
 *
 * (A program that may be asked about files of more than PLY_EXTENTS extents
 * begins at in->offset: see "Windows". One that changes the size leaves alone
 * what is in upper, in->layer == 0: see there, too.)
 *
 * Sections
 * --------
 * The section says when a program is asked. Any other section that begins with
 * "ply/" is an error.
 *
 *     ply/inode/lookup/pre    a name is looked up, before it is resolved
 *     ply/inode/lookup/post   after: sees which layer serves it, its mode, size
 *     ply/inode/readdir/pre   a listing is about to show a name. Without this
 *                             program the lookup programs are asked, with op
 *                             READDIR: then layer, layers, size and ino are 0,
 *                             and a negative errno but -ENOENT (hide) and -EIO
 *                             (fails the listing) shows the name
 *     ply/inode/readdir/post  after: sees the answer of the above
 *     ply/inode/getattr/pre   attributes are asked for: may change what is shown
 *     ply/inode/getattr/post  after: may change it, too. What is shown is shown to
 *                             everybody, so neither is told who asks
 *     ply/file/open/pre       a regular file is opened, or its size is asked
 *                             for: answers with extents (the file's "plan")
 *     ply/file/open/post      after: sees the plan's size; may refuse the open
 *     ply/file/read/pre       the daemon is about to read [offset, +length):
 *                             may answer with extents for just that range, as
 *                             far as the file goes. Not told who asks, for all
 *                             who have the file open share its pages
 *     ply/file/read/post      after: sees the bytes read; may refuse
 *     ply/file/write/pre      the daemon is about to write
 *     ply/file/write/post     after
 *
 * Reads from the kernel's page cache are no reads of the daemon: read programs
 * see what the kernel does not have. A file with a read or a write program is
 * not passed through to the kernel.
 *
 * A program may be asked twice about one thing: a call that took too long is
 * repeated, to tell a slow program from a busy machine. One that counts must
 * bear it.
 *
 * What a program returns: the action. The numbers are fuse-bpf's.
 */
#ifndef PLYFS_H
#define PLYFS_H

#define PLY_ABI 1 /* the version of all below; structs grow at their tail only */

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;

/* ---- actions: the return value ---------------------------------------- */

enum {
	/* negative: an errno, -1 to -511 but not ENOSYS; the operation fails with it */
	PLY_CONTINUE = 0,       /* the backing file does it, as out says */
	PLY_USER = 1,           /* the daemon does it as if there were no program; out is ignored */
	PLY_USER_PREFILTER = 2, /* the rule's handler edits the inputs first; then this program is asked
				 * again, with PLY_IN_HANDLED */
	PLY_POSTFILTER = 3,     /* as PLY_CONTINUE, and then the post program is asked */
	PLY_USER_POSTFILTER = 4 /* as PLY_CONTINUE, and then the rule's handler sees the outcome */
};
/* A post program is asked where its pre program returned PLY_POSTFILTER, or
 * where there is no pre program. It returns PLY_CONTINUE or a negative errno.
 * What getattr/post sets in out goes in the place of what getattr/pre set; out
 * of other post programs is not looked at. Anything else is a wrong answer: the
 * operation fails with EIO, and a counter of "plyfs status" says so. */

/* ---- inputs ----------------------------------------------------------- */

enum { /* in->op */
	PLY_LOOKUP = 1,
	PLY_GETATTR = 2,
	PLY_READDIR = 3,
	PLY_OPEN = 4,
	PLY_READ = 5,
	PLY_WRITE = 6
};

enum { /* in->phase */
	PLY_PRE = 1,
	PLY_POST = 2
};

enum { /* in->flags */
	PLY_IN_HANDLED = 1, /* asked again, after the handler: in->hints are filled */
	PLY_IN_ATTR = 2,    /* OPEN: only the size is asked for (stat); extents are not looked at,
			     * PLY_USER_PREFILTER means "the size does not change". Not asked of
			     * objects that say PLY_CALLER, nor about files in upper: there it stays */
	PLY_IN_WRITE = 4,   /* OPEN: for writing */
	PLY_IN_COPYUP = 8,  /* OPEN: the plan is about to be copied to upper, where everybody will see
			     * it; the caller is nobody */
	PLY_IN_COPIED = 16  /* the file is in upper and was copied there through a plan: it already
			     * looks as that plan said */
};

#define PLY_NOBODY 0xffffffffU /* uid, gid, pid: unknown, or the object does not say PLY_CALLER */
#define PLY_NAME_MAX 256
#define PLY_EXTENTS 16
#define PLY_HINTS 16
#define PLY_INLINE 4096

struct ply_range {
	__u64 off;
	__u64 len;
};

struct ply_in {
	__u32 abi;      /* PLY_ABI of the daemon */
	__u32 op;       /* PLY_LOOKUP ... */
	__u32 phase;    /* PLY_PRE or PLY_POST */
	__u32 flags;    /* PLY_IN_* */
	__u64 ino;      /* st_ino; 0 before a name is resolved. GETATTR has this, layer, size,
			 * mtime, mode and name, and no more */
	__u64 parent;   /* st_ino of the directory; 0 if the file has no name left */
	__u64 offset;   /* OPEN, READ, WRITE: the first byte asked about */
	__u64 length;   /* OPEN: bytes from offset to the end of the file; READ, WRITE: of the request */
	__u64 size;     /* of the file that serves the name, in bytes; in post: as shown so far */
	__u64 mtime;    /* of that file, nanoseconds since 1970 */
	__u64 epoch;    /* ply_epoch, see below */
	__u64 layers;   /* bit k: layer k holds the name and may be chosen. Bit 0 is upper, bit 1 the
			 * topmost lower. Layers from 63 on have no bit. 0 in READDIR. */
	__u32 layer;    /* the layer that serves the name, unless a program chooses another */
	__u32 nlayers;  /* how many layers the mount has, upper included; numbers are below it */
	__u32 nparts;   /* how many parts the policy's rule names */
	__u32 mode;     /* st_mode; in READDIR and before resolving only the type (S_IFMT) */
	__u32 uid;      /* who asks; PLY_NOBODY unless the object says PLY_CALLER, and always in
			 * GETATTR, READ, and OPEN with PLY_IN_COPYUP */
	__u32 gid;
	__u32 pid;
	__s32 error;    /* post: 0, or the negative errno with which the operation failed */
	__u32 name_len; /* bytes in name */
	__u32 nhints;   /* ranges in hints */
	struct ply_range hints[PLY_HINTS]; /* what a handler found from offset on: sorted, disjoint; at
					    * most PLY_HINTS, there may be more behind the last */
	char name[PLY_NAME_MAX]; /* the name, NUL behind it; READ and WRITE post: the first bytes of data */
};

/* ---- outputs: all zero when the program is called ----------------------- */

enum { /* extent kinds */
	PLY_EXT_BACKING = 0, /* [src, src+len) of a backing file */
	PLY_EXT_ZERO = 1,    /* zeros */
	PLY_EXT_INLINE = 2,  /* [src, src+len) of out->data */
	PLY_EXT_SERVER = 3   /* the rule's handler makes the bytes ("ask the daemon") */
};

/* backing files of PLY_EXT_BACKING */
#define PLY_SELF 64U           /* the file that serves the name */
#define PLY_LAYER(k) (k)       /* layer k's version of the same path, 0 to 62; in->layers says which are there */
#define PLY_PART(i) (128U + (i)) /* file i of the rule's parts, from 0 */

struct ply_extent {
	__u64 off;     /* in the file shown; the first begins at in->offset, each at the end of the one before */
	__u64 len;     /* bytes, more than 0 */
	__u64 src;     /* where the bytes begin in the backing file, or in out->data */
	__u32 kind;    /* PLY_EXT_* */
	__u32 backing; /* PLY_SELF, PLY_LAYER(k), PLY_PART(i) */
};

enum { /* out->flags */
	PLY_OUT_HIDE = 1,    /* LOOKUP, READDIR: as if no layer had the name (as returning -ENOENT) */
	PLY_OUT_CHOOSE = 2,  /* LOOKUP: the name comes from out->layer */
	PLY_OUT_SIZE = 4,    /* OPEN: the file is out->size bytes long. Without it: in->size */
	PLY_OUT_MTIME = 8,   /* GETATTR: show out->mtime */
	PLY_OUT_MODE = 16,   /* GETATTR: clear the bits out->mode_clear of the mode */
	PLY_OUT_NOCACHE = 32 /* ask again the next time */
};

struct ply_out {
	__u32 flags;      /* PLY_OUT_* */
	__u32 layer;      /* with PLY_OUT_CHOOSE: a lower layer of in->layers. What is in upper stays
			   * there: upper can be hidden, not passed over */
	__u64 skip;       /* LOOKUP: bits of lower layers to pass over */
	__u64 size;       /* with PLY_OUT_SIZE */
	__u64 mtime;      /* with PLY_OUT_MTIME, nanoseconds since 1970 */
	__u32 mode_clear; /* with PLY_OUT_MODE; permission and set-ID bits only */
	__u32 ttl_ms;     /* LOOKUP: how long the kernel may keep the answer; 0: until the policy changes */
	__u32 nextents;   /* how many extents; 0: the whole file as it is */
	__u32 data_len;   /* bytes used in data */
	struct ply_extent extents[PLY_EXTENTS];
	__u8 data[PLY_INLINE]; /* inline bytes */
};

/*
 * Windows. At most PLY_EXTENTS extents fit an answer. A file of more is asked
 * about again: with in->offset where the last answer ended, until the end of
 * the file. So a program answers for [in->offset, ...) and as far as it likes.
 * out->size must be the same in every window.
 *
 * What is checked: extents are sorted and leave no gap from in->offset on, do
 * not overlap, do not reach beyond the size, and what they name is there, as
 * long as it must be. A file in upper may only be blanked: extents are
 * PLY_SELF at their own offset, or zeros, and the size stays. PLY_CONTINUE
 * without extents says of such a file that there may be something to blank once
 * more has been written to it, so the daemon serves it; PLY_USER says that there
 * never will, and it is passed through.
 */

/* ---- what an object declares ------------------------------------------- */

struct ply_slot {
	struct ply_in in;
	struct ply_out out;
};

struct ply_ctx {
	__u32 slot;
};

/* as in libbpf's bpf_helpers.h, which may be included before this file */
#ifndef SEC
#define SEC(name) __attribute__((section(name), used))
#endif
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef __uint
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#endif

/* map types and flags that sleepable programs may use; more in linux/bpf.h */
#define PLY_MAP_HASH 1
#define PLY_MAP_ARRAY 2
#define PLY_MAP_LRU_HASH 9
#define PLY_MAP_PERCPU_HASH 5
#define PLY_MAP_PERCPU_ARRAY 6
#define PLY_F_NO_PREALLOC (1U << 0)
#define PLY_F_MMAPABLE (1U << 10)

/* The slots through which programs are asked. Not for programs to touch. */
struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, 64);
	__uint(map_flags, PLY_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct ply_slot);
} ply_slots SEC(".maps");

/*
 * ply_epoch[0] counts changes of the object's maps. Opening a file always asks
 * the program anew; other answers (names, listings, sizes, pages, and what
 * open files that the daemon serves are made of) are kept until this number
 * changes. Whoever changes a map from outside adds one here afterwards ("plyfs
 * policy map" does it by itself); the daemon looks 20 times a second.
 */
struct {
	__uint(type, PLY_MAP_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, PLY_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} ply_epoch SEC(".maps");

SEC(".rodata") const volatile __u32 ply_abi = PLY_ABI;

/* PLY_CALLER: the object's answers depend on who asks. Only then are uid, gid
 * and pid filled in. The price: the kernel keeps no name that such an object
 * decides about, and no listing of such names, so each access costs a round
 * trip; and of a file that an open program is asked about each user has pages of
 * his own. The size of a file may not depend on the caller, nor may the layers
 * that a directory is merged from. A mount that began without a policy takes no
 * such lookup or readdir program later. */
#define PLY_CALLER SEC(".rodata") const volatile __u32 ply_caller = 1

#define PLY_LICENSE(s) char ply_license[] SEC("license") = s

#define PLY_PROGRAM(section, fn)                                                            \
	static __always_inline int fn(const struct ply_in *in, struct ply_out *out);        \
	SEC(section) int ply_##fn(struct ply_ctx *ctx)                                      \
	{                                                                                   \
		__u32 ply_key = ctx->slot;                                                  \
		struct ply_slot *s = bpf_map_lookup_elem(&ply_slots, &ply_key);             \
		if (!s)                                                                     \
			return -5;                                                          \
		return fn(&s->in, &s->out);                                                 \
	}                                                                                   \
	static __always_inline int fn(const struct ply_in *in, struct ply_out *out)

/* ---- the kernel's helpers, as far as these programs need them ----------- */

#ifndef __BPF_HELPERS__
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_loop)(__u32 nr_loops, void *callback_fn, void *callback_ctx, __u64 flags) = (void *)181;
static long (*bpf_strncmp)(const char *s1, __u32 s1_sz, const char *s2) = (void *)182;
#endif

/* ---- small helpers -------------------------------------------------------- */

/* ply_extent appends an extent; 0 when there is no room for it. */
static __always_inline int ply_extent(struct ply_out *out, __u64 off, __u64 len, __u32 kind, __u32 backing,
				      __u64 src)
{
	__u32 n = out->nextents;

	if (n >= PLY_EXTENTS)
		return 0;
	out->extents[n].off = off;
	out->extents[n].len = len;
	out->extents[n].src = src;
	out->extents[n].kind = kind;
	out->extents[n].backing = backing;
	out->nextents = n + 1;
	return 1;
}

static __always_inline int ply_zero(struct ply_out *out, __u64 off, __u64 len)
{
	return ply_extent(out, off, len, PLY_EXT_ZERO, 0, 0);
}

static __always_inline int ply_backing(struct ply_out *out, __u64 off, __u64 len, __u32 backing, __u64 src)
{
	return ply_extent(out, off, len, PLY_EXT_BACKING, backing, src);
}

#endif /* PLYFS_H */
