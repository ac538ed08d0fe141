/* SPDX-License-Identifier: MIT */
/*
 * pool: very many small blocks of a few sizes, without a word of overhead each.
 *
 * Blocks of one size class lie in slabs; a slab all of whose blocks are free is
 * given back, but for one of each class, so memory falls with the number of
 * blocks. Who frees a block needs neither its size nor its pool. Not
 * thread-safe. A zeroed one is empty.
 */
#ifndef PP_POOL_H
#define PP_POOL_H

#include <stddef.h>

#define PP_POOL_STEP 8u    /* blocks are multiples of this */
#define PP_POOL_MOST 1024u /* bytes of the largest */

struct pp_slab;

typedef struct pp_pool {
  /* By size class: slabs with free blocks. */
  struct pp_slab *partial[PP_POOL_MOST / PP_POOL_STEP];
} pp_pool;

/* A block of size bytes (1 .. PP_POOL_MOST), not cleared, aligned to 8; NULL
 * without memory. */
void *pp_pool_get(pp_pool *p, size_t size);
/* Free a block; p may be NULL. */
void pp_pool_put(void *p);
/* Give back what is empty; blocks in use stay, and their pool with them. */
void pp_pool_trim(pp_pool *p);

#endif
