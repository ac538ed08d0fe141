/* SPDX-License-Identifier: MIT */
/*
 * blocks: the large blocks of a Lua heap.
 *
 * From PP_BLOCK_LEAST bytes on a block is a mapping of its own, of pages of two
 * megabytes where the system has such: most of what a fresh block costs is the
 * faults of its pages. Those freed last are kept for the next, as mapped as
 * they were, up to `most` bytes, until somebody trims.
 *
 * A block has no head: who frees it says how large it is, as Lua does. Any
 * thread may take, give back and trim.
 */
#ifndef PP_BLOCKS_H
#define PP_BLOCKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "buf.h"

#define PP_BLOCK_LEAST ((size_t)2 << 20)
#define PP_BLOCKS_KEPT ((size_t)256 << 20)
#define PP_BLOCKS 4

typedef struct pp_blocks {
  _Atomic unsigned refs;
  _Atomic size_t most;           /* bytes that may be kept; 0 at first */
  void *_Atomic kept[PP_BLOCKS]; /* each begins with its size */
  _Atomic size_t warm;           /* bytes of those */
  _Atomic int turn;              /* where the next goes */
} pp_blocks;

/* One reference; NULL without memory. */
pp_blocks *pp_blocks_make(void);
static inline pp_blocks *pp_blocks_ref(pp_blocks *b) {
  atomic_fetch_add(&b->refs, 1);
  return b;
}
void pp_blocks_unref(pp_blocks *b); /* b may be NULL */

static inline bool pp_block_large(size_t size) {
  return size >= PP_BLOCK_LEAST;
}
/* NULL without memory. */
void *pp_block_new(pp_blocks *b, size_t size);
/* The same; cold: its pages have yet to come. */
void *pp_block_get(pp_blocks *b, size_t size, bool *cold);
void pp_block_free(pp_blocks *b, void *p, size_t size);
/* Both sizes are large. NULL without memory: then p is as it was; to shrink
 * never fails. */
void *pp_block_resize(pp_blocks *b, void *p, size_t from, size_t to);
/* A home of buffers (buf.h) from PP_BLOCK_LEAST bytes on. */
typedef struct pp_block_home {
  pp_home home; /* first */
  pp_blocks *blocks;
} pp_block_home;
pp_block_home pp_block_home_of(pp_blocks *b);
/* Let go what is kept. */
void pp_blocks_trim(pp_blocks *b);
static inline bool pp_blocks_any(const pp_blocks *b) {
  return atomic_load_explicit(&b->warm, memory_order_relaxed) > 0;
}

#endif
